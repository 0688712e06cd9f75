"""Redundancy: how much of a token do other tokens already say?

N images   K tokens   D channels of a token   C channels of what is given
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

RIDGE = 1e-3
"""Weight of the map's squared norm, for each image, on channels of unit variance."""

LEAST = 1e-6
"""Summed squares, after standardising, below which nothing is left to explain."""


def explained_by_each(tokens: Float[Tensor, "N K D"]) -> Float64[Tensor, "K K"]:
    """Share of the variance of token i (row) that a linear map of token j (column) explains.

    Fitted on the first half of the images, measured on the second: 0 is nothing (or less), 1 all.
    Of a token that is constant nothing is explained.

    Raises:
        ValueError: for fewer than 4 images.
    """
    of_tokens = _standard(tokens).unbind(1)
    return torch.stack(
        [torch.stack([_explained(one, other) for other in of_tokens]) for one in of_tokens]
    )


def explained_by_before(tokens: Float[Tensor, "N K D"]) -> Float64[Tensor, "K"]:
    """Share of the variance of each token that all tokens before it explain; 0 of the first.

    Raises:
        ValueError: for fewer than 4 images.
    """
    standard = _standard(tokens)
    later = range(1, tokens.shape[1])
    shares = [_explained(standard[:, k], standard[:, :k].flatten(1)) for k in later]
    return torch.stack([standard.new_zeros(()), *shares])


def explained_by_one_before(tokens: Float[Tensor, "N K D"]) -> Float64[Tensor, "K"]:
    """Share of the variance of each token that the single token before it which tells most of it
    explains; 0 of the first.

    Raises:
        ValueError: for fewer than 4 images.
    """
    of_tokens = _standard(tokens).unbind(1)
    shares = [
        max(_explained(one, other) for other in of_tokens[:k])
        for k, one in enumerate(of_tokens[1:], start=1)
    ]
    return torch.stack([of_tokens[0].new_zeros(()), *shares])


def _standard(tokens: Float[Tensor, "N K D"]) -> Float64[Tensor, "N K D"]:
    if len(tokens) < 4:
        raise ValueError(f"redundancy needs at least 4 images, got {len(tokens)}")
    x = tokens.double()
    return (x - x.mean(dim=0)) / x.std(dim=0).clamp(min=1e-6)


def _explained(one: Float64[Tensor, "N D"], given: Float64[Tensor, "N C"]) -> Float64[Tensor, ""]:
    half = len(one) // 2
    x, y = given[:half], one[:half]
    ridge = RIDGE * half * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    linear = torch.linalg.solve(x.T @ x + ridge, x.T @ y)  # [C, D]
    rest = (one[half:] - given[half:] @ linear).square().sum()
    total = one[half:].square().sum()
    return ((total - rest) / total.clamp(min=LEAST)).clamp(min=0)
