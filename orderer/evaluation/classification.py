"""Zero-shot classification: is the name of its class the text that is nearest to an image?

N images   C classes   T templates   E size of the embedding
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from .bootstrap import intervals
from .retrieval import check_embeddings, check_places, expected_hits, standings, ties


def class_embeddings(texts: Float[Tensor, "C T E"]) -> Float[Tensor, "C E"]:
    """Make one embedding of a class from its name in each template.

    Each is scaled to unit length, then their mean is: a template of long embeddings counts no more
    than the others.

    Source: Radford et al. 2021, section 3.1.4, https://arxiv.org/abs/2103.00020.
    """
    return F.normalize(F.normalize(texts, dim=-1).mean(dim=1), dim=-1)


def classification_metrics(
    image_embeddings: Float[Tensor, "N E"],
    classes: Float[Tensor, "C E"],
    labels: Int[Tensor, "..."],
    ks: Sequence[int] = (1, 5),
    *,
    chunk: int = 1024,
    draws: int = 0,
) -> dict[str, Any]:
    """Score every image against every class by a dot product in fp64.

    Returns:
        `top{k}`, the share of the images whose own class is among the k best, equal scores in
        random order, as in retrieval; and `ties`, the images whose class has the score of another.
        With draws of images also `intervals`, for each share an `Interval`.

    Raises:
        ValueError: for half-precision or non-finite embeddings, a label of no class, another number
            of labels than images, a k below 1, or no image.
    """
    check_embeddings(image=image_embeddings, text=classes)
    check_places(ks)
    if len(image_embeddings) == 0:
        raise ValueError("classification needs at least 1 image, got 0")
    if len(labels) != len(image_embeddings):
        raise ValueError(f"{len(image_embeddings)} images need a label each, got {len(labels)}")
    outside = labels[(labels < 0) | (labels >= len(classes))]
    if len(outside):
        raise ValueError(f"a label must lie in 0..{len(classes) - 1}, got {int(outside[0])}")
    _, found = standings(classes, image_embeddings, labels, chunk)  # [N, 3]
    hits = expected_hits(found, max(ks))[:, [k - 1 for k in ks]]  # [N, R]
    names = [f"top{k}" for k in ks]
    shares = dict(zip(names, hits.mean(dim=0).tolist(), strict=True)) | {"ties": ties(found)}
    if not draws:
        return shares
    sure = intervals(hits, torch.arange(len(hits)), draws)
    return shares | {"intervals": dict(zip(names, sure, strict=True))}
