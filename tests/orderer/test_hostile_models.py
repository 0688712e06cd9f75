"""Folders of models that are damaged, or want to run code: each is refused in one sentence."""

import json
import pickle
import struct
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file

from orderer import Orderer, OrdererProcessor
from orderer.saved import MOST_BYTES


@pytest.fixture
def folder(tiny_orderer: Orderer, tmp_path: Path) -> Path:
    tiny_orderer.save_pretrained(tmp_path)
    OrdererProcessor(16, 8).save_pretrained(tmp_path)
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises((ValueError, OSError)) as refusal:
        Orderer.from_pretrained(folder)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def change(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


class Canary:
    """A pickle of it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(folder: Path, value: float) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.queries"][1, 2] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert refused(folder) == (
        f"the weights in {folder} are damaged: 1 of the 64 values of encoder.queries are NaN or "
        "infinite"
    )


def test_a_file_of_pickled_weights_is_never_opened(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    data = pickle.dumps(Canary(tmp_path / "canary"))
    (folder / "pytorch_model.bin").write_bytes(data)
    said = refused(folder)
    assert f"{folder} has its weights in pytorch_model.bin, a format that may run code" in said
    assert said.endswith("python -m recipes.convert_weights")
    (folder / "model.safetensors").write_bytes(data)
    assert "has its weights in model.safetensors, a format that may run code" in refused(folder)
    assert not (tmp_path / "canary").exists()


def test_a_zip_by_the_name_of_safetensors_is_refused(folder: Path) -> None:
    torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")
    assert "turn them into safetensors" in refused(folder)


@pytest.mark.parametrize(
    "start", [struct.pack("<Q", 1 << 63), struct.pack("<Q", 100_000_000), b"", b"\x02", b"<html>"]
)
def test_a_header_that_is_none_is_refused(folder: Path, start: bytes) -> None:
    (folder / "model.safetensors").write_bytes(start)
    assert refused(folder).startswith(f"no model can be read from {folder}: ")


def test_weights_cut_anywhere_are_refused(folder: Path) -> None:
    path, cut = folder / "model.safetensors", Random(0)
    whole = path.read_bytes()
    for _ in range(10):
        path.write_bytes(whole[: cut.randrange(len(whole))])
        assert refused(folder).startswith(f"no model can be read from {folder}: ")


@pytest.fixture
def shards(tiny_orderer: Orderer, folder: Path) -> Path:
    """The same model in several files."""
    (folder / "model.safetensors").unlink()
    tiny_orderer.save_pretrained(folder, max_shard_size="20KB")
    return folder


def test_a_damaged_shard_is_named(shards: Path) -> None:
    Orderer.from_pretrained(shards)
    shard = sorted(shards.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:50])
    assert refused(shards).startswith(f"no model can be read from {shards}: {shard.name}: ")


def test_an_index_of_pickles_is_refused(shards: Path, tmp_path: Path) -> None:
    index = shards / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    (shards / "weights.bin").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    names = {**said["weight_map"], next(iter(said["weight_map"])): "weights.bin"}
    index.write_text(json.dumps({**said, "weight_map": names}))
    assert f"{shards / 'weights.bin'} is not in safetensors" in refused(shards)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("{}", "has no weight_map, it names no files"),
        ("[", "is not JSON with named values"),
        ('{"weight_map": {"a": "b.safetensors"}}', "has no metadata"),
        ('{"metadata": {}, "weight_map": {"a": "../b.safetensors"}}', "must name files that lie"),
        ('{"metadata": {}, "weight_map": {"a": ["b"]}}', "must name files that lie beside it"),
        ('{"metadata": {}, "weight_map": {"a": "b.safetensors"}}', "there is no weight file"),
    ],
)
def test_an_index_of_files_that_are_not_beside_it_is_refused(
    shards: Path, said: str, sentence: str
) -> None:
    (shards / "model.safetensors.index.json").write_text(said)
    assert sentence in refused(shards)


def test_weights_turned_on_their_side_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.queries"] = tensors["encoder.queries"].T.contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "encoder.queries is [16, 4] and must be [4, 16]" in refused(folder)


def test_code_of_its_own_is_refused(folder: Path) -> None:
    change(folder, auto_map={"AutoModel": "evil.Model"})
    assert refused(folder) == (
        f"{folder / 'config.json'} asks for code of its own (auto_map), which is never run"
    )
    with pytest.raises(ValueError, match="Orderer runs no code of a model's own"):
        Orderer.from_pretrained(folder, trust_remote_code=True)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "\ud800", "NaN", "null", "", "\x00"],
)
def test_settings_that_are_none_are_refused(folder: Path, file: str, text: str) -> None:
    (folder / file).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"is not JSON with named values$"):
        loader = Orderer if file == "config.json" else OrdererProcessor
        loader.from_pretrained(folder)


def test_a_file_of_settings_that_is_no_such_file_by_its_size_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("r+b") as file:
        file.truncate(100_000_000)
    assert refused(folder) == (
        f"{folder / 'config.json'} has 100000000 bytes, settings have at most {MOST_BYTES}"
    )


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("tokens", 1e400, "tokens must be a whole number, got inf"),
        ("tokens", -3, "tokens must be at least 1, got -3"),
        ("width", [16], r"width must be a whole number, got [16]"),
        ("model_type", "llama", "'llama', not 'sightline_orderer'"),
        ("model_type", None, "None, not 'sightline_orderer'"),
        ("quantization_config", {"quant_method": "gptq"}, "has no setting named quantization"),
        ("token_noise", float("nan"), "token_noise must be finite and not below 0, got nan"),
        ("features_trained", True, "features_trained needs a tower that can learn"),
        ("context_length", 2, "context_length must be at least 3, for a start, a word and an end"),
        ("tokens", 4_000_000, "and must be [16, 4000000]"),
    ],
)
def test_a_setting_of_another_kind_is_refused(
    folder: Path, setting: str, value: object, sentence: str
) -> None:
    change(folder, **{setting: value})
    assert sentence in refused(folder)


def test_a_name_that_is_no_name_is_refused() -> None:
    for name in ("../../etc/passwd", "a/b/c", "https://host/model", "x" * 200):
        with pytest.raises(OSError, match=r"it is no folder, and no name of a hub's repository"):
            Orderer.from_pretrained(name)
