"""Towers of open_clip: the structure from its name, the weights from a file of a whole CLIP.

An architecture is a dict that says all, so that a saved orderer needs neither the file nor what
open_clip knows by name: `name`, `embed_dim`, `quick_gelu`, `tower` (open_clip's own settings of
this one), and for images the `mean` and `std` that its pixels have.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from .pieces import PIECES
from .weights import fill, read_weights

Side = Literal["image", "text"]
READ_TEXT = {
    "hf_model_name": None,
    "hf_tokenizer_name": None,
    "tokenizer_kwargs": None,
    "vocab_size": PIECES,
    "embed_cls": False,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_type": "linear",
    "proj_bias": False,
    "output_tokens": False,
}
"""The text towers that are read here: causal ones, on the pieces of open_clip's own tokenizer."""


def architecture(name: str, side: Side) -> dict[str, Any]:
    """All that builds one tower of a model that open_clip knows by name.

    Raises:
        ValueError: if it knows none of this name, or its text tower is of a kind not read here.
    """
    import open_clip  # slow to import

    settings = open_clip.get_model_config(name)
    if settings is None:
        raise ValueError(f"open_clip has no model named {name!r}")
    tower = dict(settings["vision_cfg" if side == "image" else "text_cfg"])
    shared = {"name": name, "embed_dim": settings["embed_dim"]}
    shared |= {"quick_gelu": settings.get("quick_gelu", False), "tower": tower}
    if side == "image":
        return shared | _statistics(name)
    for setting, ours in READ_TEXT.items():
        if tower.get(setting, ours) != ours:
            raise ValueError(
                f"the text tower of open_clip's {name} has {setting} {tower[setting]!r}, only "
                f"those with {ours!r} are read: give it as transformers:FOLDER"
            )
    return shared


def _statistics(name: str) -> dict[str, Any]:
    """Mean and deviation of pixels in 0..1, equal in all trainings of this model or CLIP's own."""
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    known = [get_pretrained_cfg(name, tag) for tag in list_pretrained_tags_by_model(name)]
    pairs = {(tuple(one["mean"]), tuple(one["std"])) for one in known if one.get("mean")}
    mean, std = pairs.pop() if len(pairs) == 1 else (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    return {"mean": list(mean), "std": list(std)}


def _check_own(tower: Mapping[str, Any]) -> None:
    """Refuse a name that timm would look for on a hub or open as a folder."""
    if ":" in str(tower.get("timm_model_name")):
        raise ValueError(
            "the architecture of a tower asks for a model that is not timm's own, got "
            f"timm_model_name {tower['timm_model_name']!r}"
        )
    for name in ("pretrained", "pretrained_cfg", "checkpoint_path"):
        if name in tower:
            raise ValueError(
                f"the architecture of a tower asks for {name}, which is never followed, got "
                f"{tower[name]!r}"
            )


def build(settings: Mapping[str, Any], side: Side) -> nn.Module:
    """Make one tower, with random weights; nothing is downloaded.

    Raises:
        ValueError: if the settings want what is not here.
    """
    _check_own(settings["tower"])
    from open_clip.model import _build_text_tower, _build_vision_tower

    common = (settings["embed_dim"], dict(settings["tower"]))
    if side == "text":
        common[1]["hf_model_name"] = None
        return _build_text_tower(*common, quick_gelu=settings["quick_gelu"])
    common[1]["timm_model_pretrained"] = False
    return _build_vision_tower(*common, quick_gelu=settings["quick_gelu"])


def load(settings: Mapping[str, Any], side: Side, path: Path) -> nn.Module:
    """Make one tower, with its part of the weights of a whole CLIP.

    Raises:
        OSError: if the file is not there or damaged.
        ValueError: if the file is in another format or of another model.
    """
    network = build(settings, side)
    fill(network, _part(read_weights(path), side, path), path)
    return network


def _part(weights: Mapping[str, Tensor], side: Side, path: Path) -> dict[str, Tensor]:
    from open_clip.model import convert_to_custom_text_state_dict

    prefix = "visual." if side == "image" else "text."
    named = convert_to_custom_text_state_dict(dict(weights))
    part = {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}
    if not part:
        raise ValueError(f"{path} has no {side} tower of open_clip, nothing there begins {prefix}")
    return {name: value for name, value in part.items() if name != "attn_mask"}
