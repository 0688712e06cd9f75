"""What each token is good for, from curves over prefixes.

N images   K tokens   k prefix length
"""

from collections.abc import Mapping
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

NORMAL = 1.96
"""Deviations of a normal mean that its 95% interval reaches to each side."""


def useless_tokens(errors: Float[Tensor, "N K"]) -> dict[str, float]:
    """Ask of every token after the first whether the error falls with it.

    Args:
        errors: of each image, rebuilt from its first 1..K tokens.

    Returns:
        `useless`: the share of tokens with which the error does not fall: the 95% interval of the
        fall, paired by image, reaches 0. `rising`: with how many the mean error does not fall at
        all. `area`: under the mean error over the prefixes 1..K, in those of the first: 1 if
        nothing falls, less the earlier it does.

    Raises:
        ValueError: for fewer than 2 images or tokens, or a first token that leaves no error.
    """
    if min(errors.shape) < 2:
        raise ValueError(
            f"useless tokens need at least 2 images and 2 tokens, got {tuple(errors.shape)}"
        )
    mean = errors.double().mean(dim=0)  # [K]
    if not bool(mean[0] > 0):
        raise ValueError(f"the error of the first token must be above 0, got {mean[0].item():g}")
    falls = -errors.double().diff(dim=1)  # [N, K - 1]
    half = NORMAL * falls.std(dim=0) / len(falls) ** 0.5
    curve = {k: error.item() for k, error in enumerate(mean / mean[0], start=1)}
    return {
        "useless": (falls.mean(dim=0) <= half).double().mean().item(),
        "rising": int((falls.mean(dim=0) <= 0).sum()),
        "area": _area(curve) / (len(mean) - 1),
    }


def semantic_first(scores: Mapping[int, float], chance: float) -> float:
    """How early what captions say arrives: the area under a score over prefixes.

    The score is counted from chance, where a prefix of 0 stands, to that of the longest prefix. 0.5
    is a straight rise, nearly 1 if the first token says all; above 1 where a short prefix says more
    than the longest.

    Args:
        scores: of prefix lengths from 1 on, such as the recall of captions.
        chance: the score without any token.

    Raises:
        ValueError: without a score, for a prefix below 1, or if the longest prefix is no better
            than chance.
    """
    if not scores or min(scores) < 1:
        raise ValueError(f"scores must be of prefixes from 1 on, got {sorted(scores)}")
    last = max(scores)
    if not scores[last] > chance:
        raise ValueError(
            f"the score of all tokens must be above the chance of {chance:g}, got {scores[last]:g}"
        )
    curve = {k: (score - chance) / (scores[last] - chance) for k, score in scores.items()}
    return _area({0: 0.0, **curve}) / last


def _area(curve: Mapping[int, float]) -> float:
    """Under straight lines between the points."""
    points = sorted(curve.items())
    return sum((b - a) * (low + high) / 2 for (a, low), (b, high) in pairwise(points))
