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
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import TextIO

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from torch import Tensor
from tqdm import tqdm

from .files import JSON, replace_file
from .lock import Lock
from .memory import bytes_in_words, peak_memory
from .processes import texts_of_all
from .status import State, Status, lines_of, write_status

Handler = Callable[[int, FrameType | None], object] | int | None
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Signals that ask for a stop: SLURM, for one, is told to send the last before time is up."""


class Run(AbstractContextManager["Run"]):
    """The surroundings of one training loop, the same on one process and on many.

    It writes out/logs/NAME.jsonl (one object a logged step), out/logs/NAME/ (tensorboard),
    out/logs/NAME.status.json (see `Status`) and out/logs/NAME.config.json, and says in one line
    where it stands when it ends. Of one name only one at a time may be under way in a folder.

    Args:
        out: the folder of the run.
        name: of this training in that folder.
        steps: updates of the whole training.
        log_every: steps between two lines of the log, at least 1.
        first_step: the first step to do; above 0 when resumed.
        samples_per_step: of all processes together, for the speed.
        earlier_seconds: what the parts before a resume took.
        shown: names of the values in the progress line.
        config: all settings, to be found beside the log.
        tracker: of accelerate's, by name.
        preempted_code: the exit code of a program that was asked to stop and saved; 0 leaves the
            program to end by itself.

    Raises:
        ValueError: for steps that cannot be, a tracker that is not installed, or, when it is
            entered, another run of this name that is under way in `out`.
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
        config: Mapping[str, JSON] | None = None,
        tracker: str = "tensorboard",
        preempted_code: int = 0,
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if log_every < 1:
            raise ValueError(f"log_every must be at least 1, got {log_every}")
        trackers = [str(each) for each in get_available_trackers()]
        if tracker not in trackers:
            raise ValueError(f"tracker must be installed, one of {trackers}, got {tracker!r}")
        self.logs, self.name = out / "logs", name
        self.steps, self.log_every, self.first_step = steps, log_every, first_step
        self.samples_per_step, self.shown = samples_per_step, shown
        self._line: dict[str, str] = {}
        self.config, self.tracker, self.preempted_code = config, tracker, preempted_code
        # Not told of a CPU, accelerate takes each process of torchrun for the only one.
        cpu = not torch.accelerator.is_available()
        self.accelerator = Accelerator(cpu=cpu, log_with=tracker, project_dir=self.logs)
        self._began = time.perf_counter() - earlier_seconds
        self._done = self._logged = first_step
        self._logged_at = time.perf_counter()
        self._signalled = self._stopping = False
        self._asked_at = -1
        self._lock = Lock(self.logs / f".{name}.lock")
        self._handlers: dict[signal.Signals, Handler] = {}
        self._file: TextIO | None = None

    @property
    def log_path(self) -> Path:
        """Of the log, whose lines are JSON."""
        return self.logs / f"{self.name}.jsonl"

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
        """Whether one of `STOPS` came, to any process: one answer a step, so ask on all of them."""
        if self._asked_at != self._done:
            self._asked_at = self._done
            signalled = self._signalled  # which a signal may set while the processes talk
            if self.world > 1:
                here = torch.tensor(float(signalled), device=self.device)
                signalled = bool(self.accelerator.reduce(here, "sum") > 0)
            self._stopping = self._stopping or signalled
        return self._stopping

    def __enter__(self) -> "Run":
        self._be_the_only_one()
        if self.is_main:
            self._open_log()
            self._write_status("running")
        # Else tensorboard shows the steps twice that are done again.
        purge = {"tensorboard": {"purge_step": self.first_step}}
        self.accelerator.init_trackers(
            self.name, init_kwargs=purge if self.tracker == "tensorboard" else {}
        )
        self.bar = tqdm(
            total=self.steps,
            initial=self.first_step,
            desc=self.name,
            unit="step",
            disable=not self.is_main,
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
        for number in STOPS:
            self._handlers[number] = signal.signal(number, self._on_signal)
        self._logged_at = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._end(error)
        finally:  # at last: a second signal must not end what the first has begun
            for number, handler in self._handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)
            self._lock.release()

    def _end(self, error: BaseException | None) -> None:
        """Say how it ended, and end the process where another exit code is wanted."""
        self.bar.close()
        if error is not None:
            with suppress(OSError):  # of a full disk, which must not hide what happened
                self._close_log()
            with suppress(OSError):
                self._write_status("failed", f"{type(error).__name__}: {error}")
            return  # the other processes may be gone: nothing here may wait for them
        self._close_log()
        unfinished = self._stopping and self._done < self.steps
        self._write_status("preempted" if unfinished else "finished")
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        if unfinished and self.preempted_code:
            raise SystemExit(self.preempted_code)

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
            self._append(step, values)

    def has_recorded(self, step: int, name: str) -> bool:
        """Whether the log has a value of this name of a step (from 0); ask on every process."""
        lines = lines_of(self.log_path) if self.is_main else ()
        found = any(line["step"] == step and name in line for line in lines)
        return str(True) in texts_of_all(str(found))

    def sync(self) -> None:
        """Return only when the lines of the log are on the disk, and the tracker has its own."""
        if self._file:
            os.fsync(self._file.fileno())
        if self.tracker == "tensorboard":
            self.accelerator.get_tracker("tensorboard", unwrap=True).flush()

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
        times = {"seconds": round(self.seconds, 3), "samples_per_second": round(speed, 3)}
        self._append(step, {**means, **times})
        self._line["samples/s"] = f"{speed:.1f}"
        self._line["peak"] = bytes_in_words(peak_memory(self.device))
        self._show(means)

    def _append(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line of the log; what is no number is null there."""
        finite = {name: x if math.isfinite(x) else None for name, x in values.items()}
        try:
            print(json.dumps({"step": step, **finite}), file=self._file, flush=True)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.log_path)) from error

    def _close_log(self) -> None:
        if self._file:
            self._file.close()

    def _show(self, values: Mapping[str, float]) -> None:
        """Have the progress line show some values until others of their name come."""
        self._line |= {name: f"{values[name]:.4g}" for name in self.shown if name in values}
        self.bar.set_postfix(self._line, refresh=False)

    def _be_the_only_one(self) -> None:
        """Refuse, on all processes, where another run of this name is under way."""
        taken = self.is_main and not self._lock.acquire()
        if str(True) in texts_of_all(str(taken)):
            raise ValueError(
                f"a training {self.name} is under way in {self.logs.parent}: wait for its end, or "
                "give another out"
            )

    def _open_log(self) -> None:
        """Open the log for appending, without the lines of steps that will be done again."""
        path = self.log_path
        kept = [
            f"{json.dumps(line)}\n" for line in lines_of(path) if line["step"] < self.first_step
        ]
        replace_file(path, "".join(kept).encode())
        if self.config is not None:
            said = json.dumps(self.config, indent=1, ensure_ascii=False) + "\n"
            replace_file(self.logs / f"{self.name}.config.json", said.encode())
        self._file = path.open("a")

    def _write_status(self, state: State, error: str | None = None) -> None:
        if not self.is_main:
            return
        status = Status(
            status=state,
            steps_done=self._done,
            steps=self.steps,
            seconds=round(self.seconds, 3),
            error=error,
        )
        if state != "running":
            said = " ".join(str(error).split())
            hint = {"preempted": ": --resume goes on", "failed": f": {said}"}.get(state, "")
            print(f"{self.name} {status.sentence()}{hint}", flush=True)
        write_status(self.logs, self.name, status)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signalled:
            raise KeyboardInterrupt  # asked twice: now, without saving
        self._signalled = True
