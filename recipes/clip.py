"""Any model of open_clip as it was released: both its sides, its preprocessing, its tokenizer.

Weights are read from safetensors alone and nothing is downloaded.

B images   S pixels on a side   M captions   E size of the embedding
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from orderer.weights import check_safe, digest_of  # before open_clip, which imports torchvision

SETTINGS = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""The first that open_clip looks for: with one of them there it unpickles no other file."""
SIDES = {"image": ("visual.",), "text": ("text.", "token_embedding.")}
"""How the names of a side's weights begin."""
SHOWING = ("mean", "std", "interpolation", "resize_mode")
"""What open_clip knows of how images are shown to released weights."""
BATCH = 64


class Clip:
    """Two towers in eval mode, with the preprocessing and the tokenizer that belong to them.

    Args:
        named: NAME@FILE.safetensors, by a name that open_clip knows; or a folder as open_clip saves
            one, which has its settings and, where it is not open_clip's own, its tokenizer.
        device: to compute on.

    Raises:
        FileNotFoundError: if the folder or the file is not there.
        ValueError: if it is no such model, or lacks a side.
    """

    def __init__(self, named: str, device: torch.device) -> None:
        from open_clip import get_model_preprocess_cfg  # slow to import
        from open_clip.transform import PreprocessCfg, image_transform_v2

        name, at, file = named.partition("@")
        self.path = Path(file) if at else weights_in(Path(named))
        check_sides(self.path)
        self.device = device
        self.model, self.tokenizer = _from_name(name, self.path) if at else _from_folder(named)
        self.model.to(device).eval()
        self.showing: dict[str, Any] = get_model_preprocess_cfg(self.model)
        self._show = image_transform_v2(PreprocessCfg(**self.showing), is_train=False)

    def about(self) -> dict[str, Any]:
        """What it is, for a result file."""
        return {"weights": self.path.name, "sha256": digest_of([self.path]), "shown": self.showing}

    def pixels(self, image: UInt8[np.ndarray, "H W 3"]) -> Float[Tensor, "3 S S"]:
        """Show an image as the model was shown images."""
        return self._show(Image.fromarray(image))

    @torch.inference_mode()
    def embed_images(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B E"]:
        """Unit embeddings, on the CPU."""
        parts = pixels.to(self.device).split(BATCH)
        return torch.cat([self.model.encode_image(some, normalize=True).cpu() for some in parts])

    @torch.inference_mode()
    def embed_texts(self, captions: Sequence[str]) -> Float[Tensor, "M E"]:
        """Unit embeddings, on the CPU; its tokenizer cuts what is too long."""
        parts = self.tokenizer(list(captions)).to(self.device).split(BATCH)
        return torch.cat([self.model.encode_text(some, normalize=True).cpu() for some in parts])


def weights_in(folder: Path) -> Path:
    """The weights of a folder as open_clip saves one.

    Raises:
        FileNotFoundError: if it is no such folder, or has none in safetensors.
    """
    if not (folder / SETTINGS).is_file():
        raise FileNotFoundError(f"{folder} is no folder with {SETTINGS}, and no NAME@FILE")
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has no {' or '.join(WEIGHTS)}")


def check_sides(path: Path) -> None:
    """Refuse weights of one side alone.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if it is not in safetensors, is damaged or lacks a side.
    """
    check_safe(path)
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
    except SafetensorError as error:
        raise ValueError(f"no open_clip model can be read from {path}: {error}") from error
    for side, starts in SIDES.items():
        if not any(name.startswith(starts) for name in names):
            raise ValueError(
                f"{path} has no {side} side: none of its {len(names)} weights begins with "
                f"{' or '.join(starts)}"
            )


def _from_folder(folder: str) -> tuple[Any, Any]:
    """Make the model of a folder; a tokenizer that is not open_clip's own lies beside it."""
    try:
        settings = json.loads(Path(folder, SETTINGS).read_bytes())["model_cfg"]
        tower, text = (dict(settings[side]) for side in ("vision_cfg", "text_cfg"))
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder}/{SETTINGS} has no settings of an open_clip model") from None
    tower_name = str(tower.get("timm_model_name"))
    _check_own(folder, tower_name if ":" in tower_name else None, text.get("hf_model_name"))
    return _made(f"local-dir:{folder}", folder)


def _from_name(name: str, path: Path) -> tuple[Any, Any]:
    """Make a model that open_clip knows, with weights from a file."""
    import open_clip

    settings = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if settings is None:
        raise ValueError(f"open_clip has no model named {name!r}")
    text = settings["text_cfg"]
    _check_own(name, text.get("hf_model_name"), text.get("hf_tokenizer_name"))
    return _made(name, f"{name}@{path}", pretrained=str(path), force_preprocess_cfg=_shown_to(name))


def _made(name: str, named: str, **options: Any) -> tuple[Any, Any]:
    """Let open_clip make a model and its tokenizer."""
    import open_clip

    try:
        return open_clip.create_model(name, **options), open_clip.get_tokenizer(name)
    except Exception as error:  # it raises nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"no open_clip model can be read from {named}: {reason}") from error


def _check_own(model: str, *parts: str | None) -> None:
    """Refuse parts that open_clip would look for on a hub."""
    for part in filter(None, parts):
        raise ValueError(f"{model} is made with {part} of a hub, and nothing is fetched here")


def _shown_to(name: str) -> dict[str, Any]:
    """How images were shown to all weights that were released under a name, where they agree."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    released = [get_pretrained_cfg(name, tag) for tag in list_pretrained_tags_by_model(name)]
    found: dict[str, Any] = {}
    for setting in SHOWING:
        values = [one[setting] for one in released if one.get(setting)]
        if values and all(value == values[0] for value in values):
            found[setting] = values[0]
    return found
