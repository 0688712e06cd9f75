"""The orderer: images to ordered tokens, aligned with text and decodable at every prefix.

B batch   H, W image height and width   K tokens   D channels of a token   k prefix length
E embedding size   L word pieces   T width of the text tower   N patches   P values of a patch
C colours   O what the encoder gives for a token
"""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from .borrowed import Borrowed
from .bottleneck import Bottled, Bottleneck
from .bound import at_most
from .config import OrdererConfig
from .cross_encoder import CrossEncoder
from .decoder import Decoder, Rebuilt
from .digest import digest
from .encoder import JointEncoder
from .features import make_features
from .flow_decoder import FlowDecoder
from .fusion import Fusion
from .inputs import check_colours, check_prefix, check_text, check_tokens, in_range
from .latents import make_latents
from .objectives import piece_log_likelihoods
from .patches import patchify, unpatchify
from .positions import Grid
from .pretrained import CheckedModel
from .readout import Readout
from .text import make_text
from .writing import starts, write

ENCODING_SETTINGS = ("image_size", "patch_size", "tokens", "token_dim", "width", "heads")
LATER_ENCODING_SETTINGS = {"encoder": "joint", "causal": True, "bottleneck": "norm"}
"""Settings that came after the first orderers, and what those had: they keep their hash."""
EMBEDDING_SETTINGS = ("readout", "text_heads", "mlp_ratio", "context_length")
"""What shapes embeddings and is not seen in the shape of a tensor."""

ENCODERS: dict[str, type[JointEncoder] | type[CrossEncoder]] = {
    "joint": JointEncoder,
    "cross": CrossEncoder,
}

START_SCALE, MOST_SCALE = 30.0, 100.0
"""Of the inverse temperature: a softer start than 30 is slow to tell near captions apart."""


