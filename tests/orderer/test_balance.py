"""Balance: pulls stand in the proportion of their shares, whatever the terms' scale."""

import pytest
import torch

from orderer import Terms
from orderer.objectives import Balance


def terms() -> Terms:
    """Three terms of the same tokens, one a thousand times as steep as another, one flat."""
    tokens = torch.randn(4, 3, 2).requires_grad_()
    values = {
        "steep": 1000 * tokens.square().mean(),
        "gentle": tokens.sin().mean(),
        "flat": torch.zeros(()).requires_grad_() * 1.0,
    }
    return Terms(values=values, tokens=tokens)


def test_terms_pull_in_the_proportion_of_their_shares_and_as_hard_together() -> None:
    batch, balance = terms(), Balance(["steep", "gentle", "flat"])
    shares = {"steep": 1.0, "gentle": 3.0, "flat": 2.0}
    balance.measure(batch.gradient_norms(dict.fromkeys(shares, 1.0)))
    weights = balance.weights(shares)
    pulls, before = batch.gradient_norms(weights), batch.gradient_norms(shares)
    torch.testing.assert_close(pulls["gentle"], 3 * pulls["steep"])
    torch.testing.assert_close(pulls["gentle"] + pulls["steep"], sum(before.values()))
    assert weights["flat"] == 2.0


def test_how_steep_a_term_is_does_not_matter() -> None:
    pulls = {"a": torch.tensor(1.0), "b": torch.tensor(4.0)}
    one, other = Balance(["a", "b"]), Balance(["a", "b"])
    one.measure(pulls)
    other.measure({**pulls, "b": torch.tensor(40.0)})
    shares = {"a": 1.0, "b": 1.0}
    ratio = one.weights(shares)["b"] / one.weights(shares)["a"]
    assert other.weights(shares)["b"] / other.weights(shares)["a"] == pytest.approx(ratio / 10)


def test_the_first_measurement_counts_whole_and_later_ones_a_fifth() -> None:
    balance = Balance(["a"])
    balance.measure({"a": torch.tensor(10.0)})
    assert balance.pulls.tolist() == [10.0]
    balance.measure({"a": torch.tensor(20.0)})
    assert balance.pulls.tolist() == [12.0]


def test_it_measures_every_ten_steps_and_when_a_term_comes_in() -> None:
    balance = Balance(["a", "b"])
    assert balance.due(3, ["a"])
    balance.measure({"a": torch.tensor(1.0)})
    assert [step for step in range(1, 31) if balance.due(step, ["a"])] == [10, 20, 30]
    assert balance.due(3, ["a", "b"])
