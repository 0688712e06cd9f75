"""Curves over prefixes: closed forms."""

import pytest
import torch

from ar.evaluation import semantic_area, useless_tokens


def test_tokens_that_all_help_a_little_are_none_useless() -> None:
    errors = torch.arange(5.0, 0.0, -1.0) + 0.1 * torch.randn(50, 5)
    found = useless_tokens(errors)
    assert found["useless"] == 0 and found["rising"] == 0
    assert found["area"] == pytest.approx((4.5 + 3.5 + 2.5 + 1.5) / 5 / 4, abs=0.02)


def test_what_leaves_less_error_everywhere_has_the_smaller_area() -> None:
    better = torch.tensor([[0.25, 0.05, 0.01]]).expand(3, -1)
    worse = torch.tensor([[0.25, 0.20, 0.01]]).expand(3, -1)
    assert useless_tokens(better)["area"] < useless_tokens(worse)["area"]


def test_what_helps_some_and_harms_as_many_is_useless() -> None:
    errors = torch.full((40, 4), 2.0)
    errors[:, 1:] -= 1.0
    errors[:20, 2] -= 0.5
    errors[20:, 2] += 0.5
    errors[:, 3] = errors[:, 2] + 0.1
    found = useless_tokens(errors)
    assert found["useless"] == pytest.approx(2 / 3) and found["rising"] == 2


def test_a_fall_smaller_than_the_images_differ_counts_when_it_is_everywhere() -> None:
    first = 10 * torch.rand(30, 1)
    assert useless_tokens(torch.cat([first + 1, first + 0.9], dim=1))["useless"] == 0


def test_a_fall_that_is_sure_but_tiny_is_useless() -> None:
    errors = torch.ones(30, 3)
    errors[:, 1] -= 0.011
    errors[:, 2] = errors[:, 1] - 0.009
    found = useless_tokens(errors)
    assert found["useless"] == 0.5 and found["rising"] == 0


def test_an_error_that_never_falls_has_an_area_of_one() -> None:
    assert useless_tokens(torch.ones(5, 4)) == {"useless": 1.0, "rising": 3, "area": 1.0}


def test_meaning_that_comes_at_once_or_evenly_or_last() -> None:
    assert semantic_area({1: 0.6, 2: 0.6, 4: 0.6}, chance=0.1) == pytest.approx(0.5 * (1 - 0.5 / 4))
    assert semantic_area({1: 2.0, 3: 6.0, 8: 16.0}, chance=0.0) == pytest.approx(16 * 0.5)
    assert semantic_area({1: 0.1, 3: 0.1, 4: 0.6}, chance=0.1) == pytest.approx(0.5 * 0.5 / 4)


def test_what_says_more_everywhere_has_the_larger_area() -> None:
    little = {1: 0.2, 2: 0.2, 4: 0.2}
    much = {1: 0.3, 2: 0.4, 4: 0.6}
    assert semantic_area(much, chance=0.0) > semantic_area(little, chance=0.0)


def test_curves_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 images and 1 token, got 5 and 0"):
        useless_tokens(torch.ones(5, 1))
    with pytest.raises(ValueError, match="error without tokens must be above 0, got 0"):
        useless_tokens(torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"prefixes from 1 on, got \[0, 2\]"):
        semantic_area({0: 0.1, 2: 0.5}, chance=0.1)
