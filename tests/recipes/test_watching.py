"""What is watched in stage 3: which positions matter, and how far tokens and their order drift."""

import pytest
import torch

from ar.joint import Limits, broken, kept_deviations
from orderer import Orderer
from recipes.watching import importance, kept_novelty, novelty, order_drift, token_drift

FINE = {"rank": 4.0, "deviation": 1.0, "channel_deviation": 1.0}


def test_a_position_matters_as_far_as_its_tokens_differ(tiny_orderer: Orderer) -> None:
    tokens = torch.randn(8, 4, 6)
    tokens[:, 2] = tokens[0, 2]  # is what it would be replaced with
    found = importance(tiny_orderer, tokens)
    assert found.shape == (4,)
    assert found[2] == pytest.approx(0, abs=1e-9) and bool((found[[0, 1, 3]] > 1e-6).all())


def test_an_order_drifts_from_none_to_its_reverse() -> None:
    order = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    assert order_drift(order, 10 * order) == pytest.approx(0)
    assert order_drift(order, order.flip(0)) == pytest.approx(2)
    one = order[:1]
    assert order_drift(one, 2 * one) == 0  # one position has no order, nor have equal ones
    assert order_drift(torch.ones_like(order), order) == 0


def test_tokens_that_only_move_or_shrink_have_not_drifted_and_exchanged_ones_have() -> None:
    tokens = torch.randn(200, 4, 6)
    assert token_drift(tokens, 0.1 * tokens + 3) == pytest.approx(0, abs=1e-6)
    assert token_drift(tokens, -tokens) == pytest.approx(2)
    assert token_drift(tokens, tokens[:, [1, 0, 3, 2]]) == pytest.approx(1, abs=0.1)


def test_tokens_that_become_copies_break_a_limit_though_the_rank_hardly_falls() -> None:
    tokens = torch.randn(200, 16, 4)
    after = tokens.clone()
    after[:, 5] = -2 * after[:, 2]
    before, now = novelty(tokens), novelty(after)
    assert before[0] == now[0] == 1 and bool((before > 0.8).all())
    assert now[5] == pytest.approx(0, abs=1e-3)
    assert kept_novelty(before, before) == 1.0
    start, found = {**FINE, "novelty": 1.0}, {**FINE, "novelty": kept_novelty(before, now)}
    assert broken(start, found, Limits()) == (
        "novelty is 0.00, under 20% of the 1.00 that it began with"
    )


def test_what_was_a_copy_before_cannot_become_one() -> None:
    tokens = torch.randn(200, 4, 4)
    tokens[:, 3] = tokens[:, 0]
    assert kept_novelty(novelty(tokens), novelty(tokens)) == 1.0


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        ({"recall_4": 0.69}, "recall_4 is 0.69, more than 0.2 below the 0.9 that it began with"),
        ({"psnr_1": 17.9}, "psnr_1 is 17.9, more than 1 below the 19 that it began with"),
    ],
)
def test_no_prefix_is_given_up_for_the_others(now: dict[str, float], sentence: str) -> None:
    start = {**FINE, "recall": 0.9, "recall_4": 0.9, "psnr": 30.0, "psnr_1": 19.0}
    assert broken(start, {**start, **now}, Limits()) == sentence
    assert broken(start, {**start, "recall_4": 0.71, "psnr_1": 18.1}, Limits()) is None


def test_a_channel_that_falls_silent_is_seen_though_its_position_hardly_changes() -> None:
    tokens = torch.randn(500, 2, 16)
    after = tokens.clone()
    after[:, 1, 5] *= 0.01
    found = kept_deviations(tokens, after)
    assert found["least_channel_deviation"] == pytest.approx(0.01)
    assert found["deviation"] > 0.9 and found["channel_deviation"] > 0.9
    after[:, :, :4] *= 0.01  # a quarter of all
    found = kept_deviations(tokens, after)
    assert found["channel_deviation"] < 0.05 and found["deviation"] > 0.8
    assert broken(FINE, {**FINE, **found}, Limits()) == (
        "channel_deviation is 0.01, under 50% of the 1.00 that it began with"
    )


def test_a_channel_that_never_spoke_cannot_fall_silent() -> None:
    tokens = torch.randn(500, 2, 4)
    tokens[:, :, 3] *= 1e-4
    after = tokens.clone()
    after[:, :, 3] = 0
    assert kept_deviations(tokens, after)["least_channel_deviation"] == 1.0
