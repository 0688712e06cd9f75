"""A checkpoint whose hashes are right and that does not fit is refused in a sentence."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes import train_ar
from recipes.engine.checkpoint import load_latest, save_checkpoint
from recipes.experiment import Experiment

Change = Callable[[dict[str, Any], dict[str, Any]], object]
WEIGHT = "trunk.embed.weight"


@pytest.fixture
def refusal(trained: Experiment, tmp_path: Path) -> Callable[[Change], str]:
    """How a training refuses to go on from its checkpoint after a change of tensors and state."""

    def refused(change: Change) -> str:
        shutil.copytree(trained.out, tmp_path / "run")
        folder = tmp_path / "run/checkpoints/ar"
        found = load_latest(folder)
        assert found is not None
        change(found.tensors, found.state)
        save_checkpoint(folder, found.step, found.tensors, found.state)
        with pytest.raises(ValueError, match=r".") as raised:
            train_ar.main(replace(trained, out=tmp_path / "run", resume=True))
        assert "\n" not in str(raised.value) and str(found.path) in str(raised.value)
        return str(raised.value).replace(str(found.path), "HERE")

    return refused


def put(group: str, name: str, tensor: torch.Tensor) -> Change:
    return lambda tensors, _: tensors[group].update({name: tensor})


def drop(group: str, name: str) -> Change:
    return lambda tensors, _: tensors[group].pop(name)


def say(name: str, value: object) -> Change:
    return lambda _, state: state.update({name: value})


def of_optimizer(change: Callable[[list[dict[str, Any]]], object]) -> Change:
    return lambda _, state: change(state["groups"]["ar-optimizer-1"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors, _: tensors.pop("ar-average"), "checkpoint HERE lacks ar-average"),
        (lambda _, state: state.pop("groups"), "checkpoint HERE lacks groups"),
        (drop("ar", WEIGHT), f"ar in checkpoint HERE lacks {WEIGHT}"),
        (put("ar", "x", torch.ones(1)), "ar in checkpoint HERE has x, which nothing here is"),
        (put("ar", WEIGHT, torch.ones(2)), f"{WEIGHT} of ar in checkpoint HERE is [2] of float32 "),
        (
            put("ar-average", "n_averaged", torch.ones(())),
            "n_averaged of ar-average in checkpoint HERE is [] of float32 and must be [] of int64",
        ),
        (drop("ar-optimizer-1", "0.exp_avg"), "AT-1 the saved AdamW lacks 0.exp_avg"),
        (put("ar-optimizer-1", "x", torch.ones(1)), "AT-1 the saved AdamW has x"),
        (put("ar-optimizer-1", "0.max", torch.ones(1)), "AT-1 the saved AdamW has 0.max"),
        (put("ar-optimizer-1", "0.exp_avg", torch.ones(1, 1)), "AT-1 0.exp_avg of the saved AdamW"),
        (say("groups", {}), "checkpoint HERE lacks the groups of ar-optimizer-0"),
        (of_optimizer(lambda groups: groups.pop()), "AT-1 the saved AdamW has other parameters"),
        (of_optimizer(lambda groups: groups[0].pop("betas")), "AT-1 the saved AdamW has other par"),
        (of_optimizer(lambda groups: groups[0].update(lr="1")), "AT-1 the saved AdamW has other p"),
        (say("settings", 3), "settings in checkpoint HERE is of another kind, 3"),
        (say("groups", [1]), "groups in checkpoint HERE is of another kind, [1]"),
        (say("seconds", "1"), "seconds in checkpoint HERE is of another kind, '1'"),
        (say("seconds", float("nan")), "seconds in checkpoint HERE must not be below 0, got nan"),
    ],
)
def test_what_does_not_fit_is_named(change: Change, sentence: str, refusal: Any) -> None:
    place = "ar-optimizer-{} in checkpoint HERE does not fit:"
    for number in "01":
        sentence = sentence.replace(f"AT-{number}", place.format(number))
    assert refusal(change).startswith(sentence)
