"""Stage 1: the terms that an orderer is trained on, each switched on by its weight.

B batch   S image side   K tokens   D channels of a token   J measured prefixes   E embedding size
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.export import register_dataclass

from .bottleneck import add_token_noise
from .model import Orderer
from .objectives import contrastive_loss, sigmoid_loss
from .prefix import draw_lengths, keep_mask, prefix_lengths
from .processor import Said

START_BIAS = -10.0
"""Of every score in the sigmoid form of the contrastive term, where most pairs are none."""


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """The weight of each term (0 leaves it out), and how it is taken."""

    reconstruction: float = 25.0
    """Of the squared error of images from a prefix, on pixels in [-1, 1]."""
    contrastive: float = 1.0
    """Of images against captions, the mean over the prefixes."""
    kl: float = 1e-4
    """Of the kl bottleneck's nats for each token; the others have none."""
    text_from: int = 100
    """Step at which the terms of text come in: from step 0 on they hold reconstruction back for the
    whole run, on features that are already there they are learned within 200 steps."""
    text_ramp: int = 100
    """Steps over which they come to their full weight."""
    similarity: Literal["infonce", "siglip"] = "infonce"
    """The form of the contrastive term."""
    aligned: Literal["prefixes", "full"] = "prefixes"
    """Whether captions are compared with every measured prefix, or with all tokens only."""
    full_share: float = 0.7
    """Share of the images that are decoded from all their tokens; the others from a prefix."""
    text_alone_orders: bool = False
    """True keeps the gradients of images that are decoded from a prefix away from the tokens: the
    decoder learns every prefix all the same, but captions alone decide what comes first."""

    def __post_init__(self) -> None:
        for name in ("reconstruction", "contrastive", "kl", "text_from"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if self.text_ramp < 1:
            raise ValueError(f"text_ramp must be at least 1, got {self.text_ramp}")
        if not 0 <= self.full_share <= 1:
            raise ValueError(f"full_share must lie in 0..1, got {self.full_share}")

    def weights(self, step: int) -> dict[str, float]:
        """The terms that count at a step (from 0), each with its weight, which is above 0."""
        return self._weights(min(max((step - self.text_from) / self.text_ramp, 0.0), 1.0))

    def full_weights(self) -> dict[str, float]:
        """The terms that count once all have come in."""
        return self._weights(ramp=1.0)

    def _weights(self, ramp: float) -> dict[str, float]:
        weights = {
            "reconstruction": self.reconstruction,
            "contrastive": self.contrastive * ramp,
            "kl": self.kl,
        }
        return {name: weight for name, weight in weights.items() if weight}


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of one batch, unweighted."""

    values: Mapping[str, Float[Tensor, ""]]
    tokens: Float[Tensor, "B K D"]
    """Those of the images, without noise: no term, but what all terms share."""

    def total(self, weights: Mapping[str, float]) -> Float[Tensor, ""]:
        """The weighted sum."""
        return torch.stack([weights[name] * value for name, value in self.values.items()]).sum()

    def gradient_norms(self, weights: Mapping[str, float]) -> dict[str, Float[Tensor, ""]]:
        """How hard each weighted term pulls at an image's tokens, where all terms meet.

        The norm of the gradient of the image's share, the mean over the batch: it does not depend
        on the size of the batch. The graph is kept; it costs a backward pass through what lies
        behind the tokens.
        """
        return {name: self._pull(weights[name] * value) for name, value in self.values.items()}

    def _pull(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        tokens = self.tokens
        if not tokens.requires_grad:  # the encoder is frozen
            return tokens.new_zeros(())
        (gradient,) = torch.autograd.grad(value, tokens, retain_graph=True, allow_unused=True)
        if gradient is None:
            return tokens.new_zeros(())
        return len(tokens) * gradient.float().flatten(1).norm(dim=1).mean()


register_dataclass(Terms)  # so that FSDP finds the tensors in what `Stage1` returns


class Stage1(nn.Module):
    """An orderer, and what only its training needs; one call gives all terms of a batch."""

    def __init__(self, orderer: Orderer, objectives: Objectives) -> None:
        super().__init__()
        self.orderer = orderer
        self.objectives = objectives
        if objectives.similarity == "siglip":
            self.score_bias = nn.Parameter(torch.tensor(START_BIAS))

    def forward(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        said: Said | None,
        wanted: Collection[str],
        generator: torch.Generator | None = None,
    ) -> Terms:
        """Take some terms of a batch of pairs.

        Args:
            images: pixels.
            said: what is said of them; None will do where no term of text is wanted.
            wanted: the names of the terms, as `Objectives.weights` gives them.
            generator: source of the prefix lengths and all noise, on the model's device.
        """
        orderer, config = self.orderer, self.orderer.config
        tokens, kl = orderer.sample_tokens(images, generator)
        values: dict[str, Tensor] = {}
        if "reconstruction" in wanted:
            lengths = draw_lengths(
                len(images), config.tokens, self.objectives.full_share, generator=generator
            )
            keep = keep_mask(lengths.to(tokens.device), config.tokens)
            noisy = add_token_noise(tokens, config.token_noise, generator)
            if self.objectives.text_alone_orders:
                noisy = torch.where(keep.all(dim=1)[:, None, None], noisy, noisy.detach())
            values["reconstruction"] = orderer.rebuild(noisy, keep, images, generator).loss
        if "kl" in wanted and config.bottleneck == "kl":
            values["kl"] = kl
        if "contrastive" in wanted:
            values["contrastive"] = self._contrast(tokens, _given(said))
        return Terms(values=values, tokens=tokens)

    def _contrast(self, tokens: Float[Tensor, "B K D"], said: Said) -> Float[Tensor, ""]:
        lengths = prefix_lengths(tokens.shape[1])
        first = 0 if self.objectives.aligned == "prefixes" else len(lengths) - 1
        images = self.orderer.readout(tokens, lengths[first:]).float()  # [B, J, E]
        texts = self.orderer.embed_texts(said.texts).float()[said.at[:, first:]]  # [B, J, E]
        captions, scale = said.numbers[said.at[:, first:]], self.orderer.scale
        if self.objectives.similarity == "infonce":
            return contrastive_loss(images, texts, captions, scale).mean()
        return sigmoid_loss(images, texts, captions, scale, self.score_bias).mean()


def _given(said: Said | None) -> Said:
    if said is None:
        raise ValueError("the terms of text need what is said of the images, got nothing")
    return said
