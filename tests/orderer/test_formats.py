"""Saved settings: older ones are brought up to date, newer ones refused with both numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from orderer import Orderer, OrdererConfig, OrdererProcessor
from orderer.formats import up_to_date
from orderer.migrations import ADDED_IN_2, ORDERER_MIGRATIONS

VERSION_1 = {
    "architectures": ["Orderer"],
    "context_length": 40,
    "decoder_layers": 1,
    "dtype": "float32",
    "embed_dim": 8,
    "encoder_layers": 2,
    "format_version": 1,
    "heads": 2,
    "image_size": 16,
    "mlp_ratio": 2,
    "model_type": "sightline_orderer",
    "patch_size": 4,
    "readout_layers": 2,
    "text_heads": 2,
    "text_layers": 1,
    "text_width": 16,
    "token_dim": 6,
    "token_noise": 0.1,
    "tokens": 4,
    "transformers_version": "5.23.0",
    "vocabulary": 49408,
    "width": 16,
}
"""The config.json of `tiny_orderer` as the first orderers were saved."""


@pytest.fixture
def old(tiny_orderer: Orderer, tmp_path: Path) -> Path:
    tiny_orderer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(VERSION_1))
    return tmp_path


def outputs(model: Orderer) -> list[torch.Tensor]:
    images = torch.arange(2 * 3 * 16 * 16).remainder(251).to(torch.uint8).view(2, 3, 16, 16)
    tokens = model.encode(images)
    text = torch.tensor([[49406, 320, 49407]])
    return [tokens, model.decode(tokens[:, :3]), model.embed_images(images, 2), model.text(text)]


@pytest.mark.parametrize("loader", [Orderer, AutoModel])
def test_an_orderer_of_version_1_is_what_it_was(
    tiny_orderer: Orderer, old: Path, loader: Any
) -> None:
    loaded = loader.from_pretrained(old)
    for one, other in zip(outputs(loaded), outputs(tiny_orderer), strict=True):
        assert torch.equal(one, other)
    assert loaded.encoding_hash() == tiny_orderer.encoding_hash()


def test_what_is_saved_again_is_of_the_newest_version(old: Path, tmp_path: Path) -> None:
    Orderer.from_pretrained(old).save_pretrained(tmp_path / "again")
    settings = json.loads((tmp_path / "again/config.json").read_text())
    assert settings["format_version"] == 2 and settings["encoder"] == "joint"


def test_each_setting_is_of_version_1_or_has_a_value_for_it() -> None:
    """One that was added since needs a line in `orderer.migrations`: defaults may change."""
    known = VERSION_1.keys() | ADDED_IN_2.keys() | {"migrations"}
    assert OrdererConfig().own().keys() <= known
    assert not VERSION_1.keys() & ADDED_IN_2.keys()


def test_a_migration_changes_no_setting_that_is_there() -> None:
    settings = {"format_version": 1, "encoder": "cross", "tokens": 3}
    found = up_to_date(settings, "it", 2, ORDERER_MIGRATIONS)
    assert found == {**ADDED_IN_2, "encoder": "cross", "tokens": 3, "format_version": 2}
    assert settings == {"format_version": 1, "encoder": "cross", "tokens": 3}


def test_migrations_follow_each_other() -> None:
    steps = {number: lambda s, n=number: {**s, "path": [*s["path"], n]} for number in (1, 2, 3)}
    found = up_to_date({"format_version": 2, "path": []}, "it", 4, steps)
    assert found == {"format_version": 4, "path": [2, 3]}


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (3, "OrdererConfig reads settings of format 1 to 2, got 3, of a newer Sightline"),
        (0, "OrdererConfig reads settings of format 1 to 2, got 0"),
        ("2", "OrdererConfig reads settings of format 1 to 2, got '2'"),
        (True, "OrdererConfig reads settings of format 1 to 2, got True"),
        (None, "OrdererConfig reads settings of format 1 to 2, got None"),
    ],
)
def test_another_version_is_refused_with_both_numbers(
    old: Path, version: object, sentence: str
) -> None:
    (old / "config.json").write_text(json.dumps({**VERSION_1, "format_version": version}))
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Orderer.from_pretrained(old)


def test_a_processor_that_was_saved_without_a_version_is_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text('{"image_size": 16, "context_length": 8}')
    processor = OrdererProcessor.from_pretrained(tmp_path)
    assert (processor.image_size, processor.context_length) == (16, 8)
    processor.save_pretrained(tmp_path)
    assert json.loads(path.read_text())["format_version"] == 2


def test_a_processor_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"format_version": 9, "crop": 1}')
    with pytest.raises(ValueError, match="OrdererProcessor reads settings of format 1 to 2, got 9"):
        OrdererProcessor.from_pretrained(tmp_path)
