"""A frozen vision network from a local folder, that others are measured by.

B batch   H, W image height and width   C channels   h, w height and width of a feature map
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel

from ..pretrained import no_warnings_of_weights
from ..saved import read_pixels, read_settings
from ..transformers_towers import check_own, weight_files
from ..weights import check_shape, digest_of

SETTINGS, PIXELS = "config.json", "preprocessor_config.json"

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels: for networks that come without their own."""

ANY_SIZE = "interpolate_pos_encoding"
"""What some networks want to be told, others read images of any size without."""


class Teacher:
    """Never learns, always in `eval`, and no module: so it is saved with nothing.

    Any vision model of transformers whose features lie on a grid will do: ConvNeXt, ResNet, DINOv2,
    the vision tower of CLIP. Images are enlarged to the next multiple of its patches.

    Raises:
        OSError: if no such model can be read from the folder.
        ValueError: if it is no vision model, or asks for code or weights that are elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self.network = load_network(folder)
        self.weights = weights_hash(folder)
        """sha256 of its weight files and of its settings, those of pixels too."""
        asked = ANY_SIZE in inspect.signature(self.network.forward).parameters
        self._options = {ANY_SIZE: True} if asked else {}
        mean, std = _statistics(folder)
        self._mean, self._std = (torch.tensor(each)[:, None, None] for each in (mean, std))
        config: Any = self.network.config
        self._patch = int(getattr(config, "patch_size", 1))
        sizes = getattr(config, "hidden_sizes", None)
        self.channels = int(sizes[-1] if sizes else config.hidden_size)
        """Of the map that `last` gives."""

    def stages(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
        """The feature maps after each layer or stage, of images with values in [-1, 1]."""
        pixels = self._pixels(images)
        found = self._see(pixels, output_hidden_states=True).hidden_states
        return [self._as_map(states, pixels) for states in found]

    def last(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The feature map that the network ends with, of images with values in [-1, 1]."""
        pixels = self._pixels(images)
        return self._as_map(self._see(pixels).last_hidden_state, pixels)

    def _see(self, pixels: Tensor, **wanted: bool) -> Any:
        if next(self.network.parameters()).device != pixels.device:
            self.network.to(pixels.device)
        return self.network(pixels, **wanted, **self._options)

    def _pixels(self, images: Tensor) -> Float[Tensor, "B 3 h w"]:
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        pixels = ((images + 1) / 2 - mean) / std
        size = [-(-side // self._patch) * self._patch for side in images.shape[2:]]
        if size == list(images.shape[2:]):
            return pixels
        return F.interpolate(pixels, size, mode="bilinear", antialias=True)

    def _as_map(self, states: Tensor, pixels: Tensor) -> Float[Tensor, "B C h w"]:
        """Put the states of patches, which come after those of no place, on their grid."""
        if states.ndim == 4:
            return states.float()
        rows, columns = (side // self._patch for side in pixels.shape[2:])
        return states[:, -rows * columns :].float().mT.unflatten(2, (rows, columns))


def load_network(folder: Path) -> nn.Module:
    """Load a vision model, or the vision tower of a model of both, and freeze it."""
    if not folder.is_dir() or not list(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder} is no folder with a model in safetensors")
    check_own(read_settings(folder, SETTINGS), folder / SETTINGS)
    weight_files(folder)
    try:
        with no_warnings_of_weights():
            model, report = AutoModel.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below
            )
    except Exception as error:  # safetensors and transformers raise several kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"no vision model can be read from {folder}: {reason}") from error
    for name, found, wanted in sorted(report["mismatched_keys"]):
        check_shape(folder, name, found, wanted)
    model = getattr(model, "vision_model", model)
    if model.main_input_name != "pixel_values":
        raise ValueError(f"{folder} holds no vision model, it reads {model.main_input_name}")
    if lacking := sorted(key for key in report["missing_keys"] if "pooler" not in key):
        raise ValueError(f"the weights in {folder} lack {', '.join(lacking[:5])}")
    return model.eval().requires_grad_(False)


def weights_hash(folder: Path) -> str:
    """The sha256 of a folder's weight files, in the order of their names, and of its settings."""
    settings = [folder / name for name in (SETTINGS, PIXELS) if (folder / name).is_file()]
    return digest_of([*sorted(folder.glob("*.safetensors")), *settings])


def _statistics(folder: Path) -> tuple[list[float], list[float]]:
    said = read_settings(folder, PIXELS) if (folder / PIXELS).is_file() else {}
    pixels = read_pixels({"image_mean": MEAN, "image_std": STD, **said}, folder / PIXELS)
    return pixels["mean"], pixels["std"]
