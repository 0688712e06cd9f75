"""What a prefix promises."""

import pytest
import torch

from orderer.prefix import cut_to_prefix, draw_lengths, keep_mask, prefix_lengths


def draw(full_share: float) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return draw_lengths(2_000, 8, full_share, generator=generator).tolist()


def test_every_length_is_drawn_and_none_outside() -> None:
    assert sorted(set(draw(full_share=0.0))) == list(range(1, 9))


def test_the_full_length_has_its_share_and_its_part_of_the_rest() -> None:
    expected = 0.5 + 0.5 / 8
    assert draw(full_share=0.5).count(8) / 2_000 == pytest.approx(expected, abs=0.04)
    assert set(draw(full_share=1.0)) == {8}


def test_equal_generators_draw_equal_lengths() -> None:
    assert draw(full_share=0.25) == draw(full_share=0.25)


def test_measured_prefixes_are_powers_of_two_and_the_whole() -> None:
    assert prefix_lengths(1) == (1,)
    assert prefix_lengths(16) == (1, 2, 4, 8, 16)
    assert prefix_lengths(12) == (1, 2, 4, 8, 12)


def test_tokens_inside_the_prefix_are_untouched_and_the_rest_is_null() -> None:
    tokens, null = torch.randn(2, 4, 3), torch.full((3,), 7.0)
    cut = cut_to_prefix(tokens, keep_mask(torch.tensor([1, 3]), 4), null)
    assert torch.equal(cut[0, :1], tokens[0, :1]) and torch.equal(cut[1, :3], tokens[1, :3])
    assert cut[0, 1:].eq(7).all() and cut[1, 3:].eq(7).all()


def test_no_gradient_reaches_a_cut_token() -> None:
    tokens = torch.randn(1, 4, 3, requires_grad=True)
    cut_to_prefix(tokens, keep_mask(torch.tensor([2]), 4), torch.zeros(3)).sum().backward()
    assert tokens.grad is not None
    assert tokens.grad[0, :2].eq(1).all() and tokens.grad[0, 2:].eq(0).all()


def test_a_longer_prefix_contains_the_shorter() -> None:
    short, long = keep_mask(torch.tensor([2]), 6), keep_mask(torch.tensor([5]), 6)
    assert torch.equal(short & long, short)


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        draw_lengths(1, 0, 0.5)


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"full_share must lie in 0..1, got 1.5"):
        draw_lengths(1, 4, 1.5)
