"""What decoders make: pixels, or the latents of a frozen diffusers autoencoder.

    B batch   H, W image height and width   C channels   h, w height and width of the latents

An autoencoder comes from a local folder and becomes part of the orderer: its settings stand in the
config, its weights beside the orderer's own. By what its latents are shifted and scaled is read
from its settings; no two families agree on it.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .building import built_from
from .config import OrdererConfig
from .saved import read_settings

WEIGHTS = "diffusion_pytorch_model.safetensors"
KIND = "AutoencoderKL"
RECORDED = ("sha256", "from")
"""Of the weights, beside the settings."""


@runtime_checkable
class Latents(Protocol):
    """A space that images have a place in."""

    factor: int
    """Pixels to a side of a latent."""

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Bring in images with values in [-1, 1]."""

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Give images, through which gradients flow."""


class Pixels(nn.Module):
    """The images themselves."""

    factor = 1

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        return images

    def decode(self, latents: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        return latents


class FrozenLatents(nn.Module):
    """The latents of an `AutoencoderKL`, shifted and scaled as its settings say.

    Source: Rombach et al. 2021, "High-Resolution Image Synthesis with Latent Diffusion Models",
    section 3.1, https://arxiv.org/abs/2112.10752.
    """

    autoencoder: Any

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval()
        _freeze(autoencoder)
        self.factor = latent_factor(autoencoder.config)
        self.shift, self.scale = shift_and_scale(autoencoder.config)

    def start_from(self, folder: Path) -> None:
        """Take the weights from a folder."""
        self.autoencoder.load_state_dict(_loaded(folder).state_dict())

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        latents = self.autoencoder.encode(images).latent_dist.mode().float()
        shift, scale = latents.new_tensor(self.shift), latents.new_tensor(self.scale)
        return (latents - shift.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        shift, scale = latents.new_tensor(self.shift), latents.new_tensor(self.scale)
        latents = latents / scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
        return self.autoencoder.decode(latents).sample


def _freeze(model: nn.Module) -> None:
    """Turn parameters into buffers: transformers lets every parameter that it loads learn again."""
    for part in model.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, value.detach())


def latent_factor(settings: Mapping[str, Any]) -> int:
    """Pixels to a side of a latent: every block but the last halves the image."""
    return int(2 ** (len(settings["block_out_channels"]) - 1))


def shift_and_scale(settings: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """What is taken from latents, and by what they are then multiplied: one, or one a channel.

    Raises:
        ValueError: for settings without a scale.
    """
    factor = settings.get("scaling_factor")
    if factor is None:
        raise ValueError("the settings of the autoencoder have no scaling_factor")
    mean, std = settings.get("latents_mean"), settings.get("latents_std")
    if mean is not None and std is not None:
        return list(map(float, mean)), [factor / each for each in std]
    return [float(settings.get("shift_factor") or 0.0)], [float(factor)]


def make_latents(config: OrdererConfig) -> Latents:
    """Make what a config describes, an autoencoder with random weights.

    Raises:
        ValueError: if the settings build no autoencoder, or its latents do not tile a patch.
        ImportError: if diffusers is not installed.
    """
    if config.autoencoder is None:
        return Pixels()
    settings = {key: value for key, value in config.autoencoder.items() if key not in RECORDED}
    with built_from("autoencoder", "autoencoder"):
        latents = FrozenLatents(_diffusers().AutoencoderKL.from_config(settings))
        config.patch_values  # noqa: B018  # needs settings for which diffusers has defaults
    if config.patch_size % latents.factor:
        raise ValueError(
            f"patch_size must be a multiple of the {latents.factor} pixels to a latent, got "
            f"{config.patch_size}"
        )
    return latents


def settings_of(folder: Path) -> dict[str, Any]:
    """Read an autoencoder's settings, and the sha256 of its weights.

    Raises:
        ValueError: if it is of another kind, or has no safetensors.
        FileNotFoundError: if the folder is not there.
    """
    settings = read_settings(folder, "config.json")
    if settings.get("_class_name") != KIND:
        raise ValueError(f"{folder} holds a {settings.get('_class_name')!r}, not an {KIND}")
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}, and no other weights are read")
    with (folder / WEIGHTS).open("rb") as file:
        return {**settings, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _loaded(folder: Path) -> Any:
    model, report = _diffusers().AutoencoderKL.from_pretrained(
        str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report[trouble]:
            raise ValueError(f"the weights in {folder} have {trouble}: {report[trouble]}")
    return model


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(
            "an orderer with an autoencoder needs diffusers: pip install '.[diffusion]'"
        ) from error
    return diffusers
