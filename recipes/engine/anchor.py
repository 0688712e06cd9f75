"""A trust region: parameters that learn are drawn back to where they began."""

from collections.abc import Iterable

import torch
from torch import nn


class Anchor:
    """Remembers where some parameters are when it is made.

    As weight decay draws to zero, it draws to the start.

    Source: Li, Grandvalet and Davoine 2018, "Explicit Inductive Bias for Transfer Learning with
    Convolutional Networks", section 3 (L2-SP), https://arxiv.org/abs/1802.01483; apart from the
    gradient, as in Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.start = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def pull(self, share: float) -> None:
        """Go a share of the way back, in 0..1."""
        torch._foreach_lerp_([*self.parameters], self.start, share)
