"""Run many recipes on one machine, some next to each other, each with a log of its own."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from .launch import POLL_SECONDS, Program, end, signals_passed_on, terminate

TAIL = 2000
"""Characters of the log of a failed program that are shown."""


@dataclass(kw_only=True)
class Job:
    """Recipes to run one after the other."""

    name: str
    log: Path
    """File for all that they print."""
    recipes: deque[Sequence[str]]
    """Each with its arguments: `("evaluate", "--out=x")`."""
    good: tuple[int, ...] = (0,)
    """Exit codes after which it goes on."""
    began: float | None = field(default=None, init=False)


def run_side_by_side(jobs: Sequence[Job], at_once: int) -> int:
    """Run all jobs, `at_once` of them next to each other, sharing the cores, until one fails.

    A line says when a recipe of a job is done. Of one that fails the end of the log is shown, and
    the others are stopped; trainings save before they stop. SIGTERM and SIGUSR1 are passed on.

    Returns:
        The exit code: 0, that of the one that failed, or 128 + signal if we were asked to stop.
    """
    waiting = deque(jobs)
    going: dict[Program, Job] = {}
    programs: list[Program] = []
    with ExitStack() as stack:
        received = stack.enter_context(signals_passed_on(programs))
        stack.callback(end, programs)
        while (waiting or going) and not received:
            while waiting and len(going) < at_once:
                _go_on(waiting.popleft(), going, programs, at_once)
            time.sleep(POLL_SECONDS)
            for program in [each for each in going if each.poll() is not None]:
                job = going.pop(program)
                programs.remove(program)
                if program.returncode not in job.good:
                    print(f"{job.name} failed:\n{_tail(job.log)}", file=sys.stderr, flush=True)
                    _stop(programs)
                    return program.returncode
                _go_on(job, going, programs, at_once)
        if received:
            _stop(programs)
    return 128 + received[0] if received else 0


def _go_on(job: Job, going: dict[Program, Job], programs: list[Program], at_once: int) -> None:
    """Start the next recipe of a job, or say that it is done."""
    job.began = job.began or time.perf_counter()
    if not job.recipes:
        print(f"{job.name}: {time.perf_counter() - job.began:.0f} s", flush=True)
        return
    recipe, *arguments = job.recipes.popleft()
    threads = max(1, len(os.sched_getaffinity(0)) // at_once)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        program = subprocess.Popen(
            [sys.executable, "-m", f"recipes.{recipe}", *arguments],
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    programs.append(program)
    going[program] = job


def _stop(programs: Sequence[Program]) -> None:
    """Let what runs save, and wait for it."""
    terminate(programs)
    for program in programs:
        program.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-TAIL:].strip()
