"""The settings of an orderer: typed, checked, saved beside its weights."""

from typing import Any

from transformers import PreTrainedConfig

FORMAT_VERSION = 1
"""Of saved settings; another one is refused by name."""

PASSED_ON = {"transformers_version", "name_or_path", "torch_dtype", "attn_implementation"}
"""Keys that transformers itself adds to settings."""


def refuse_unknown_keys(kind: str, keys: set[str]) -> None:
    """Raise ValueError for settings that no field of ours and no key of transformers' names."""
    unknown = sorted(key for key in keys - PASSED_ON if not key.startswith("_"))
    if unknown:
        raise ValueError(f"{kind} has no setting named {', '.join(unknown)}")


class OrdererConfig(PreTrainedConfig):
    """What an orderer is made of. Sizes in pixels, tokens, channels or layers.

    Raises:
        ValueError: for an unknown key, or a value out of its range, naming both.
    """

    model_type = "sightline_orderer"

    format_version: int = FORMAT_VERSION
    image_size: int = 32
    patch_size: int = 8
    tokens: int = 16
    token_dim: int = 16
    width: int = 128
    heads: int = 4
    mlp_ratio: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 3
    readout_layers: int = 2
    text_width: int = 96
    text_heads: int = 4
    text_layers: int = 2
    context_length: int = 40
    vocabulary: int = 49408
    embed_dim: int = 64
    token_noise: float = 0.2

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_unknown_keys("an orderer", set(kwargs))
        super().__post_init__(**kwargs)
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"these settings have format {self.format_version}, this code reads {FORMAT_VERSION}"
            )
        for name in OrdererConfig.__annotations__:
            if name not in ("model_type", "token_noise") and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patch_size must divide image_size, got {self.patch_size} and {self.image_size}"
            )
        for width, heads in ((self.width, self.heads), (self.text_width, self.text_heads)):
            if width % heads:
                raise ValueError(f"{heads} heads do not divide a width of {width}")
        if self.token_dim < 2:
            raise ValueError(f"token_dim must be at least 2 to normalise, got {self.token_dim}")
        if self.token_noise < 0:
            raise ValueError(f"token_noise must not be negative, got {self.token_noise}")

    @property
    def patches(self) -> int:
        """Patches of one image, N."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patch_values(self) -> int:
        """Values of one patch: three colours of every pixel."""
        return 3 * self.patch_size**2