class Orderer(CheckedModel):
    """Stage 1. `encode`, cut the tokens anywhere, `decode`; or compare with text at any prefix."""

    config_class = OrdererConfig
    main_input_name = "images"
    supports_gradient_checkpointing = True
    _no_split_modules = ("Block", "ModulatedBlock", "ResidualAttentionBlock")
    """What is repeated: the unit of sharding, compiling and gradient checkpointing."""
    config: OrdererConfig

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__(config)
        self.features = make_features(config)
        self.bottleneck = Bottleneck(config.bottleneck, config.token_dim)
        grid = self.features.grid(config.image_size, config.image_size)
        make_encoder = ENCODERS[config.encoder]
        self.encoder = make_encoder(config, self.features.channels, grid, self.bottleneck.channels)
        self.latents = make_latents(config)
        self.decoder = (FlowDecoder if config.decoder == "flow" else Decoder)(config)
        if grid == config.grid:
            self.decoder.mixing.start_as_mirror_of(self.encoder.mixing)
        self.readout = Readout(config, pooled=config.readout == "pooled")
        self.text = make_text(config)
        if config.fusion_layers is not None:
            self.fusion = Fusion(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))
        self.post_init()
        self.all_tied_weights_keys = self.get_expanded_tied_weights_keys(all_submodels=True)

    @classmethod
    def from_pretrained(cls, name: str | Path, *args: Any, **kwargs: Any) -> "Orderer":
        """Load an orderer, see `CheckedModel.from_pretrained`; its frozen towers are frozen."""
        orderer = super().from_pretrained(name, *args, **kwargs)
        for part in orderer.modules():
            if isinstance(part, Borrowed):
                part.borrow(part.trained)  # transformers makes all parameters anew
        return orderer

    def _init_weights(self, module: nn.Module) -> None:
        """Keep the start that each part gives itself."""

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B K D"]:
        return self.encode(images)

    def encode(
        self, images: Shaped[Tensor, "B C H W"], prefix: int | None = None
    ) -> Float[Tensor, "B k D"]:
        """Turn images into their first `prefix` tokens (all of them by default).

        Args:
            images: uint8 in 0..255, as `OrdererProcessor.pixels` makes them of pictures, or floats
                in [-1, 1]; their sides are multiples of the patch.
            prefix: k in 1..K.

        Raises:
            ValueError: for a prefix outside 1..K, or images that are none.
        """
        return self.bottleneck(self._encode(images, self._checked(prefix)))

    def decode(
        self,
        tokens: Float[Tensor, "B k D"],
        size: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B 3 H W"]:
        """Draw images from the first k tokens of each; values lie in [-1, 1].

        Args:
            tokens: k of them, in 1..K.
            size: height and width in pixels; by default those that the orderer was made for.
            generator: source of the noise of a flow decoder, on the model's device; without one
                every image starts from the same noise, so that decoding again gives the same.

        Raises:
            ValueError: for tokens of another size, or a number of them outside 1..K, or a size that
                patches do not tile.
        """
        check_tokens(tokens, self.config.tokens, self.config.token_dim)
        keep = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        missing = self.config.tokens - tokens.shape[1]
        tokens = nn.functional.pad(tokens, (0, 0, 0, missing))
        keep = nn.functional.pad(keep, (0, missing))
        grid = self._grid(*(size or (self.config.image_size, self.config.image_size)))
        patches = self.decoder.decode(tokens, keep, grid, generator)
        return self.images_of(patches, grid).clamp(-1, 1)

    def images_of(self, patches: Float[Tensor, "B N P"], grid: Grid) -> Float[Tensor, "B 3 H W"]:
        """Put a decoder's patches together, of pixels or of latents; gradients flow through."""
        side = self.config.patch_size // self.latents.factor
        return self.latents.decode(unpatchify(patches, side, grid[0]))

    def sample_tokens(
        self, images: Shaped[Tensor, "B 3 H W"], generator: torch.Generator | None = None
    ) -> Bottled:
        """Turn images into tokens as training sees them, see `Bottleneck`."""
        return self.bottleneck.sample(self._encode(images, self.config.tokens), generator)

    def rebuild(
        self,
        tokens: Float[Tensor, "B K D"],
        keep: Bool[Tensor, "B K"],
        images: Shaped[Tensor, "B 3 H W"],
        generator: torch.Generator | None = None,
    ) -> Rebuilt:
        """Have the decoder rebuild images from the tokens that `keep` keeps."""
        latents = self.latents.encode(in_range(images).to(self.dtype))
        patches = patchify(latents, self.config.patch_size // self.latents.factor)
        return self.decoder.rebuild(tokens, keep, patches, self._grid(*images.shape[2:]), generator)

    def embed_images(
        self, images: Shaped[Tensor, "B 3 H W"], prefix: int | None = None
    ) -> Float[Tensor, "B E"]:
        """Unit embeddings of images, read from their first `prefix` tokens (all by default)."""
        return self.embed_tokens(self.encode(images, prefix))[:, -1]

    def embed_tokens(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B k E"]:
        """Unit embeddings at every prefix of the tokens."""
        check_tokens(tokens, self.config.tokens, self.config.token_dim)
        return self.readout(tokens)

    def embed_texts(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B E"]:
        """Unit embeddings of captions, tokenised by `OrdererProcessor.text`."""
        self._check_text(text)
        return self.text(text)

    def embed_words(
        self, text: Int[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L T"], Bool[Tensor, "B L"]]:
        """The text tower's embedding of every word piece, and a mask that is False for padding."""
        self._check_text(text)
        return self.text.words(text), self.text.kept(text)

    def caption(
        self,
        images: Shaped[Tensor, "B 3 H W"],
        prefix: int | None = None,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "B L"]:
        """Say what is in images, read from their first `prefix` tokens: see `caption_tokens`."""
        return self.caption_tokens(self.encode(images, prefix), temperature, generator)

    @torch.no_grad()
    def caption_tokens(
        self,
        tokens: Float[Tensor, "B k D"],
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "B L"]:
        """Write a caption from k tokens of each image; `OrdererProcessor.words` reads it.

        Args:
            tokens: k of them, in 1..K.
            temperature: 0 takes the likeliest word piece, 1 draws from what the model says.
            generator: source of the draws, on the model's device.

        Raises:
            ValueError: for a model without fusion, or a temperature below 0.
        """
        fusion, keep = self.fusing, self._all_of(tokens)
        return write(
            lambda text: fusion.write(tokens, keep, self.text.words(text))[:, -1],
            fusion.piece,
            starts(len(tokens), tokens.device),
            self.config.context_length,
            temperature,
            generator,
        )

    def caption_likelihood(
        self, tokens: Float[Tensor, "B k D"], text: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B"]:
        """How likely captions are, given k tokens of each image: the log-likelihood in nats, summed
        over the word pieces after the start, but for those outside `config.caption_pieces`.
        """
        self._check_text(text)
        logits = self.fusing.write(tokens, self._all_of(tokens), self.text.words(text[:, :-1]))
        return piece_log_likelihoods(logits, self.fusing.targets(text)).sum(dim=1)

    def match(self, tokens: Float[Tensor, "B k D"], text: Int[Tensor, "B L"]) -> Float[Tensor, "B"]:
        """The logit that a caption is of the image whose first k tokens these are."""
        return self.fusing.match(tokens, self._all_of(tokens), *self.embed_words(text))

    @property
    def fusing(self) -> Fusion:
        """The part that reads words and tokens together.

        Raises:
            ValueError: for a model that has none.
        """
        if self.config.fusion_layers is None:
            raise ValueError(
                "captions are written and matched by an orderer with fusion_layers, got null"
            )
        return self.fusion

    def _all_of(self, tokens: Float[Tensor, "B k D"]) -> Bool[Tensor, "B k"]:
        check_tokens(tokens, self.config.tokens, self.config.token_dim)
        return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """The learned inverse temperature of the contrastive loss."""
        return at_most(self.log_scale, math.log(MOST_SCALE)).exp()

    def encoding_hash(self) -> str:
        """Name this encoding: sha256 over the encoder's tensors and the settings that shape it.

        Tokens, AR models and indices carry it, so that they are never used with another orderer.
        """
        settings = {name: getattr(self.config, name) for name in ENCODING_SETTINGS}
        for name, first in LATER_ENCODING_SETTINGS.items():
            if getattr(self.config, name) != first:
                settings[name] = getattr(self.config, name)
        tensors = self.encoder.state_dict()
        if self.config.features != "patches":
            settings["features"] = [self.config.features, self.config.features_architecture]
            tensors |= self.features.state_dict(prefix="features.")  # type: ignore[attr-defined]
        return digest(settings, tensors)

    def embedding_hash(self) -> str:
        """Name what turns tokens and texts into embeddings: the readout and the text tower.

        Indices carry it beside `encoding_hash`.
        """
        settings = {name: getattr(self.config, name) for name in EMBEDDING_SETTINGS}
        if self.config.text != "own":
            settings["text"] = [self.config.text, self.config.text_architecture]
            settings["text"] += [self.config.text_pooling, self.config.text_end]
        tensors = {
            f"{part}.{name}": tensor
            for part in ("readout", "text")
            for name, tensor in getattr(self, part).state_dict().items()
        }
        return digest(settings, tensors)

    def _encode(self, images: Shaped[Tensor, "B C H W"], prefix: int) -> Float[Tensor, "B k O"]:
        check_colours(images)
        self._grid(*images.shape[2:])
        features = self.features(in_range(images).to(self.dtype))
        return self.encoder(features, self.features.grid(*images.shape[2:]), prefix)

    def _grid(self, height: int, width: int) -> Grid:
        """Rows and columns of the patches of an image."""
        patch = self.config.patch_size
        if height < patch or width < patch or height % patch or width % patch:
            raise ValueError(
                f"the sides of an image must be multiples of the patch, {patch} pixels, "
                f"got {height} x {width}"
            )
        return height // patch, width // patch

    def _check_text(self, text: Int[Tensor, "B L"]) -> None:
        check_text(text, self.config.context_length, self.config.vocabulary)

    def _checked(self, prefix: int | None) -> int:
        prefix = self.config.tokens if prefix is None else prefix
        check_prefix(prefix, self.config.tokens)
        return prefix


AutoConfig.register(OrdererConfig.model_type, OrdererConfig)
AutoModel.register(OrdererConfig, Orderer)
