"""A training that was stopped, however often, ends in the same bits as one that was not."""

import json
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from orderer import Objectives
from recipes import train_ar, train_joint, train_orderer, tune_decoder
from recipes.engine.run import STOPS
from recipes.experiment import Experiment
from recipes.validating import Validation

NAMES = {
    train_orderer: "orderer",
    train_ar: "ar",
    train_joint: "joint",
    tune_decoder: "decoder",
}
stages = pytest.mark.parametrize("stage", NAMES, ids=list(NAMES.values()))
EPOCH = 4
"""Steps: 64 pairs in batches of 16."""


def longer(experiment: Experiment, out: Path, steps: int) -> Experiment:
    """More steps, and all that is drawn at random: crops, mirrors, captions, noise, drops."""
    drawn = replace(experiment.data, crop_area=0.5, mirrored=0.5, last_share=0.5)
    stage1 = replace(
        experiment.train_orderer,
        steps=steps,
        accumulate=2,
        objectives=Objectives(text_from=1, text_ramp=2),
    )
    return replace(
        experiment,
        out=out,
        data=drawn,
        orderer={**experiment.orderer, "token_noise": 0.1},
        train_orderer=stage1,
        train_ar=replace(
            experiment.train_ar,
            steps=steps,
            condition_drop=0.5,
            validate_every=max(3, steps // 2),
        ),
        train_joint=replace(experiment.train_joint, steps=steps),
        tune_decoder=replace(experiment.tune_decoder, steps=steps, batch_size=16),
        checkpoint_every=3,
    )


@pytest.fixture(autouse=True)
def _quick_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likelihoods take longer than all steps: here a figure of the weights stands in for them."""

    def measure(self: Validation, model: torch.nn.Module, run: object) -> dict[str, float]:
        return {"validation": sum(p.double().abs().sum().item() for p in model.parameters())}

    monkeypatch.setattr(Validation, "measure", measure)


def random_states() -> list[Any]:
    kind, keys, *places = np.random.get_state()
    return [random.getstate(), kind, keys.tolist(), places, torch.get_rng_state().tolist()]


def end_of(stage: ModuleType, out: Path) -> dict[str, bytes]:
    """All tensors of the last checkpoint, and the log but for its times."""
    name = NAMES[stage]
    newest = max((out / "checkpoints" / name).iterdir())
    found = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
    assert len(found) >= 3
    lines = map(json.loads, (out / f"logs/{name}.jsonl").read_text().splitlines())
    times = ("seconds", "samples_per_second")
    values = [
        {key: x for key, x in line.items() if key not in times}
        for line in lines
        if "rank" not in line  # a stop is watched, too
    ]
    return {**found, "log": json.dumps(values).encode()}


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for a stop as a step begins: it is done to its end, with all its micro-batches."""
    seed = train_orderer.seed_everything

    def seeded(base: int, rank: int, *now: int) -> None:
        if now == (step,):
            signal.raise_signal(STOPS[step % len(STOPS)])
        seed(base, rank, *now)

    for stage in NAMES:
        monkeypatch.setattr(stage, "seed_everything", seeded)


@pytest.fixture
def start(trained: Experiment, tmp_path: Path) -> Callable[[str, ModuleType, int], Experiment]:
    def begin(name: str, stage: ModuleType, steps: int) -> Experiment:
        shutil.copytree(trained.out, tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoints" / NAMES[stage], ignore_errors=True)
        return longer(trained, tmp_path / name, steps)

    return begin


@stages
@pytest.mark.parametrize(
    ("steps", "stops"),
    [
        (7, ((0, 2), (3, 1), (4, 3))),  # the first step; the last of an epoch; the first of one
        pytest.param(100, ((0, 2), (49, 3), (63, 1)), marks=pytest.mark.long),
        pytest.param(100, ((EPOCH * 9, 1),), marks=pytest.mark.long),
        pytest.param(100, ((EPOCH * 12 + 1, 3), (EPOCH * 12 + 2, 2)), marks=pytest.mark.long),
    ],
)
def test_stops_change_no_bit(
    stage: ModuleType, steps: int, stops: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another number of workers after each stop."""
    whole = start("whole", stage, steps)
    stage.main(whole)
    states = random_states()
    expected = end_of(stage, whole.out)

    cut = start("cut", stage, steps)
    for step, workers in stops:
        with monkeypatch.context() as patched:
            stop_after(step, patched)
            stage.main(replace(cut, data=replace(cut.data, workers=workers)))
        status = json.loads((cut.out / f"logs/{NAMES[stage]}.status.json").read_text())
        assert (status["status"], status["steps_done"]) == ("preempted", step + 1)
        cut = replace(cut, resume=True)
    stage.main(cut)
    found = end_of(stage, cut.out)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert random_states() == states


def test_a_kill_between_the_last_record_and_the_last_checkpoint_loses_no_line(
    start: Any,
) -> None:
    whole = start("whole", train_ar, 5)
    train_ar.main(whole)
    cut = start("cut", train_ar, 5)
    train_ar.main(cut)
    shutil.rmtree(max((cut.out / "checkpoints/ar").iterdir()))  # as if it had not come to that
    train_ar.main(replace(cut, resume=True))
    assert end_of(train_ar, cut.out) == end_of(train_ar, whole.out)
    log = (cut.out / "logs/ar.jsonl").read_text()
    assert [json.loads(x)["step"] for x in log.splitlines() if "validation" in x] == [2, 4]
