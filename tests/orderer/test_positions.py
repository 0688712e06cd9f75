"""Mixings start without a preference, and the decoder's undoes the encoder's."""

import pytest
import torch

from orderer import Orderer
from orderer.positions import Mixing, resampled


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


def test_cosines_are_orthonormal_and_go_from_low_to_high_frequencies() -> None:
    mixing = Mixing(10, 16)
    mixing.start_as_cosines((4, 4))
    rows = mixing.weight.detach()
    torch.testing.assert_close(rows @ rows.T, torch.eye(10))
    steps = rows.unflatten(1, (4, 4)).diff(dim=1).abs().sum((1, 2))
    torch.testing.assert_close(rows[0], torch.full((16,), 0.25))
    assert steps[0] < 1e-6 and steps[1:].max() == steps[1:][-7:].max()


def test_cosines_for_more_tokens_than_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="got 4 patches and 5 tokens"):
        Mixing(5, 4).start_as_cosines((2, 2))


def test_a_field_read_at_its_own_grid_is_itself() -> None:
    field = torch.randn(6, 3)
    assert resampled(field, (2, 3), (2, 3)) is field


def test_a_plain_field_is_plain_on_every_grid() -> None:
    field = torch.ones(6, 3) * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(resampled(field, (2, 3), (5, 4)), field[:1].expand(20, 3))


def test_a_plain_image_is_blended_alike_on_every_grid() -> None:
    mixing = Mixing(3, 4)
    small, large = torch.ones(1, 4, 2), torch.ones(1, 36, 2)
    torch.testing.assert_close(
        mixing.from_grid(large, (2, 2), (6, 6)), mixing.from_grid(small, (2, 2), (2, 2))
    )
