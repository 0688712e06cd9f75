"""An exponential moving average of a model's weights that starts without a memory of the start."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Average a model's weights: `update_parameters(model)` after each of its updates.

    The first update takes the weights as they are. The decay of update n after it is min(decay,
    (1 + n) / (10 + n)): the start is forgotten within some tens of updates, whatever the decay.

    Args:
        model: stays as it is; `.module` of what is returned has the averaged weights.
        decay: at least 0, below 1.

    Raises:
        ValueError: for a decay out of range.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be at least 0 and below 1, got {decay}")

    @torch.no_grad()
    def step(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        share = 1 - min(decay, (1 + int(updates)) / (10 + int(updates)))
        torch._foreach_lerp_(list(averaged), list(current), share)

    return AveragedModel(model, multi_avg_fn=step)
