"""Mixings start without a preference, and the decoder's undoes the encoder's."""

import pytest
import torch

from orderer import Orderer
from orderer.positions import Mixing


@pytest.mark.parametrize(("outputs", "inputs"), [(4, 16), (16, 4)])
def test_a_mixing_starts_orthonormal(outputs: int, inputs: int) -> None:
    weight = Mixing(outputs, inputs).weight
    long = weight if outputs <= inputs else weight.mT
    torch.testing.assert_close(long @ long.mT, torch.eye(4), atol=1e-5, rtol=0)


def test_no_output_starts_tied_to_a_place() -> None:
    shares = Mixing(16, 64).weight.square()  # [m, n], each row sums to one
    assert shares.max() < 0.35


def test_a_mirrored_mixing_gives_every_input_back() -> None:
    there, back = Mixing(9, 4), Mixing(4, 9)
    back.start_as_mirror_of(there)
    vectors = torch.randn(2, 4, 5)
    torch.testing.assert_close(back(there(vectors)), vectors, atol=1e-5, rtol=0)


def test_an_orderer_starts_with_mirrored_mixings(tiny_orderer: Orderer) -> None:
    encoder, decoder = tiny_orderer.encoder.mixing, tiny_orderer.decoder.mixing
    assert torch.equal(decoder.weight, encoder.weight.T)
