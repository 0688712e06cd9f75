"""The transformer in the trunk: any causal decoder of transformers' that reads embeddings."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import LlamaConfig, LlamaModel

from .config import ARConfig

SIZES = {"width": "hidden_size", "heads": "num_attention_heads", "layers": "num_hidden_layers"}
"""Our names of sizes, and transformers' names."""
WINDOWED = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
"""Kinds of layers that do not look back all the way, and the setting that says how far."""


def make_decoder(config: ARConfig) -> nn.Module:
    """A Llama of the config's sizes, or the decoder that its architecture describes.

    Raises:
        ValueError: if the architecture builds no causal decoder that fits.
    """
    if config.trunk_architecture is not None:
        return _of_transformers(config, config.trunk_architecture)
    decoder = LlamaModel(
        LlamaConfig(
            vocab_size=1,  # it is fed with embeddings
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=_longest(config),
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation="sdpa",
        )
    )
    del decoder.embed_tokens
    return decoder


def _longest(config: ARConfig) -> int:
    """Places of a condition, the start and all tokens, and of a caption that may follow them."""
    captions = config.context_length if config.writes else 0
    return config.context_length + config.tokens + 1 + captions


def _of_transformers(config: ARConfig, architecture: Mapping[str, Any]) -> nn.Module:
    from orderer.transformers_towers import build, pooling_of  # slow to import

    decoder = build(architecture, "text")
    settings, needed = decoder.config, _longest(config)
    if pooling_of(decoder) != "last":
        kind = settings.model_type
        raise ValueError(f"a trunk reads from left to right, a {kind} model does not")
    for name, size in sizes_of(settings).items():
        if size != getattr(config, name):
            raise ValueError(f"the trunk's {name} is {size}, got {getattr(config, name)}")
    longest = getattr(settings, "max_position_embeddings", None)
    if longest is not None and longest < needed:
        raise ValueError(f"the trunk reads {longest} places, {needed} are needed")
    window = _window(settings)
    if window is not None and window <= needed:
        raise ValueError(f"the trunk looks back {window} places, more than {needed} are needed")
    decoder.set_input_embeddings(nn.Identity())  # its words are not read
    return decoder


def sizes_of(settings: Any) -> dict[str, int]:
    """Our names for the sizes of a model of transformers'.

    Raises:
        ValueError: for a kind of model that has others.
    """
    for name in SIZES.values():
        if not isinstance(getattr(settings, name, None), int):
            kind = settings.model_type
            raise ValueError(f"a {kind} model can be no trunk, it has no single {name}")
    return {own: getattr(settings, name) for own, name in SIZES.items()}


def _window(settings: Any) -> int | None:
    """Places that the most short-sighted layer looks back; a cache keeps no more of them."""
    kinds = getattr(settings, "layer_types", None) or []
    others = sorted(set(kinds) - set(WINDOWED) - {"full_attention"})
    if others:
        raise ValueError(f"a trunk's layers keep what they read in a cache, got {others[0]}")
    names = [WINDOWED[kind] for kind in kinds if kind in WINDOWED] if kinds else WINDOWED.values()
    windows = [getattr(settings, name, None) for name in names]
    return min((window for window in windows if window is not None), default=None)
