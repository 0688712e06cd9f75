"""Nearest neighbours: what frozen features tell without anything being learned.

M images that are known   N images asked about   C channels of a feature   A answers   k neighbours

Each of the k images most like one, by cosine, has a vote that grows with how like it is.

Source: Wu et al. 2018, section 3.4, https://arxiv.org/abs/1805.01978; with 20 neighbours as in
DINO, Caron et al. 2021, https://arxiv.org/abs/2104.14294.
"""

import torch
from jaxtyping import Bool, Float, Float64, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from .linear_probe import balanced_accuracy

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""Of the votes, exp(cosine / temperature)."""
CHUNK = 1_024


def nearest_votes(
    known: Float[Tensor, "M C"],
    answers: Shaped[Tensor, "M A"],
    asked: Float[Tensor, "N C"],
    neighbours: int = NEIGHBOURS,
) -> Float64[Tensor, "N A"]:
    """The share of the votes for each answer.

    Args:
        known: features, at least one.
        answers: what is true of each, yes or no.
        asked: features of other images.
        neighbours: k; all that are known where there are fewer.

    Raises:
        ValueError: for less than 1 neighbour, or features that are not finite.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, got {neighbours}")
    if not bool(known.isfinite().all() and asked.isfinite().all()):
        raise ValueError("features must be finite, got NaN or infinity")
    known, asked = (F.normalize(each.double(), dim=-1) for each in (known, asked))
    shares = []
    for some in asked.split(CHUNK):
        likest = (some @ known.T).topk(min(neighbours, len(known)), dim=1)  # [c, k]
        votes = (likest.values / TEMPERATURE).softmax(dim=1)
        shares.append(torch.einsum("ck,cka->ca", votes, answers.double()[likest.indices]))
    return torch.cat(shares)


def nearest_accuracy(
    known: Float[Tensor, "M C"],
    labels: Int[Tensor, "M"],
    asked: Float[Tensor, "N C"],
    true: Int[Tensor, "N"],
) -> float:
    """The share of the images whose class has most votes."""
    classes = F.one_hot(labels, int(labels.max()) + 1)
    return (nearest_votes(known, classes, asked).argmax(dim=1) == true).double().mean().item()


def nearest_scores(
    known: Float[Tensor, "M C"],
    answers: Bool[Tensor, "M A"],
    asked: Float[Tensor, "N C"],
    true: Bool[Tensor, "N A"],
) -> Float64[Tensor, "A"]:
    """The balanced accuracy of each question, as of a linear probe: 0 is chance, 1 always right.

    The votes say yes where yes has more of them than its share of all that are known.
    """
    votes = nearest_votes(known, answers, asked)
    return balanced_accuracy(votes > answers.double().mean(dim=0), true)
