"""Gradient conflict: do positions pull the trunk they share in one direction?

    B images   K tokens   P bins of positions   G numbers that stand for a gradient

Two halves of a batch give each bin two gradients. Their noises are independent, so the product of
one half's gradient with the other half's is, in the mean, that of the true gradients: for two bins
and, as the squared length, for one. The cosine is made of these.

Measure it early in a training, where there is much to learn: at its end the gradients of all bins
add up to nothing and oppose each other whatever the order.

Source: Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", section 2.2,
https://arxiv.org/abs/2001.06782; the projection: Charikar et al. 2002, "Finding Frequent Items in
Data Streams", section 3, https://doi.org/10.1007/3-540-45465-9_59.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..model import ARModel
from ..trunk import Condition, Trunk

BINS = 8
"""Of positions, at most."""
PROJECTED = 4096
"""Numbers that stand for the gradient of a large trunk; they add some 1/64 of noise to a cosine."""
LARGE = 2**18
"""Weights of a trunk whose gradients are projected."""
LEAST_AGREEMENT = 0.05
"""Cosine of a bin's two gradients below which its direction is not known."""


def gradient_cosines(
    model: ARModel,
    tokens: Float[Tensor, "B K D"],
    condition: Condition,
    generator: torch.Generator | None = None,
    *,
    bins: int = BINS,
) -> Float[Tensor, "P P"]:
    """Cosine of the gradients that bins of positions have on the trunk's matrices.

    Args:
        model: early in its training; its position table is not part of the gradient.
        tokens: of a large batch.
        condition: before them.
        generator: of the loss's noise, on the model's device.
        bins: at most; fewer tokens make fewer.

    Returns:
        Cosines in -1..1, NaN where the direction of either bin is not known: then more images are
        needed. On the diagonal stands how well the two halves of a bin agree, uncorrected.

    Raises:
        ValueError: for fewer than 2 bins or images.
    """
    parts = position_bins(tokens.shape[1], bins)
    half = len(tokens) // 2
    if half < 1:
        raise ValueError(f"gradients need at least 2 images, got {len(tokens)}")
    first, second = (
        _gradients(model, tokens[some], condition.rows(some), parts, generator)
        for some in (slice(half), slice(half, None))
    )
    return _corrected(first, second)


def conflict(cosines: Float[Tensor, "P P"]) -> dict[str, float | None]:
    """Sum up the cosines of different bins.

    Returns:
        `mean`; `below_zero`, a share; `least`; `known`, the share of pairs that have a cosine. None
        stands for figures of no pair.
    """
    above = torch.ones_like(cosines, dtype=torch.bool).triu(diagonal=1)
    pairs = cosines[above].double()
    known = pairs[~pairs.isnan()]
    is_known = len(known) > 0
    return {
        "mean": known.mean().item() if is_known else None,
        "below_zero": (known < 0).double().mean().item() if is_known else None,
        "least": known.min().item() if is_known else None,
        "known": len(known) / len(pairs),
    }


def position_bins(tokens: int, bins: int) -> list[slice]:
    """Cut positions into bins as equal as can be, no more than there are positions.

    Raises:
        ValueError: for fewer than 2 bins.
    """
    bins = min(bins, tokens)
    if bins < 2:
        raise ValueError(f"positions need at least 2 bins to be compared, got {bins}")
    edges = [round(tokens * each / bins) for each in range(bins + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _gradients(
    model: ARModel,
    tokens: Float[Tensor, "B K D"],
    condition: Condition,
    parts: list[slice],
    generator: torch.Generator | None,
) -> Float[Tensor, "P G"]:
    matrices = _matrices(model.trunk)
    losses = model.loss(tokens, condition, generator)  # [K]
    return torch.stack(
        [
            _projected(torch.autograd.grad(losses[part].mean(), matrices, retain_graph=True))
            for part in parts
        ]
    )


def _matrices(trunk: Trunk) -> list[nn.Parameter]:
    """What all positions share."""
    return [
        weight
        for name, weight in trunk.named_parameters()
        if weight.ndim > 1 and name != "positions" and weight.requires_grad
    ]


def _projected(gradients: tuple[Tensor, ...]) -> Float[Tensor, "G"]:
    """The gradient itself, or so many sums of it with random signs, which keep its products."""
    flat = torch.cat([each.flatten() for each in gradients]).double().cpu()
    if len(flat) <= LARGE:
        return flat
    random = torch.Generator().manual_seed(0)
    place = torch.randint(PROJECTED, (len(flat),), generator=random)
    sign = 2.0 * torch.randint(2, (len(flat),), generator=random) - 1
    return torch.zeros(PROJECTED, dtype=torch.float64).index_add_(0, place, sign * flat)


def _corrected(first: Float[Tensor, "P G"], second: Float[Tensor, "P G"]) -> Float[Tensor, "P P"]:
    products = (first @ second.T + second @ first.T) / 2
    squares = products.diagonal()
    agreement = squares / (first.norm(dim=1) * second.norm(dim=1)).clamp(min=1e-30)
    length = torch.where(agreement >= LEAST_AGREEMENT, squares, torch.nan).sqrt()
    cosines = (products / (length[:, None] * length)).clamp(-1, 1)
    return cosines.diagonal_scatter(agreement)
