"""Products are made in bf16 where the processor has them, and in fp32 elsewhere."""

import pytest
import torch
from torch.optim import Muon

from recipes.engine import bf16, optim
from recipes.experiment import Experiment

RATE = 0.1


def updated(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """What one step of Muon leaves of a weight."""
    parameter = torch.nn.Parameter(weight.clone())
    parameter.grad = gradient.clone()
    optim.take_step(Muon([parameter], RATE, weight_decay=0.0))
    return parameter.detach()


@pytest.mark.parametrize("shape", [(24, 24), (8, 40), (40, 8)])
def test_muon_in_fp32_is_muon(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    weight, gradient = torch.randn(2, *shape)
    before = gradient.clone()
    steps = {}
    for has in (True, False):
        monkeypatch.setattr(optim, "has_bf16", lambda has=has: has)
        steps[has] = updated(weight, gradient) - weight
    assert torch.equal(gradient, before)
    exact = updated(weight.double(), gradient.double()) - weight.double()  # still without bf16
    torch.testing.assert_close(steps[False].double(), exact, atol=1e-5, rtol=0)
    apart = (steps[True] - exact).norm() / exact.norm()
    assert 1e-4 < apart < 0.05


def test_nothing_else_changes_without_bf16() -> None:
    x = torch.randn(3, 3)
    with bf16.WithoutBf16():
        assert x.bfloat16().dtype == torch.float32 and x.bfloat16() is not x
        assert x.to(torch.bfloat16).dtype == torch.bfloat16 and torch.equal(x @ x.T, x.mm(x.T))
    assert x.bfloat16().dtype == torch.bfloat16


@pytest.mark.parametrize(("names", "best"), [((), "fp32"), (("avx512_bf16",), "bf16")])
def test_the_precision_follows_the_processor(
    names: tuple[str, ...], best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True))
    bf16.has_bf16.cache_clear()
    assert Experiment().precision == best
    assert Experiment(precision="bf16").precision == "bf16"
    bf16.has_bf16.cache_clear()
