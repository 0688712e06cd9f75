"""The faster products are turned on only where they stay exact."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from recipes.engine import fast_matmul
from recipes.engine.results import provenance


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = fast_matmul.SWITCH.fp32_precision
    fast_matmul.stays_exact.cache_clear()
    yield
    fast_matmul.SWITCH.fp32_precision = before
    fast_matmul.stays_exact.cache_clear()


def rounding(a: Tensor, b: Tensor) -> Tensor:
    """What a processor with matrix units for bf16 does when it is allowed to."""
    if fast_matmul.is_fast_matmul():
        a, b = a.bfloat16().float(), b.bfloat16().float()
    return a @ b


def test_a_processor_that_rounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_matmul, "_product", rounding)
    fast_matmul.use_own_matmul()
    assert not fast_matmul.use_fast_matmul()
    assert fast_matmul.SWITCH.fp32_precision == "none"


def test_one_that_does_not_is_used_and_provenance_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_matmul, "_product", lambda a, b: (a.double() @ b.double()).float())
    assert fast_matmul.use_fast_matmul()
    assert provenance()["hardware"]["fp32_matmul"] == "onednn"
    fast_matmul.use_own_matmul()
    assert provenance()["hardware"]["fp32_matmul"] == "torch"


def test_products_that_are_on_are_exact() -> None:
    fast_matmul.use_fast_matmul()
    a, b = torch.randn(2, 300, 300)
    torch.testing.assert_close((a @ b).double(), a.double() @ b.double(), atol=2e-4, rtol=0.0)
