"""Towers of transformers, from a local folder with config.json and safetensors.

An architecture is a dict that says all, so that a saved orderer needs no other folder: `config`,
transformers' own settings, and for images the `mean` and `std` that its pixels have. Code that
comes with a model is never run, and nothing is downloaded.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
)

from .pretrained import no_warnings_of_weights
from .saved import read_index, read_pixels, read_settings
from .weights import check_names, check_safe, check_shape

Side = Literal["image", "text"]
PARTS = {"image": "vision_config", "text": "text_config"}
"""Where a model of both keeps the settings of one tower."""
FOREIGN = {
    "auto_map",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "use_pretrained_backbone",
    "backbone",
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
}
"""Settings that name code or weights which are somewhere else."""
OF_TIMM = ("timm_wrapper", "timm_backbone")
"""Kinds that hand their settings on to timm, which follows them to a hub and to pickles."""
NOT_AUTOMATIC = {"siglip_text_model": "SiglipTextModel", "siglip2_text_model": "Siglip2TextModel"}
"""Kinds that AutoModel does not know."""
LEFT_OUT = {"dtype", "torch_dtype", "transformers_version", "architectures", "id2label", "label2id"}
FILES = ("model.safetensors", "model.safetensors.index.json")
PIXELS = ("preprocessor_config.json", "processor_config.json")


def architecture(folder: Path, side: Side) -> dict[str, Any]:
    """All that builds one tower of the model in a folder.

    Raises:
        FileNotFoundError: if there is no model, or nothing says how its pixels are normalised.
        ValueError: if it wants code of its own, or is of a kind that transformers does not know.
    """
    settings = read_settings(folder, "config.json")
    check_own(settings, folder / "config.json")
    kind = settings.get("model_type")
    try:
        config = AutoConfig.for_model(**settings) if kind else None
    except (ValueError, KeyError):
        config = None
    if config is None:
        raise ValueError(f"transformers knows no model of the kind {kind!r}, which {folder} holds")
    config = getattr(config, PARTS[side], None) or config
    plain = json.loads(json.dumps(config.to_dict(), default=str))
    kept = {k: v for k, v in plain.items() if not k.startswith("_") and k not in LEFT_OUT}
    return {"config": kept} | (_statistics(folder) if side == "image" else {})


def check_own(settings: Mapping[str, Any], where: object) -> None:
    """Refuse settings that would fetch or run what is not here, at any depth.

    Raises:
        ValueError: naming the setting.
    """
    if settings.get("model_type") in OF_TIMM:
        raise ValueError(f"{where} asks for a model of timm's, {settings['model_type']!r}, refused")
    for name, value in settings.items():
        if name in FOREIGN and value:
            raise ValueError(f"{where} asks for {name}, which is never followed, got {value!r}")
        if isinstance(value, Mapping):
            check_own(value, where)


def _statistics(folder: Path) -> dict[str, Any]:
    """Mean and deviation of pixels in 0..1."""
    for name in PIXELS:
        if (folder / name).is_file():
            said = read_settings(folder, name)
            said = said.get("image_processor", said)
            if not said.get("do_normalize", True):
                return {"mean": [0.0] * 3, "std": [1.0] * 3}
            if "image_mean" in said and "image_std" in said:
                return read_pixels(said, folder / name)
    raise FileNotFoundError(
        f"{folder} has no {PIXELS[0]} with image_mean and image_std, so nothing says what pixels "
        "its model reads"
    )


def build(settings: Mapping[str, Any], side: Side) -> PreTrainedModel:
    """Make one tower, with random weights.

    Raises:
        ValueError: if the settings want what is not here, or are of a model that reads another kind
            of input.
    """
    check_own(settings["config"], "the architecture of a tower")
    config = AutoConfig.for_model(**settings["config"])
    if hasattr(config, "use_cache"):
        config.use_cache = False
    maker = _maker(config, side)
    try:
        if config.model_type in NOT_AUTOMATIC:
            network = maker._from_config(config)
        else:
            network = maker.from_config(config, trust_remote_code=False)
    except ValueError as error:
        if type(config) in MODEL_MAPPING:
            raise
        kind = config.model_type
        raise ValueError(f"transformers has no {side} tower of the kind {kind!r}") from error
    reads = {"image": "pixel_values", "text": "input_ids"}[side]
    if network.main_input_name != reads:
        raise ValueError(
            f"a {config.model_type} model is no {side} tower, it reads {network.main_input_name}"
        )
    if side == "image" or pooling_of(network) != "pooled":
        _drop_pooling(network)
    return network


def _maker(config: Any, side: Side) -> Any:
    """What makes and loads models of this kind."""
    if config.model_type in NOT_AUTOMATIC:
        return getattr(transformers, NOT_AUTOMATIC[config.model_type])
    is_encoder = side == "text" and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING
    return AutoModelForTextEncoding if is_encoder else AutoModel


def pooling_of(network: PreTrainedModel) -> Literal["pooled", "last", "mean"]:
    """Which state of this kind of model is a text."""
    config = network.config
    if config.model_type.endswith("_text_model"):
        return "pooled"
    reads_on = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    reads_both_ways = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    return "last" if reads_on and not reads_both_ways else "mean"


def _drop_pooling(network: Any) -> None:
    """Drop what makes one vector of an image or text: the states are read before it."""
    for name in ("pooler", "head"):
        if isinstance(getattr(network, name, None), nn.Module):
            setattr(network, name, None)
            if hasattr(network, "use_head"):
                network.use_head = False


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder.

    Raises:
        OSError: if it has none.
        ValueError: if they are in another format.
    """
    if (folder / FILES[0]).is_file():
        files = [folder / FILES[0]]
    elif (folder / FILES[1]).is_file():
        files = sorted(set(read_index(folder).values()))
    else:
        files = sorted(_unsafe(folder)) or [folder / FILES[0]]
    for file in files:
        check_safe(file)
    return files


def _unsafe(folder: Path) -> Iterator[Path]:
    for suffix in (".bin", ".pt", ".pth", ".ckpt", ".npz"):
        yield from folder.glob(f"*{suffix}")


def load(settings: Mapping[str, Any], side: Side, folder: Path) -> PreTrainedModel:
    """Make one tower with the weights in a folder; heads and the other tower are passed over.

    Raises:
        OSError: if there are no weights, or damaged ones.
        ValueError: if they are in another format or of another model.
    """
    network = build(settings, side)
    weight_files(folder)
    try:
        with no_warnings_of_weights():
            loaded, report = _maker(network.config, side).from_pretrained(
                folder,
                config=network.config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below
            )
    except Exception as error:  # safetensors and transformers raise several kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"no weights can be read from {folder}: {reason}") from error
    own, parts = network.state_dict(), dict(network.named_children())
    for name, found, wanted in sorted(report["mismatched_keys"]):
        if name in own:
            check_shape(folder, name, found, wanted)
    prefix = f"{network.base_model_prefix}."
    unexpected = {name.removeprefix(prefix) for name in report["unexpected_keys"]}
    unexpected = {name for name in unexpected if parts.get(name.partition(".")[0]) is not None}
    check_names(folder, own.keys() & report["missing_keys"], unexpected)
    weights = loaded.state_dict()
    network.load_state_dict({name: weights[name] for name in own})
    return network
