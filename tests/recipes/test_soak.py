"""A long training with many saves takes no more memory, files or checkpoints than a short one."""

import gc
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipes import train_ar
from recipes.engine.run import Run
from recipes.experiment import Experiment
from recipes.validating import Validation

PAGE = os.sysconf("SC_PAGE_SIZE")
EVERY = 10
"""Steps between two checkpoints."""


def held() -> tuple[int, int]:
    """Bytes of memory and open files of this process, but those of a save that is under way."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return pages * PAGE, sum("checkpoints" not in path.parts for path in files)


def least(found: list[tuple[int, int]]) -> tuple[int, int]:
    """Of a time in which a save began and ended: what it needs for itself is not counted."""
    return min(memory for memory, _ in found), min(files for _, files in found)


@pytest.mark.parametrize(
    ("steps", "warm"),
    [(40, 10), pytest.param(2_000, 200, marks=[pytest.mark.long, pytest.mark.timeout(1200)])],
)
@pytest.mark.parametrize("in_background", [False, True])
def test_memory_and_files_stay_what_they_were(
    in_background: bool,
    steps: int,
    warm: int,
    trained: Experiment,
    forked: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Validation, "measure", lambda *_: {"validation": 0.0})
    shutil.copytree(trained.out, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/ar")
    settings = replace(trained.train_ar, steps=steps, validate_every=steps)
    experiment = replace(
        trained,
        out=tmp_path / "run",
        train_ar=settings,
        checkpoint_every=EVERY,
        checkpoint_keep=3,
        checkpoint_in_background=in_background,
    )
    log, found = Run.log, list[tuple[int, int]]()
    early, late = (range(start, start + EVERY) for start in (warm, steps - 2 * EVERY))

    def work() -> None:
        def watched(self: Run, step: int, values: Any) -> None:
            log(self, step, values)
            if step in (early.start, late.start):
                gc.collect()
            if step in early or step in late:
                found.append(held())

        Run.log = watched  # type: ignore[method-assign]
        train_ar.main(experiment)
        both = least(found[:EVERY]), least(found[EVERY:])
        (tmp_path / "found.json").write_text(json.dumps(both))

    (process,) = forked.start(work)
    assert forked.finish([process], seconds=1000) == [0]
    (memory, files), (memory_then, files_then) = json.loads((tmp_path / "found.json").read_text())
    print(f"{steps} steps: {memory_then / memory - 1:+.2%} memory, {files} and {files_then} files")
    assert memory_then < 1.05 * memory
    assert files_then == files
    saved = sorted(path.name for path in (tmp_path / "run/checkpoints/ar").iterdir())
    assert saved == [f"step-{step:08d}" for step in (steps - 2 * EVERY, steps - EVERY, steps)]
