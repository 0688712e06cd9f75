"""Gradient checkpointing: blocks are computed twice, and nothing else changes."""

import pytest
import torch
from torch import Tensor

from orderer import Objectives, Orderer, OrdererConfig, Said, Stage1


def said() -> Said:
    texts = torch.randint(1, 40_000, (4, 7))
    texts[:, -1] = 49407  # ends the text
    return Said(texts=texts, numbers=torch.arange(4), at=torch.arange(4)[:, None].expand(-1, 3))


def kept_and_gradients(stage: Stage1) -> tuple[int, list[Tensor | None]]:
    """Bytes that a forward pass keeps for the backward pass, and the gradients."""
    torch.manual_seed(0)
    images = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    weights = stage.objectives.full_weights()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = stage(images, said(), weights).total(weights)
    forward = sum(kept.values())
    parameters = list(stage.parameters())
    return forward, list(torch.autograd.grad(total, parameters, allow_unused=True))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of its newer name
@pytest.mark.parametrize("decoder", ["deterministic", "flow"])
@pytest.mark.parametrize("encoder", ["joint", "cross"])
def test_gradients_are_the_same_and_less_is_kept(
    tiny_orderer: Orderer, decoder: str, encoder: str
) -> None:
    settings = {"decoder": decoder, "encoder": encoder, "encoder_layers": 4, "decoder_layers": 4}
    tiny_orderer = Orderer(OrdererConfig(**{**tiny_orderer.config.own(), **settings}))
    stage = Stage1(tiny_orderer, Objectives()).train()
    plain, expected = kept_and_gradients(stage)
    tiny_orderer.gradient_checkpointing_enable({"use_reentrant": False})
    less, gradients = kept_and_gradients(stage)
    own = sum(p.untyped_storage().nbytes() for p in stage.parameters())
    assert less - own < 0.6 * (plain - own)
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
