"""One training as its user sees it: progress bar, logs, signals, and how it ended.

with Run(out, "orderer", steps, log_every, first_step=start, samples_per_step=64) as run:
    for step in range(start, steps):
        ...
        run.log(step, {"loss": loss})
        if run.stop_requested:
            break                        # after saving
"""

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal, TextIO

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from .files import replace_file

Status = Literal["running", "finished", "preempted", "failed"]
Handler = Callable[[int, FrameType | None], object] | int | None


class Run(AbstractContextManager["Run"]):
    """The surroundings of one training loop, the same on one process and on many.

    It writes out/logs/NAME.jsonl (one object a logged step), out/logs/NAME/ (tensorboard) and
    out/logs/NAME.status.json. "running" there, without a process, means that it was killed.

    Args:
        out: the folder of the run.
        name: of this training in that folder.
        steps: updates of the whole training.
        log_every: steps between two lines of the log, at least 1.
        first_step: the first step to do; above 0 when resumed.
        samples_per_step: of all processes together, for the speed.
        earlier_seconds: what the parts before a resume took.
        shown: names of the values in the progress line.
    """

    def __init__(
        self,
        out: Path,
        name: str,
        steps: int,
        log_every: int,
        first_step: int = 0,
        *,
        samples_per_step: int = 1,
        earlier_seconds: float = 0.0,
        shown: Sequence[str] = ("loss",),
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if log_every < 1:
            raise ValueError(f"log_every must be at least 1, got {log_every}")
        self.logs, self.name = out / "logs", name
        self.steps, self.log_every, self.first_step = steps, log_every, first_step
        self.samples_per_step, self.shown = samples_per_step, shown
        self._line: dict[str, str] = {}
        # Not told of a CPU, accelerate takes each process of torchrun for the only one.
        cpu = not torch.accelerator.is_available()
        self.accelerator = Accelerator(cpu=cpu, log_with="tensorboard", project_dir=self.logs)
        self._began = time.perf_counter() - earlier_seconds
        self._done = self._logged = first_step
        self._logged_at = time.perf_counter()
        self._signalled = self._stopping = False
        self._handlers: dict[signal.Signals, Handler] = {}
        self._file: TextIO | None = None

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, the parts before a resume included."""
        return time.perf_counter() - self._began

    @property
    def stop_requested(self) -> bool:
        """Whether SIGTERM or SIGINT came, to any process: ask once a step on every process."""
        if self.world > 1:
            signalled = torch.tensor(float(self._signalled), device=self.device)
            self._signalled = bool(self.accelerator.reduce(signalled, "sum") > 0)
        self._stopping = self._stopping or self._signalled
        return self._stopping

    def __enter__(self) -> "Run":
        if self.is_main:
            self._open_log()
            self._write_status("running")
        self.accelerator.init_trackers(
            self.name, init_kwargs={"tensorboard": {"purge_step": self.first_step}}
        )
        self.bar = tqdm(
            total=self.steps,
            initial=self.first_step,
            desc=self.name,
            unit="step",
            disable=not self.is_main,
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._on_signal)
        self._logged_at = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self.bar.close()
        if self._file:
            self._file.close()
        if error is not None:
            self._write_status("failed", f"{type(error).__name__}: {error}")
            return  # the other processes may be gone: nothing here may wait for them
        unfinished = self._stopping and self._done < self.steps
        self._write_status("preempted" if unfinished else "finished")
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def log(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Say that a step (from 0) is done; every `log_every` steps and at the last, write values.

        Call it after every step on every process. What is written is the mean over processes.
        """
        self._done = step + 1
        self.bar.update(self._done - self.bar.n)
        if self.logs_at(step):
            means = self.mean(values)
            if self.is_main:
                self._write(step, means)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Write values of a step (from 0) that all processes agree on, whenever they come."""
        if self.is_main:
            self._show(values)
            self.accelerator.log(dict(values), step=step)
            finite = {name: x if math.isfinite(x) else None for name, x in values.items()}
            print(json.dumps({"step": step, **finite}), file=self._file, flush=True)

    def logs_at(self, step: int) -> bool:
        """Whether the values of a step (from 0) are written."""
        return step % self.log_every == 0 or step + 1 == self.steps

    def mean(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        """The mean of each value over the processes."""
        numbers = [x.item() if isinstance(x, Tensor) else float(x) for x in values.values()]
        if self.world == 1:
            return dict(zip(values, numbers, strict=True))
        here = torch.tensor(numbers, device=self.device)
        return dict(zip(values, self.accelerator.reduce(here, "mean").tolist(), strict=True))

    def _write(self, step: int, means: Mapping[str, float]) -> None:
        now = time.perf_counter()
        samples = (self._done - self._logged) * self.samples_per_step
        speed = samples / (now - self._logged_at)
        self._logged, self._logged_at = self._done, now
        self.accelerator.log({**means, "samples_per_second": speed}, step=step)
        finite = {name: x if math.isfinite(x) else None for name, x in means.items()}
        times = {"seconds": round(self.seconds, 3), "samples_per_second": round(speed, 3)}
        print(json.dumps({"step": step, **finite, **times}), file=self._file, flush=True)
        self._line["samples/s"] = f"{speed:.1f}"
        self._show(means)

    def _show(self, values: Mapping[str, float]) -> None:
        """Have the progress line show some values until others of their name come."""
        self._line |= {name: f"{values[name]:.4g}" for name in self.shown if name in values}
        self.bar.set_postfix(self._line, refresh=False)

    def _open_log(self) -> None:
        """Open the log for appending, without the lines of steps that will be done again."""
        path = self.logs / f"{self.name}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [f"{line}\n" for line in lines if _step(line) < self.first_step]
        replace_file(path, "".join(kept).encode())
        self._file = path.open("a")

    def _write_status(self, status: Status, error: str | None = None) -> None:
        if self.is_main:
            said = {"status": status, "steps_done": self._done, "steps": self.steps}
            times = {"seconds": round(self.seconds, 3), "error": error}
            path = self.logs / f"{self.name}.status.json"
            replace_file(path, (json.dumps({**said, **times}, indent=1) + "\n").encode())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signalled:
            raise KeyboardInterrupt  # asked twice: now, without saving
        self._signalled = True


def _step(line: str) -> float:
    """The step of a line of the log; a line cut short by a kill is as good as not yet written."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
