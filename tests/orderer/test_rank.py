"""Ranks: how many directions tokens use."""

import pytest
import torch

from orderer.evaluation import entropy_rank, participation_rank

RANKS = pytest.mark.parametrize("rank", [participation_rank, entropy_rank])


@RANKS
def test_independent_channels_count_one_each(rank) -> None:
    tokens = torch.randn(100_000, 2, 3)
    assert rank(tokens) == pytest.approx(6, rel=1e-2)


@RANKS
def test_channels_that_say_the_same_count_once(rank) -> None:
    tokens = torch.randn(100, 1, 1).expand(-1, 2, 3) * torch.tensor([1.0, -2.0, 30.0])
    assert rank(tokens) == pytest.approx(1)


@RANKS
def test_a_rank_depends_on_no_scale_and_no_shift(rank) -> None:
    tokens = torch.randn(50, 2, 3) @ torch.randn(3, 3)
    assert rank(tokens * torch.rand(2, 3).add(0.1) + 5) == pytest.approx(rank(tokens), rel=1e-4)


@RANKS
def test_constant_channels_count_for_nothing(rank) -> None:
    tokens = torch.randn(1000, 1, 1)
    assert rank(torch.cat([tokens, torch.ones(1000, 3, 1)], dim=1)) == pytest.approx(1)
    assert rank(torch.ones(10, 2, 3)) == 0


def test_two_directions_of_unlike_strength_have_the_known_ranks() -> None:
    a, b = torch.linalg.qr(torch.randn(1000, 2, dtype=torch.float64))[0].T
    a, b = (a - a.mean()), (b - b.mean())
    b = b - a * (a @ b) / (a @ a)
    a, b = a / a.std(), b / b.std()
    tokens = torch.stack([a, a, b], dim=1)[..., None].float()  # variances 2 : 1
    assert participation_rank(tokens) == pytest.approx(9 / 5, rel=1e-4)
    assert entropy_rank(tokens) == pytest.approx(3 / 2 ** (2 / 3), rel=1e-4)


def test_one_image_has_no_rank() -> None:
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        participation_rank(torch.randn(1, 2, 3))
