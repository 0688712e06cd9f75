"""The controls of the measure of orders, run as a program runs them."""

import json
from pathlib import Path

import pytest

from ar.evaluation import Schooling
from recipes import order_controls
from recipes.order_controls import Controls, measured


def test_a_tiny_run_prints_a_table_and_writes_where_it_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = Controls(
        out=tmp_path,
        controls=("letters",),
        tokens=4,
        channels=2,
        train_count=64,
        test_count=32,
        seeds=(0, 1),
        schooling=Schooling(steps=3),
    )
    order_controls.main(tiny)
    written = json.loads((tmp_path / "controls.json").read_text())
    assert list(written["results"]) == ["letters"] and written["seeds"] == [0, 1]
    assert len(written["results"]["letters"]["position told above chance"]["seeds"]) == 2
    assert written["config"]["tokens"] == 4 and written["versions"]["torch"]
    assert "| letters" in capsys.readouterr().out


def test_an_unknown_control_is_refused() -> None:
    with pytest.raises(ValueError, match=r"among stationary, .*, letters, got 'raster'"):
        Controls(controls=("raster",))
    with pytest.raises(ValueError, match="at least one, got none"):
        Controls(controls=())
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        Controls(tokens=0)
    with pytest.raises(ValueError, match="test_count must be at least 1, got -1"):
        Controls(test_count=-1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Schooling(steps=0)
    with pytest.raises(ValueError, match="learning_rate must be above 0, got nan"):
        Schooling(learning_rate=float("nan"))
    with pytest.raises(ValueError, match="seeds must hold at least one, got none"):
        Controls(seeds=())


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_control_comes_out_right() -> None:
    controls = Controls()
    found = {each: measured(controls, each, 0)["equivariance"] for each in controls.controls}
    assert found["stationary"]["eq"] > 0.85
    assert found["turned"]["eq"] < 0.55 and found["flipped"]["eq"] < 0.65
    assert found["letters"]["eq"] > 0.75
    assert found["exchanged"]["eq"] is None and found["exchanged"]["gain"]["mean"] < 0.005
