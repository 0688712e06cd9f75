"""Start a recipe as a program of its own, on one process or on several that train together."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

Program = subprocess.Popen[bytes]
POLL_SECONDS = 0.2


def launch(recipe: str, arguments: Sequence[str | Path], processes: int = 1) -> int:
    """Run `python -m recipes.RECIPE` and wait for it.

    Several processes find each other as those of `torchrun` do, and share the cores; the first one
    speaks for all. When one fails, the others are killed: they would wait for it. A stop is left to
    the trainings, which save first: SIGTERM is passed on, SIGINT a terminal sends to all.

    Args:
        recipe: its name.
        arguments: of its command line.
        processes: how many, at least 1.

    Returns:
        The exit code: 0, the first other than 0, or 128 + signal if we were asked to stop.
    """
    command = [sys.executable, "-m", f"recipes.{recipe}", *map(str, arguments)]
    programs = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL if rank else None)
        for rank, environment in enumerate(_environments(processes))
    ]
    with _signals_passed_on(programs) as received:
        exit_code = _wait(programs)
    return 128 + received[0] if received else exit_code


def _environments(processes: int) -> Iterator[dict[str, str]]:
    if processes == 1:
        yield dict(os.environ)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
    }
    for rank in map(str, range(processes)):
        yield {**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}


@contextmanager
def _signals_passed_on(programs: Sequence[Program]) -> Iterator[list[int]]:
    """Collect the signals that come, and hand SIGTERM on."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGTERM:
            for program in programs:
                program.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(programs: Sequence[Program]) -> int:
    while True:
        codes = [program.poll() for program in programs]
        failed = next((code for code in codes if code), 0)
        if failed:
            for program in programs:
                program.kill()
        if failed or None not in codes:
            return failed
        time.sleep(POLL_SECONDS)
