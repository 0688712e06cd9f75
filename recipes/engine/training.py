"""What every training loop does the same way: one update, and saving where it stands.

A step is whole or has not happened: a stop waits for the end of its micro-batches, a fault loses
them, and no checkpoint lies between two of them.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from transformers.utils.logging import disable_progress_bar

from .bf16 import Precision
from .checkpoint import Checkpoint, find_start, is_fresh, load_latest
from .fast_matmul import use_fast_matmul
from .files import JSON
from .finite import check_gradient, check_losses
from .fitting import check_optimizer, check_parts, check_tensors
from .optim import Schedule, clip_gradients, optimizer_tensors, restore_optimizer, take_step
from .processes import average_gradients, check_alone, check_launch, others_wait_for, texts_of_all
from .run import Run
from .saving import Saver
from .settings import check_same_settings
from .sharding import placed_like


def prepare_device(stall_seconds: float = 60) -> torch.device:
    """Join the other processes, if any, choose how to multiply, and say where this one computes.

    Args:
        stall_seconds: how long this process then waits for another, before it ends with an error.

    Raises:
        ValueError: if the launcher did not start what it was asked for.
    """
    disable_progress_bar()  # transformers' own, of loading and saving: ours is the training's
    check_launch(os.environ)
    use_fast_matmul()
    patience = timedelta(seconds=stall_seconds)
    return PartialState(cpu=not torch.cuda.is_available(), timeout=patience).device


def prepare_alone() -> torch.device:
    """The same for a recipe that knows no other processes.

    Raises:
        ValueError: if it was started in several.
    """
    check_alone(os.environ)
    return prepare_device()


def precise(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
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


def update(
    step: int,
    loss: Tensor,
    learners: Sequence[Learner],
    values: Mapping[str, Tensor] | None = None,
    keys: Sequence[str] = (),
) -> list[Tensor]:
    """Do update number `step` (from 0) of every learner on one loss, see `apply_gradients`."""
    clear_gradients(learners)
    loss.backward()
    return apply_gradients(step, learners, {**(values or {}), "loss": loss}, keys)


def clear_gradients(learners: Sequence[Learner]) -> None:
    """Forget what the parameters of all learners have gathered."""
    for learner in learners:
        for optimizer in learner.optimizers:
            optimizer.zero_grad(set_to_none=True)


def apply_gradients(
    step: int,
    learners: Sequence[Learner],
    values: Mapping[str, Tensor] | None = None,
    keys: Sequence[str] = (),
) -> list[Tensor]:
    """Do update number `step` (from 0) of every learner, by the gradients gathered so far.

    Args:
        step: from 0.
        learners: that have gathered gradients.
        values: what these are of: the `loss`, and the terms that it is made of.
        keys: of this process' samples, for what is said of a loss that is not finite.

    Returns:
        The norm that the gradients of each learner had.

    Raises:
        FloatingPointError: on all processes, if a loss or a gradient of one is not finite; nothing
            was updated.
    """
    device = next(learners[0].model.parameters()).device
    check_losses(step, values or {}, keys, device)
    norms = []
    for learner in learners:
        parameters = list(learner.model.parameters())
        average_gradients(parameters)
        norms.append(clip_gradients(parameters, learner.clip))
        check_gradient(step, norms[-1], keys)
        learner.schedule.set(step)
    for learner in learners:
        for optimizer in learner.optimizers:
            take_step(optimizer)
    return norms


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands: its learners, saved and restored together."""

    saver: Saver
    learners: Mapping[str, Learner]
    settings: Mapping[str, JSON]
    """All that the learning depends on, names of the inputs too; a resumed run must share it."""
    total: str | None = None
    """Which of the settings says how many updates there are. A resumed run may have more of them:
    its learning rates follow the new total, from where it goes on."""
    later: Path | None = None
    """Checkpoints of the training that builds upon this one: no more steps where there are any."""
    totals: list[list[int]] = field(default_factory=list, init=False)
    """Where the total has grown: from which step on which one ruled."""
    averages: Mapping[str, AveragedModel] = field(default_factory=dict)
    """Of models' weights, by names of their own."""

    def restore(self, resume: bool) -> tuple[int, float]:
        """Take up the newest checkpoint, if any.

        Returns:
            The updates done before, and the seconds they took.

        Raises:
            ValueError: if its settings differ, a part is missing or does not fit, or there is one
                and `resume` is False.
        """
        found = find_start(self.saver.folder, resume)
        steps = texts_of_all(str(found.step if found else 0))  # none writes before all have looked
        if len(set(steps)) > 1:
            raise ValueError(
                f"the processes find different checkpoints in {self.saver.folder}, of the steps "
                f"{', '.join(steps)}: all of them must read the same folder"
            )
        if found is None:
            return 0, 0.0
        self._check(found)
        self._take(found)
        return found.step, found.state["seconds"]

    def return_to_newest(self) -> int:
        """Give up what was learned since the newest checkpoint; its step is returned."""
        others_wait_for(self.saver.finish)
        found = load_latest(self.saver.folder)
        assert found is not None
        self._take(found)
        return found.step

    def _take(self, found: Checkpoint) -> None:
        for name, learner in self.learners.items():
            now = learner.model.state_dict()
            saved = found.tensors[name].items()
            learner.model.load_state_dict({key: placed_like(x, now[key]) for key, x in saved})
            for index, optimizer in enumerate(learner.optimizers):
                part = f"{name}-optimizer-{index}"
                restore_optimizer(optimizer, found.tensors[part], found.state["groups"][part])
        for name, average in self.averages.items():
            average.load_state_dict(found.tensors[name])

    def is_due(self, step: int, run: Run) -> bool:
        """Whether it is time for a checkpoint after `step` updates."""
        return step == run.steps or self.saver.is_due(step)

    def stops_after(self, step: int, run: Run, saves: bool = False) -> bool:
        """Save after `step` updates if it is time, or the last, or a stop was asked for.

        Args:
            step: updates done so far.
            run: of this training.
            saves: True saves in any case: what follows takes long.

        Returns:
            Whether the training must stop here, saved; call it after every step on every process.
        """
        stops = step < run.steps and run.stop_requested
        if saves or stops or self.is_due(step, run):
            self.save(step, run)
        if stops or step == run.steps:
            others_wait_for(self.saver.finish)
        return stops

    def save(self, step: int, run: Run) -> None:
        """Write a checkpoint after `step` updates; call it on all processes."""
        tensors: dict[str, Mapping[str, Tensor]] = {}
        groups: dict[str, JSON] = {}
        for name, learner in self.learners.items():
            tensors[name] = learner.model.state_dict()
            for index, optimizer in enumerate(learner.optimizers):
                part = f"{name}-optimizer-{index}"
                tensors[part], groups[part] = optimizer_tensors(optimizer)
        tensors |= {name: average.state_dict() for name, average in self.averages.items()}
        state = {"settings": self.settings, "groups": groups, "seconds": run.seconds}
        if self.totals:
            state["totals"] = self.totals
        others_wait_for(run.sync)  # the log of the steps is on the disk before they are
        self.saver.save(step, tensors, state)

    def _check_total(self, found: Checkpoint) -> None:
        if self.total is None:
            return
        before, now = found.state["settings"][self.total], self.settings[self.total]
        if now < before:
            raise ValueError(f"{self.total} may grow on resume, was {before} and is {now}")
        self.totals[:] = found.state.get("totals") or []
        if now == before:
            return
        if self.later and not is_fresh(self.later, resume=True):
            raise ValueError(
                f"{self.later} builds upon the {before} steps of {self.total}, which would become "
                f"{now}: give another out"
            )
        self.totals[:] = [*(self.totals or [[0, before]]), [found.step, now]]
        logging.getLogger(__name__).warning(
            "%s was %s and is %s: from step %d on, learning rates are those of the new one",
            self.total, before, now, found.step,
        )  # fmt: skip

    def _check(self, found: Checkpoint) -> None:
        """Refuse a checkpoint that this training cannot go on from, though its hashes are right."""
        optimizers = {
            f"{name}-optimizer-{index}": optimizer
            for name, learner in self.learners.items()
            for index, optimizer in enumerate(learner.optimizers)
        }
        check_parts(found, [*self.learners, *optimizers, *self.averages])
        check_same_settings(found.state["settings"], self.settings, self.total)
        self._check_total(found)
        for name, learner in self.learners.items():
            check_tensors(found, name, learner.model.state_dict())
        for name, average in self.averages.items():
            check_tensors(found, name, average.state_dict())
        for name, optimizer in optimizers.items():
            check_optimizer(found, name, optimizer)
