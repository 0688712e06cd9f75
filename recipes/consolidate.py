"""Write the newest checkpoint of a folder again as a whole one, however many processes wrote it.

    python -m recipes.consolidate runs/mine/checkpoints/orderer --out=runs/alone/checkpoints/orderer

A model that is shared out is saved in parts, see `recipes.engine.parts`. A training goes on from
such a checkpoint as it is, on any number of processes; this is for whoever wants one file a model,
with one tensor for each weight.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from recipes.engine.checkpoint import load_latest, save_checkpoint
from recipes.engine.cli import run as start
from recipes.engine.cli import with_folder


@dataclass(frozen=True, kw_only=True)
class Consolidation:
    """What becomes what."""

    folder: Path
    """Of the checkpoints of one training, as they lie in OUT/checkpoints."""
    out: Path
    """Folder of the whole one, which is not there yet."""


def main(consolidation: Consolidation) -> None:
    """Read, check, write."""
    if consolidation.out.exists():
        raise ValueError(f"{consolidation.out} is there already")
    found = load_latest(consolidation.folder)
    if found is None:
        raise ValueError(f"there is no checkpoint in {consolidation.folder}")
    path = save_checkpoint(consolidation.out, found.step, found.tensors, found.state)
    print(f"{path}: {', '.join(found.tensors)}")


if __name__ == "__main__":
    start(main, Consolidation, with_folder(sys.argv[1:]))
