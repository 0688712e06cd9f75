"""The measure of an order knows the answers that are known."""

from functools import cache
from typing import Any

import pytest
import torch

from ar import ARConfig, ARModel
from ar.evaluation import (
    Schooling,
    Sequences,
    Transfer,
    equivariance,
    marginal_log_prob,
    measure_order,
)
from ar.evaluation.controls import exchanged, flipped, letters, stationary, turned
from ar.evaluation.sequences import fresh, learn
from ar.model import NOISE_FLOOR

TOKENS, CHANNELS = 8, 3
SHORT = Schooling(steps=30, batch_size=32, learning_rate=5e-3)


def make() -> ARModel:
    config = ARConfig(
        tokens=TOKENS,
        token_dim=CHANNELS,
        condition="none",
        width=16,
        heads=2,
        layers=1,
        mlp_width=32,
        head="regression",
        head_width=16,
        head_layers=1,
    )
    return ARModel(config)


CONTROLS = {
    "stationary": lambda x, seed: x,
    "turned": lambda x, seed: turned(x),
    "exchanged": exchanged,
}


def sequences(control: str) -> tuple[Sequences, Sequences]:
    of_seed = {1: 1_500, 2: 500}
    train, test = (
        CONTROLS[control](stationary(number, TOKENS, CHANNELS, seed), seed)
        for seed, number in of_seed.items()
    )
    return Sequences(tokens=train), Sequences(tokens=test)


@cache
def measured(control: str) -> dict[str, Any]:
    return measure_order(make, *sequences(control), schooling=SHORT)["equivariance"]


def test_one_rule_everywhere_is_near_the_top_and_a_rule_of_each_position_far_below() -> None:
    good, bad = measured("stationary"), measured("turned")
    assert good["eq"] > 0.8 and bad["eq"] < 0.6
    assert good["transfer"]["mean"] > 0.8 > 0.2 > bad["transfer"]["mean"]
    assert good["conflict"]["mean"] > bad["conflict"]["mean"] + 0.3


@pytest.mark.long
def test_tokens_of_other_sequences_give_nothing_so_there_is_no_figure() -> None:
    found = measured("exchanged")
    assert found["gain"]["mean"] < 0.01 and found["eq"] is None
    train, test = sequences("exchanged")
    model = fresh(make, train, seed=0)
    learn(model, train, **vars(SHORT))
    known = model.log_prob(test.tokens, test.condition(model, torch.arange(len(test))))
    gain = known - marginal_log_prob(train.tokens, test.tokens, NOISE_FLOOR * model.std)
    assert gain.mean() < 0.01 * CHANNELS


def test_the_figure_is_the_mean_of_three() -> None:
    gains = torch.tensor([0.0, 2.0]).double().expand(16, 2)
    moved = Transfer(gains=gains, shares=[0.2, 0.6], without_positions=0.0, shifted=None)
    cosines = torch.tensor([[1.0, -0.5], [-0.5, 1.0]]).double()
    found = equivariance(moved, cosines)
    assert found["gain"]["gini"] == pytest.approx(0.5)
    assert found["eq"] == pytest.approx((0.5 + 0.25 + 0.4) / 3)


def test_a_process_is_the_same_everywhere_until_positions_are_turned() -> None:
    x = stationary(20_000, 3, 2, seed=1)

    def follows(x: torch.Tensor, k: int) -> torch.Tensor:
        return x[:, k + 1].T @ x[:, k] / len(x)

    torch.testing.assert_close(follows(x, 0), follows(x, 1), atol=0.05, rtol=0)
    assert (follows(turned(x), 0) - follows(turned(x), 1)).abs().max() > 0.3
    torch.testing.assert_close(turned(x).norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(flipped(x).abs(), x.abs())


def test_exchanging_keeps_the_tokens_of_a_position_and_parts_neighbours() -> None:
    x = stationary(2_000, 3, 2, seed=1)
    other = exchanged(x, seed=1)
    assert torch.equal(other[:, 1].sort(dim=0).values, x[:, 1].sort(dim=0).values)
    assert (other[:, 1].T @ other[:, 0] / len(x)).abs().max() < 0.1


def test_a_letter_is_one_vector_wherever_it_stands() -> None:
    pieces = letters(b"abab", 20, 3, 4, seed=0)
    assert torch.equal(pieces[:, 0], pieces[:, 2])
    assert len(pieces.flatten(0, 1).unique(dim=0)) == 2
    with pytest.raises(ValueError, match="must have at least 5 bytes, got 4"):
        letters(b"abab", 1, 5, 4, seed=0)
