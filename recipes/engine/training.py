"""What every training loop does the same way: one update, and saving where it stands."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.optim import Optimizer

from .checkpoint import find_start, save_checkpoint
from .files import JSON
from .optim import check_finite, clip_gradients, optimizer_tensors, restore_optimizer
from .processes import average_gradients
from .run import Run
from .settings import check_same_settings


def prepare_device() -> torch.device:
    """Join the other processes, if any, and say where this one computes."""
    return PartialState(cpu=not torch.cuda.is_available()).device


def precise(device: torch.device, precision: Literal["bf16", "fp32"]) -> AbstractContextManager[Any]:
    """The matrix products inside run in bf16, or in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def update(
    step: int, loss: Tensor, parameters: Sequence[nn.Parameter], optimizers: Sequence[Optimizer],
    clip: float,
) -> Tensor:
    """Do one update and return the norm that the gradients had.

    Raises:
        FloatingPointError: if that norm is not finite; nothing was updated.
    """
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(parameters)
    norm = clip_gradients(parameters, clip)
    check_finite(step, gradient_norm=norm)
    for optimizer in optimizers:
        optimizer.step()
    return norm


FREE = frozenset({"out", "log_every", "checkpoint_every", "resume"})
"""Settings that a resumed run may change: they do not change what is learned."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands: its models and optimizers, saved and restored together."""

    folder: Path
    models: Mapping[str, nn.Module]
    optimizers: Sequence[Optimizer]
    settings: Mapping[str, JSON]
    """Those of the run, and the fingerprints of its inputs; a resumed run must share them."""

    def restore(self, resume: bool) -> tuple[int, float]:
        """Take up the newest checkpoint, if any.

        Returns:
            The updates done before, and the seconds they took.

        Raises:
            ValueError: if its settings differ, or there is one and `resume` is False.
        """
        found = find_start(self.folder, resume)
        if found is None:
            return 0, 0.0
        check_same_settings(found.state["settings"], self.settings, FREE)
        for name, model in self.models.items():
            model.load_state_dict(found.tensors[name])
        for index, optimizer in enumerate(self.optimizers):
            tensors = found.tensors[f"optimizer-{index}"]
            restore_optimizer(optimizer, tensors, found.state["optimizers"][index])
        return found.step, found.state["seconds"]

    def save(self, step: int, run: Run) -> None:
        """Write a checkpoint after `step` updates, from the main process."""
        if run.is_main:
            saved = [optimizer_tensors(optimizer) for optimizer in self.optimizers]
            tensors = {name: model.state_dict() for name, model in self.models.items()}
            for index, (state, _) in enumerate(saved):
                tensors[f"optimizer-{index}"] = state
            state = {
                "settings": self.settings,
                "optimizers": [groups for _, groups in saved],
                "seconds": run.seconds,
            }
            save_checkpoint(self.folder, step, tensors, state)
        run.accelerator.wait_for_everyone()
