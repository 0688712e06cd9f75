"""How well captions and images find each other at every prefix."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from data import Pairs, every_phrase
from orderer import OrdererProcessor, prefix_lengths
from orderer.evaluation import retrieval_metrics
from recipes.classifying import classification
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
    at_prefixes = embeddings_at_prefixes(tokens, readout)
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
        names = [of_one[:1] for of_one in pairs.captions]
        templates = experiment.data.templates
        told = classification(names, templates, at_prefixes, text, processor, tokens.device)
        found["accuracy"] = told["top1"]
    return found


@torch.no_grad()
def embeddings_at_prefixes(tokens: Tensor, readout: Embed) -> dict[str, Tensor]:
    """Embeddings of images at each measured prefix, on the CPU."""
    prefixes = prefix_lengths(tokens.shape[1])
    images = torch.cat([readout(some, prefixes).cpu() for some in tokens.split(BATCH)])  # [N, J, E]
    return {str(k): images[:, j].contiguous() for j, k in enumerate(prefixes)}


def queries(experiment: Experiment, pairs: Pairs) -> list[Sequence[str]]:
    """The captions of each image that are looked for: all of them, or the last.

    Labels stand in the first template.
    """
    first = 0 if experiment.evaluation.captions == "all" else -1
    templates = experiment.data.templates
    return [
        [every_phrase(templates, caption)[0] for caption in of_one[first:]]
        for of_one in pairs.captions
    ]


@torch.no_grad()
def embed_captions(
    captions: Sequence[str], text: Embed, processor: OrdererProcessor, device: torch.device
) -> Tensor:
    """Unit embeddings of captions, on the CPU."""
    parts = [captions[i : i + BATCH] for i in range(0, len(captions), BATCH)]
    return torch.cat([text(processor.text(some).to(device)).cpu() for some in parts])
