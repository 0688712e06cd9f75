"""How well captions and images find each other at every prefix."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from data import Pairs, every_phrase
from orderer import OrdererProcessor, prefix_lengths
from orderer.evaluation import retrieval_metrics
from orderer.evaluation.bootstrap import DRAWS
from recipes.classifying import Say, classification
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
    say = partial(embed_captions, text=text, processor=processor, device=tokens.device)
    found = find(at_prefixes, queried(experiment, pairs), say)
    if experiment.evaluation.judge == "classes":
        names = [of_one[:1] for of_one in pairs.captions]
        found["accuracy"] = classification(names, experiment.data.templates, at_prefixes, say)[
            "top1"
        ]
    return found


def find(
    at_prefixes: Mapping[str, Tensor], captions: Sequence[Sequence[str]], say: Say
) -> dict[str, Any]:
    """Both directions at every prefix, whatever model the embeddings are from.

    Args:
        at_prefixes: embeddings of images at each prefix, on the CPU.
        captions: of each image, those that are looked for.
        say: embeds captions.
    """
    owner = torch.tensor([image for image, of_one in enumerate(captions) for _ in of_one])
    texts = say([caption for of_one in captions for caption in of_one])
    found: dict[str, Any] = {"image_to_text": {}, "text_to_image": {}, "ties": {}, "intervals": {}}
    for k, images in at_prefixes.items():
        at_k = retrieval_metrics(images, texts, owner, draws=DRAWS)
        for figure in found:
            found[figure][k] = at_k[figure]
    return found


@torch.no_grad()
def embeddings_at_prefixes(tokens: Tensor, readout: Embed) -> dict[str, Tensor]:
    """Embeddings of images at each measured prefix, on the CPU.

    Raises:
        ValueError: for a readout in train mode.
    """
    check_eval_mode(readout)
    prefixes = prefix_lengths(tokens.shape[1])
    images = torch.cat([readout(some, prefixes).cpu() for some in tokens.split(BATCH)])  # [N, J, E]
    return {str(k): images[:, j].contiguous() for j, k in enumerate(prefixes)}


def check_eval_mode(model: object) -> None:
    """Refuse to measure a model that is being trained: what it drops out is chance."""
    if isinstance(model, nn.Module) and model.training:
        raise ValueError(
            f"a model is measured in eval mode, {type(model).__name__} is in train mode"
        )


def queries(
    which: Literal["all", "last"], templates: Sequence[str], captions: Sequence[Sequence[str]]
) -> list[Sequence[str]]:
    """The captions of each image that are looked for: all of them, or the last.

    Labels stand in the first template.
    """
    first = 0 if which == "all" else -1
    return [[every_phrase(templates, each)[0] for each in of_one[first:]] for of_one in captions]


def queried(experiment: Experiment, pairs: Pairs) -> list[Sequence[str]]:
    """The captions of each image that an experiment looks for."""
    return queries(experiment.evaluation.captions, experiment.data.templates, pairs.captions)


@torch.no_grad()
def embed_captions(
    captions: Sequence[str], text: Embed, processor: OrdererProcessor, device: torch.device
) -> Tensor:
    """Unit embeddings of captions, on the CPU.

    Raises:
        ValueError: for a text tower in train mode.
    """
    check_eval_mode(text)
    parts = [captions[i : i + BATCH] for i in range(0, len(captions), BATCH)]
    return torch.cat([text(processor.text(some).to(device)).cpu() for some in parts])
