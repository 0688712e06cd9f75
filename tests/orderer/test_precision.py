"""An orderer in bfloat16 or fp64 does all that one in fp32 does."""

import copy

import pytest
import torch
from torch import Tensor, nn

from orderer import Orderer, OrdererConfig

TEXT = torch.tensor([[49406, 320, 736, 49407, 0], [49406, 320, 1125, 3989, 49407]])
KEEP = torch.tensor([[True, True, False, False], [True] * 4])


def made(orderer: Orderer, decoder: str) -> Orderer:
    """The same sizes, with a decoder whose modulations are awake, where it has some."""
    settings = {**orderer.config.own(), "decoder": decoder, "decoder_steps": 3}
    made = Orderer(OrdererConfig(**settings)).eval()
    if decoder == "flow":
        nn.init.normal_(made.decoder.modulate.weight, std=0.1)
    return made


@torch.no_grad()
def outcomes(orderer: Orderer, images: Tensor) -> dict[str, Tensor]:
    """All that it makes of two images and two texts."""
    tokens = orderer.encode(images)
    rebuilt = orderer.rebuild(tokens, KEEP, images, torch.Generator().manual_seed(1))
    return {
        "tokens": tokens,
        "decoded": orderer.decode(tokens),
        "embedded": orderer.embed_tokens(tokens),
        "texts": orderer.embed_texts(TEXT),
        "rebuilt": rebuilt.patches,
        "loss": rebuilt.loss,
    }


@pytest.mark.parametrize("decoder", ["deterministic", "flow"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("pixels", [torch.uint8, torch.float32])
def test_another_precision_gives_nearly_the_same(
    tiny_orderer: Orderer, decoder: str, dtype: torch.dtype, pixels: torch.dtype
) -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    images = images if pixels == torch.uint8 else images / 127.5 - 1
    orderer = made(tiny_orderer, decoder)
    wanted = outcomes(orderer, images)
    found = outcomes(copy.deepcopy(orderer).to(dtype), images)
    near = 1e-5 if dtype == torch.float64 else 0.1
    for name, value in found.items():
        assert name == "loss" or value.dtype == dtype, name
        torch.testing.assert_close(value.float(), wanted[name], atol=near, rtol=0)
