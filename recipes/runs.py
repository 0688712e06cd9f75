"""List the trainings of runs: how far each is, how it ended, and the best that it measured.

    python -m recipes.runs
    python -m recipes.runs runs/emoji runs/flickr8k

Looks for trainings in the folders, and in the folders in them, `runs` by default. Killed is one
whose process is gone without a word: the same command with `--resume` goes on. The best is the
least validation loss of the log, or the least loss where there is no validation.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.engine.cli import run as start
from recipes.engine.cli import with_words
from recipes.engine.page import Table, markdown_table
from recipes.engine.status import SUFFIX, duration, lines_of, read_status

MEASURES = ("validation", "validation_ema"), ("loss",)
"""Of which the first that a log has are looked at."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where to look."""

    folders: tuple[Path, ...] = (Path("runs"),)
    """Of runs, or of many of them."""


def main(config: Config) -> None:
    """Find, print."""
    found = sorted({path for folder in config.folders for path in statuses_in(folder)})
    if not found:
        raise ValueError(f"no training has left a status in {', '.join(map(str, config.folders))}")
    columns = ("run", "training", "state", "step", "of", "time", "best", "at step")
    print(markdown_table(Table(columns=columns, rows=[row_of(path) for path in found])))


def statuses_in(folder: Path) -> Iterator[Path]:
    """The status of every training of a run, or of the runs in a folder."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    for pattern in (f"logs/*{SUFFIX}", f"*/logs/*{SUFFIX}"):
        yield from folder.glob(pattern)


def row_of(path: Path) -> Sequence[str | int]:
    """What the table says of one training."""
    status, name = read_status(path), path.name.removesuffix(SUFFIX)
    best, step = best_of(path.with_name(f"{name}.jsonl"))
    state = "killed" if status.is_killed else status.status
    run = str(path.parents[1])
    return run, name, state, status.steps_done, status.steps, duration(status.seconds), best, step


def best_of(log: Path) -> tuple[str, str]:
    """The least of what a log measured, by name, and at which step (from 0)."""
    lines = list(lines_of(log))
    for names in MEASURES:
        found = [
            (float(line[name]), name, line["step"])
            for line in lines
            for name in names
            if isinstance(line.get(name), int | float) and math.isfinite(line[name])
        ]
        if found:
            value, name, step = min(found)
            return f"{name} {value:.4f}", str(step)
    return "", ""


if __name__ == "__main__":
    start(main, Config, with_words(sys.argv[1:], "folders"))
