"""A loss or a gradient that is not finite stops all processes together, before the update."""

import json
import math
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from .processes import texts_of_all, world_size


def check_losses(
    step: int, values: Mapping[str, Tensor], keys: Sequence[str], device: torch.device
) -> None:
    """Stop on all processes if the loss of one is not finite; call it on all of them.

    Args:
        step: the update to come, from 0.
        values: what the loss of this process is made of, itself as `loss`.
        keys: of the samples in this process' share of the batch.
        device: on which processes talk.

    Raises:
        FloatingPointError: names step, terms, processes and their samples.
    """
    wrong = [] if _is_finite(values.get("loss", 0.0)) else _not_finite(values)
    if _on_any_process(bool(wrong), device):
        _stop(step, wrong, keys)


def check_gradient(step: int, norm: Tensor, keys: Sequence[str]) -> None:
    """Stop if the norm of averaged gradients, which is the same on all processes, is not finite.

    Raises:
        FloatingPointError: names the step and the samples of all processes.
    """
    if not _is_finite(norm):
        _stop(step, ["gradient"], keys)


def _stop(step: int, wrong: Sequence[str], keys: Sequence[str]) -> None:
    found = [json.loads(text) for text in texts_of_all(json.dumps([wrong, list(keys)]))]
    blamed = [
        f"{' and '.join(names)} on process {rank}, in samples {', '.join(samples) or 'unknown'}"
        for rank, (names, samples) in enumerate(found)
        if names
    ]
    raise FloatingPointError(f"not finite at step {step}, before the update: {'; '.join(blamed)}")


def _not_finite(values: Mapping[str, Tensor]) -> list[str]:
    names = [name for name, value in values.items() if not _is_finite(value)]
    return [name for name in names if name != "loss"] or names  # a term says more than the sum


def _is_finite(value: Tensor | float) -> bool:
    return math.isfinite(value.item() if isinstance(value, Tensor) else value)


def _on_any_process(here: bool, device: torch.device) -> bool:
    if world_size() == 1:
        return here
    count = torch.tensor(int(here), device=device)
    dist.all_reduce(count)
    return bool(count)
