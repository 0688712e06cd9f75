"""Jobs next to each other: all are done, one that fails stops the others."""

from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from recipes.engine.side_by_side import Job, run_side_by_side


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `recipes.trial` is what a test writes to `trial.py`."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "recipes" / "trial.py"


def job(name: str, *arguments: str) -> Job:
    recipes = deque(("trial", argument) for argument in arguments)
    return Job(name=name, log=Path(name) / "output.txt", recipes=recipes)


def test_every_recipe_of_every_job_is_run_in_order(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text("import sys; print(sys.argv[1])")
    assert run_side_by_side([job("a", "1", "2"), job("b", "3"), job("c", "4")], at_once=2) == 0
    assert [Path(name, "output.txt").read_text() for name in "abc"] == ["1\n2\n", "3\n", "4\n"]
    assert {line.split(":")[0] for line in capfd.readouterr().out.splitlines()} == {"a", "b", "c"}


def test_after_an_exit_code_that_is_good_for_it_a_job_goes_on(recipe: Path) -> None:
    recipe.write_text("import sys; print(sys.argv[1]); sys.exit(4 if sys.argv[1] == '4' else 0)")
    lenient = replace(job("a", "4", "2"), good=(0, 4))
    assert run_side_by_side([lenient], at_once=1) == 0
    assert Path("a", "output.txt").read_text() == "4\n2\n"
    assert run_side_by_side([job("b", "4", "2")], at_once=1) == 4


def test_one_that_fails_is_shown_and_stops_the_others(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(
        "import sys, time\nif sys.argv[1] == 'fail': sys.exit('error: no such thing')\n"
        "time.sleep(600)\n"
    )
    assert run_side_by_side([job("a", "fail"), job("b", "wait"), job("c", "wait")], at_once=2) == 1
    assert "a failed:\nerror: no such thing" in capfd.readouterr().err
    assert not Path("c").exists()
