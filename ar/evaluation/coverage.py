"""Precision and recall: which generated images look real, and which real ones have their like?

    N, M images   F features of each (_ where other features are refused)

The real images stand for all that could be real by a ball around each, which reaches to its k-th
nearest fellow; so do the generated ones. Precision is the share of generated images that lie in a
ball of a real one, recall the share of real images in a ball of a generated one. A model that
repeats a few good images has precision without recall. Both depend on the numbers of images and
on k.

Source: Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative
Models", equations 1 and 2, https://arxiv.org/abs/1904.06991.
"""

import torch
from jaxtyping import Float
from torch import Tensor

NEIGHBOURS = 3
"""That a ball reaches over, as in the paper."""
ROUNDING = 1e-12
"""Of squared distances, as a share of the largest there can be: equal images come out as near 0."""
CHUNK = 256
"""Images whose distances to all others are held at once."""


def precision_recall(
    real: Float[Tensor, "N F"], other: Float[Tensor, "M _"], *, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """The shares of other images that are like real ones, and of real ones that are like others.

    Raises:
        ValueError: for other features, or a set without so many neighbours of an image.
    """
    check_alike(real, other)
    for features in (real, other):
        if len(features) <= neighbours:
            raise ValueError(
                f"precision with {neighbours} neighbours needs at least {neighbours + 1} images, "
                f"got {len(features)}"
            )
    real, other = real.double(), other.double()
    return _covered(other, real, neighbours), _covered(real, other, neighbours)


def check_alike(real: Tensor, other: Tensor) -> None:
    """Refuse sets of different features, and those that hold what is no number."""
    if real.shape[1:] != other.shape[1:]:
        raise ValueError(
            f"both sets must have the same features, got {real.shape[1]} and {other.shape[1]}"
        )
    for features in (real, other):
        if not bool(features.isfinite().all()):
            raise ValueError("features must be finite, got nan or infinity")


def _covered(images: Float[Tensor, "N F"], centres: Float[Tensor, "M F"], neighbours: int) -> float:
    """The share of images in a ball around one of the centres, or on its edge."""
    middle = centres.mean(dim=0)
    images, centres = images - middle, centres - middle  # small numbers have small errors
    reach = _reach(centres, neighbours)  # [M]
    reach = reach + ROUNDING * torch.cat([images, centres]).square().sum(dim=1).max()
    inside = [
        (_squared_distances(some, centres) <= reach).any(dim=1) for some in images.split(CHUNK)
    ]
    return torch.cat(inside).double().mean().item()


def _reach(x: Float[Tensor, "N F"], neighbours: int) -> Float[Tensor, "N"]:
    """How far the k-th nearest other image is, squared; the nearest of all is the image itself."""
    nearest = [
        _squared_distances(some, x).kthvalue(neighbours + 1, dim=1).values
        for some in x.split(CHUNK)
    ]
    return torch.cat(nearest)


def _squared_distances(x: Float[Tensor, "N F"], y: Float[Tensor, "M F"]) -> Float[Tensor, "N M"]:
    return x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * x @ y.T
