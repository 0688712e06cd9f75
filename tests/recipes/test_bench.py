"""A benchmark prints both sides and their ratio, and writes what it prints."""

import json
from pathlib import Path

import pytest

from recipes import bench
from recipes.benchmarks import data
from recipes.benchmarks.case import Case, in_turns
from recipes.engine.cli import run as start


def test_the_benchmark_of_data_measures_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, small in (("SIZE", 32), ("PAIRS", 8), ("BATCH", 4), ("SHARDS", 5)):
        monkeypatch.setattr(data, name, small)
    out = tmp_path / "bench.json"
    start(bench.main, bench.Config, bench.with_what(["data", "--runs=2", f"--json={out}"]))
    cases, said = json.loads(out.read_text()), capsys.readouterr().out
    assert set(cases) == {"read_32px", "open_5_shards"}
    for name, case in cases.items():
        assert {"unit", "commit", "hardware", "command"} < set(case) and case["runs"] == 2
        assert case["ours"] > 0 and case["reference"] > 0 and case["ratio"] > 0
        assert f"{name}: ours " in said


def test_a_ratio_says_how_many_times_better_ours_is() -> None:
    figures = {"name": "x", "unit": "s", "ours": (2.0, 4.0, 1.0), "reference": (8.0, 8.0, 8.0)}
    assert Case(**figures, is_rate=False).ratio == 4
    assert Case(**figures, is_rate=True).ratio == 0.25


def test_the_sides_take_turns_after_one_that_does_not_count() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    case = in_turns("x", "s", lambda: side("a"), lambda: side("b"), 2)
    assert calls == list("ababab")
    assert (case.ours, case.reference) == ((3.0, 5.0), (4.0, 6.0))


def test_no_runs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        start(bench.main, bench.Config, ["--what=data", "--runs=0"])
    assert capsys.readouterr().err == "error: runs must be at least 1, got 0\n"
