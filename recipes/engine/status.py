"""How far a training has come and how it ended: OUT/logs/NAME.status.json, beside its log."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

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
            return False
        return False

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


def write_status(logs: Path, name: str, status: Status) -> None:
    """Write the status of a training, of this very process."""
    about = {**asdict(status), "process": os.getpid(), "host": socket.gethostname()}
    replace_file(logs / f"{name}{SUFFIX}", (json.dumps(about, indent=1) + "\n").encode())


def read_status(path: Path) -> Status:
    """Read the status of a training.

    Raises:
        ValueError: if that is none.
    """
    try:
        return Status(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no status of a training: {error}") from error


def lines_of(log: Path) -> Iterator[Mapping[str, JSON]]:
    """The lines of a training's log; one cut short by a kill is as good as not yet written."""
    for line in log.read_text().splitlines() if log.is_file() else ():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            yield found
