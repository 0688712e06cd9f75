"""From the towers that a user names to an orderer that starts with their weights.

A tower is named, in the settings `features` and `text`, as

    open_clip:NAME           a structure that open_clip knows, with random weights
    open_clip:NAME@FILE      the same, with its part of a safetensors file of the whole model
    transformers:FOLDER      a local model: config.json and safetensors, for text tokenizer.json too

Settings that are complete hold the structure instead of the name, so that a saved orderer comes
back without the file or folder it started from.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from . import open_clip_towers, transformers_towers
from .config import OrdererConfig
from .latents import FrozenLatents, settings_of
from .model import Orderer
from .processor import OrdererProcessor
from .tokenizer import LocalTokenizer, tokenizer_settings
from .weights import check_safe, digest_of

Part = Literal["features", "text"]
SIDES: dict[Part, Literal["image", "text"]] = {"features": "image", "text": "text"}
PLAIN = {"features": "patches", "text": "own"}
LONGEST = 512
"""Pieces of a text that are read where neither the encoder nor its tokenizer says how many."""


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A tower as a user names it."""

    source: Literal["open_clip", "transformers"]
    name: str
    """open_clip's; empty for a folder."""
    path: Path | None
    """File or folder of the weights."""


def complete_settings(settings: Mapping[str, Any]) -> OrdererConfig:
    """Check the settings of an orderer, and put structures in place of names of towers and of the
    folder of an autoencoder.

    Raises:
        OSError: if the file or folder of one is not there or damaged.
        ValueError: for a setting that is wrong, or a tower that cannot be read.
    """
    complete = dict(settings)
    if isinstance(folder := complete.get("autoencoder"), str):
        complete["autoencoder"] = {**settings_of(Path(folder)), "from": folder}
    for part in SIDES:
        spec = complete.get(part, PLAIN[part])
        if isinstance(spec, str) and f"{part}_architecture" not in complete and spec != PLAIN[part]:
            for name, value in _described(part, spec).items():
                _decide(complete, name, value, spec)
    return OrdererConfig(**complete)


def _decide(settings: dict[str, Any], name: str, value: object, spec: str) -> None:
    """Set what follows from a tower; a user may say it again, but not otherwise."""
    if name == "context_length" and isinstance(settings.get(name), int):
        if settings[name] > int(str(value)):
            raise ValueError(f"{spec} reads at most {value} pieces, got {name} {settings[name]}")
        return
    if name not in SIDES and settings.get(name, value) != value:
        raise ValueError(f"{name} follows from {spec} and is {value}, got {settings[name]!r}")
    settings[name] = value


def _parsed(part: str, spec: str) -> _Named:
    source, _, rest = spec.partition(":")
    name, _, file = rest.partition("@")
    if source == "transformers" and rest:
        return _Named(source="transformers", name="", path=Path(rest))
    if source == "open_clip" and name and (file or "@" not in rest):
        return _Named(source="open_clip", name=name, path=Path(file) if file else None)
    raise ValueError(
        f"{part} must be {PLAIN[part]}, open_clip:NAME, open_clip:NAME@FILE or "
        f"transformers:FOLDER, got {spec!r}"
    )


def _described(part: Part, spec: str) -> dict[str, Any]:
    """The settings that follow from a named tower."""
    named = _parsed(part, spec)
    if named.source == "open_clip":
        structure = open_clip_towers.architecture(named.name, SIDES[part])
        files = [named.path] if named.path else []
        decided = _of_open_clip_text(structure) if part == "text" else {}
    else:
        folder = named.path or Path()
        structure = transformers_towers.architecture(folder, SIDES[part])
        files = transformers_towers.weight_files(folder)
        decided = _of_encoder(structure, folder) if part == "text" else {}
    for file in files:
        check_safe(file)
    decided |= {part: named.source, f"{part}_architecture": structure}
    if files:
        decided[f"{part}_weights"] = {"from": spec, "sha256": digest_of(files)}
    return decided


def _of_open_clip_text(structure: Mapping[str, Any]) -> dict[str, Any]:
    tower = structure["tower"]
    return {
        "text_width": tower.get("width", 512),
        "context_length": tower.get("context_length", 77),
        "embed_dim": structure["embed_dim"],
    }


def _of_encoder(structure: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    tokenizer = LocalTokenizer.read(folder)
    with torch.device("meta"):
        network = transformers_towers.build(structure, "text")
    vocabulary, width = network.get_input_embeddings().weight.shape
    if tokenizer.pieces > vocabulary:
        raise ValueError(
            f"the tokenizer in {folder} has {tokenizer.pieces} pieces, its model knows {vocabulary}"
        )
    longest = [getattr(network.config, "max_position_embeddings", None) or LONGEST]
    longest.append(tokenizer_settings(folder).get("model_max_length") or LONGEST)
    return {
        "text_width": width,
        "vocabulary": vocabulary,
        "context_length": int(min(longest)),
        "text_pooling": transformers_towers.pooling_of(network),
        "text_end": tokenizer.end,
    }


def start_orderer(config: OrdererConfig) -> Orderer:
    """Make an orderer whose towers and autoencoder have the weights that its settings name.

    Its own settings keep the last names of files and folders only: they are saved and shared.

    Raises:
        OSError: if the file or folder of one is not there or damaged.
        ValueError: if weights do not fit.
    """
    orderer = Orderer(_without_folders(config))
    if isinstance(orderer.latents, FrozenLatents) and "from" in (config.autoencoder or {}):
        orderer.latents.start_from(Path((config.autoencoder or {})["from"]))
    for part in SIDES:
        source, weights = getattr(config, part), getattr(config, f"{part}_weights")
        structure = getattr(config, f"{part}_architecture")
        if source == PLAIN[part]:
            continue
        if weights is None:
            logging.getLogger(__name__).warning(
                "%s: %s's %s starts with random weights, %s@FILE would give it trained ones",
                part,
                source,
                structure.get("name"),
                f"{source}:{structure.get('name')}",
            )
            continue
        getattr(orderer, part).start_from(structure, _parsed(part, weights["from"]).path)
    return orderer


def _without_folders(config: OrdererConfig) -> OrdererConfig:
    settings = config.own()
    for part in SIDES:
        if weights := settings[f"{part}_weights"]:
            spec = _without_folder(_parsed(part, weights["from"]))
            settings[f"{part}_weights"] = {**weights, "from": spec}
    if "from" in (settings["autoencoder"] or {}):
        name = Path(settings["autoencoder"]["from"]).absolute().name
        settings["autoencoder"] = {**settings["autoencoder"], "from": name}
    return OrdererConfig(**settings)


def _without_folder(named: _Named) -> str:
    last = named.path.absolute().name if named.path else ""
    if named.source == "transformers":
        return f"transformers:{last}"
    return f"open_clip:{named.name}@{last}"


def start_processor(config: OrdererConfig) -> OrdererProcessor:
    """The processor of an orderer that is about to start, with its text encoder's tokenizer."""
    tokenizer = None
    if config.text == "transformers" and config.text_weights:
        folder = _parsed("text", config.text_weights["from"]).path
        tokenizer = LocalTokenizer.read(folder or Path())
    return OrdererProcessor(config.image_size, config.context_length, tokenizer)


def weights_named(config: OrdererConfig) -> dict[str, Any]:
    """The towers' weights, for the record of a training; empty where none were taken."""
    named = {f"{part}_weights": getattr(config, f"{part}_weights") for part in SIDES}
    return {name: weights for name, weights in named.items() if weights}
