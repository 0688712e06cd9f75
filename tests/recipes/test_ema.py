"""A moving average of weights: a closed form, and that it forgets its start."""

import pytest
import torch
from torch import nn

from recipes.engine.ema import moving_average


def followed(decay: float, values: list[float]) -> float:
    """The average of one weight that takes these values, update after update."""
    model = nn.Linear(1, 1, bias=False)
    average = moving_average(model, decay)
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    return average.module.weight.item()


def written_out(decay: float, values: list[float]) -> float:
    average = values[0]  # the first update takes the weights as they are
    for n, value in enumerate(values[1:], start=1):
        share = min(decay, (1 + n) / (10 + n))
        average = share * average + (1 - share) * value
    return average


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_average_is_the_recursion_written_out(decay: float) -> None:
    values = torch.randn(30).tolist()
    assert followed(decay, values) == pytest.approx(written_out(decay, values), rel=1e-5)


def test_the_start_is_forgotten_within_tens_of_updates_whatever_the_decay() -> None:
    assert followed(0.9999, [100.0] + [1.0] * 50) == pytest.approx(1.0, abs=0.01)


def test_the_model_is_left_alone() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    moving_average(model, 0.9).update_parameters(model)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_never_follows_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"below 1, got {decay}"):
        moving_average(nn.Linear(1, 1), decay)
