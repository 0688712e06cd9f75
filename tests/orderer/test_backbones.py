"""Features of other libraries' towers: their own numbers, saved with the orderer, or refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from orderer import Orderer, OrdererConfig, complete_settings, start_orderer

SMALL = {
    "image_size": 16,
    "patch_size": 4,
    "tokens": 4,
    "token_dim": 6,
    "width": 16,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "readout_layers": 1,
    "text_width": 16,
    "text_heads": 2,
    "text_layers": 1,
    "embed_dim": 8,
}
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
KINDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit": ("ViT", TINY, 1),
    "clip": ("CLIPVision", TINY, 1),
    "siglip": ("SiglipVision", TINY, 0),
    "dinov2": ("Dinov2", TINY, 1),
    "registers": ("Dinov2WithRegisters", {**TINY, "num_register_tokens": 3}, 4),
}
"""A name in transformers, settings, and how many tokens of no patch come first."""


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 16, 16) * 2 - 1


def saved(folder: Path, kind: str) -> Any:
    """A random model of a kind, saved as its owners save theirs."""
    name, settings, _ = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, f"{name}Model")(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    said = {"image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return model


def started(spec: str, **settings: Any) -> Orderer:
    return start_orderer(complete_settings({**SMALL, "features": spec, **settings}))


def normalised(images: Tensor, mean: Any = MEAN, std: Any = STD) -> Tensor:
    mean, std = (torch.tensor(each)[:, None, None] for each in (mean, std))
    return ((images + 1) / 2 - mean) / std


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_states_of_the_patches(kind: str, tmp_path: Path, images: Tensor) -> None:
    model = saved(tmp_path, kind)
    orderer = started(f"transformers:{tmp_path}")
    with torch.no_grad():
        theirs = model(pixel_values=normalised(images)).last_hidden_state
    first = KINDS[kind][2]
    assert theirs.shape[1] == first + 16
    torch.testing.assert_close(orderer.features(images), theirs[:, first:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_orderer_needs_no_folder_of_its_tower(
    kind: str, tmp_path: Path, images: Tensor
) -> None:
    saved(tmp_path / "tower", kind)
    orderer = started(f"transformers:{tmp_path / 'tower'}").eval()
    orderer.save_pretrained(tmp_path / "orderer")
    shutil.rmtree(tmp_path / "tower")
    assert str(tmp_path) not in (tmp_path / "orderer/config.json").read_text()
    again = Orderer.from_pretrained(tmp_path / "orderer")
    assert torch.equal(again.encode(images), orderer.encode(images))
    assert again.encoding_hash() == orderer.encoding_hash()
    assert again.features.trained is False
    assert not any(p.requires_grad for p in again.features.parameters())
    assert again.config.features_weights == orderer.config.features_weights


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_other_shapes_have_features_too(kind: str, tmp_path: Path) -> None:
    saved(tmp_path, kind)
    orderer = started(f"transformers:{tmp_path}")
    wide = torch.rand(1, 3, 8, 24)
    assert orderer.features.grid(8, 24) == (2, 6)
    assert orderer.features(wide).shape == (1, 12, 16)
    assert orderer.encode(wide).shape == (1, 4, 6)


def test_siglip_2_reads_patches_with_their_grid(tmp_path: Path, images: Tensor) -> None:
    settings = {k: v for k, v in TINY.items() if k != "image_size"}
    config = transformers.Siglip2VisionConfig(**settings, num_patches=16)
    model = transformers.Siglip2VisionModel(config).eval()
    model.save_pretrained(tmp_path)
    said = {"image_mean": MEAN, "image_std": STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    orderer = started(f"transformers:{tmp_path}")
    from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

    patches = torch.stack([convert_image_to_patches(one, 4) for one in normalised(images)])
    with torch.no_grad():
        theirs = model(patches, torch.ones(2, 16).long(), torch.tensor([[4, 4]] * 2))
    torch.testing.assert_close(
        orderer.features(images), theirs.last_hidden_state, atol=1e-5, rtol=1e-5
    )
    assert orderer.features(torch.rand(1, 3, 8, 24)).shape == (1, 12, 16)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "Swin",
            {
                "image_size": 32,
                "patch_size": 4,
                "window_size": 2,
                "embed_dim": 8,
                "depths": [1, 1],
                "num_heads": [1, 2],
            },
        ),
        ("ConvNext", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}),
    ],
)
def test_towers_in_stages_have_coarser_features(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    config = getattr(transformers, f"{name}Config")(**settings)
    getattr(transformers, f"{name}Model")(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    orderer = started(f"transformers:{tmp_path}", image_size=32, mixing="random")
    assert orderer.features(torch.rand(2, 3, 32, 32)).shape == (2, 16, 16)


def test_the_tower_of_a_model_of_both_is_found(tmp_path: Path, images: Tensor) -> None:
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.CLIPConfig(vision_config=TINY, text_config=text, projection_dim=8)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    said = {"image_mean": MEAN, "image_std": STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    with torch.no_grad():
        theirs = model.vision_model(pixel_values=normalised(images)).last_hidden_state
    ours = started(f"transformers:{tmp_path}").features(images)
    torch.testing.assert_close(ours, theirs[:, 1:], atol=1e-5, rtol=1e-5)


CLIPS: dict[str, dict[str, Any]] = {
    "tiny-vit": {"image_size": 16, "patch_size": 4, "width": 16, "layers": 2, "head_width": 8},
    "tiny-average": {
        "image_size": 16,
        "patch_size": 4,
        "width": 16,
        "layers": 2,
        "head_width": 8,
        "pool_type": "avg",
    },
    "tiny-resnet": {"image_size": 32, "width": 8, "layers": [1, 1, 1, 1], "head_width": 8},
    "tiny-timm": {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160},
}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """open_clip knows models of four kinds by name."""
    text = {"width": 16, "heads": 2, "layers": 1, "context_length": 12}
    for name, vision in CLIPS.items():
        settings = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
        (tmp_path / f"{name}.json").write_text(json.dumps(settings))
    open_clip.add_model_config(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-average"])
def test_a_vision_transformer_of_open_clip_gives_its_own_tokens(
    name: str, clips: Path, images: Tensor
) -> None:
    model = open_clip.create_model(name).eval()
    save_file(model.state_dict(), clips / "clip.safetensors")
    orderer = started(f"open_clip:{name}@{clips / 'clip.safetensors'}").eval()
    model.visual.output_tokens = True
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    with torch.no_grad():
        _, theirs = model.visual(normalised(images, mean, std))
    torch.testing.assert_close(orderer.features(images), theirs, atol=1e-5, rtol=1e-5)
    assert orderer.encode(torch.rand(1, 3, 8, 24)).shape == (1, 4, 6)


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [("tiny-vit", 16, 4), ("tiny-resnet", 32, 1), ("tiny-timm", 160, 10)],
)
def test_every_kind_of_open_clip_tower_is_saved(
    name: str, size: int, grid: int, clips: Path
) -> None:
    settings = {"image_size": size, "patch_size": size // 2}
    model = open_clip.create_model(name)
    save_file(model.state_dict(), clips / "clip.safetensors")
    orderer = started(f"open_clip:{name}@{clips / 'clip.safetensors'}", **settings).eval()
    assert orderer.features.grid(size, size) == (grid, grid)
    orderer.save_pretrained(clips / "orderer")
    (clips / "clip.safetensors").unlink()
    again, images = Orderer.from_pretrained(clips / "orderer"), torch.rand(1, 3, size, size)
    assert torch.equal(again.encode(images), orderer.encode(images))


def test_a_tower_without_a_file_says_that_it_is_random(
    clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert started("open_clip:tiny-vit").config.features_weights is None
    assert "open_clip's tiny-vit starts with random weights" in caplog.text


def test_a_frozen_tower_stays_in_eval_mode_and_learns_nothing(
    tmp_path: Path, images: Tensor
) -> None:
    saved(tmp_path, "vit")
    orderer = started(f"transformers:{tmp_path}").train()
    assert orderer.training and not any(part.training for part in orderer.features.modules())
    features = orderer.features(images)
    assert features.grad_fn is None
    orderer.encode(images).sum().backward()
    assert all(p.grad is None for p in orderer.features.parameters())
    assert orderer.encoder.queries.grad is not None


def test_gradients_reach_the_image_through_a_frozen_tower(tmp_path: Path, images: Tensor) -> None:
    saved(tmp_path, "vit")
    orderer = started(f"transformers:{tmp_path}")
    (gradient,) = torch.autograd.grad(orderer.encode(images.requires_grad_())[..., 0].sum(), images)
    assert gradient.abs().gt(0).all()


def test_a_tuned_tower_has_gradients_and_trains(tmp_path: Path, images: Tensor) -> None:
    saved(tmp_path, "vit")
    orderer = started(f"transformers:{tmp_path}", features_trained=True).train()
    assert orderer.features.network.training
    orderer.encode(images).square().sum().backward()
    for name, parameter in orderer.features.named_parameters():
        assert parameter.grad is not None, name


def test_the_encoding_hash_covers_the_tower(tmp_path: Path) -> None:
    saved(tmp_path, "vit")
    orderer = started(f"transformers:{tmp_path}")
    before = orderer.encoding_hash()
    with torch.no_grad():
        next(orderer.features.parameters()).view(-1)[0] += 1e-4
    assert orderer.encoding_hash() != before


def test_pixels_that_the_towers_patches_do_not_tile_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, "vit")
    orderer = started(f"transformers:{tmp_path}", patch_size=2)
    with pytest.raises(ValueError, match="in multiples of 4 pixels, got 18 x 16"):
        orderer.encode(torch.rand(1, 3, 18, 16))


def test_a_size_that_a_tower_cannot_read_is_refused(clips: Path) -> None:
    orderer = started("open_clip:tiny-timm", image_size=160, patch_size=16)
    with pytest.raises(ValueError, match="of 160 x 160 pixels only, got 320 x 160"):
        orderer.encode(torch.rand(1, 3, 320, 160))


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("Yolos", {"image_size": [16, 16], "num_detection_tokens": 5}, "22 vectors, .* make 17"),
        ("ViTMAE", {}, r"a vit_mae model has a mask_ratio of 0\.75"),
        ("ViTMAE", {"mask_ratio": 0.0}, r"has a mask_ratio of 0\.0"),
        (
            "PoolFormer",
            {"patch_size": 2, "hidden_sizes": [8] * 4, "depths": [1] * 4},
            "gives a grid of 1 x 1, where its settings say 2 x 2",
        ),
    ],
)
def test_a_tower_that_gives_anything_but_one_state_a_patch_is_refused(
    name: str, settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    config = getattr(transformers, f"{name}Config")(**{**TINY, **settings})
    getattr(transformers, f"{name}Model")(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    size = 32 if name == "PoolFormer" else 16
    with pytest.raises(ValueError, match=sentence):
        started(f"transformers:{tmp_path}", image_size=size).encode(torch.rand(1, 3, size, size))


def test_vectors_of_another_size_are_refused(tmp_path: Path, images: Tensor) -> None:
    saved(tmp_path, "vit")
    orderer = started(f"transformers:{tmp_path}")
    orderer.features.channels = 15
    with pytest.raises(ValueError, match="vectors of 16 channels, its settings say 15"):
        orderer.encode(images)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("dino", "features must be patches, open_clip:NAME, .* got 'dino'"),
        ("open_clip:ViT-B-16@", "features must be .* got 'open_clip:ViT-B-16@'"),
        ("open_clip:ViT-Z-1", "open_clip has no model named 'ViT-Z-1'"),
    ],
)
def test_a_tower_that_is_not_there_is_refused(spec: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        started(spec)


def test_a_folder_or_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        started(f"transformers:{tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match=r"there is no weight file .*nothing.safetensors"):
        started(f"open_clip:ViT-B-16@{tmp_path / 'nothing.safetensors'}")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"auto_map": {"AutoModel": "code.Net"}}, r"asks for code of its own \(auto_map\)"),
        ({"attn_implementation": "somebody/kernel"}, "asks for attn_implementation"),
        ({"model_type": "timm_wrapper", "architecture": "hf-hub:a/b"}, "asks for a model of timm"),
        ({"checkpoint_path": "weights.bin"}, "asks for checkpoint_path, which is never followed"),
        ({"model_type": "unheard"}, "transformers knows no model of the kind 'unheard'"),
        ({"model_type": "bert"}, "a bert model is no image tower, it reads input_ids"),
        ({"hidden_size": 18}, r"do not fit: .* is \[.*16.*\] and must be \[.*18.*\]"),
        ({"num_hidden_layers": 3}, "have missing keys: .*layers?.2"),
        ({"num_hidden_layers": 1}, "have unexpected keys: .*layers?.1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    saved(tmp_path, "vit")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(ValueError, match=sentence):
        started(f"transformers:{tmp_path}")


def test_a_folder_that_does_not_say_how_pixels_are_normalised_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "vit")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="nothing says what pixels its model reads"):
        started(f"transformers:{tmp_path}")


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.npz", "model.safetensors"])
def test_other_formats_are_refused_with_what_converts_them(
    name: str, clips: Path, images: Tensor
) -> None:
    path = clips / name
    torch.save(open_clip.create_model("tiny-vit").state_dict(), path)
    sentence = f"{path} is not in safetensors .* `python -m recipes.convert_weights {path} "
    with pytest.raises(ValueError, match=sentence):
        started(f"open_clip:tiny-vit@{path}")


def test_a_folder_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "vit")
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"pytorch_model.bin is not in safetensors"):
        started(f"transformers:{tmp_path}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda w: w | {"visual.proj": torch.zeros(16, 9)},
            r"visual|proj is \[16, 9\] .* \[16, 8\]",
        ),
        (lambda w: w | {"visual.more": torch.zeros(1)}, "have unexpected keys: more"),
        (lambda w: {k: v for k, v in w.items() if k != "visual.proj"}, "missing keys: proj"),
        (lambda w: {"text.x": torch.zeros(1)}, r"has no image tower of open_clip"),
    ],
)
def test_weights_of_another_model_are_refused(change: Any, sentence: str, clips: Path) -> None:
    weights = open_clip.create_model("tiny-vit").state_dict()
    save_file(change(weights), clips / "clip.safetensors")
    with pytest.raises(ValueError, match=sentence):
        started(f"open_clip:tiny-vit@{clips / 'clip.safetensors'}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"timm_model_name": "hf-hub:a/b"}, "got timm_model_name 'hf-hub:a/b'"),
        ({"checkpoint_path": "weights.bin"}, "asks for checkpoint_path, which is never followed"),
    ],
)
def test_a_saved_structure_that_leads_elsewhere_is_refused(
    change: dict[str, str], sentence: str, clips: Path
) -> None:
    config = started("open_clip:tiny-vit").config
    config.features_architecture["tower"] |= change
    with pytest.raises(ValueError, match=sentence):
        Orderer(config)


@pytest.mark.parametrize("part", ["features", "text"])
@pytest.mark.parametrize("source", ["open_clip", "transformers"])
@pytest.mark.parametrize(
    "structure",
    [
        {},
        {"config": {}, "mean": MEAN, "std": STD},
        {"config": {"model_type": "vit", "hidden_size": "wide"}, "mean": MEAN, "std": STD},
        {"config": {"model_type": "vit"}, "mean": "grey", "std": STD},
        {"tower": {"unheard": 1}, "embed_dim": 8, "quick_gelu": False, "mean": MEAN, "std": STD},
        {"tower": None, "embed_dim": "wide", "quick_gelu": [], "mean": MEAN, "std": STD},
    ],
)
def test_a_structure_that_builds_no_tower_is_refused(
    part: str, source: str, structure: dict[str, Any]
) -> None:
    settings = {part: source, f"{part}_architecture": structure}
    if settings.get("text") == "transformers":
        settings["text_end"] = 1
    with pytest.raises(ValueError, match=rf"^{part}_architecture builds no tower: [^\n]+$"):
        Orderer(OrdererConfig(**SMALL, **settings))


def test_weights_are_known_by_the_last_name_of_their_file(clips: Path) -> None:
    save_file(open_clip.create_model("tiny-vit").state_dict(), clips / "clip.safetensors")
    weights = started(f"open_clip:tiny-vit@{clips / 'clip.safetensors'}").config.features_weights
    assert weights["from"] == "open_clip:tiny-vit@clip.safetensors"


def test_an_index_of_weights_elsewhere_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "tower", "vit")
    (tmp_path / "tower/model.safetensors").rename(tmp_path / "model.safetensors")
    said = {"metadata": {}, "weight_map": {"a": "../model.safetensors"}}
    (tmp_path / "tower/model.safetensors.index.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"lie beside it, got '\.\./model\.safetensors'"):
        started(f"transformers:{tmp_path / 'tower'}")


def test_a_damaged_weight_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{damaged")
    with pytest.raises(OSError, match=f"no weights can be read from {path}"):
        started(f"open_clip:ViT-B-16@{path}", image_size=224, patch_size=16)


def test_raw_patches_have_no_tower() -> None:
    with pytest.raises(ValueError, match="belongs to towers of other libraries"):
        OrdererConfig(features_architecture={"name": "x"})
