"""The index of a shard is loaded from several threads."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.member_index import load_index, row_type, save_index


def test_two_threads_never_parse_a_header_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_index(tmp_path / "a.npy", np.zeros(3, row_type(4)))
    load, at_once, seen = np.load, [], []

    def slow_load(*arguments: Any, **options: Any) -> Any:
        at_once.append(1)
        seen.append(len(at_once))
        time.sleep(0.01)
        at_once.pop()
        return load(*arguments, **options)

    monkeypatch.setattr(np, "load", slow_load)
    with ThreadPoolExecutor(4) as pool:
        assert [len(rows) for rows in pool.map(load_index, [tmp_path / "a.npy"] * 8)] == [3] * 8
    assert seen == [1] * 8
