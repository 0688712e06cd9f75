"""How well captions and images find each other at every prefix."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from data import Pairs
from orderer import OrdererProcessor, prefix_lengths
from orderer.evaluation import class_accuracy, retrieval_metrics
from recipes.experiment import Experiment

BATCH = 250
Embed = Callable[..., Tensor]
"""A readout (tokens and prefixes to embeddings) or a text tower (word pieces to embeddings)."""


@torch.no_grad()
def find_at_prefixes(
    experiment: Experiment,
    pairs: Pairs,
    tokens: Tensor,
    readout: Embed,
    text: Embed,
    processor: OrdererProcessor,
) -> dict[str, Any]:
    """Both directions at every prefix, and the accuracy where captions are names of classes.

    Args:
        experiment: says which captions are queries, and whether they name classes.
        pairs: of a split.
        tokens: of its images.
        readout: of the orderer, or a fresh one.
        text: the text tower that goes with it.
        processor: of the orderer.
    """
    prefixes = prefix_lengths(tokens.shape[1])
    images = torch.cat([readout(some, prefixes).cpu() for some in tokens.split(BATCH)])  # [N, J, E]
    at_prefixes = {str(k): images[:, j].contiguous() for j, k in enumerate(prefixes)}
    captions = queries(experiment, pairs)
    owner = torch.tensor([image for image, of_one in enumerate(captions) for _ in of_one])
    flat = [caption for of_one in captions for caption in of_one]
    texts = embed_captions(flat, text, processor, tokens.device)
    found: dict[str, Any] = {"image_to_text": {}, "text_to_image": {}, "ties": {}}
    for k, each in at_prefixes.items():
        at_k = retrieval_metrics(each, texts, owner)
        for direction in found:
            found[direction][k] = at_k[direction]
    if experiment.evaluation.judge == "classes":
        names = sorted({of_one[0] for of_one in pairs.captions})
        classes = embed_captions(names, text, processor, tokens.device)
        labels = torch.tensor([names.index(of_one[0]) for of_one in pairs.captions])
        found["accuracy"] = {
            k: class_accuracy(each, classes, labels) for k, each in at_prefixes.items()
        }
    return found


def queries(experiment: Experiment, pairs: Pairs) -> list[Sequence[str]]:
    """The captions of each image that are looked for: all of them, or the last."""
    whole = experiment.evaluation.captions == "all"
    return [of_one if whole else of_one[-1:] for of_one in pairs.captions]


@torch.no_grad()
def embed_captions(
    captions: Sequence[str], text: Embed, processor: OrdererProcessor, device: torch.device
) -> Tensor:
    """Unit embeddings of captions, on the CPU."""
    parts = [captions[i : i + BATCH] for i in range(0, len(captions), BATCH)]
    return torch.cat([text(processor.text(some).to(device)).cpu() for some in parts])
