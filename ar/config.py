"""The settings of an AR model: typed, checked, saved beside its weights."""

from dataclasses import field
from math import inf, isfinite
from typing import Any, Literal

from orderer.flow import Density
from orderer.pieces import check_pieces
from orderer.pretrained import CheckedConfig


class ARConfig(CheckedConfig):
    """What an AR model is made of.

    Raises:
        ValueError: for an unknown key, or a value out of its range, naming both.
    """

    model_type = "sightline_ar"
    format_version: int = 2

    orderer_hash: str = ""
    """Of the orderer whose tokens are modelled, see `Orderer.encoding_hash`."""
    tokens: int = 16
    token_dim: int = 64
    condition: Literal["none", "class", "text", "words"] = "text"
    """What stands before the tokens: nothing, a class, the words of a text tower, or words of the
    model's own."""
    condition_dim: int = 96
    """Channels of a word's embedding in the text tower."""
    class_names: list[str] = field(default_factory=list)
    """Of a class-conditional model, in the order of their labels."""
    context_length: int = 40
    """Most word pieces of a caption."""
    caption_pieces: list[int] = field(default_factory=list)
    """The word pieces that a model with words of its own knows, rising; none: it has none."""
    writes: bool = False
    """Whether it also writes captions from tokens, with words of its own."""
    width: int = 128
    heads: int = 4
    layers: int = 3
    mlp_width: int = 384
    trunk_architecture: dict[str, Any] | None = None
    """All that builds a trunk of transformers', see `ar.start`; null for a Llama of the sizes
    above."""
    trunk_weights: dict[str, Any] | None = None
    """Where its weights were taken `from`, and their `sha256`."""
    scaling: Literal["channel", "whole"] = "channel"
    """What tokens are divided by: the deviation of each (position, channel), or one of all. By the
    latter what varies little stays small, and is drowned in noise first."""
    order: Literal["given", "random"] = "given"
    """`random` learns the tokens of an image in a new order each time, and draws them in one; each
    place is told where the token before it stands and where the next will (MAR's order, causal)."""
    head: Literal[
        "flow", "diffusion", "regression", "mixture", "energy", "categorical", "in_trunk"
    ] = "flow"
    """The model of a token, given the ones before it. `in_trunk` is a flow whose noisy tokens run
    through the trunk itself."""
    head_width: int = 192
    head_layers: int = 3
    modulation: Literal["time", "token"] = "time"
    """What modulates the blocks of `flow` and `diffusion`: the timestep alone, or the trunk's state
    too (MAR's form)."""
    prediction: Literal["data", "velocity", "noise"] = "data"
    """What the net of `flow`, `diffusion` and `in_trunk` predicts."""
    draws: int = 2
    """Noise draws per token and step; they share one pass of the trunk, but with `in_trunk`, where
    the pass holds as many noisy copies of each token."""
    timesteps: Density = "logit_normal"
    """Where `flow` and `in_trunk` draw their timesteps, see `draw_timesteps`; `diffusion` draws
    those of its schedule uniformly."""
    timestep_location: float = -2.0
    """A token of many channels shows through its noise from early on; what the condition says of
    it is learned before that."""
    timestep_scale: float = 1.0
    weighting: Literal["none", "min_snr", "density"] = "none"
    """Of the squared error at each timestep: see `min_snr`; `density` weighs uniform timesteps as
    often as `logit_normal` would draw them."""
    components: int = 16
    """Gaussians of `mixture`."""
    noise_channels: int = 32
    """Of the noise that `energy` turns into tokens."""
    codes: int = 256
    """Of `categorical`."""
    context_noise: float = 0.0
    """Most deviation of the noise on the tokens that training looks back at, drawn for each image:
    when it generates, a model looks back at its own errors."""
    context_drop: float = 0.0
    """Share of the images that training learns without looking back: the mean of all stands in the
    place of each token. Above 0 tokens can be guided by those before, see `Sampling`."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.condition == "class" and not self.class_names:
            raise ValueError("a class-conditional AR model needs class_names, got none")
        if self.trunk_architecture is None and self.width % (2 * self.heads):
            raise ValueError(
                f"width must be a multiple of 2 x heads, got {self.width}, {self.heads}"
            )
        if self.has_words:
            self._check_pieces()
        elif self.caption_pieces:
            raise ValueError(
                "caption_pieces belong to an AR model with words of its own, which writes or has "
                f"the condition 'words', got {len(self.caption_pieces)} of them"
            )
        if self.order == "random" and self.head == "in_trunk":
            raise ValueError("the head in_trunk takes tokens in the order given, got order random")
        if not isfinite(self.timestep_location):
            raise ValueError(f"timestep_location must be finite, got {self.timestep_location}")
        if not 0 < self.timestep_scale < inf:
            raise ValueError(f"timestep_scale must be above 0, got {self.timestep_scale}")
        if self.weighting == "density" and (
            self.timesteps != "uniform" or self.head not in ("flow", "in_trunk")
        ):
            raise ValueError(
                "the weighting 'density' is of a flow's uniform timesteps, got the head "
                f"{self.head!r} and {self.timesteps} timesteps"
            )
        if not 0 <= self.context_noise < inf:
            raise ValueError(f"context_noise must be at least 0, got {self.context_noise}")
        if not 0 <= self.context_drop < 1:
            raise ValueError(
                f"context_drop must be at least 0 and below 1, got {self.context_drop}"
            )

    @property
    def has_words(self) -> bool:
        """Whether it has words of its own, to read or to write."""
        return self.writes or self.condition == "words"

    def _check_pieces(self) -> None:
        if not self.caption_pieces:
            raise ValueError("an AR model with words of its own needs caption_pieces, got none")
        check_pieces(self.caption_pieces)
