"""What comparisons share: intervals over seeds, how they are said, and what is refused."""

import json
from pathlib import Path

import pytest

from recipes.comparison import Compared, check_arms, first_runs, made_by
from recipes.intervals import cell, interval, number, plus_minus


def test_three_seeds_reach_as_far_as_students_t_says() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2
    assert found["high"] - 2 == pytest.approx(4.303 / 3**0.5)
    assert found["low"] + found["high"] == pytest.approx(4)


def test_one_seed_has_no_interval() -> None:
    assert interval([0.5]) == {"mean": 0.5, "low": None, "high": None, "seeds": [0.5]}


def test_a_mean_is_said_with_half_of_its_interval() -> None:
    value = {"mean": 0.25, "low": 0.15, "high": 0.35}
    assert plus_minus(value) == "0.250 ± 0.100"
    assert plus_minus(value, 100, 1) == "25.0 ± 10.0"
    assert plus_minus({"mean": 12.345, "low": None, "high": None}) == "12.3"
    assert cell(None) is None and number(-3.0) == "-3.000"


def test_the_first_seed_of_each_arm_stands_for_it() -> None:
    assert first_runs([("a", 3), ("b", 3), ("a", 0)]) == [("a", 3), ("b", 3)]


def test_runs_of_several_commits_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(run: str, trained: str, measured: str) -> Path:
        folder = tmp_path / run
        (folder / "pair/ar").mkdir(parents=True)
        about = {"commit": trained, "hardware": {"cpu": "one", "gpu": None}}
        (folder / "pair/ar/training.json").write_text(json.dumps({"made_with": about}))
        about = {"commit": measured, "hardware": {"cpu": "other", "gpu": "third"}}
        (folder / "evaluation.json").write_text(json.dumps(about))
        return folder

    runs = [measure("a-0", "1", "2"), measure("a-1", "1", "3")]
    assert made_by(runs[:1]) == {
        "trained": ["1"],
        "measured": ["2"],
        "hardware": ["one", "third"],
    }
    assert not capsys.readouterr().out
    assert made_by(runs)["measured"] == ["2", "3"]
    assert capsys.readouterr().out == "runs were measured at 2 commits: 2, 3\n"


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="arms must be among a, b, got 'c'"):
        check_arms(["a", "c"], ("a", "b"))
    with pytest.raises(ValueError, match="seeds must hold at least one, got none"):
        Compared(seeds=())
    with pytest.raises(ValueError, match=r"dry_run is of the trainings, .* got true"):
        Compared(dry_run=True)
