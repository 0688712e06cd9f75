"""A packed AR model draws what the model draws, with every head."""

from typing import Any

import pytest
import torch

from ar import ARConfig, ARModel, Sampling
from orderer.packed import PackedLinear, multiplies_bf16, pack

HEADS = pytest.mark.parametrize(
    "settings",
    [
        {"head": "flow", "modulation": "time"},
        {"head": "flow", "modulation": "token"},
        {"head": "diffusion", "prediction": "velocity"},
        {"head": "regression"},
        {"head": "mixture"},
        {"head": "energy"},
        {"head": "categorical"},
        {"head": "in_trunk"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)


def make(settings: dict[str, Any]) -> ARModel:
    """A small model, its last layers awake."""
    sizes = {"tokens": 4, "token_dim": 6, "width": 16, "heads": 2, "layers": 2, "mlp_width": 32}
    config = ARConfig(
        **{**sizes, "head_width": 16, "head_layers": 2, "condition": "none"}, **settings
    )
    model = ARModel(config).eval()
    for parameter in model.head.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def drawn(model: ARModel, guidance_scale: float) -> torch.Tensor:
    sampling = Sampling(guidance_scale=guidance_scale, steps=3)
    return model.generate(model.unconditioned(3), sampling=sampling, seeds=[0, 1, 2])


@HEADS
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_packed_sampling_is_sampling(settings: dict[str, Any], guidance_scale: float) -> None:
    model = make(settings)
    packed = pack(model)
    assert not any(type(module) is torch.nn.Linear for module in packed.modules())
    torch.testing.assert_close(
        drawn(packed, guidance_scale), drawn(model, guidance_scale), atol=1e-5, rtol=1e-5
    )


@pytest.mark.skipif(not multiplies_bf16(), reason="this processor has no products in bf16")
@pytest.mark.parametrize("head", ["flow", "diffusion", "regression", "energy", "in_trunk"])
def test_in_bf16_it_draws_tokens_of_fp32_nearby(head: str) -> None:
    # The other heads choose one of a few, and what is close may be chosen otherwise.
    model = make({"head": head})
    exact, packed = drawn(model, 1.0), drawn(pack(model, torch.bfloat16), 1.0)
    assert packed.dtype == torch.float32
    assert 0 < (packed - exact).square().mean().sqrt() < 0.05 * exact.std()


def test_every_large_weight_of_a_packed_model_is_packed() -> None:
    packed = pack(make({"head": "flow"}))
    left = [name for name, p in packed.named_parameters() if name.endswith("weight") and p.ndim > 1]
    assert left == []
    assert sum(isinstance(module, PackedLinear) for module in packed.modules()) > 14
