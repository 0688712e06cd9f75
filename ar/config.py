"""The settings of an AR model: typed, checked, saved beside its weights."""

from dataclasses import field
from typing import Any, Literal

from transformers import PreTrainedConfig

FORMAT_VERSION = 1
"""Of saved settings; another one is refused by name."""

PASSED_ON = {"transformers_version", "name_or_path", "torch_dtype", "attn_implementation"}
"""Keys that transformers itself adds to settings."""


class ARConfig(PreTrainedConfig):
    """What an AR model is made of.

    Raises:
        ValueError: for an unknown key, or a value out of its range, naming both.
    """

    model_type = "sightline_ar"

    format_version: int = FORMAT_VERSION
    orderer_hash: str = ""
    """Of the orderer whose tokens are modelled, see `Orderer.encoding_hash`."""
    tokens: int = 16
    token_dim: int = 16
    condition: Literal["none", "class", "text"] = "text"
    condition_dim: int = 96
    """Channels of the text tower's states."""
    class_names: list[str] = field(default_factory=list)
    """Of a class-conditional model, in the order of their labels."""
    context_length: int = 40
    """Most word pieces of a caption."""
    width: int = 128
    heads: int = 4
    layers: int = 4
    mlp_width: int = 384
    head_width: int = 192
    head_layers: int = 3
    draws: int = 4
    """Noise draws per token and step; they share one pass of the trunk."""

    def __post_init__(self, **kwargs: Any) -> None:
        unknown = sorted(k for k in kwargs if k not in PASSED_ON and not k.startswith("_"))
        if unknown:
            raise ValueError(f"an AR model has no setting named {', '.join(unknown)}")
        super().__post_init__(**kwargs)
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"these settings have format {self.format_version}, this code reads {FORMAT_VERSION}"
            )
        if self.condition not in ("none", "class", "text"):
            raise ValueError(f"condition must be none, class or text, got {self.condition!r}")
        if self.condition == "class" and not self.class_names:
            raise ValueError("a class-conditional AR model needs class_names, got none")
        for name, kind in ARConfig.__annotations__.items():
            if kind is int and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise ValueError(f"width must be a multiple of 2 x heads, got {self.width}, {self.heads}")
