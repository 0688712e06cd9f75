"""How far a training has come and how it ended: OUT/logs/NAME.status.json, beside its log."""

import json
import math
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from .files import JSON, replace_file

State = Literal["running", "finished", "preempted", "failed"]
SUFFIX = ".status.json"


@dataclass(frozen=True, kw_only=True)
class Status:
    """Of one training."""

    status: State
    """"running", where the process is gone, means that it was killed."""
    steps_done: int
    steps: int
    seconds: float
    """The parts before a resume included."""
    error: str | None = None
    process: int = 0
    started: int | None = None
    """When the system started this process, in its ticks; None is unknown."""
    host: str = ""

    @property
    def is_killed(self) -> bool:
        """Whether it ended without a word; of another machine's processes nobody knows."""
        if self.status != "running" or self.host != socket.gethostname():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # somebody else's, but there
            pass
        now = start_of(self.process)
        return None not in (now, self.started) and now != self.started  # its number, given anew

    def sentence(self) -> str:
        """Where it stands, in one line."""
        state = "killed" if self.is_killed else self.status
        return f"{state} after {self.steps_done} of {self.steps} steps, {duration(self.seconds)}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def start_of(process: int) -> int | None:
    """When the system started a process, in its ticks; None where it does not say."""
    try:
        said = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    return int(said.rpartition(")")[2].split()[19])  # its name, in brackets, may hold anything


def write_status(logs: Path, name: str, status: Status) -> None:
    """Write the status of a training, of this very process."""
    process = os.getpid()
    own = {"process": process, "started": start_of(process), "host": socket.gethostname()}
    about = {**asdict(status), **own}
    replace_file(logs / f"{name}{SUFFIX}", (json.dumps(about, indent=1) + "\n").encode())


def read_status(path: Path) -> Status:
    """Read the status of a training.

    Raises:
        ValueError: if that is none.
    """
    try:
        found = Status(**json.loads(path.read_bytes()))
        _check(found)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} holds no status of a training: {error}") from error
    return found


def _check(found: Status) -> None:
    numbers = (found.steps_done, found.steps, found.process, found.started or 0)
    if found.status not in get_args(State) or not all(isinstance(x, int) for x in numbers):
        raise ValueError(f"a state and whole numbers are expected, got {found}")
    if not isinstance(found.seconds, int | float) or not math.isfinite(found.seconds):
        raise ValueError(f"seconds must be a number, got {found.seconds}")


def lines_of(log: Path) -> Iterator[Mapping[str, JSON]]:
    """The lines of a training's log; one cut short by a kill is as good as not yet written."""
    for line in log.read_bytes().splitlines() if log.is_file() else ():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            yield found
