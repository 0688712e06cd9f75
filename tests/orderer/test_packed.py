"""A packed model is the model, only faster."""

import pytest
import torch

from orderer import Orderer, packed
from orderer.packed import multiplies_bf16, pack


def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)


@pytest.mark.parametrize("prefix", [1, 4])
def test_a_packed_orderer_encodes_the_same(tiny_orderer: Orderer, prefix: int) -> None:
    pixels = images()
    tokens = pack(tiny_orderer).encode(pixels, prefix)
    torch.testing.assert_close(
        tokens, tiny_orderer.encode(pixels, prefix).detach(), atol=2e-6, rtol=0.0
    )
    assert not tokens.requires_grad


@pytest.mark.skipif(not multiplies_bf16(), reason="this processor has no products in bf16")
def test_in_bf16_it_is_as_near_as_autocast_comes(tiny_orderer: Orderer) -> None:
    pixels = images()
    with torch.no_grad():
        exact = tiny_orderer.encode(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            usual = tiny_orderer.encode(pixels)
        packed = pack(tiny_orderer, torch.bfloat16).encode(pixels)
    assert 0 < (packed - exact).square().mean() < 2 * (usual - exact).square().mean()


def test_packing_leaves_the_model_alone(tiny_orderer: Orderer) -> None:
    before = tiny_orderer.encoding_hash()
    pack(tiny_orderer)
    assert tiny_orderer.encoding_hash() == before
    assert all(parameter.requires_grad for parameter in tiny_orderer.parameters())


def test_packed_weights_are_neither_saved_nor_hashed(tiny_orderer: Orderer) -> None:
    packed = pack(tiny_orderer)
    for use in (packed.state_dict, packed.encoding_hash):
        with pytest.raises(ValueError, match="packed weights can be neither saved nor hashed"):
            use()


def test_a_processor_without_bf16_is_told_of(
    tiny_orderer: Orderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "multiplies_bf16", lambda: False)
    with pytest.raises(ValueError, match="no products in bfloat16, pack in float32"):
        pack(tiny_orderer, torch.bfloat16)


def test_other_products_and_other_weights_are_refused(tiny_orderer: Orderer) -> None:
    with pytest.raises(ValueError, match=r"float32 or bfloat16, got torch.float16"):
        pack(tiny_orderer, torch.float16)
    with pytest.raises(ValueError, match=r"log_scale is torch.float64 on cpu"):
        pack(tiny_orderer.double())
