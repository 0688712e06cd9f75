"""Saving and loading: the same model bit for bit, and refusals in a sentence."""

import json
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from ar import ARConfig, ARModel, Sampling
from orderer import Orderer, OrdererConfig


@pytest.fixture
def orderer_folder(tiny_orderer: Orderer, tmp_path: Path) -> Path:
    tiny_orderer.save_pretrained(tmp_path / "orderer")
    return tmp_path / "orderer"


@pytest.fixture
def ar_folder(tiny_ar: ARModel, tmp_path: Path) -> Path:
    tiny_ar.set_statistics(torch.randn(4, 6), 1 + torch.rand(4, 6))
    tiny_ar.save_pretrained(tmp_path / "ar")
    return tmp_path / "ar"


def orderer_outputs(model: Orderer) -> list[torch.Tensor]:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=seeded())
    tokens = model.encode(images)
    text = torch.tensor([[49406, 320, 49407]])
    return [tokens, model.decode(tokens), model.embed_images(images, 2), model.embed_texts(text)]


def ar_outputs(model: ARModel) -> list[torch.Tensor]:
    states, keep = torch.randn(2, 3, 16, generator=seeded()), torch.ones(2, 3, dtype=torch.bool)
    condition = model.conditioned_on_text(states, keep)
    tokens = torch.randn(2, 4, 6, generator=seeded())
    return [
        model.loss(tokens, condition, seeded()),
        model.generate(condition, sampling=Sampling(steps=3), seeds=[0, 1]),
    ]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize("loader", [Orderer, AutoModel])
def test_a_loaded_orderer_gives_the_same_bits(
    tiny_orderer: Orderer, orderer_folder: Path, loader: Any
) -> None:
    loaded = loader.from_pretrained(orderer_folder)
    assert type(loaded) is Orderer
    assert equal(orderer_outputs(loaded), orderer_outputs(tiny_orderer))
    assert loaded.encoding_hash() == tiny_orderer.encoding_hash()


@pytest.mark.parametrize("loader", [ARModel, AutoModel])
def test_a_loaded_ar_model_gives_the_same_bits(
    tiny_ar: ARModel, ar_folder: Path, loader: Any
) -> None:
    loaded = loader.from_pretrained(ar_folder)
    assert type(loaded) is ARModel
    assert torch.equal(loaded.mean, tiny_ar.mean) and torch.equal(loaded.std, tiny_ar.std)
    assert equal(ar_outputs(loaded), ar_outputs(tiny_ar))


@pytest.mark.parametrize(
    "settings",
    [
        {"condition": "none"},
        {"condition": "class", "class_names": ["cat", "dog"]},
    ],
)
def test_every_kind_of_condition_is_saved(settings: dict[str, Any], tmp_path: Path) -> None:
    model = ARModel(ARConfig(tokens=2, token_dim=3, width=16, heads=2, layers=1, **settings))
    model.save_pretrained(tmp_path)
    loaded = ARModel.from_pretrained(tmp_path)
    assert loaded.config.to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()
    assert loaded.config.class_names == model.config.class_names
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_loaded_model_is_in_eval_mode(
    tiny_orderer: Orderer, tiny_ar: ARModel, orderer_folder: Path, ar_folder: Path
) -> None:
    assert not Orderer.from_pretrained(orderer_folder).training
    assert not ARModel.from_pretrained(str(ar_folder)).training


def test_settings_come_back_typed(tiny_orderer: Orderer, orderer_folder: Path) -> None:
    settings = AutoConfig.from_pretrained(orderer_folder)
    assert type(settings) is OrdererConfig
    for name in OrdererConfig.__annotations__:
        assert getattr(settings, name) == getattr(tiny_orderer.config, name)


def test_both_models_can_be_pushed_to_a_hub() -> None:
    assert callable(Orderer.push_to_hub) and callable(ARModel.push_to_hub)


