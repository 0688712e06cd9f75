"""Mixings start without a preference."""

import pytest
import torch

from orderer.positions import Mixing


@pytest.mark.parametrize(("outputs", "inputs"), [(4, 16), (16, 4)])
def test_a_mixing_starts_orthonormal(outputs: int, inputs: int) -> None:
    weight = Mixing(outputs, inputs, groups=3).weight
    long = weight if outputs <= inputs else weight.mT
    torch.testing.assert_close(long @ long.mT, torch.eye(4).expand(3, 4, 4), atol=1e-5, rtol=0)


def test_no_output_starts_tied_to_a_place() -> None:
    shares = Mixing(16, 64, groups=8).weight.square().mean(dim=0)  # [m, n], each row sums to one
    assert shares.max() < 0.15


def test_each_channel_group_is_blended_by_its_own_matrix() -> None:
    mixing, vectors = Mixing(2, 3, groups=2), torch.randn(1, 3, 8)
    blended = mixing(vectors)
    for group, channels in ((0, slice(0, 4)), (1, slice(4, 8))):
        expected = mixing.weight[group] @ vectors[0, :, channels]
        torch.testing.assert_close(blended[0, :, channels], expected)
