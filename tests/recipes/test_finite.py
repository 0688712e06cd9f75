"""A loss or gradient that is not finite, on any process, stops all of them before the update."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ar import ARModel
from data import TokenStore
from recipes import train_ar
from recipes.engine.cli import run as start
from recipes.engine.optim import Schedule
from recipes.engine.processes import texts_of_all
from recipes.engine.training import Learner, update
from recipes.experiment import Experiment


class Spoils(torch.autograd.Function):
    """Passes a number on, and no gradient that is one."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.nan


def learner() -> Learner:
    model = nn.Linear(3, 1)
    nn.init.ones_(model.weight)
    optimizers = [torch.optim.AdamW(model.parameters())]
    return Learner(
        model=model, optimizers=optimizers, schedule=Schedule(optimizers, 10, 0), clip=1.0
    )


def step(fault: str | None, rank: int) -> list[float]:
    """One update, with a fault on this process; its weights and what was said."""
    one = learner()
    loss = one.model(torch.ones(2, 3)).mean()
    if fault == "gradient":
        loss = Spoils.apply(loss)
    elif fault == "loss":
        loss = loss * torch.inf
    values = {"first": loss if fault == "loss" else loss.detach(), "second": torch.ones(())}
    keys = [f"{rank}-{number}" for number in range(2)]
    try:
        update(7, loss, [one], values, keys)
    except FloatingPointError as error:
        return [*one.model.weight.flatten().tolist(), str(error)]
    return [*one.model.weight.flatten().tolist(), ""]


def test_nothing_wrong_is_updated() -> None:
    *weights, said = step(None, 0)
    assert said == "" and weights != [1.0] * 3


def test_a_loss_that_is_not_finite_names_step_term_and_samples() -> None:
    assert step("loss", 0) == [1.0] * 3 + [
        "not finite at step 7, before the update: first on process 0, in samples 0-0, 0-1"
    ]


def test_a_gradient_that_is_not_finite_stops_though_the_loss_is() -> None:
    assert step("gradient", 0) == [1.0] * 3 + [
        "not finite at step 7, before the update: gradient on process 0, in samples 0-0, 0-1"
    ]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("loss", "first on process 1, in samples 1-0, 1-1"),
        (
            "gradient",
            "gradient on process 0, in samples 0-0, 0-1; gradient on process 1, in samples 1-0, "
            "1-1",
        ),
    ],
)
def test_what_one_process_finds_stops_both_alike(
    fault: str, said: str, forked: Any, tmp_path: Path
) -> None:
    def work() -> None:
        rank = dist.get_rank()
        found = step(fault if rank == 1 else None, rank)
        (tmp_path / f"{rank}.json").write_text(json.dumps(found))

    began = time.monotonic()
    assert forked.run(work, world=2) == [0, 0]
    assert time.monotonic() - began < 30
    expected = [1.0] * 3 + [f"not finite at step 7, before the update: {said}"]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [
        expected,
        expected,
    ]


def test_processes_tell_each_other_texts_of_any_length(forked: Any, tmp_path: Path) -> None:
    texts = ["é" * 1000, ""]

    def work() -> None:
        found = texts_of_all(texts[dist.get_rank()])
        (tmp_path / f"{dist.get_rank()}.json").write_text(json.dumps(found))

    assert forked.run(work, world=2) == [0, 0]
    assert all(json.loads((tmp_path / f"{rank}.json").read_text()) == texts for rank in (0, 1))


def test_a_training_ends_in_a_sentence_and_its_last_checkpoint_stays(
    trained: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(trained.out, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/ar")
    loss, calls = ARModel.loss, iter(range(10))

    def spoiled(self: ARModel, tokens: Tensor, *others: Any) -> Tensor:
        found = loss(self, tokens, *others)
        return found * torch.nan if self.training and next(calls) == 3 else found

    monkeypatch.setattr(ARModel, "loss", spoiled)
    experiment = replace(trained, out=tmp_path / "run", checkpoint_every=2)
    with pytest.raises(SystemExit) as stopped:
        start(lambda _: train_ar.main(experiment), Experiment, [])
    assert stopped.value.code == 1
    said = capsys.readouterr()
    begin = "error: not finite at step 3, before the update: loss on process 0, in samples "
    sentence = said.err.splitlines()[-1]
    assert sentence.startswith(begin)
    keys = sentence.removeprefix(begin).split(", ")
    assert len(keys) == 16 and set(keys) <= set(TokenStore.open(trained.out / "tokens").keys)
    assert "ar failed after 3 of 4 steps" in said.out
    saved = [path.name for path in (tmp_path / "run/checkpoints/ar").iterdir()]
    assert saved == ["step-00000002"]
