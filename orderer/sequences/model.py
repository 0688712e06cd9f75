"""A fixed order: principal components of cells, arranged as a sequence that every stage reads.

A cell is a patch, or, for `principal`, the whole image.

B batch   S image side   N cells   P values of a cell   C components that are kept of it
K tokens   D channels of a token   k prefix length   L word pieces   T width of a text tower

It stands where an orderer stands: `encode`, cut anywhere, `decode`. Nothing of it is learned but
the components, which all orders share, so that orders differ in nothing else; and, if it is wanted,
a decoder that adds to what they say.
"""

from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from ..config import OrdererConfig
from ..decoder import Decoder
from ..digest import digest
from ..inputs import check_colours, check_prefix, check_tokens, in_range
from ..patches import patchify, unpatchify
from ..pretrained import CheckedModel
from .arrangements import Arrangement, make_arrangement
from .config import SequenceConfig


class FixedOrder(CheckedModel):
    """An order that is not learned. `fit` it on images, then use it like an orderer."""

    config_class = SequenceConfig
    main_input_name = "images"
    config: SequenceConfig

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__(config)
        self.mean = fitted(torch.zeros(config.cell_values))
        self.basis = fitted(torch.eye(config.cell_values)[: config.components].clone())
        self.scale = fitted(torch.ones(()))
        self.decoder = _silent_decoder(config) if config.refined else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing is drawn."""

    @cached_property
    def arrangement(self) -> Arrangement:
        """Made when it is needed: transformers builds models of which no tensor is filled yet."""
        return make_arrangement(self.config)

    @torch.no_grad()
    def fit(self, images: UInt8[Tensor, "M 3 S S"]) -> None:
        """Take the mean, the first principal components and their deviation from images' cells.

        Raises:
            ValueError: for fewer cells than a cell has values, or cells that never vary.
        """
        patches = self._patches(images).flatten(0, 1).double()
        if len(patches) <= patches.shape[1]:
            raise ValueError(
                f"components of {patches.shape[1]} values need at least {patches.shape[1] + 1} "
                f"patches, got {len(patches)}"
            )
        variances, vectors = torch.linalg.eigh(torch.cov(patches.T))  # rising
        kept = vectors.flip(1).T[: self.config.components]  # [C, P]
        largest = kept.gather(1, kept.abs().argmax(dim=1, keepdim=True))
        self.mean.copy_(patches.mean(dim=0))
        self.basis.copy_(kept * largest.sign())  # a component has no sign of its own
        scale = variances[-self.config.components :].clamp(min=0).mean().sqrt()
        if not scale > 0:
            raise ValueError("the patches of these images never vary")
        self.scale.copy_(scale)

    def encode(
        self, images: Shaped[Tensor, "B 3 S S"], prefix: int | None = None
    ) -> Float[Tensor, "B k D"]:
        """Turn images into their first `prefix` tokens (all of them by default).

        Args:
            images: uint8 in 0..255, or floats in [-1, 1], of the size that this order is made for.
            prefix: k in 1..K.

        Raises:
            ValueError: for a prefix outside 1..K, or images of another size.
        """
        prefix = self.config.tokens if prefix is None else prefix
        check_prefix(prefix, self.config.tokens)
        components = (self._patches(images) - self.mean) @ self.basis.T / self.scale
        pixels = ((in_range(images).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return self.arrangement.arrange(components, pixels)[:, :prefix]

    def decode(
        self,
        tokens: Float[Tensor, "B k D"],
        size: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B 3 S S"]:
        """Images of the first k tokens of each, values in [-1, 1]; the rest are mean patches.

        Args:
            tokens: k of them, in 1..K.
            size: height and width, that this order is made for.
            generator: nothing is drawn.

        Raises:
            ValueError: for tokens or a size of another order.
        """
        check_tokens(tokens, self.config.tokens, self.config.token_dim)
        side = self.config.image_size
        if size not in (None, (side, side)):
            raise ValueError(f"this order is of images of {side} x {side}, got {size}")
        if self.decoder is None:
            return self._of_components(tokens).clamp(-1, 1)
        missing = self.config.tokens - tokens.shape[1]
        keep = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        keep = nn.functional.pad(keep, (0, missing))
        return self.rebuild(nn.functional.pad(tokens, (0, 0, 0, missing)), keep).clamp(-1, 1)

    def rebuild(
        self, tokens: Float[Tensor, "B K D"], keep: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images from the tokens that are kept; values may pass -1 and 1.

        Raises:
            ValueError: for an order without a decoder.
        """
        kept = tokens * keep[..., None]  # what is missing is 0, in an arrangement too
        return self._of_components(kept) + self._of_decoder(kept, keep)

    def refined(self) -> "FixedOrder":
        """The same order with a decoder, which adds nothing yet."""
        config = SequenceConfig(**{**self.config.own(), "refined": True})
        order = FixedOrder(config)
        order.load_state_dict(self.state_dict(), strict=False)
        return order.to(self.device)

    def _of_components(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B 3 S S"]:
        patches = self.arrangement.restore(tokens) * self.scale @ self.basis + self.mean
        return unpatchify(patches, self.config.cell, self.config.image_size // self.config.cell)

    def _of_decoder(
        self, tokens: Float[Tensor, "B K D"], keep: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "B 3 S S"]:
        if self.decoder is None:
            raise ValueError("this order has no decoder, see `refined`")
        patches, _ = self.decoder(tokens, keep)
        return unpatchify(patches, self.config.patch_size, self.config.side)

    def embed_words(
        self, text: Int[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L T"], Bool[Tensor, "B L"]]:
        """A fixed order has no text tower.

        Raises:
            ValueError: always, with what to do.
        """
        raise ValueError("a fixed order has no text tower: ar.condition must be words or class")

    def encoding_hash(self) -> str:
        """Name this encoding: sha256 over the components and the settings, see `Orderer`."""
        tensors = {name: getattr(self, name) for name in ("mean", "basis", "scale")}
        settings = {name: x for name, x in self.config.own().items() if name != "refined"}
        return digest(settings, tensors)

    def _patches(self, images: Shaped[Tensor, "B 3 S S"]) -> Float[Tensor, "B N P"]:
        check_colours(images)
        side = self.config.image_size
        if images.shape[2:] != (side, side):
            height, width = images.shape[2:]
            raise ValueError(f"this order is of images of {side} x {side}, got {height} x {width}")
        return patchify(in_range(images).to(self.mean.dtype), self.config.cell)


def _silent_decoder(config: SequenceConfig) -> Decoder:
    """A decoder of an orderer's default sizes that says nothing yet."""
    decoder = Decoder(
        OrdererConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            tokens=config.tokens,
            token_dim=config.token_dim,
        )
    )
    nn.init.zeros_(decoder.to_patch.weight)
    nn.init.zeros_(decoder.to_patch.bias)
    return decoder


def fitted(start: Tensor) -> nn.Parameter:
    """What `fit` fills; no training changes it."""
    return nn.Parameter(start, requires_grad=False)


AutoConfig.register(SequenceConfig.model_type, SequenceConfig)
AutoModel.register(SequenceConfig, FixedOrder)
