"""The faster of torch's two ways to multiply matrices of fp32 on a CPU, where it is as exact.

torch gives them to MKL, which does not use all of some processors; oneDNN does (on AMD Zen 5 it is
2.2 times as fast, on Zen 4 1.1 times). torch has one switch to it, meant to allow bf16: a processor
with matrix units for bf16 (AMX) then rounds to it, others read it as fp32. Which of them this one
is, is found out by multiplying. Results differ from MKL's in the last bits, so provenance names it.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

SIDE = 512
MOST_ERROR = 8.0
"""In errors of torch's own product. Another order of the sums has up to 3; rounding to bf16 has
thousands."""

SWITCH: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch types it not


def use_fast_matmul() -> bool:
    """Turn it on for this process if that leaves products exact; says whether it is on."""
    SWITCH.fp32_precision = "bf16" if stays_exact() else "none"
    return is_fast_matmul()


def use_own_matmul() -> None:
    """Turn it off."""
    SWITCH.fp32_precision = "none"


def is_fast_matmul() -> bool:
    """Whether it is on."""
    return bool(SWITCH.fp32_precision == "bf16")


@cache
def stays_exact() -> bool:
    """Multiply both ways, and compare their errors; on one machine it always says the same."""
    before = SWITCH.fp32_precision
    SWITCH.fp32_precision = "none"
    own = _error()
    SWITCH.fp32_precision = "bf16"
    fast = _error()
    SWITCH.fp32_precision = before
    return fast <= MOST_ERROR * own


def _error() -> float:
    """Mean error of a product against the same in float64: the same matrices every time."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, SIDE, SIDE, generator=generator)
    return _product(a, b).double().sub(a.double() @ b.double()).abs().mean().item()


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b
