"""The card of a model says what was measured, and no more."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from orderer import OrdererConfig
from recipes.model_card import Card, Measured


@pytest.fixture
def measured() -> Measured:
    found = {"1": {"r1": 0.25}, "16": {"r1": 0.5}}
    return Measured(
        results={
            "retrieval": {
                "text_to_image": found,
                "image_to_text": found,
                "accuracy": {"1": 0.75, "16": 0.875},
            },
            "reconstruction": {"psnr": {"1": 20.0, "16": 30.5}},
        },
        protocol={"split": "val", "ties": "expected rank"},
        config={
            "data": {"source": ["some/where/cifar10"], "templates": ["a photo/drawing of a {}"]},
            "train_orderer": {
                "qformer": "/home/Jane Doe/blip2",
                "objectives": {"perceptual_model": "/home/jane/convnext", "perceptual": 0.5},
            },
            **dict.fromkeys(("train_ar", "train_joint", "seed", "precision")),
        },
        made_with={
            "commit": "abc",
            "command": "python -m recipes.evaluate --out=/home/jane/runs/a "
            "--orderer.features=open_clip:ViT-B-16@/home/jane/clip.safetensors /home/jane/a.yaml",
        },
    )


def card(measured: Measured | None) -> Card:
    return Card(
        repo="me/mine",
        licence="mit",
        settings=OrdererConfig().own(),
        encoding_hash="0" * 64,
        has_ar=False,
        measured=measured,
    )


def test_every_prefix_has_its_figures_in_table_and_metadata(measured: Measured) -> None:
    text = card(measured).text([])
    assert "| first k tokens | 1 | 16 |" in text and "| PSNR, dB | 20 | 30.5 |" in text
    assert "| class accuracy | 0.75 | 0.875 |" in text
    (model,) = yaml.safe_load(text.split("---")[1])["model-index"]
    values = [m["value"] for result in model["results"] for m in result["metrics"]]
    assert sorted(values) == [0.25, 0.25, 0.5, 0.5, 0.75, 0.875, 20.0, 30.5]
    assert {result["dataset"]["name"] for result in model["results"]} == {"cifar10"}


def test_folders_are_nobodys_business(measured: Measured) -> None:
    settings = {**OrdererConfig().own(), "text_weights": {"from": "transformers:/home/jane/bert"}}
    trained = {"settings": measured.config}
    text = replace(card(measured), settings=settings, trained=trained).text([])
    assert not any(folder in text for folder in ("some/where", "jane", "Jane"))
    command = "python -m recipes.evaluate --out=a --orderer.features=open_clip:ViT-B-16@clip.safe"
    assert command in " ".join(text.split())
    for kept in ("qformer: blip2", "perceptual_model: convnext", "from: transformers:bert"):
        assert kept in text
    assert "a photo/drawing of a {}" in text


def test_its_curves_are_pictures(measured: Measured, tmp_path: Path) -> None:
    names = card(measured).draw(tmp_path)
    assert names == ["retrieval.png", "psnr.png"]
    assert all(Image.open(tmp_path / name).format == "PNG" for name in names)
    assert all(f"({name})" in card(measured).text(names) for name in names)


def test_without_figures_it_says_so(tmp_path: Path) -> None:
    text = card(None).text(card(None).draw(tmp_path))
    assert "None were taken." in text and "## Protocol" not in text and "ARModel" not in text
    assert "model-index" not in yaml.safe_load(text.split("---")[1])
    assert list(tmp_path.iterdir()) == []


def test_the_accuracy_of_the_task_classification_is_shown(measured: Measured) -> None:
    told = {"classification": {"top1": {"1": 0.625}, "top5": {"1": 1.0}, "classes": 10}}
    assert "| class accuracy | 0.625 |" in card(replace(measured, results=told)).text([])


def test_the_training_is_that_of_the_model_and_not_of_who_measured(measured: Measured) -> None:
    settings = {"data": {"source": ["some/where/cifar10"]}, "seed": 7}
    record = {"settings": settings, "pairs": "abc", "made_with": {"command": "some/where/else"}}
    trained = {**record, "decoder": record, "joint": record}
    _, _, training = replace(card(measured), trained=trained).text([]).partition("## Training")
    said = yaml.safe_load(training.split("```yaml")[1].strip("`\n"))
    assert said["settings"] == {"data": {"source": ["cifar10"]}, "seed": 7}
    assert said["joint"]["settings"] == said["settings"] and "some/where" not in training
    _, _, training = card(measured).text([]).partition("## Training")
    assert "was not kept" in training and "seed" not in training
