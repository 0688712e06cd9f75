"""Frozen vision networks: of any kind, from a folder, never learning."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Model, GPT2Config, GPT2Model

from orderer.objectives.teacher import Teacher

Save = Callable[[str], Path]


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("convnext", [8, 2, 3]),
        ("resnet", [12, 2, 3]),
        ("dinov2", [12, 3, 4]),
        ("vit", [12, 2, 3]),
        ("clip", [12, 2, 3]),
    ],
)
def test_every_kind_gives_maps_of_images_of_any_size(
    vision_model: Save, kind: str, last: list[int]
) -> None:
    teacher = Teacher(vision_model(kind))
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    assert list(teacher.last(images).shape) == [2, *last]
    assert teacher.channels == last[0]
    assert all(stage.ndim == 4 and len(stage) == 2 for stage in teacher.stages(images))


def test_states_of_patches_lie_where_their_patches_are(vision_model: Save) -> None:
    folder = vision_model("dinov2")
    images = torch.rand(1, 3, 14, 21) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((images + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        states = Dinov2Model.from_pretrained(folder).eval()(pixels).last_hidden_state
        found = Teacher(folder).last(images)
    torch.testing.assert_close(found[0, :, 1, 2], states[0, 1 + 3 + 2])


def test_it_is_frozen_and_lets_gradients_through_to_pixels(vision_model: Save) -> None:
    teacher = Teacher(vision_model("resnet"))
    images = (torch.rand(1, 3, 16, 16) * 2 - 1).requires_grad_()
    teacher.last(images).square().sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert not teacher.network.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.network.parameters())


def test_the_hash_names_the_weights(vision_model: Save) -> None:
    folder = vision_model("vit")
    before = Teacher(folder).weights
    assert Teacher(folder).weights == before
    tensors = load_file(folder / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    changed = Teacher(folder).weights
    assert changed != before
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')
    assert Teacher(folder).weights not in (before, changed)


def test_a_folder_without_safe_weights_is_refused(vision_model: Save, tmp_path: Path) -> None:
    folder = vision_model("vit")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for each in (folder, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="is no folder with a model in safetensors"):
            Teacher(each)


def test_weights_that_lack_a_part_are_refused(vision_model: Save) -> None:
    folder = vision_model("resnet")
    tensors = load_file(folder / "model.safetensors")
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"the weights in .* lack {lost}"):
        Teacher(folder)


def test_a_model_that_sees_nothing_is_refused(tmp_path: Path) -> None:
    text = GPT2Model(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    text.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no vision model, it reads input_ids"):
        Teacher(tmp_path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"auto_map": {"AutoModel": "code.Net"}}, r"asks for code of its own \(auto_map\)"),
        ({"model_type": "timm_wrapper", "architecture": "hf-hub:a/b"}, "asks for a model of timm"),
        ({"hidden_sizes": [8, 16]}, r"do not fit: .* is \[.*12.*\] and must be \[.*16.*\]"),
        ({"hidden_sizes": "wide"}, "no vision model can be read from"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    vision_model: Save, settings: dict[str, object], sentence: str
) -> None:
    path = vision_model("resnet") / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises((ValueError, OSError), match=sentence) as refusal:
        Teacher(path.parent)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("said", ["{", '{"image_mean": null}', '{"image_std": ["a", 1, 2]}'])
def test_pixels_that_are_not_said_are_refused(vision_model: Save, said: str) -> None:
    folder = vision_model("resnet")
    (folder / "preprocessor_config.json").write_text(said)
    with pytest.raises(ValueError, match=r"is not JSON|must be three numbers"):
        Teacher(folder)


def test_damaged_weights_are_refused(vision_model: Save) -> None:
    folder = vision_model("resnet")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:100])
    with pytest.raises(OSError, match=f"no vision model can be read from {folder}: "):
        Teacher(folder)
