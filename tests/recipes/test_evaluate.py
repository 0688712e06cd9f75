"""Evaluation: the tasks stand before the options, and each measures what it says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from recipes import evaluate
from recipes.data_settings import DataSettings
from recipes.engine.cli import run as start
from recipes.engine.settings import plain_settings
from recipes.experiment import Evaluation, Experiment


@pytest.fixture
def copied(trained: Experiment, tmp_path: Path) -> Experiment:
    """The models alone, of stages 1 and 2."""
    for model in ("orderer", "ar"):
        shutil.copytree(trained.out / model, tmp_path / "run" / model)
    return replace(trained, out=tmp_path / "run")


def measured(experiment: Experiment, *words: str) -> Any:
    path = experiment.out / "experiment.yaml"
    path.write_text(yaml.safe_dump(plain_settings(experiment)))
    start(evaluate.main, Experiment, evaluate.with_tasks([*words, "--config", str(path)]))
    return json.loads((experiment.out / "evaluation.json").read_text())


def test_words_before_the_options_are_the_tasks() -> None:
    assert evaluate.with_tasks(["retrieval", "generation", "--out=x"]) == [
        "--out=x",
        "--evaluation.tasks=[retrieval,generation]",
    ]
    assert evaluate.with_tasks(["--out", "x"]) == ["--out", "x"]
    assert evaluate.with_tasks([]) == []


def test_one_task_measures_one_thing(copied: Experiment) -> None:
    found = measured(copied, "retrieval")["results"]
    assert list(found) == ["separate"] and list(found["separate"]) == ["retrieval", "unseen"]
    found = measured(copied, "reconstruction")["results"]["separate"]
    assert list(found) == ["reconstruction", "order", "unseen"]
    assert list(found["unseen"]) == ["reconstruction", "order"]


def test_retrieval_needs_no_ar_model(copied: Experiment) -> None:
    shutil.rmtree(copied.out / "ar")
    assert measured(copied, "retrieval")["results"]["separate"]["retrieval"]


def test_the_models_of_stage_three_are_measured_beside_the_others(trained: Experiment) -> None:
    assert list(measured(trained, "retrieval")["results"]) == ["separate", "joint"]


def test_queries_are_the_last_captions_or_all(copied: Experiment) -> None:
    last = measured(copied, "retrieval")["results"]["separate"]["retrieval"]
    assert list(last["shorter_captions"]) == ["0", "1", "2", "3"]
    every = replace(copied, evaluation=replace(copied.evaluation, captions="all"))
    found = measured(every, "retrieval")["results"]["separate"]["retrieval"]
    assert "shorter_captions" not in found and found != last


def test_where_there_is_no_other_judge_the_orderer_judges(copied: Experiment) -> None:
    itself = replace(copied, evaluation=Evaluation(judge="retrieval", generated=8))
    found = measured(itself, "generation")["results"]["separate"]["generation"]
    assert 0 <= found["found_at_1"] <= found["found_at_10"] == 1  # of 8 images
    assert found["real"]["found_at_10"] == 1


def test_an_ar_model_of_another_orderer_is_refused(trained: Experiment, copied: Experiment) -> None:
    shutil.rmtree(copied.out / "ar")
    shutil.copytree(trained.out / "joint/ar", copied.out / "ar")
    with pytest.raises(SystemExit):
        measured(copied, "generation")


def test_an_unknown_task_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        start(evaluate.main, Experiment, evaluate.with_tasks(["retrieval", "beauty"]))
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: evaluation.tasks must be ") and said.count("\n") == 1
    assert "beauty" in said


def test_a_judge_of_classes_knows_only_classes_it_has_seen(copied: Experiment) -> None:
    scenes = replace(copied, data=DataSettings(train_count=8, test_count=8))
    with pytest.raises(ValueError, match=r"the judge of classes is asked for '.*', but"):
        evaluate.main(replace(scenes, evaluation=Evaluation(judge="classes", captions="last")))


def test_a_fresh_reader_is_measured_where_the_own_readout_is(copied: Experiment) -> None:
    few = replace(copied, evaluation=replace(copied.evaluation, probe_steps=2))
    found = measured(few, "retrieval", "probe")["results"]["separate"]
    assert list(found["probe"]["text_to_image"]) == list(found["retrieval"]["text_to_image"])
    assert found["probe"] != found["retrieval"]


def test_factors_of_scenes_are_read_at_every_prefix(copied: Experiment) -> None:
    few = replace(copied, evaluation=replace(copied.evaluation, probe_scenes=90))
    factors = measured(few, "factors")["results"]["separate"]["factors"]
    assert set(factors) == {"shape", "colour", "size", "place", "count", "ground"}
    assert list(factors["shape"]["score"]) == ["1", "2", "4", "8", "16"]


def test_factors_of_other_data_are_refused(copied: Experiment) -> None:
    other = replace(copied, data=replace(copied.data, source=("somewhere",)))
    with pytest.raises(SystemExit) as refused:
        measured(other, "factors")
    assert refused.value.code == 2
