"""A model whose weights stay as they are, made faster to run on a CPU.

A linear layer brings its weight into the order that the CPU's kernels read, at every call. A packed
one has done so once: oneDNN, in full precision, also where MKL serves other processors better.

    *B batch   I inputs   O outputs
"""

import copy
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

PACKED_FOR = 1024
"""Rows for which oneDNN chooses the order of a weight; every number of rows can be run."""

LINEAR = torch.ops.mkldnn._linear_pointwise.default
"""Looked up once: at each call that takes as long as a small product."""


def multiplies_bf16() -> bool:
    """Whether this processor has the instructions for products in bf16: not all have AVX-512."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear(nn.Module):
    """A linear layer without gradients; it cannot be saved, the one it is made from can.

    Args:
        linear: on the CPU.
        dtype: of its products and outputs; sums are always in fp32.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        weight = linear.weight.detach().to(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return LINEAR(x.to(self.dtype), self.weight, self.bias, "none", [], "")

    def _save_to_state_dict(self, *_: object, **__: object) -> None:
        raise ValueError("packed weights can be neither saved nor hashed: use the model's own")


def pack(model: M, dtype: torch.dtype = torch.float32) -> M:
    """Copy a model, with all its linear layers packed; what lies between them stays in fp32.

    Raises:
        ValueError: if the weights are not fp32 on a CPU, or products of this dtype are not made.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"products can be made in float32 or bfloat16, got {dtype}")
    if dtype == torch.bfloat16 and not multiplies_bf16():
        raise ValueError("this processor makes no products in bfloat16, pack in float32")
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            raise ValueError(
                f"weights are packed from float32 on the CPU, "
                f"{name} is {parameter.dtype} on {parameter.device}"
            )
    packed = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(packed.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:  # others are read by their owners
                setattr(module, name, PackedLinear(child, dtype))
    return packed
