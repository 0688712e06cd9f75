"""From the trunk that a user names to an AR model that starts with its weights.

A trunk is named, in the setting `trunk`, as

    transformers:FOLDER      a local decoder: config.json and safetensors

Settings that are complete hold the structure instead of the name, so that a saved AR model comes
back without the folder it started from. The decoder's word embeddings are left out: it is fed with
tokens.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from orderer.transformers_towers import architecture, build, load, weight_files
from orderer.weights import digest_of, fill

from .config import ARConfig
from .decoders import make_decoder, sizes_of
from .model import ARModel
from .reading import check_reading

SOURCE = "transformers:"
OWN_SIZES = ("width", "heads", "layers", "mlp_width")
"""Settings that a named trunk has already."""


def complete_settings(settings: Mapping[str, Any]) -> ARConfig:
    """Check the settings of an AR model, and put a structure in place of the name of a trunk.

    Raises:
        OSError: if its folder is not there or damaged.
        ValueError: for a setting that is wrong, or a model that can be no trunk.
    """
    complete = dict(settings)
    spec = complete.pop("trunk", None)
    if spec is None:
        return ARConfig(**complete)
    for name in (*OWN_SIZES, "trunk_architecture", "trunk_weights"):
        if name in complete:
            raise ValueError(f"{name} follows from {spec} and cannot be set, got {complete[name]}")
    folder = _folder(spec)
    structure = architecture(folder, "text")
    with torch.device("meta"):
        sizes = sizes_of(build(structure, "text").config)
        config = ARConfig(
            **complete,
            **sizes,
            trunk_architecture=structure,
            trunk_weights={"from": spec, "sha256": digest_of(weight_files(folder))},
        )
        make_decoder(config)  # it refuses what can be no trunk
    return config


def start_ar(config: ARConfig) -> ARModel:
    """Make an AR model whose trunk has the weights that its settings name.

    Its own settings keep the last name of the folder only: they are saved and shared.

    Raises:
        OSError: if the folder is not there or damaged.
        ValueError: if weights do not fit, or the decoder does not read as a trunk must.
    """
    if config.trunk_weights is None or config.trunk_architecture is None:
        return ARModel(config)
    folder = _folder(config.trunk_weights["from"])
    named = {**config.trunk_weights, "from": f"{SOURCE}{folder.absolute().name}"}
    model = ARModel(ARConfig(**{**config.own(), "trunk_weights": named}))
    weights = load(config.trunk_architecture, "text", folder).state_dict()
    decoder = model.trunk.decoder
    fill(decoder, {name: weights[name] for name in decoder.state_dict()}, folder)
    check_reading(model.trunk)
    return model


def _folder(spec: object) -> Path:
    if not isinstance(spec, str) or not spec.startswith(SOURCE) or spec == SOURCE:
        raise ValueError(f"trunk must be {SOURCE}FOLDER, got {spec!r}")
    return Path(spec.removeprefix(SOURCE))
