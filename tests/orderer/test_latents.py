"""Decoding in the latents of a frozen autoencoder: its own scale, saved whole."""

import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from orderer import Orderer, OrdererConfig, complete_settings, start_orderer
from orderer.latents import FrozenLatents, shift_and_scale

BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 2}
BLOCKS |= {"up_block_types": ("UpDecoderBlock2D",) * 2}


def autoencoder(**settings: object) -> AutoencoderKL:
    """Random weights; two pixels to a side of a latent of two channels."""
    return AutoencoderKL(
        **BLOCKS, block_out_channels=(8, 8), norm_num_groups=4, latent_channels=2, **settings
    ).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    autoencoder(scaling_factor=0.7, shift_factor=0.2).save_pretrained(tmp_path / "kl")
    return tmp_path / "kl"


def made(folder: Path, **settings: object) -> Orderer:
    towers = {"heads": 2, "text_width": 16, "text_heads": 2, "text_layers": 1, "embed_dim": 8}
    sizes = {"image_size": 16, "patch_size": 4, "tokens": 4, "token_dim": 6, "width": 16}
    kind = {"decoder": "flow", "decoder_steps": 2, "autoencoder": str(folder)}
    return start_orderer(complete_settings({**kind, **sizes, **towers, **settings})).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)


@pytest.mark.parametrize(
    "settings",
    [
        {"scaling_factor": 0.5},
        {"scaling_factor": 0.5, "shift_factor": 0.1},
        {"scaling_factor": 0.5, "latents_mean": [0.1, -0.2], "latents_std": [2.0, 3.0]},
    ],
)
def test_latents_are_shifted_and_scaled_as_the_settings_say_and_back(
    settings: dict[str, object], images: Tensor
) -> None:
    model = autoencoder(**settings)
    latents, pixels = FrozenLatents(model), images / 127.5 - 1
    plain = model.encode(pixels).latent_dist.mode()
    mean = torch.tensor(settings.get("latents_mean", [settings.get("shift_factor", 0.0)] * 2))
    std = torch.tensor(settings.get("latents_std", [1.0, 1.0]))
    wanted = (plain - mean.view(1, 2, 1, 1)) * 0.5 / std.view(1, 2, 1, 1)
    torch.testing.assert_close(latents.encode(pixels), wanted)
    torch.testing.assert_close(latents.decode(wanted), model.decode(plain).sample)


@pytest.mark.parametrize("decoder", ["deterministic", "flow"])
def test_an_orderer_decodes_through_the_autoencoder(
    folder: Path, images: Tensor, decoder: str
) -> None:
    orderer = made(folder, decoder=decoder)
    assert orderer.config.patch_values == 2 * 2 * 2
    assert orderer.decode(orderer.encode(images)[:, :2]).shape == (2, 3, 16, 16)
    assert orderer.decode(torch.randn(2, 3, 6), (8, 24)).shape == (2, 3, 8, 24)


def test_what_is_rebuilt_are_the_autoencoders_latents(folder: Path, images: Tensor) -> None:
    orderer = made(folder)
    tokens, keep = orderer.encode(images), torch.ones(2, 4, dtype=torch.bool)
    patches = orderer.rebuild(tokens, keep, images).patches
    assert patches.shape == (2, 16, 8)
    (gradient,) = torch.autograd.grad(orderer.images_of(patches, (4, 4)).sum(), tokens)
    assert gradient.any()


def test_the_autoencoder_never_learns(folder: Path, images: Tensor) -> None:
    orderer = made(folder).train()
    keep = torch.ones(2, 4, dtype=torch.bool)
    orderer.rebuild(orderer.encode(images), keep, images).loss.backward()
    assert not list(orderer.latents.parameters())
    assert not any(weight.requires_grad for weight in orderer.latents.buffers())


def test_a_saved_orderer_needs_its_folder_no_more(folder: Path, tmp_path: Path) -> None:
    orderer, tokens = made(folder), torch.randn(2, 3, 6)
    orderer.save_pretrained(tmp_path / "orderer")
    for file in folder.iterdir():
        file.unlink()
    again = Orderer.from_pretrained(tmp_path / "orderer")
    assert torch.equal(again.decode(tokens), orderer.decode(tokens))
    assert again.config.autoencoder == json.loads(json.dumps(orderer.config.autoencoder))
    assert len(again.config.autoencoder["sha256"]) == 64
    assert str(tmp_path) not in (tmp_path / "orderer/config.json").read_text()
    assert not list(again.latents.parameters())


def test_the_encoding_does_not_depend_on_the_autoencoder(folder: Path) -> None:
    orderer = made(folder)
    before = orderer.encoding_hash()
    torch.nn.init.zeros_(orderer.latents.autoencoder.quant_conv.weight)
    assert orderer.encoding_hash() == before


def test_without_a_scale_there_are_no_latents() -> None:
    with pytest.raises(ValueError, match="have no scaling_factor"):
        shift_and_scale({"scaling_factor": None})


def test_a_patch_that_latents_do_not_tile_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="multiple of the 2 pixels to a latent, got 1"):
        made(folder, patch_size=1)


def test_weights_of_another_format_are_refused(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "weights.bin")
    with pytest.raises(ValueError, match=r"has no diffusion_pytorch_model\.safetensors"):
        made(folder)


def test_a_model_of_another_kind_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="holds a 'UNet2DModel', not an AutoencoderKL"):
        made(folder)


def test_an_autoencoder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        made(tmp_path / "nowhere")


def test_a_model_reads_no_folder_that_its_settings_name(folder: Path) -> None:
    with pytest.raises(ValueError, match="autoencoder must be named values or null, got '/"):
        OrdererConfig(autoencoder=str(folder))


def test_settings_are_left_as_they_were(folder: Path) -> None:
    config = complete_settings({"patch_size": 4, "autoencoder": str(folder)})
    before = json.dumps(config.to_dict())
    start_orderer(config)
    assert json.dumps(config.to_dict()) == before


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"latent_channels": 4},
        {"block_out_channels": "wide", "latent_channels": 4},
        {"block_out_channels": [8, 8], "latent_channels": 2, "down_block_types": ["Evil"]},
        {"block_out_channels": [32], "latent_channels": 2, "scaling_factor": None},
    ],
)
def test_settings_that_build_no_autoencoder_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^autoencoder builds no autoencoder: [^\n]+$"):
        Orderer(OrdererConfig(patch_size=4, autoencoder=settings))


def test_an_absent_library_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"needs diffusers: pip install '.\[diffusion\]'"):
        made(folder)
