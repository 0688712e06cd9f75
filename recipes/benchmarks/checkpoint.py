"""A checkpoint that is synced, hashed and read back, against `torch.save`, and what it costs."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from orderer import Orderer, OrdererConfig
from recipes.engine.parts import Groups
from recipes.engine.saving import Saver
from recipes.experiment import Experiment

from .case import Case, clock_seconds, in_turns
from .orderer import BATCH, NOT_RUN, SIZE, draw_images, our_step


def measure(runs: int) -> Iterator[Case]:
    """Measure saves of an orderer of the size that is benchmarked, and of AdamW's two moments.

    Args:
        runs: of each side.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Orderer(OrdererConfig(**SIZE, **NOT_RUN))
    weights = model.state_dict()
    tensors = {"orderer": weights, **{f"orderer-moment-{n}": weights for n in (1, 2)}}
    step, steps = our_step(model, draw_images(model, BATCH), "bf16"), Experiment.checkpoint_every
    seconds = median(clock_seconds(step) for _ in range(3))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved = in_turns(
            "save",
            "s",
            lambda: _save(folder, tensors, in_background=False),
            lambda: _plain_save(folder, tensors),
            runs,
            is_rate=False,
        )
        yield saved
        yield replace(
            saved,
            name=f"save_every_{steps}_steps",
            unit=f"% of the time of {steps} steps of {BATCH} images",
            ours=tuple(100 * each / (steps * seconds) for each in saved.ours),
            reference=tuple(100 * each / (steps * seconds) for each in saved.reference),
        )
        yield in_turns(
            "wait_for_a_save_in_the_background",
            "s",
            lambda: _save(folder, tensors, in_background=True),
            lambda: _save(folder, tensors, in_background=False),
            runs,
            is_rate=False,
        )


def _save(folder: Path, tensors: Groups, in_background: bool) -> float:
    """How long training stands still for a save."""
    saver = Saver(folder=folder / "ours", in_background=in_background)
    seconds = clock_seconds(lambda: saver.save(1, tensors, {}))
    saver.finish()
    shutil.rmtree(folder / "ours")
    return seconds


def _plain_save(folder: Path, tensors: Groups) -> float:
    return clock_seconds(lambda: torch.save(tensors, folder / "plain.pt"))
