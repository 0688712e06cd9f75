"""Zero-shot classification at each prefix, by embeddings of images and of the names of classes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from data import every_phrase
from orderer.evaluation import class_embeddings, classification_metrics
from orderer.evaluation.bootstrap import DRAWS

Say = Callable[[Sequence[str]], Tensor]
"""Captions to their embeddings, on the CPU."""


def classification(
    captions: Sequence[Sequence[str]],
    templates: Sequence[str],
    images: Mapping[str, Tensor],
    say: Say,
) -> dict[str, Any]:
    """Tell the class of each image among those of all.

    Args:
        captions: of each image one, the name of its class.
        templates: that a name is put into; none takes it as it is.
        images: their embeddings at each prefix, on the CPU.
        say: embeds captions.

    Raises:
        ValueError: for an image with more than one caption.
    """
    names = _names(captions)
    classes = class_embeddings(torch.stack([say(every_phrase(templates, each)) for each in names]))
    labels = torch.tensor([names.index(name) for (name,) in captions])
    at = {
        k: classification_metrics(of_k, classes, labels, draws=DRAWS) for k, of_k in images.items()
    }
    figures = ("top1", "top5", "ties", "intervals")
    found = {figure: {k: of_k[figure] for k, of_k in at.items()} for figure in figures}
    return {**found, "classes": len(names)}


def _names(captions: Sequence[Sequence[str]]) -> list[str]:
    for place, of_one in enumerate(captions):
        if len(of_one) != 1:
            raise ValueError(
                "classification needs one caption for each image, the name of its class, "
                f"got {len(of_one)} for image {place} (from 0)"
            )
    return sorted({name for (name,) in captions})
