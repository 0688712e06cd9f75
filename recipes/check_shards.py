"""Read every sample of a folder of shards and list what is wrong with it.

    python -m recipes.check_shards DIR

Checks that each shard is whole and the one in DIR/manifest.json (sha256, number of samples), that
every image can be decoded and has its captions, and that no key comes twice in a split. Prints a
line for each defect: shard, key, reason. Exit code 0 if there is none, 1 if there is one.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from data import Counts, find_defects
from recipes.engine.cli import run as start
from recipes.engine.cli import with_folder


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to check."""

    folder: Path
    """Of the shards."""


def main(config: Config) -> None:
    """Read, list, count."""
    good = Counts()
    defects = 0
    for defect in find_defects(config.folder, good):
        line = (defect.shard, defect.key or "-", defect.reason)
        print(*map(_printable, line), sep="\t", flush=True)
        defects += 1
    for split in sorted(good.samples):
        counted = f"{good.samples[split]} samples with {good.captions[split]} captions"
        print(f"{config.folder}: {counted} of {_printable(split)} are good")
    print(f"defects: {defects}")
    if defects:
        raise SystemExit(1)


def _printable(name: str) -> str:
    """A name as a terminal may see it: it comes from a file, and may try to move the cursor."""
    return "".join(x if x.isprintable() else "\N{REPLACEMENT CHARACTER}" for x in name)


if __name__ == "__main__":
    start(main, Config, with_folder(sys.argv[1:]))
