"""What a person sees: the list of runs, a dry run, and the line at the end."""

import json
import math
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipes import evaluate, fit_order, runs, train_ar, train_joint, train_orderer, write_tokens
from recipes.engine.cli import run as start
from recipes.engine.cli import with_words
from recipes.engine.run import Run
from recipes.engine.status import Status, duration, write_status
from recipes.experiment import Experiment


def table(capsys: pytest.CaptureFixture[str], *folders: Path) -> list[list[str]]:
    start(runs.main, runs.Config, with_words([str(folder) for folder in folders], "folders"))
    _, _, *rows = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def leave(out: Path, name: str, state: str, process: int, *lines: dict[str, Any]) -> None:
    """Leave what a training on this machine leaves, of another process."""
    write_status(out / "logs", name, Status(status=state, steps_done=3, steps=9, seconds=61))  # type: ignore[arg-type]
    path = out / f"logs/{name}.status.json"
    found = json.loads(path.read_text())
    assert found["process"] == os.getpid() and found["host"] == socket.gethostname()
    path.write_text(json.dumps({**found, "process": process}))
    log = "".join(f"{json.dumps({'step': step, **line})}\n" for step, line in enumerate(lines))
    (out / f"logs/{name}.jsonl").write_text(log + '{"step": 9, "lo')


def gone() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_every_training_is_listed_with_its_state_and_its_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(tmp_path / "a", "ar", "running", gone(), {"loss": 1.0, "validation": 3.0}, {"loss": 0.5},
          {"validation": 2.5, "validation_ema": 2.0})  # fmt: skip
    leave(tmp_path / "a", "orderer", "running", os.getpid(), {"loss": 1.0}, {"loss": None})
    leave(tmp_path / "b", "joint", "preempted", 1)
    expected = [
        [str(tmp_path / "a"), "ar", "killed", "3", "9", "1 min 1 s", "validation_ema 2.0000", "2"],
        [str(tmp_path / "a"), "orderer", "running", "3", "9", "1 min 1 s", "loss 1.0000", "0"],
        [str(tmp_path / "b"), "joint", "preempted", "3", "9", "1 min 1 s", "", ""],
    ]
    assert table(capsys, tmp_path) == expected
    assert table(capsys, tmp_path / "a", tmp_path / "b") == expected


@pytest.mark.parametrize(
    "changes", [{"seconds": None}, {"seconds": math.inf}, {"process": "abc"}, {"status": "gone"}]
)
def test_a_status_that_is_none_is_refused_by_its_name(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    leave(tmp_path, "ar", "running", 1)
    path = tmp_path / "logs/ar.status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=f"{path} holds no status of a training"):
        runs.row_of(path)


def test_lines_of_a_log_that_are_none_are_skipped(tmp_path: Path) -> None:
    log = tmp_path / "ar.jsonl"
    log.write_bytes(b'\xff\n{"step": 0, "loss": 1.0}\n' + b"[" * 200_000 + b"\n")
    assert runs.best_of(log) == ("loss 1.0000", "0")


def test_a_process_that_only_has_the_number_of_one_that_is_gone_does_not_run_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(tmp_path / "a", "ar", "running", os.getpid())
    path = tmp_path / "a/logs/ar.status.json"
    found = json.loads(path.read_text())
    for started, state in ((found["started"], "running"), (found["started"] - 1, "killed"),
                           (None, "running")):  # fmt: skip
        path.write_text(json.dumps({**found, "started": started}))
        assert table(capsys, tmp_path)[0][2] == state


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [("nowhere", "there is no folder"), (".", "no training has left a status in")],
)
def test_where_there_is_none_is_refused(
    folder: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        table(capsys, tmp_path / folder)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence} {tmp_path / folder}")


def test_what_is_no_status_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/ar.status.json").write_text('{"status": "fine"}')
    with pytest.raises(SystemExit):
        table(capsys, tmp_path)
    assert "ar.status.json holds no status of a training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (61, "1 min 1 s"), (3_661, "1 h 1 min")]
)
def test_seconds_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_run_says_in_one_line_where_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run(tmp_path, "toy", 1, 1) as run:
        run.log(0, {"loss": 1.0})
    with pytest.raises(RuntimeError), Run(tmp_path, "toy", 10, 1) as run:
        run.log(0, {"loss": 1.0})
        raise RuntimeError("out of luck")
    finished, failed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"toy finished after 1 of 1 steps, \d+ s", finished)
    assert re.fullmatch(r"toy failed after 1 of 10 steps, \d+ s: RuntimeError: out of luck", failed)


def test_the_bar_shows_loss_speed_time_left_and_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run(tmp_path, "toy", 2, 1, samples_per_step=8) as run:
        for step in range(2):
            run.log(step, {"loss": 0.25})
    last = capsys.readouterr().err.split("\r")[-1]
    assert "loss=0.25" in last and "samples/s=" in last and "<" in last
    assert re.search(r"peak=[\d.]+ .?B", last)


def test_all_settings_lie_beside_the_log(trained: Experiment) -> None:
    for name in ("orderer", "ar", "joint"):
        settings = json.loads((trained.out / f"logs/{name}.config.json").read_text())
        assert settings["train_ar"]["steps"] == 4 and settings["out"] == str(trained.out)


@pytest.mark.parametrize("recipe", [fit_order, write_tokens, evaluate])
def test_what_only_a_training_says_before_is_refused_elsewhere(
    recipe: Any, trained: Experiment
) -> None:
    with pytest.raises(ValueError, match=r"dry_run is of the trainings, .* got true"):
        recipe.main(replace(trained, dry_run=True))


def test_a_tracker_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tracker must be installed, one of .*tensorboard.*'aim'"):
        Run(tmp_path, "toy", 1, 1, tracker="aim")


@pytest.mark.parametrize("stage", [train_orderer, train_ar, train_joint])
def test_a_dry_run_says_what_would_happen_and_does_nothing(
    stage: Any, trained: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.stat().st_mtime_ns for path in trained.out.rglob("*"))
    stage.main(replace(trained, dry_run=True, resume=True))
    said = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert said["steps"].strip().startswith("4 to 4, checkpoints in ")
    assert said["processes"].strip() == "1, replicated, on cpu"
    assert said["batch"].strip() == "16 samples, 16 a process, in 1 micro-batches of 16"
    assert (
        said["pairs"].strip() == ("56, 3.5" if stage is train_ar else "64, 4") + " steps an epoch"
    )
    count, learning = (int(part.split()[-2 if "learn" in part else -1].replace(",", ""))
                       for part in said["parameters"].strip().split(", of which "))  # fmt: skip
    assert 10_000 < learning <= count
    assert " kB a process" in said["memory"] or " MB a process" in said["memory"]
    assert sorted(path.stat().st_mtime_ns for path in trained.out.rglob("*")) == before
    with pytest.raises(ValueError, match="tracker must be installed"):
        stage.main(replace(trained, dry_run=True, resume=True, tracker="aim"))
