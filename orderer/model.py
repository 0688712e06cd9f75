"""The orderer: images to ordered tokens, aligned with text and decodable at every prefix.

B batch   S image side   K tokens   D channels of a token   k prefix length   E embedding size
L word pieces   W width of the text tower   N patches   P values of a patch   J measured prefixes
"""

import hashlib
import json
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from .bottleneck import add_token_noise, normalise_tokens
from .config import OrdererConfig
from .decoder import Decoder
from .encoder import JointEncoder
from .objectives import contrastive_loss, reconstruction_loss
from .patches import patchify, unpatchify
from .prefix import draw_lengths, keep_mask, prefix_lengths
from .pretrained import CheckedModel
from .readout import Readout
from .text import TextTower

ENCODING_SETTINGS = ("image_size", "patch_size", "tokens", "token_dim", "width", "heads")
START_SCALE, MOST_SCALE = 30.0, 100.0
"""Of the inverse temperature: a softer start than 30 is slow to tell near captions apart."""


@dataclass(frozen=True, kw_only=True)
class OrdererLoss:
    """The terms of stage 1's loss, unweighted."""

    reconstruction: Float[Tensor, ""]
    contrastive: Float[Tensor, "J"]
    """At each prefix of `prefix_lengths`."""
    tokens: Float[Tensor, "B K D"]
    """Those of the images, without noise: no term, but what stage 3 goes on with."""


class Orderer(CheckedModel):
    """Stage 1. `encode`, cut the tokens anywhere, `decode`; or compare with text at any prefix."""

    config_class = OrdererConfig
    main_input_name = "images"
    config: OrdererConfig

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__(config)
        self.encoder = JointEncoder(config)
        self.decoder = Decoder(config)
        self.decoder.mixing.start_as_mirror_of(self.encoder.mixing)
        self.readout = Readout(config)
        self.text = TextTower(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keep the start that each part gives itself."""

    def forward(self, images: Shaped[Tensor, "B 3 S S"]) -> Float[Tensor, "B K D"]:
        return self.encode(images)

    def encode(
        self, images: Shaped[Tensor, "B 3 S S"], prefix: int | None = None
    ) -> Float[Tensor, "B k D"]:
        """Turn images into their first `prefix` tokens (all of them by default).

        Args:
            images: uint8 in 0..255, or floats in [-1, 1].
            prefix: k in 1..K.

        Raises:
            ValueError: for a prefix outside 1..K, or images of another size.
        """
        return self._encode(self._patches(images), self._checked(prefix))

    def decode(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B 3 S S"]:
        """Draw images from the first k tokens of each; values lie in [-1, 1]."""
        keep = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        missing = self.config.tokens - self._checked(tokens.shape[1])
        tokens = nn.functional.pad(tokens, (0, 0, 0, missing))
        patches = self.decoder(tokens, nn.functional.pad(keep, (0, missing)))
        return self._pixels(patches).clamp(-1, 1)

    def embed_images(
        self, images: Shaped[Tensor, "B 3 S S"], prefix: int | None = None
    ) -> Float[Tensor, "B E"]:
        """Unit embeddings of images, read from their first `prefix` tokens."""
        return self.embed_tokens(self.encode(images, prefix))[:, -1]

    def embed_tokens(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B k E"]:
        """Unit embeddings at every prefix of the tokens."""
        return self.readout(tokens)

    def embed_texts(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B E"]:
        """Unit embeddings of tokenised captions (see `OrdererProcessor`)."""
        return self.text(text)

    def embed_words(
        self, text: Int[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L W"], Bool[Tensor, "B L"]]:
        """The text tower's embedding of every word piece, and a mask that is False for padding."""
        places = torch.arange(text.shape[1], device=text.device)
        return self.text.words(text), places <= text.argmax(dim=-1, keepdim=True)

    def loss(
        self,
        images: UInt8[Tensor, "B 3 S S"],
        text: Int[Tensor, "B L"] | None,
        captions: Int[Tensor, "B"],
        full_share: float,
        generator: torch.Generator | None = None,
    ) -> OrdererLoss:
        """Stage 1's terms on one batch of pairs.

        Args:
            images: pixels.
            text: the tokenised captions; None leaves the contrastive term out, as zeros.
            captions: a number per caption, the same for equal captions.
            full_share: the share of images decoded from the whole sequence, see `draw_lengths`.
            generator: source of the prefix lengths and the token noise, on the model's device.
        """
        patches = self._patches(images)
        tokens = self._encode(patches, self.config.tokens)
        noisy = add_token_noise(tokens, self.config.token_noise, generator)
        lengths = draw_lengths(len(images), self.config.tokens, full_share, generator=generator)
        rebuilt = self.decoder(noisy, keep_mask(lengths.to(tokens.device), self.config.tokens))
        return OrdererLoss(
            reconstruction=reconstruction_loss(rebuilt, patches),
            contrastive=self._contrast(tokens, text, captions),
            tokens=tokens,
        )

    def _contrast(
        self,
        tokens: Float[Tensor, "B K D"],
        text: Int[Tensor, "B L"] | None,
        captions: Int[Tensor, "B"],
    ) -> Float[Tensor, "J"]:
        lengths = prefix_lengths(self.config.tokens)
        if text is None:
            return tokens.new_zeros(len(lengths), dtype=torch.float32)
        images = self.embed_tokens(tokens)[:, [k - 1 for k in lengths]]  # [B, J, E]
        texts = self.embed_texts(text)  # [B, E]
        return contrastive_loss(images.float(), texts.float(), captions, self.scale)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """The learned inverse temperature of the contrastive loss."""
        return self.log_scale.exp().clamp(max=MOST_SCALE)

    def encoding_hash(self) -> str:
        """Name this encoding: sha256 over the encoder's tensors and the settings that shape it.

        Tokens, AR models and indices carry it, so that they are never used with another orderer.
        """
        digest = hashlib.sha256()
        settings = {name: getattr(self.config, name) for name in ENCODING_SETTINGS}
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype}".encode())
            digest.update(values.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _encode(self, patches: Float[Tensor, "B N P"], prefix: int) -> Float[Tensor, "B k D"]:
        return normalise_tokens(self.encoder(patches, prefix))

    def _patches(self, images: Shaped[Tensor, "B 3 S S"]) -> Float[Tensor, "B N P"]:
        size = self.config.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(
                f"this orderer reads images of 3 x {size} x {size}, "
                f"got {' x '.join(map(str, images.shape[1:]))}"
            )
        patches = patchify(images, self.config.patch_size)
        return patches / 127.5 - 1 if images.dtype == torch.uint8 else patches

    def _pixels(self, patches: Float[Tensor, "B N P"]) -> Float[Tensor, "B 3 S S"]:
        rows = self.config.image_size // self.config.patch_size
        return unpatchify(patches, self.config.patch_size, rows)

    def _checked(self, prefix: int | None) -> int:
        prefix = self.config.tokens if prefix is None else prefix
        if not 1 <= prefix <= self.config.tokens:
            raise ValueError(f"prefix must lie in 1..{self.config.tokens}, got {prefix}")
        return prefix


AutoConfig.register(OrdererConfig.model_type, OrdererConfig)
AutoModel.register(OrdererConfig, Orderer)
