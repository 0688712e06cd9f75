"""An upper bound that a learned number can come back from."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _AtMost(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, most: float) -> Tensor:
        context.save_for_backward(x)
        context.most = most
        return x.clamp(max=most)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = context.saved_tensors
        lowers = gradient > 0  # descent goes against it
        return torch.where((x <= context.most) | lowers, gradient, 0), None


def at_most(x: Float[Tensor, "*S"], most: float) -> Float[Tensor, "*S"]:
    """Clamp to `most`; beyond it gradients that would raise `x` are stopped, others come through.

    torch's clamp stops all of them there: what is once beyond never comes back.
    """
    return _AtMost.apply(x, most)
