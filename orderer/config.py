"""The settings of an orderer: typed, checked, saved beside its weights."""

import math
from typing import Any, Literal

from .migrations import ORDERER_MIGRATIONS
from .pieces import PIECES, check_pieces
from .pretrained import CheckedConfig


class OrdererConfig(CheckedConfig):
    """What an orderer is made of. Sizes in pixels, tokens, channels or layers.

    Raises:
        ValueError: for an unknown key, or a value out of its range, naming both.
    """

    model_type = "sightline_orderer"
    format_version: int = 2
    migrations = ORDERER_MIGRATIONS

    image_size: int = 36
    patch_size: int = 12
    features: Literal["patches", "open_clip", "transformers"] = "patches"
    """What the encoder attends to: the image's own patches, or a tower's, see `complete_settings`
    for how a tower is named."""
    features_architecture: dict[str, Any] | None = None
    """Of the tower: all that builds it."""
    features_weights: dict[str, Any] | None = None
    """Where its weights were taken `from`, and their `sha256`; null for random ones."""
    features_trained: bool = False
    """Whether the tower learns too; else it stays as it is."""
    encoder: Literal["joint", "cross"] = "joint"
    """Queries beside the patches (TiTok), or attending to them (Q-Former)."""
    cross_every: int = 2
    """The encoder 'cross' attends to the features in its first layer and then in every n-th."""
    causal: bool = True
    """Query i sees only the queries 0..i; False gives unordered tokens, a baseline."""
    tokens: int = 16
    token_dim: int = 64
    bottleneck: Literal["none", "norm", "sphere", "kl"] = "norm"
    """What every token has in common, see `Bottleneck`."""
    mixing: Literal["random", "dct"] = "random"
    """Where the blends of patches that queries begin with start, see `Mixing`."""
    decoder: Literal["deterministic", "flow"] = "deterministic"
    """One pass, see `Decoder`, or a path from noise, see `FlowDecoder`."""
    decoder_timesteps: float = 0.0
    """Where a flow decoder's training looks, see `logit_normal_timesteps`."""
    decoder_weighting: Literal["data", "velocity"] = "data"
    """What a flow decoder's squared error is of: its guess of the data, or the velocity of that."""
    decoder_draws: int = 1
    """Noises and timesteps for each image of a flow decoder's training."""
    decoder_drop: float = 0.0
    """Share of a flow decoder's draws that are trained on no token at all, for guidance."""
    decoder_guidance: float = 1.0
    """Guidance scale at which a flow decoder decodes; 1.0 is off."""
    decoder_solver: Literal["euler", "heun"] = "heun"
    """With which a flow decoder decodes; Heun's steps cost twice as much."""
    decoder_steps: int = 15
    """Steps of that solver."""
    autoencoder: dict[str, Any] | None = None
    """Settings of the diffusers `AutoencoderKL` in whose frozen latents the decoder works, and the
    `sha256` of its weights; `complete_settings` takes a folder. Null decodes to pixels."""
    readout: Literal["causal", "pooled"] = "causal"
    """A causal transformer over the tokens, or their mean, the readout of unordered tokens."""
    width: int = 128
    heads: int = 4
    mlp_ratio: int = 2
    encoder_layers: int = 2
    decoder_layers: int = 2
    readout_layers: int = 2
    text: Literal["own", "open_clip", "transformers"] = "own"
    """The text tower: one of our own sizes, or another library's, named as that of `features`."""
    text_architecture: dict[str, Any] | None = None
    text_weights: dict[str, Any] | None = None
    text_trained: bool = True
    """Whether a text tower of another library learns too."""
    text_pooling: Literal["pooled", "last", "mean"] = "last"
    """Which state of transformers' tower a text is: the model's own choice, the one at the end of
    the text, or the mean."""
    text_end: int | None = None
    """The piece with which a text for transformers' tower ends."""
    text_width: int = 96
    """Of the tower's words and of the readout."""
    text_heads: int = 4
    text_layers: int = 2
    context_length: int = 40
    vocabulary: int = PIECES
    embed_dim: int = 64
    fusion_layers: int | None = None
    """Layers of the transformer that writes captions and matches them; null has none."""
    caption_pieces: list[int] | None = None
    """The word pieces that it can write, in growing order; null is the whole vocabulary, which on a
    CPU costs more than all else. Any other piece is left out where captions are learned or scored.
    """
    token_noise: float = 0.1
    """Most deviation of the noise on tokens that the decoder is trained on, `add_token_noise`."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patch_size must divide image_size, got {self.patch_size} and {self.image_size}"
            )
        for width, heads in ((self.width, self.heads), (self.text_width, self.text_heads)):
            if width % heads:
                raise ValueError(f"{heads} heads do not divide a width of {width}")
        if self.token_dim < 2:
            raise ValueError(f"token_dim must be at least 2 to normalise, got {self.token_dim}")
        for part in ("features", "text"):
            is_ours = getattr(self, part) in ("patches", "own")
            if is_ours != (getattr(self, f"{part}_architecture") is None):
                raise ValueError(
                    f"{part}_architecture belongs to towers of other libraries, all of them and no "
                    f"others, got {part} {getattr(self, part)!r}"
                )
        if self.features == "patches" and self.features_trained:
            raise ValueError(
                "features_trained needs a tower that can learn, got features 'patches'"
            )
        if self.text == "own" and not self.text_trained:
            raise ValueError("text_trained must be true where the text tower is our own, got false")
        if self.text == "transformers" and self.fusion_layers is not None:
            raise ValueError(
                "captions are written and matched in open_clip's word pieces, a text tower of "
                f"transformers needs fusion_layers null, got {self.fusion_layers}"
            )
        if (self.text == "transformers") != (self.text_end is not None):
            raise ValueError(f"text_end belongs to transformers' towers, got {self.text_end}")
        if self.text != "transformers" and self.vocabulary < PIECES:
            raise ValueError(
                f"vocabulary must be at least {PIECES}, open_clip's, got {self.vocabulary}"
            )
        if not 0 <= self.decoder_drop <= 1:
            raise ValueError(f"decoder_drop must lie in 0..1, got {self.decoder_drop}")
        if self.decoder_guidance != 1 and not self.decoder_drop:
            raise ValueError(
                "decoder_guidance needs a decoder_drop above 0, so that images without tokens are "
                f"learned, got {self.decoder_guidance}"
            )
        if self.caption_pieces is not None:
            self._check_pieces(self.caption_pieces)
        if not 0 <= self.token_noise < math.inf:
            raise ValueError(f"token_noise must be finite and not below 0, got {self.token_noise}")
        if self.context_length < 3:
            raise ValueError(
                "context_length must be at least 3, for a start, a word and an end, got "
                f"{self.context_length}"
            )

    def _check_pieces(self, pieces: list[int]) -> None:
        if self.fusion_layers is None:
            raise ValueError("caption_pieces need fusion_layers to write them, got null")
        check_pieces(pieces, self.vocabulary)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches of an image of this size."""
        rows = self.image_size // self.patch_size
        return rows, rows

    @property
    def patches(self) -> int:
        """Patches of one image, N."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patch_values(self) -> int:
        """Values of one patch of what is decoded: three colours of every pixel, or the latents'."""
        if self.autoencoder is None:
            return 3 * self.patch_size**2
        factor = 2 ** (len(self.autoencoder["block_out_channels"]) - 1)
        return int(self.autoencoder["latent_channels"] * (self.patch_size // factor) ** 2)