def test_a_folder_of_another_kind_is_refused(orderer_folder: Path, ar_folder: Path) -> None:
    with pytest.raises(ValueError, match=f"{orderer_folder} holds .*'sightline_orderer', not"):
        ARModel.from_pretrained(orderer_folder)
    with pytest.raises(ValueError, match=f"{ar_folder} holds .*'sightline_ar', not"):
        Orderer.from_pretrained(str(ar_folder))


def test_settings_of_another_kind_are_refused(ar_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"is for sightline_orderer .*, got .*'sightline_ar'"):
        OrdererConfig.from_pretrained(ar_folder)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        Orderer.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"no model can be read from .*nowhere") as refusal:
        Orderer.from_pretrained(str(tmp_path / "nowhere"))
    assert "\n" not in str(refusal.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no saved model, it has no config\.json"):
        Orderer.from_pretrained(tmp_path)


def test_settings_that_are_not_json_are_refused(orderer_folder: Path) -> None:
    (orderer_folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        Orderer.from_pretrained(orderer_folder)


def test_missing_weights_are_refused(orderer_folder: Path) -> None:
    (orderer_folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=f"no model can be read from {orderer_folder}"):
        Orderer.from_pretrained(orderer_folder)


def test_truncated_weights_are_refused(orderer_folder: Path) -> None:
    weights = orderer_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(OSError, match=f"no model can be read from {orderer_folder}"):
        Orderer.from_pretrained(orderer_folder)


def taken_apart(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the numbers of a model's weights."""
    content = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(folder: Path, header: bytes, numbers: bytes, length: int | None = None) -> None:
    size = struct.pack("<Q", len(header) if length is None else length)
    (folder / "model.safetensors").write_bytes(size + header + numbers)


BIAS = "decoder.blocks.0.attention.out.bias"
"""16 numbers."""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data_offsets": [0, 10**12]}, "no model can be read"),
        ({"shape": [2**62, 2**62]}, "no model can be read"),
        ({"dtype": "I32"}, f"{BIAS} is of I32 and must be of torch.float32"),
        ({"dtype": "F16", "shape": [32]}, rf"{BIAS} is \[32\] and must be \[16\]"),
        ({"dtype": "PICKLE"}, "no model can be read"),
    ],
    ids=["out of bounds", "overflow", "whole numbers", "another size", "another kind"],
)
def test_weights_whose_header_lies_are_refused(
    changes: dict[str, Any], sentence: str, orderer_folder: Path
) -> None:
    header, numbers = taken_apart(orderer_folder)
    header[BIAS].update(changes)
    put_together(orderer_folder, json.dumps(header).encode(), numbers)
    with pytest.raises((OSError, ValueError), match=sentence):
        Orderer.from_pretrained(orderer_folder)


@pytest.mark.parametrize("length", [0, 2**63, 2**64 - 1, 99_999_999])
def test_a_header_of_a_length_that_cannot_be_is_refused(length: int, orderer_folder: Path) -> None:
    header, numbers = taken_apart(orderer_folder)
    put_together(orderer_folder, json.dumps(header).encode(), numbers, length)
    with pytest.raises(OSError, match="no model can be read"):
        Orderer.from_pretrained(orderer_folder)


def test_a_name_that_comes_twice_is_refused(orderer_folder: Path) -> None:
    header, numbers = taken_apart(orderer_folder)
    again = f', "{BIAS}": {json.dumps(header[BIAS])}}}'
    put_together(orderer_folder, (json.dumps(header)[:-1] + again).encode(), numbers)
    with pytest.raises(ValueError, match=f"{BIAS} comes twice in the header"):
        Orderer.from_pretrained(orderer_folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_a_pickle_is_refused_and_not_opened(
    name: str, kind: str, orderer_folder: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (canary,)

    (orderer_folder / "model.safetensors").unlink()
    if kind == "zip":
        torch.save({"w": Runs()}, orderer_folder / name)
    else:
        (orderer_folder / name).write_bytes(pickle.dumps({"w": Runs()}))
    with pytest.raises(ValueError, match=r"turn them into safetensors with python -m recipes\."):
        Orderer.from_pretrained(orderer_folder)
    assert not canary.exists()


@pytest.mark.parametrize("times", [30, pytest.param(1_000, marks=pytest.mark.long)])
def test_a_mutated_header_is_refused_or_says_the_same(
    times: int, tiny_orderer: Orderer, orderer_folder: Path
) -> None:
    file = orderer_folder / "model.safetensors"
    content, expected = file.read_bytes(), tiny_orderer.state_dict()
    (length,) = struct.unpack("<Q", content[:8])
    draw, refused = random.Random(0), 0
    for _ in range(times):
        mutated = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            mutated[draw.randrange(8 + length)] = draw.randrange(256)
        file.write_bytes(mutated)
        try:
            found = Orderer.from_pretrained(orderer_folder).state_dict()
        except (OSError, ValueError):
            refused += 1
        else:
            assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert refused > 0.8 * times


def test_weights_with_a_gap_are_refused(orderer_folder: Path) -> None:
    weights = orderer_folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["decoder.null"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"have missing keys: decoder\.null"):
        Orderer.from_pretrained(orderer_folder)


def test_weights_of_another_size_are_refused(
    orderer_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = orderer_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "token_dim": 7}))
    sentence = (
        r"do not fit the settings beside them: decoder.embed.weight is \[16, 6\] .* \[16, 7\]"
    )
    with pytest.raises(ValueError, match=sentence):
        Orderer.from_pretrained(orderer_folder)
    assert "MISMATCH" not in capfd.readouterr().err  # transformers' table of it


def test_settings_of_another_format_are_refused(orderer_folder: Path) -> None:
    path = orderer_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 0, "old": 1}))
    with pytest.raises(ValueError, match="OrdererConfig reads settings of format 1 to 2, got 0"):
        Orderer.from_pretrained(orderer_folder)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"toknes": 3}, "OrdererConfig has no setting named toknes, got 3"),
        ({"tokens": "x"}, "tokens must be a whole number, got 'x'"),
        ({"tokens": 2.5}, "tokens must be a whole number, got 2.5"),
        ({"tokens": True}, "tokens must be a whole number, got True"),
        ({"token_noise": "much"}, "token_noise must be a number, got 'much'"),
        ({"tokens": 0}, "tokens must be at least 1, got 0"),
        ({"image_size": 32, "patch_size": 5}, "patch_size must divide image_size, got 5 and 32"),
        ({"heads": 3}, "3 heads do not divide a width of 128"),
        ({"token_dim": 1}, "token_dim must be at least 2 .*, got 1"),
        ({"vocabulary": 49407}, "vocabulary must be at least 49408, .*, got 49407"),
        ({"token_noise": -0.5}, "token_noise must be finite and not below 0, got -0.5"),
    ],
)
def test_an_orderer_that_cannot_be_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        OrdererConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"depth": 3}, "ARConfig has no setting named depth, got 3"),
        ({"layers": None}, "layers must be a whole number, got None"),
        (
            {"condition": "sound"},
            "condition must be one of 'none', 'class', 'text', 'words', got 'sound'",
        ),
        ({"condition": "class"}, "needs class_names, got none"),
        ({"class_names": [1]}, r"class_names must be a list of texts, got \[1\]"),
        ({"orderer_hash": 7}, "orderer_hash must be text, got 7"),
        ({"draws": -1}, "draws must be at least 1, got -1"),
        ({"heads": 5}, "width must be a multiple of 2 x heads, got 128"),
    ],
)
def test_an_ar_model_that_cannot_be_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ARConfig(**settings)


def test_a_whole_number_serves_where_a_number_is_asked() -> None:
    assert OrdererConfig(token_noise=0).token_noise == 0
