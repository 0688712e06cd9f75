"""Validation: every held pair counts once, and the better weights are kept."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ar import ARModel
from data import TokenStore, write_tokens
from orderer import Orderer, OrdererProcessor
from recipes import train_ar, validating
from recipes import write_tokens as write_recipe
from recipes.conditions import condition_on
from recipes.engine.run import Run
from recipes.experiment import Experiment
from recipes.validating import TIMESTEPS, Validation


@pytest.fixture
def validation(trained: Experiment) -> Validation:
    return Validation(
        store=TokenStore.open(trained.out / "held"),
        caption=-1,
        orderer=Orderer.from_pretrained(trained.out / "orderer"),
        processor=OrdererProcessor.from_pretrained(trained.out / "orderer"),
        every=2,
    )


def process(rank: int, world: int) -> Any:
    """One of some processes, which adds up what it has alone."""
    accelerator = SimpleNamespace(reduce=lambda values, how: values)
    return SimpleNamespace(
        rank=rank, world=world, device=torch.device("cpu"), accelerator=accelerator
    )


def test_a_stop_is_saved_without_a_validation_which_is_made_up_for_later(
    trained: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.out, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/ar")
    experiment = replace(trained, out=tmp_path / "run")
    log, measured = Run.log, list[int]()

    def stopped(self: Run, step: int, values: Any) -> None:
        log(self, step, values)
        if step == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Validation, "measure", lambda *_: measured.append(0) or {"validation": 0.0})
    with monkeypatch.context() as patched:
        patched.setattr(Run, "log", stopped)
        train_ar.main(experiment)
    assert not measured
    assert [path.name for path in (tmp_path / "run/checkpoints/ar").iterdir()] == ["step-00000002"]
    train_ar.main(replace(experiment, resume=True))
    lines = map(json.loads, (tmp_path / "run/logs/ar.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if "validation" in line] == [1, 3]


def test_a_validation_comes_after_a_checkpoint(
    trained: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes long: a kill in its midst costs nothing."""
    shutil.copytree(trained.out, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/ar")
    saved = list[str]()

    def measure(*_: Any) -> dict[str, float]:
        saved.append(max(path.name for path in (tmp_path / "run/checkpoints/ar").iterdir()))
        return {"validation": 0.0}

    monkeypatch.setattr(Validation, "measure", measure)
    train_ar.main(replace(trained, out=tmp_path / "run"))
    assert saved == ["step-00000002"] * 2 + ["step-00000004"] * 2


def test_held_pairs_are_not_trained_on(trained: Experiment) -> None:
    held, rest = (TokenStore.open(trained.out / name) for name in ("held", "tokens"))
    assert len(held) == trained.train_ar.held == 8
    assert not set(held.keys) & set(rest.keys)
    assert len(held) + len(rest) == trained.data.train_count


def test_processes_together_measure_what_one_measures(
    trained: Experiment, validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validating, "BATCH", 3)  # of 8 pairs: both processes have some
    model = ARModel.from_pretrained(trained.out / "ar")
    whole = validation.measure(model, process(0, 1))
    assert list(whole) == ["validation", *(f"error_at_{t}" for t in TIMESTEPS)]
    tokens = validation.store.tokens
    condition = condition_on(
        [of_one[-1] for of_one in validation.store.captions],
        model,
        validation.orderer,
        validation.processor,
    )
    # Averaged over many noises, both are the same number.
    nats = torch.stack(
        [
            -model.log_prob(tokens, condition, generator=torch.Generator().manual_seed(i)).mean()
            for i in range(2)
        ]
    )
    assert whole["validation"] * model.config.token_dim == pytest.approx(
        nats.mean().item(), rel=0.1
    )
    halves = [validation.measure(model, process(rank, 2)) for rank in range(2)]
    for name, value in whole.items():  # with the same noise
        assert sum(half[name] for half in halves) == pytest.approx(value, rel=1e-12)


def test_a_model_is_left_in_the_mode_it_was_in(trained: Experiment, validation: Validation) -> None:
    model = ARModel.from_pretrained(trained.out / "ar").train()
    validation.measure(model, process(0, 1))
    assert model.training


def test_the_log_and_the_record_say_what_was_found(trained: Experiment) -> None:
    lines = [json.loads(line) for line in (trained.out / "logs/ar.jsonl").read_text().splitlines()]
    found = [line for line in lines if "validation" in line]
    assert [line["step"] for line in found] == [1, 3]  # every second of four steps
    assert {"validation_ema", "error_at_0.1", "error_at_0.9_ema"} <= found[-1].keys()
    record = json.loads((trained.out / "ar/training.json").read_text())["validation"]
    assert record["is_averaged"] == (record["validation_ema"] < record["validation"])
    assert record["validation"] == found[-1]["validation"]


def test_tokens_held_for_another_orderer_are_refused(trained: Experiment, tmp_path: Path) -> None:
    shutil.copytree(trained.out, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    store = TokenStore.open(tmp_path / "run/held")
    write_tokens(
        tmp_path / "run/held", store.tokens.clone(), store.keys, store.captions,
        orderer_hash="b" * 64, fingerprint=store.fingerprint,
    )  # fmt: skip
    with pytest.raises(ValueError, match="these tokens were made by orderer bbbbbbbbbbbb"):
        train_ar.main(replace(trained, out=tmp_path / "run"))


def test_a_class_of_held_pairs_alone_is_known(trained: Experiment, tmp_path: Path) -> None:
    shutil.copytree(trained.out / "orderer", tmp_path / "orderer")
    known = TokenStore.open(trained.out / "held")
    for name, said in (("tokens", ("cat", "dog")), ("held", ("dog", "emu"))):
        write_tokens(
            tmp_path / name,
            known.tokens[:4].float() + torch.randn(4, 1, 1),
            ["a", "b", "c", "d"],
            [(caption,) for caption in said * 2],
            orderer_hash=known.orderer_hash,
            fingerprint="x",
        )
    ar = {**trained.ar, "condition": "class"}
    train_ar.main(replace(trained, out=tmp_path, ar=ar))
    assert ARModel.from_pretrained(tmp_path / "ar").config.class_names == ["cat", "dog", "emu"]


def test_held_pairs_of_an_older_split_do_not_stay(
    trained: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("orderer", "tokens", "held"):
        shutil.copytree(trained.out / name, tmp_path / name)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write_recipe, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        write_recipe.main(replace(trained, out=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"orderer", "tokens"}
