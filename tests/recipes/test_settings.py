from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ar import Sampling
from recipes.engine.settings import (
    check_same_settings,
    plain_settings,
    scalars_named,
    settings_named,
)
from recipes.evaluation_settings import Evaluation
from recipes.experiment import Experiment
from recipes.training_settings import ARTraining


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Config:
    out: Path = Path("runs")
    steps: int = 10
    optim: Optim = field(default_factory=Optim)


SAVED = plain_settings(Config())


def test_settings_are_plain():
    expected = {"out": "runs", "steps": 10, "optim": {"lr": 0.1, "betas": [0.9, 0.95]}}
    assert expected == SAVED


def test_equal_settings_pass():
    check_same_settings(SAVED, plain_settings(Config()))


def test_settings_are_chosen_by_name_and_branches_are_taken_whole():
    assert settings_named(Config(), "step") == {}
    assert settings_named(Config(), "steps", "optim.lr") == {"steps": 10, "optim.lr": 0.1}
    assert settings_named(Config(), "optim") == {"optim.lr": 0.1, "optim.betas": [0.9, 0.95]}


def test_a_models_settings_are_told_with_their_defaults_but_not_what_follows_from_them():
    own = {"width": 8, "text": None, "pieces": [1, 2], "tower": {"name": "x"}}
    assert scalars_named("ar", own) == {"ar.width": 8, "ar.text": None}


def test_every_difference_is_named_with_both_values():
    now = plain_settings(Config(steps=20, optim=Optim(lr=0.2)))
    with pytest.raises(ValueError, match=r"steps was 10 and is 20, optim\.lr was 0\.1 and is 0\.2"):
        check_same_settings(SAVED, now)


@pytest.mark.parametrize(
    ("saved", "now", "sentence"),
    [
        ({}, {"ema": None}, "ema was absent and is None"),
        ({"ema": None}, {}, "ema was None and is absent"),
        ({"a": {"b": 1}}, {"a": 2}, r"a\.b was 1 and is absent, a was absent and is 2"),
    ],
)
def test_a_setting_that_came_or_went_is_named(saved, now, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_same_settings(saved, now)


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_a_preempted_program_does_not_end_like_one_that_failed(code: int) -> None:
    with pytest.raises(ValueError, match=rf"must not be among 1\.\.4, .* got {code}$"):
        Experiment(preempted_code=code)
    assert Experiment(preempted_code=75).preempted_code == 75


@pytest.mark.parametrize("changes", [{}, {"sampling": Sampling(guidance_scale=1.0)}])
def test_guidance_by_a_condition_that_is_never_dropped_is_refused(changes: dict[str, Any]) -> None:
    training = ARTraining(condition_drop=0.0)
    evaluation = Evaluation(guidance_scales=(2.5,))
    with pytest.raises(ValueError, match=r"condition_drop must be above 0, .* got 0 and .*2\.5$"):
        Experiment(train_ar=training, evaluation=evaluation, **changes)
    Experiment(train_ar=training, sampling=Sampling(guidance_scale=1.0))
    Experiment(train_ar=training, ar={"condition": "none"})
