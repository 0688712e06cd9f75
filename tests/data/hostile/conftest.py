"""For every hostile file: it is read in time, and nothing is run or written by it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SECONDS = 5.0


@pytest.fixture(autouse=True)
def _harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder beside the one that is read, where no file may appear."""
    (tmp_path / "here").mkdir()
    (tmp_path / "shards").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS
    assert not list((tmp_path / "here").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"here", "shards"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"
