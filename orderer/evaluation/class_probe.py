"""A linear probe of classes: softmax regression on frozen features.

N images   C channels of a feature   L classes

The weight of the squared norm is chosen on a tenth of the images, which are then learned from, too.

Source: Radford et al. 2021, appendix A.3, https://arxiv.org/abs/2103.00020.
"""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

from .linear_probe import with_bias

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of half the squared norm of the map, on features of unit variance."""
STEPS = 100
"""Iterations of L-BFGS."""


def fit_classes(
    features: Float[Tensor, "N C"], labels: Int[Tensor, "N"], classes: int, ridge: float
) -> Float64[Tensor, "C1 L"]:
    """Fit a softmax regression; the last row is the bias, which costs nothing.

    Raises:
        ValueError: for features that are not finite, or a label out of 0..L - 1.
    """
    if not bool(features.isfinite().all()):
        raise ValueError("features must be finite, got NaN or infinity")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ValueError(f"a label must lie in 0..{classes - 1}, got {int(outside[0])}")
    x = with_bias(features)
    linear = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([linear], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        norm = linear[:-1].square().sum()
        value = F.cross_entropy(x @ linear, labels) + ridge / 2 * norm
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return linear.detach()


def accuracy_of(
    linear: Float64[Tensor, "C1 L"], features: Float[Tensor, "N C"], labels: Int[Tensor, "N"]
) -> float:
    """The share of the images whose class is the likeliest."""
    return ((with_bias(features) @ linear).argmax(dim=1) == labels).double().mean().item()


def probed_accuracy(
    known: Float[Tensor, "M C"],
    labels: Int[Tensor, "M"],
    asked: Float[Tensor, "N C"],
    true: Int[Tensor, "N"],
) -> float:
    """Fit on known images, at the best ridge, and give the accuracy on others.

    Every tenth known image chooses the ridge, so they must be in no order of classes.

    Raises:
        ValueError: for less than 10 known images.
    """
    if len(known) < 10:
        raise ValueError(f"a linear probe needs at least 10 images to fit on, got {len(known)}")
    mean, std = known.mean(dim=0), known.std(dim=0).clamp(min=1e-6)
    known, asked = (known - mean) / std, (asked - mean) / std
    classes = int(max(labels.max(), true.max())) + 1
    held = torch.arange(len(known)) % 10 == 0

    def score(ridge: float) -> float:
        linear = fit_classes(known[~held], labels[~held], classes, ridge)
        return accuracy_of(linear, known[held], labels[held])

    best = max(RIDGES, key=score)
    return accuracy_of(fit_classes(known, labels, classes, best), asked, true)
