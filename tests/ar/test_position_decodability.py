"""Whether a token tells where it stands."""

import pytest
import torch
from torch import Tensor

from ar.evaluation import position_decodability


def marked(number: int) -> Tensor:
    """Noise, and a channel that is higher at each position than at the one before."""
    tokens = torch.randn(number, 4, 3)
    tokens[..., 0] = 5 * torch.arange(4.0) + 0.2 * torch.randn(number, 4)
    return tokens


def test_tokens_that_carry_their_position_tell_it() -> None:
    found = position_decodability(marked(200), marked(100), steps=100, batch_size=64)
    assert found["accuracy"] > 0.98 and found["chance"] == 0.25
    assert found["told"] == pytest.approx((found["accuracy"] - 0.25) / 0.75)


def test_tokens_that_are_alike_everywhere_tell_nothing() -> None:
    found = position_decodability(
        torch.randn(400, 4, 3), torch.randn(400, 4, 3), steps=60, batch_size=64
    )
    assert abs(found["accuracy"] - 0.25) < 0.05


def test_units_do_not_matter_and_the_global_seed_is_left_alone() -> None:
    train, test = marked(50), marked(50)
    state = torch.get_rng_state()
    found = position_decodability(train, test, steps=20)
    assert torch.equal(torch.get_rng_state(), state)
    again = position_decodability(1000 * train + 7, 1000 * test + 7, steps=20)
    assert again["accuracy"] == pytest.approx(found["accuracy"], abs=0.02)


def test_a_single_position_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(5, 1, 3\) and \(5, 1, 3\)"):
        position_decodability(torch.randn(5, 1, 3), torch.randn(5, 1, 3))
