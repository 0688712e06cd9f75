"""Redundancy: a copy says nothing new, noise says nothing old."""

import pytest
import torch

from orderer.evaluation import explained_by_before, explained_by_each, explained_by_one_before


def tokens() -> torch.Tensor:
    """Two independent tokens, then a turned copy of the first, then the sum of the two."""
    first, second = torch.randn(2, 2_000, 3)
    turn = torch.linalg.qr(torch.randn(3, 3)).Q
    return torch.stack([first, second, first @ turn, first + second], dim=1)


def test_a_copy_is_explained_and_noise_is_not() -> None:
    each = explained_by_each(tokens())
    torch.testing.assert_close(each.diag(), torch.ones(4).double(), atol=1e-3, rtol=0)
    assert each[2, 0] > 0.99 and each[0, 2] > 0.99
    assert each[0, 1] < 0.02 and each[1, 0] < 0.02
    assert each[3, 0] == pytest.approx(0.5, abs=0.05)


def test_what_all_tokens_before_say_together() -> None:
    before = explained_by_before(tokens())
    assert before[0] == 0 and before[1] < 0.02
    assert before[2] > 0.99 and before[3] > 0.99


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        explained_by_before(torch.randn(3, 2, 2))


def test_a_token_that_is_constant_says_nothing_and_is_not_explained() -> None:
    with_constant = tokens()
    with_constant[:, 1] = 0.1
    each, before = explained_by_each(with_constant), explained_by_before(with_constant)
    nothing = torch.zeros(4).double()
    for found in (each[1], each[[0, 2, 3], 1], before[1:2]):
        torch.testing.assert_close(found, nothing[: len(found)], atol=1e-6, rtol=0)
    assert each[2, 0] > 0.99


def test_the_token_before_that_tells_most_is_found() -> None:
    some = tokens()
    each = explained_by_each(some).tril(diagonal=-1)
    torch.testing.assert_close(explained_by_one_before(some), each.max(dim=1).values)
