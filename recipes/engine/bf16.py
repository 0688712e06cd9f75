"""Whether products in bf16 are worth it, and how to do without them.

Not every processor has instructions for them. Without, torch takes 4 to 11 times as long as in
fp32 (AMD Zen 3), in training and in Muon, which orthogonalises in bf16 whatever the processor.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Precision = Literal["bf16", "fp32"]
ON_CPU = ("avx512_bf16", "amx_bf16", "bf16")
"""Capabilities, the last of ARM, that multiply in bf16."""


@cache
def has_bf16() -> bool:
    """Whether the GPU if there is one, else the CPU has instructions for products in bf16.

    A torch older than 2.13 may not say it of a CPU, which then passes for one without.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ON_CPU)


def fastest_precision() -> Precision:
    """In which a training's products are made if nobody says otherwise."""
    return "bf16" if has_bf16() else "fp32"


class WithoutBf16(TorchFunctionMode):
    """Inside it `Tensor.bfloat16` copies its tensor as it is, and Muon orthogonalises in fp32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.bfloat16:
            return args[0].clone()  # which its caller may change
        return func(*args, **(kwargs or {}))
