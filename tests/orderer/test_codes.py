"""Codes: more levels lose less, and nobody reads more than the bits allow."""

import math

import pytest
import torch

from orderer.evaluation import fit_codes, most_recovered, quantised

TOKENS = torch.randn(200, 3, 4, generator=torch.Generator().manual_seed(0))


def test_tokens_that_are_codes_stay_as_they_are() -> None:
    few = torch.randn(8, 3, 4).repeat(5, 1, 1)
    assert torch.allclose(quantised(few, fit_codes(few, 8, 1)), few, atol=1e-6)


def test_every_level_lowers_the_error() -> None:
    codes = fit_codes(TOKENS, 16, 3)
    errors = [(quantised(TOKENS, codes[:level]) - TOKENS).square().mean() for level in range(4)]
    assert errors == sorted(errors, reverse=True) and errors[3] < errors[1] / 3


def test_a_place_takes_no_more_values_than_it_has_codes() -> None:
    told = quantised(TOKENS, fit_codes(TOKENS, 16, 1))
    assert all(len(of_place.unique(dim=0)) <= 16 for of_place in told.unbind(dim=1))


def test_codes_need_as_many_images() -> None:
    with pytest.raises(ValueError, match="16 codes need as many tokens, got 15"):
        fit_codes(TOKENS[:15], 16, 1)


def test_without_bits_a_reader_can_guess_and_with_all_of_them_read() -> None:
    assert most_recovered(0.0, {5: 5}, 36) == pytest.approx(1 / 36)
    assert most_recovered(5 * math.log2(36), {5: 5}, 36) == 1
    assert most_recovered(8.0, {8: 8}, 36) > 8 / (8 * math.log2(36))  # errors help to save bits


def test_the_bound_of_a_coin_is_that_of_a_binary_symmetric_channel() -> None:
    error = 0.11
    bits = 1 + error * math.log2(error) + (1 - error) * math.log2(1 - error)
    assert most_recovered(bits, {1: 1}, 2) == pytest.approx(1 - error, abs=1e-9)


def test_short_strings_are_read_better_by_the_same_bits() -> None:
    short, long = most_recovered(20.0, {4: 4}, 36), most_recovered(20.0, {8: 8}, 36)
    assert short > long
    assert most_recovered(20.0, {4: 4, 8: 8}, 36) == pytest.approx((4 * short + 8 * long) / 12)
