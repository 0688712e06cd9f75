"""The settings of an AR model: typed, checked, saved beside its weights."""

from dataclasses import field
from typing import Any, Literal

from orderer.pretrained import CheckedConfig


class ARConfig(CheckedConfig):
    """What an AR model is made of.

    Raises:
        ValueError: for an unknown key, or a value out of its range, naming both.
    """

    model_type = "sightline_ar"

    orderer_hash: str = ""
    """Of the orderer whose tokens are modelled, see `Orderer.encoding_hash`."""
    tokens: int = 16
    token_dim: int = 64
    condition: Literal["none", "class", "text"] = "text"
    condition_dim: int = 96
    """Channels of a word's embedding in the text tower."""
    class_names: list[str] = field(default_factory=list)
    """Of a class-conditional model, in the order of their labels."""
    context_length: int = 40
    """Most word pieces of a caption."""
    width: int = 128
    heads: int = 4
    layers: int = 3
    mlp_width: int = 384
    head_width: int = 192
    head_layers: int = 3
    draws: int = 2
    """Noise draws per token and step; they share one pass of the trunk."""
    timestep_location: float = -2.0
    """Where training draws its timesteps, see `logit_normal_timesteps`. A token of many channels
    shows through its noise from early on; what the condition says of it is learned before that."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.condition == "class" and not self.class_names:
            raise ValueError("a class-conditional AR model needs class_names, got none")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be a multiple of 2 x heads, got {self.width}, {self.heads}"
            )
