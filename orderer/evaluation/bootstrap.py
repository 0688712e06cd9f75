"""Intervals of means by the bootstrap: the images are drawn again, each with all that is its own.

Q queries   N images   R measures of a query   S draws

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 13; the
captions of an image are no independent draws, so that images are what is drawn.
"""

import torch
from jaxtyping import Float64, Int
from torch import Tensor

DRAWS = 1_000
"""As many as a result file is written with."""
LEVEL = 0.95
"""Share of the draws within an interval, as many below as above."""

Interval = dict[str, float]
"""`low` and `high` of the percentile interval, and the `standard_error`."""


def intervals(
    measures: Float64[Tensor, "Q R"], image_of_query: Int[Tensor, "Q"], draws: int, seed: int = 0
) -> list[Interval]:
    """The interval of the mean of each measure over the queries.

    Args:
        measures: of each query.
        image_of_query: the image, from 0 on, with which a query is drawn.
        draws: S, of as many images as there are.
        seed: of the draws: equal ones draw the same images, so that models can be compared.

    Raises:
        ValueError: for less than 2 draws.
    """
    if draws < 2:
        raise ValueError(f"an interval needs at least 2 draws, got {draws}")
    number = int(image_of_query.max()) + 1
    sums = measures.new_zeros(number, measures.shape[1] + 1)  # the last column counts queries
    counted = torch.cat([measures, torch.ones_like(measures[:, :1])], dim=1)
    sums.index_add_(0, image_of_query, counted)
    drawn = _times_drawn(number, draws, seed).to(sums) @ sums  # [S, R + 1]
    means = drawn[:, :-1] / drawn[:, -1:]
    low, high = means.quantile(means.new_tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2]), dim=0)
    return [
        {"low": one[0], "high": one[1], "standard_error": one[2]}
        for one in torch.stack([low, high, means.std(dim=0)], dim=1).tolist()
    ]


def _times_drawn(number: int, draws: int, seed: int) -> Int[Tensor, "S N"]:
    """How often each image comes in each draw."""
    random = torch.Generator().manual_seed(seed)
    chosen = torch.randint(number, (draws, number), generator=random)
    return torch.zeros_like(chosen).scatter_add(1, chosen, torch.ones_like(chosen))
