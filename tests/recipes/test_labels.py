"""Labelled sets: labels become text for stage 1 and classes for evaluation, conditions stay."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data import Pair, write_shards
from recipes import evaluate, train_ar, train_joint, train_orderer, write_tokens
from recipes.classifying import classification
from recipes.data_settings import DataSettings
from recipes.evaluation_settings import Evaluation
from recipes.experiment import Experiment
from recipes.training_settings import OrdererTraining

CLASSES = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}
TEMPLATES = ("a photo of a {}", "the colour {}", "{}.")


@pytest.fixture(scope="module")
def labelled(tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Plain pictures of three colours, learned for a while, then the other stages at once."""
    folder = tmp_path_factory.mktemp("labelled")
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        pairs = [
            Pair(
                key=f"{split}{index}",
                image=(
                    np.asarray(list(CLASSES.values())[index % 3])
                    + random.integers(-20, 6, (36, 36, 3))
                )
                .clip(0, 255)
                .astype(np.uint8),
                captions=(list(CLASSES)[index % 3],),
            )
            for index in range(48)
        ]
        write_shards(folder / "set", split, pairs)
    data = DataSettings(
        source=(str(folder / "set"),),
        test="test",
        unseen=None,
        train_count=None,
        test_count=None,
        last_share=0.0,
        templates=TEMPLATES,
    )
    learning = replace(tiny.train_orderer, steps=40)
    evaluation = Evaluation(
        captions="all", judge="classes", tasks=("classification", "retrieval", "labels")
    )
    return replace(
        tiny,
        data=data,
        ar={**tiny.ar, "condition": "class"},
        train_orderer=learning,
        evaluation=evaluation,
        out=folder / "run",
    )


def test_a_labelled_set_goes_through_all_stages_and_is_told_apart(labelled: Experiment) -> None:
    for stage in (train_orderer, write_tokens, train_ar, train_joint, evaluate):
        stage.main(labelled)
    found = json.loads((labelled.out / "evaluation.json").read_text())
    assert found["protocol"]["templates"] == list(TEMPLATES)
    for told in found["results"]["separate"]["labels"].values():
        assert list(told["class"]) == ["1", "2", "4", "8", "16"] and told["class"]["16"] > 0.9
    classes = found["results"]["separate"]["classification"]
    assert classes["classes"] == 3 and list(classes["top1"]) == ["1", "2", "4", "8", "16"]
    assert classes["top1"]["16"] > 0.9
    config = json.loads((labelled.out / "ar/config.json").read_text())
    assert config["class_names"] == sorted(CLASSES)


def test_images_with_several_captions_are_not_classified() -> None:
    with pytest.raises(ValueError, match=r"one caption for each image, .* got 2 for image 1"):
        classification([("a",), ("a", "b")], (), {}, None)  # type: ignore[arg-type]


def test_labels_have_no_detail_that_grows(labelled: Experiment) -> None:
    with pytest.raises(ValueError, match=r"got both, 'a photo of a \{\}' the first template"):
        replace(labelled, train_orderer=OrdererTraining(detail=True))


def test_a_label_that_is_too_long_in_its_template_is_refused_at_once(
    labelled: Experiment, tmp_path: Path
) -> None:
    data = replace(labelled.data, templates=("{}", "a {}" + " very" * 40 + " clear picture"))
    with pytest.raises(ValueError, match=r"pair 0 \(from 0\): the caption 'a red very"):
        train_orderer.main(replace(labelled, data=data, out=tmp_path))


def test_the_fifth_guess_counts_and_the_sixth_does_not() -> None:
    """Seven classes on a line: image i is nearest to class 0, then 1, then 2 and so on."""
    names = [str(number) for number in range(7)]
    angles = torch.arange(7) * 0.1
    classes = iter(torch.stack([angles.cos(), angles.sin()], dim=1))
    images = torch.tensor([[1.0, 0.0]]).expand(7, 2)
    found = classification(
        [(name,) for name in names],
        (),
        {"1": images},
        lambda _: next(classes)[None],
    )
    assert found["top1"]["1"] == pytest.approx(1 / 7)
    assert found["top5"]["1"] == pytest.approx(5 / 7)
