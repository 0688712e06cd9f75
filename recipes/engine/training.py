"""What every training loop does the same way: one update, and saving where it stands."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from transformers.utils.logging import disable_progress_bar

from .checkpoint import Checkpoint, find_start, load_latest, save_checkpoint
from .fast_matmul import use_fast_matmul
from .files import JSON
from .optim import (
    Schedule,
    check_finite,
    clip_gradients,
    optimizer_tensors,
    restore_optimizer,
)
from .processes import average_gradients
from .run import Run
from .settings import check_same_settings
from .sharding import placed_like, whole


def prepare_device() -> torch.device:
    """Join the other processes, if any, choose how to multiply, and say where this one computes."""
    disable_progress_bar()  # transformers' own, of loading and saving: ours is the training's
    use_fast_matmul()
    return PartialState(cpu=not torch.cuda.is_available()).device


def precise(
    device: torch.device, precision: Literal["bf16", "fp32"]
) -> AbstractContextManager[Any]:
    """The matrix products inside run in bf16, or in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A model, and how its parameters learn."""

    model: nn.Module
    optimizers: Sequence[Optimizer]
    schedule: Schedule
    clip: float
    """Most that the joint norm of its gradients may be."""


def check_divides(batch_size: int, accumulate: int, processes: int) -> None:
    """Refuse a batch that cannot be cut evenly into the micro-batches of all processes."""
    if batch_size % (processes * accumulate):
        raise ValueError(
            f"batch_size must divide by {processes} processes x {accumulate} micro-batches, "
            f"got {batch_size}"
        )


def mean_values(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each value over the micro-batches of a step."""
    return {name: torch.stack([part[name].detach() for part in parts]).mean() for name in parts[0]}


def update(step: int, loss: Tensor, learners: Sequence[Learner]) -> list[Tensor]:
    """Do update number `step` (from 0) of every learner on one loss, see `apply_gradients`."""
    clear_gradients(learners)
    loss.backward()
    return apply_gradients(step, learners)


def clear_gradients(learners: Sequence[Learner]) -> None:
    """Forget what the parameters of all learners have gathered."""
    for learner in learners:
        for optimizer in learner.optimizers:
            optimizer.zero_grad(set_to_none=True)


def apply_gradients(step: int, learners: Sequence[Learner]) -> list[Tensor]:
    """Do update number `step` (from 0) of every learner, by the gradients gathered so far.

    Returns:
        The norm that the gradients of each learner had.

    Raises:
        FloatingPointError: if one of them is not finite; nothing was updated.
    """
    norms = []
    for learner in learners:
        parameters = list(learner.model.parameters())
        average_gradients(parameters)
        norms.append(clip_gradients(parameters, learner.clip))
        check_finite(step, gradient_norm=norms[-1])
        learner.schedule.set(step)
    for learner in learners:
        for optimizer in learner.optimizers:
            optimizer.step()
    return norms


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands: its learners, saved and restored together."""

    folder: Path
    learners: Mapping[str, Learner]
    settings: Mapping[str, JSON]
    """All that the learning depends on, names of the inputs too; a resumed run must share it."""
    averages: Mapping[str, AveragedModel] = field(default_factory=dict)
    """Of models' weights, by names of their own."""

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
        check_same_settings(found.state["settings"], self.settings)
        self._take(found)
        return found.step, found.state["seconds"]

    def return_to_newest(self) -> int:
        """Give up what was learned since the newest checkpoint; its step is returned."""
        found = load_latest(self.folder)
        assert found is not None
        self._take(found)
        return found.step

    def _take(self, found: Checkpoint) -> None:
        for name, learner in self.learners.items():
            now = learner.model.state_dict()
            saved = found.tensors[name].items()
            learner.model.load_state_dict(
                {key: placed_like(x, now[key]) if key in now else x for key, x in saved}
            )
            for index, optimizer in enumerate(learner.optimizers):
                part = f"{name}-optimizer-{index}"
                restore_optimizer(optimizer, found.tensors[part], found.state["groups"][part])
        for name, average in self.averages.items():
            average.load_state_dict(found.tensors[name])

    def save(self, step: int, run: Run) -> None:
        """Write a checkpoint after `step` updates, from the main process."""
        tensors: dict[str, Mapping[str, Tensor]] = {}
        groups: dict[str, JSON] = {}
        for name, learner in self.learners.items():
            tensors[name] = whole(learner.model.state_dict())
            for index, optimizer in enumerate(learner.optimizers):
                part = f"{name}-optimizer-{index}"
                kept, groups[part] = optimizer_tensors(optimizer)
                tensors[part] = whole(kept)
        tensors |= {name: average.state_dict() for name, average in self.averages.items()}
        if run.is_main:
            state = {"settings": self.settings, "groups": groups, "seconds": run.seconds}
            save_checkpoint(self.folder, step, tensors, state)
        run.accelerator.wait_for_everyone()
