"""What each token is good for, from curves over prefixes.

N images   K tokens   k prefix length, or how many there are
"""

from collections.abc import Mapping
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

NORMAL = 1.96
"""Deviations of a normal mean that its 95% interval reaches to each side."""
LEAST_FALL = 0.01
"""Share of the error without any token that one must surely take away: less is of no use, however
many images show it."""


def useless_tokens(errors: Float[Tensor, "N k"]) -> dict[str, float]:
    """Ask of every token whether the error falls with it by anything of note.

    Args:
        errors: of each image, rebuilt from its first 0..K tokens. Orders are compared by what
            nothing is known of an image without any, so the errors of 0 must be theirs in common,
            such as those of the mean image.

    Returns:
        `useless`: the share of tokens with which the error does not surely fall by LEAST_FALL: the
        95% interval of the fall, paired by image, reaches it. `rising`: with how many the mean
        error does not fall at all. `area`: under the mean error over the prefixes 0..K, in those of
        0: 1 if nothing falls, less the earlier it does.

    Raises:
        ValueError: for fewer than 2 images, no token, or no error without tokens.
    """
    if min(errors.shape) < 2:
        raise ValueError(
            f"useless tokens need at least 2 images and 1 token, got {len(errors)} and "
            f"{errors.shape[1] - 1}"
        )
    mean = errors.double().mean(dim=0)  # [K + 1]
    if not bool(mean[0] > 0):
        raise ValueError(f"the error without tokens must be above 0, got {mean[0].item():g}")
    falls = -errors.double().diff(dim=1)  # [N, K]
    half = NORMAL * falls.std(dim=0) / len(falls) ** 0.5
    return {
        "useless": (falls.mean(dim=0) - half <= LEAST_FALL * mean[0]).double().mean().item(),
        "rising": int((falls.mean(dim=0) <= 0).sum()),
        "area": _area(dict(enumerate((mean / mean[0]).tolist()))) / (len(mean) - 1),
    }


def semantic_area(scores: Mapping[int, float], chance: float) -> float:
    """How much of what captions say is known on the way: the mean over prefixes of a score.

    It is counted from chance, where a prefix of 0 stands, and straight between the prefixes. Orders
    are compared by it; how early a meaning comes is its share of the score of all tokens, which
    alone would praise an order that says little, but at once.

    Args:
        scores: of prefix lengths from 1 on, such as the recall of captions.
        chance: the score without any token.

    Raises:
        ValueError: without a score, or for a prefix below 1.
    """
    if not scores or min(scores) < 1:
        raise ValueError(f"scores must be of prefixes from 1 on, got {sorted(scores)}")
    return _area({0: 0.0, **{k: score - chance for k, score in scores.items()}}) / max(scores)


def _area(curve: Mapping[int, float]) -> float:
    """Under straight lines between the points."""
    points = sorted(curve.items())
    return sum((b - a) * (low + high) / 2 for (a, low), (b, high) in pairwise(points))
