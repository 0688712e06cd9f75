"""A Q-Former that BLIP-2 has trained, as the start of the cross encoder.

From a local folder of transformers' with any model of BLIP-2, or its Q-Former alone: the layers and
the first norm go by their names, the first queries to the orderer's. All else in it is left aside:
vision and language models, and what the Q-Former has for text.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import Blip2Config, Blip2QFormerConfig

from .cross_encoder import CrossEncoder
from .saved import read_index, read_settings

QUERIES = "query_tokens"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

COUNTERPARTS = {
    "hidden_size": "width",
    "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_ratio times width",
    "cross_attention_frequency": "cross_every",
    "encoder_hidden_size": "channels of the features",
    "hidden_act": "activation",
    "layer_norm_eps": "epsilon of the norms",
}
"""Settings of a Q-Former that must agree, and what they are called here."""


def load_qformer(encoder: nn.Module, folder: Path) -> None:
    """Start a cross encoder as a trained Q-Former, which it then is but for the order of queries.

    The blends and the positions, which that one had not, start at zero; they learn from there. A
    causal encoder is not equal to the Q-Former, whose queries all see each other: it is tuned.

    Args:
        encoder: an orderer's.
        folder: a saved Blip2Model, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval or
            Blip2QFormerModel (the last brings no queries), with weights in safetensors.

    Raises:
        FileNotFoundError: if the folder or its files are not there.
        ValueError: for another encoder, another kind of model, weights in another format, or
            settings, shapes or a number of queries that do not fit; then nothing has changed.
    """
    if not isinstance(encoder, CrossEncoder):
        raise ValueError(
            f"the weights of a Q-Former are for the encoder 'cross', got {type(encoder).__name__}"
        )
    trained, is_part = _read_config(folder)
    _refuse_other_settings(folder, trained, encoder.qformer.config)
    wanted = _named_as_saved(encoder, "qformer." if is_part else "")
    found = _read_tensors(folder, [*wanted, QUERIES] if is_part else wanted)
    if is_part:
        queries = found.pop(QUERIES)[0]  # [queries, W]
        if len(queries) < len(encoder.queries):
            raise ValueError(
                f"the Q-Former in {folder} has {len(queries)} queries, got "
                f"{len(encoder.queries)} tokens"
            )
        wanted[QUERIES], found[QUERIES] = encoder.queries, queries[: len(encoder.queries)]
    _refuse_other_shapes(folder, found, wanted)
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])
        for added in (encoder.embed.weight, encoder.embed.bias, encoder.patch_positions):
            added.zero_()


def _read_config(folder: Path) -> tuple[Blip2QFormerConfig, bool]:
    """The settings of the Q-Former in a folder, and True if it is part of a larger model."""
    settings = read_settings(folder, "config.json")
    kind = settings.get("model_type")
    if kind == Blip2Config.model_type:
        return Blip2Config.from_dict(settings).qformer_config, True
    if kind == Blip2QFormerConfig.model_type:
        return Blip2QFormerConfig.from_dict(settings), False
    raise ValueError(f"{folder} holds a model of the kind {kind!r}, not of BLIP-2")


def _refuse_other_settings(
    folder: Path, trained: Blip2QFormerConfig, ours: Blip2QFormerConfig
) -> None:
    differing = [
        f"{name} {getattr(trained, name)} where the orderer has {getattr(ours, name)} ({here})"
        for name, here in COUNTERPARTS.items()
        if getattr(trained, name) != getattr(ours, name)
    ]
    if differing:
        raise ValueError(f"the Q-Former in {folder} has {', '.join(differing)}")


def _named_as_saved(encoder: CrossEncoder, prefix: str) -> dict[str, Tensor]:
    """The encoder's tensors that a Q-Former has too, by the names that it saves them under."""
    layers, norm = encoder.qformer.state_dict(), encoder.norm.state_dict()
    named = {f"{prefix}encoder.{name}": tensor for name, tensor in layers.items()}
    return named | {f"{prefix}layernorm.{name}": tensor for name, tensor in norm.items()}


def _read_tensors(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    places, missing = _places(folder), []
    tensors: dict[str, Tensor] = {}
    for name in names:
        if name not in places:
            missing.append(name)
            continue
        with _opened(places[name]) as file:
            tensors[name] = file.get_tensor(name)
    if missing:
        raise ValueError(f"the weights in {folder} lack {', '.join(missing)}")
    return tensors


def _places(folder: Path) -> dict[str, Path]:
    """The file in which each saved tensor lies."""
    if (folder / INDEX).is_file():
        return read_index(folder)
    if not (folder / WEIGHTS).is_file():
        others = sorted(file.name for file in folder.glob("*.bin"))
        if others:
            raise ValueError(
                f"weights are read from safetensors only, for others can run code, got {others[0]} "
                f"in {folder}"
            )
        raise FileNotFoundError(f"{folder} holds no weights, it has no {WEIGHTS}")
    with _opened(folder / WEIGHTS) as file:
        return dict.fromkeys(file.keys(), folder / WEIGHTS)


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{file} is no file of safetensors: {error}") from error


def _refuse_other_shapes(
    folder: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    differing = [
        f"{name} is {list(found[name].shape)} and must be {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if found[name].shape != tensor.shape
    ]
    if differing:
        raise ValueError(f"the weights in {folder} do not fit: {', '.join(differing)}")
