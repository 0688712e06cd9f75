"""Every recipe starts as a program and says what it does."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

RECIPES = sorted(
    path
    for path in (Path(__file__).parents[2] / "recipes").glob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_helps(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code in (0, None)
    what = ast.get_docstring(ast.parse(path.read_text())) or ""
    said = capsys.readouterr().out
    assert what.splitlines()[0] in said and f"python -m recipes.{path.stem}" in said
