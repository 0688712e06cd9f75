"""Start a recipe as a program of its own, on one process or on several that train together."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import IO

from .processes import GONE
from .run import STOPS

Program = subprocess.Popen[bytes]
POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0
"""What the others have to say what they know, when one has failed."""


def launch(recipe: str, arguments: Sequence[str | Path], processes: int = 1) -> int:
    """Run `python -m recipes.RECIPE` and wait for it.

    Several processes find each other as those of `torchrun` do, and share the cores. The first one
    speaks for all; what another says of its failure is shown when the first has none, or only that
    another is gone. When one fails, the others are killed: they would wait for it. A stop is left
    to the trainings, which save first: SIGTERM and SIGUSR1 are passed on, SIGINT a terminal sends
    to all.

    Args:
        recipe: its name.
        arguments: of its command line.
        processes: how many, at least 1.

    Returns:
        The exit code: 0, the first other than 0, or 128 + signal if we were asked to stop.
    """
    command = [sys.executable, "-m", f"recipes.{recipe}", *map(str, arguments)]
    programs: list[Program] = []
    with ExitStack() as stack:
        received = stack.enter_context(signals_passed_on(programs))
        stack.callback(end, programs)
        said = [stack.enter_context(TemporaryFile()) for _ in range(processes - 1)]
        for environment, errors in zip(_environments(processes), [None, *said], strict=True):
            silent = subprocess.DEVNULL if errors else None
            programs.append(
                subprocess.Popen(command, env=environment, stdout=silent, stderr=errors)
            )
        if {*received} - {signal.SIGINT}:  # it came while they were started
            terminate(programs)
        exit_code = _wait(programs)
        if exit_code and not _failed_itself(programs[0]):
            others = zip(programs[1:], said, strict=True)
            _repeat([errors for program, errors in others if _failed_itself(program)])
    return 128 + received[0] if received else exit_code


def _environments(processes: int) -> Iterator[dict[str, str]]:
    if processes == 1:
        yield dict(os.environ)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cores = max(1, len(os.sched_getaffinity(0)) // processes)
    shared = {
        "OMP_NUM_THREADS": str(cores),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    for rank in map(str, range(processes)):
        yield {**shared, "RANK": rank, "LOCAL_RANK": rank}


@contextmanager
def signals_passed_on(programs: Sequence[Program]) -> Iterator[list[int]]:
    """Collect the signals that ask for a stop, and hand on what no terminal sends to all."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number != signal.SIGINT:
            terminate(programs)

    before = {number: signal.signal(number, stop) for number in STOPS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(programs: Sequence[Program]) -> int:
    """Wait for all of them, or a little longer than for the first that fails; its exit code."""
    failed, patience = 0, float("inf")
    while any(program.poll() is None for program in programs) and time.monotonic() < patience:
        if not failed:
            failed = _failure(programs)
            patience = time.monotonic() + GRACE_SECONDS if failed else patience
        time.sleep(POLL_SECONDS)
    return _failure(programs) or failed


def _failure(programs: Sequence[Program]) -> int:
    """The exit code of the first that failed, rather one that says why."""
    failed = sorted((each for each in programs if each.poll()), key=_failed_itself, reverse=True)
    return failed[0].returncode if failed else 0


def _failed_itself(program: Program) -> bool:
    """Whether it ended with an error of its own, and not killed or because another was gone."""
    return (program.poll() or 0) > 0 and program.returncode != GONE


def terminate(programs: Sequence[Program]) -> None:
    """Ask programs to stop."""
    for program in programs:
        program.terminate()


def end(programs: Sequence[Program]) -> None:
    """Stop programs at once, and wait."""
    for program in programs:
        program.kill()
        program.wait()


def _repeat(said: Sequence[IO[bytes]]) -> None:
    for errors in said:
        errors.seek(0)
        sys.stderr.write(errors.read().decode(errors="replace"))
