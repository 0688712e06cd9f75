"""Intervals: those of a closed form, of images and not of captions, the same for the same seed."""

import pytest
import torch

from orderer.evaluation import intervals


def test_the_standard_error_of_a_mean_is_that_of_its_closed_form() -> None:
    hits = (torch.rand(400, 1) < 0.3).double()
    (found,) = intervals(hits, torch.arange(400), draws=4_000)
    expected = (hits.var(correction=0) / 400).sqrt().item()
    assert found["standard_error"] == pytest.approx(expected, rel=0.06)
    mean = hits.mean().item()
    assert found["low"] == pytest.approx(mean - 1.96 * expected, abs=0.01)
    assert found["high"] == pytest.approx(mean + 1.96 * expected, abs=0.01)


def test_captions_of_an_image_that_hit_together_are_no_more_certain_than_one() -> None:
    hits = (torch.rand(200, 2) < 0.3).double()
    once = intervals(hits, torch.arange(200), draws=100)
    five_times = intervals(
        hits.repeat_interleave(5, dim=0), torch.arange(200).repeat_interleave(5), draws=100
    )
    for one, other in zip(once, five_times, strict=True):
        assert one == pytest.approx(other, abs=1e-12)


def test_what_always_hits_is_certain() -> None:
    owner = torch.tensor([0, 0, 1, 2, 2, 2])
    (found,) = intervals(torch.ones(6, 1).double(), owner, draws=50)
    assert found == {"low": 1.0, "high": 1.0, "standard_error": 0.0}


def test_a_seed_draws_the_same_and_another_does_not() -> None:
    hits, owner = torch.rand(50, 1).double(), torch.arange(50)
    assert intervals(hits, owner, 20) == intervals(hits, owner, 20)
    assert intervals(hits, owner, 20) != intervals(hits, owner, 20, seed=1)


def test_a_single_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 draws, got 1"):
        intervals(torch.ones(2, 1).double(), torch.arange(2), draws=1)
