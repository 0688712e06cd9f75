"""Trainings that are killed, stopped or left alone by another process, as real processes.

The long forms do the same at many more points.
"""

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recipes import train_ar, train_joint, train_orderer
from recipes.engine import saving, training
from recipes.engine.checkpoint import load_latest
from recipes.engine.cli import run
from recipes.engine.processes import GONE
from recipes.engine.run import STOPS, Run
from recipes.experiment import Experiment
from recipes.validating import Validation

NAMES = {train_orderer: "orderer", train_ar: "ar", train_joint: "joint"}
stages = pytest.mark.parametrize("stage", NAMES, ids=list(NAMES.values()))
SECONDS = 60
OPERATIONS = 12
"""Of files in a save, about."""

Start = Callable[[str, ModuleType, int], Experiment]


@pytest.fixture(autouse=True)
def _quick_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likelihoods take longer than all steps."""
    monkeypatch.setattr(Validation, "measure", lambda *_: {"validation": 0.0})


@pytest.fixture
def start(trained: Experiment, tmp_path: Path) -> Start:
    """Makes ready what a stage of some steps reads, in a folder of that name."""

    def begin(name: str, stage: ModuleType, steps: int) -> Experiment:
        shutil.copytree(trained.out, tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoints" / NAMES[stage])
        (tmp_path / name / f"logs/{NAMES[stage]}.jsonl").unlink()
        field = stage.__name__.rpartition(".")[2]
        settings = replace(getattr(trained, field), steps=steps)
        return replace(trained, out=tmp_path / name, **{field: settings})

    return begin


def saved_in(stage: ModuleType, out: Path) -> dict[str, bytes]:
    newest = max((out / "checkpoints" / NAMES[stage]).iterdir())
    found = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
    assert len(found) >= 3
    return {**found, "step": newest.name.encode()}


def status_of(stage: ModuleType, out: Path) -> dict[str, Any]:
    return json.loads((out / f"logs/{NAMES[stage]}.status.json").read_text())


def lines_in(stage: ModuleType, out: Path) -> int:
    log = out / f"logs/{NAMES[stage]}.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def wait_for_lines(stage: ModuleType, out: Path, lines: int) -> None:
    patience = time.monotonic() + SECONDS
    while lines_in(stage, out) < lines:
        assert time.monotonic() < patience
        time.sleep(0.005)


def die_in_a_save(saves: int, operation: int) -> None:
    """Have this process killed at a file operation of a save, after some whole saves."""
    save, inside, left = saving.save_checkpoint, [False], [saves, operation]

    def counted_save(*arguments: Any, **named: Any) -> Path:
        inside[0] = left[0] <= 0
        left[0] -= 1
        path = save(*arguments, **named)
        inside[0] = False
        return path

    def counted(original: Any) -> Any:
        def operate(*arguments: Any, **named: Any) -> Any:
            if inside[0]:
                left[1] -= 1
                if left[1] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **named)

        return operate

    saving.save_checkpoint = counted_save
    for name in ("mkdir", "fsync", "rename", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))


def die_in_a_step(moment: float) -> None:
    """Have this process killed in its third step or the save after it, which take as long as those
    of the second: `moment` is the share of that time. It goes no further."""
    log, times = Run.log, list[float]()

    def counted(self: Run, step: int, values: Any) -> None:
        log(self, step, values)
        times.append(time.monotonic())
        if len(times) == 2:
            delay = moment * (times[1] - times[0])
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif len(times) == 4:
            time.sleep(SECONDS)

    Run.log = counted  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(recipe, id=name, marks=[] if name == "joint" else [pytest.mark.long])
        for recipe, name in NAMES.items()
    ],
)
@pytest.mark.parametrize(
    ("inside", "anywhere"),
    [(2, 1), pytest.param(17, 33, marks=[pytest.mark.long, pytest.mark.timeout(1200)])],
)
def test_a_training_that_is_killed_restarts_by_itself_and_ends_in_the_same_bits(
    stage: ModuleType, inside: int, anywhere: int, start: Start, forked: Any, caplog: Any
) -> None:
    steps = 3 * (inside + anywhere) + 4
    whole = start("whole", stage, steps)
    assert forked.run(lambda: stage.main(whole)) == [0]
    cut = replace(start("cut", stage, steps), checkpoint_every=1, resume=True)
    draw, reached = random.Random(0), 0

    def work(die: Callable[[], None]) -> None:
        die()
        stage.main(cut)

    for is_inside in draw.sample([True] * inside + [False] * anywhere, inside + anywhere):
        save = partial(die_in_a_save, 1, draw.randrange(OPERATIONS))
        die = save if is_inside else partial(die_in_a_step, draw.random())
        assert forked.run(partial(work, die)) == [-signal.SIGKILL]
        found = load_latest(cut.out / "checkpoints" / NAMES[stage])
        before, reached = reached, found.step if found else 0
        assert before <= reached < steps and "refused" not in caplog.text
    print(f"{inside + anywhere} kills, {inside} of them inside a save, up to step {reached}")
    assert forked.run(lambda: stage.main(cut)) == [0]
    assert saved_in(stage, cut.out) == saved_in(stage, whole.out)


def expect_signal(out: Path, number: signal.Signals, steps: int, delay: float) -> None:
    """Have a signal come to this process some seconds after some steps, or else after the next one,
    and note when it came."""
    log, hear, left, heard = Run.log, Run._on_signal, iter(range(steps)), threading.Event()

    def counted(self: Run, step: int, values: Any) -> None:
        log(self, step, values)
        match next(left, None):
            case None:
                assert heard.wait(SECONDS)
            case last if last == steps - 1:
                threading.Timer(delay, os.kill, (os.getpid(), number)).start()

    def noted(self: Run, number: int, frame: Any) -> None:
        (out / "heard").write_text(str(self._done))
        hear(self, number, frame)
        heard.set()

    Run.log, Run._on_signal = counted, noted  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("stage", "world", "times"),
    [
        (train_ar, 1, 2),
        (train_orderer, 2, 1),
        *(
            pytest.param(stage, world, 20, marks=[pytest.mark.long, pytest.mark.timeout(1200)])
            for stage in NAMES
            for world in (1, 2)
        ),
    ],
)
def test_a_signal_to_one_process_saves_on_all_within_a_step(
    stage: ModuleType, world: int, times: int, start: Start, forked: Any
) -> None:
    steps = 6 * times + 6
    whole = start("whole", stage, steps)
    assert forked.run(lambda: stage.main(whole), world) == [0] * world
    cut = start("cut", stage, steps)
    draw = random.Random(world)

    def work(experiment: Experiment, whose: int, *when: Any) -> None:
        if int(os.environ.get("RANK", "0")) == whose:
            expect_signal(experiment.out, *when)
        stage.main(experiment)

    for number in range(times):
        when = STOPS[number % len(STOPS)], draw.randrange(1, 4), draw.uniform(0, 0.05)
        stopped = partial(work, cut, draw.randrange(world), *when)
        assert forked.run(stopped, world) == [0] * world
        status = status_of(stage, cut.out)
        assert status["status"] == "preempted"
        assert status["steps_done"] - int((cut.out / "heard").read_text()) in (0, 1)
        found = load_latest(cut.out / "checkpoints" / NAMES[stage])
        assert found is not None and found.step == status["steps_done"]
        cut = replace(cut, resume=True)
    assert forked.run(lambda: stage.main(cut), world) == [0] * world
    assert saved_in(stage, cut.out) == saved_in(stage, whole.out)


def test_the_exit_code_of_a_training_that_was_stopped_is_a_setting(
    start: Start, forked: Any
) -> None:
    cut = replace(start("cut", train_ar, 10_000), preempted_code=75)
    processes = forked.start(lambda: train_ar.main(cut))
    wait_for_lines(train_ar, cut.out, 2)
    os.kill(processes[0].pid, signal.SIGUSR1)
    assert forked.finish(processes) == [75]
    assert status_of(train_ar, cut.out)["status"] == "preempted"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "stalled"])
def test_a_process_does_not_wait_for_one_that_is(
    number: signal.Signals, start: Start, forked: Any, tmp_path: Path
) -> None:
    cut = start("cut", train_ar, 10_000)

    def work() -> None:
        sys.stderr = (tmp_path / os.environ["RANK"]).open("w", buffering=1)
        run(lambda _: train_ar.main(cut), Experiment, [])

    first, second = forked.start(work, world=2, stall_seconds=5)
    wait_for_lines(train_ar, cut.out, 2)
    assert first.is_alive() and second.is_alive()
    os.kill(second.pid, number)
    began = time.monotonic()
    assert forked.finish([first]) == [GONE]
    assert time.monotonic() - began < SECONDS
    assert second.is_alive() == (number == signal.SIGSTOP)
    assert (
        "error: a process that trains with this one is gone or st" in (tmp_path / "0").read_text()
    )
    assert status_of(train_ar, cut.out)["status"] == "failed"


def test_a_save_that_takes_longer_than_processes_wait_ends_none(start: Start, forked: Any) -> None:
    slow = start("slow", train_ar, 2)

    def work() -> None:
        save = saving.save_checkpoint

        def slowly(*arguments: Any, **named: Any) -> Path:
            time.sleep(8)
            return save(*arguments, **named)

        saving.save_checkpoint = slowly
        train_ar.main(slow)

    processes = forked.start(work, world=2, stall_seconds=6)
    assert forked.finish(processes) == [0, 0]
    assert status_of(train_ar, slow.out)["status"] == "finished"


def test_how_long_processes_wait_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class State:
        device = "cpu"

        def __init__(self, **named: Any) -> None:
            given.update(named)

    monkeypatch.setattr(training, "PartialState", State)
    training.prepare_device()
    assert given["timeout"].total_seconds() == 60
    training.prepare_device(7)
    assert given["timeout"].total_seconds() == 7
