"""Stage 1: an orderer, and what only its training needs; one call gives all terms of a batch.

B batch   K tokens   D channels of a token
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from .bottleneck import add_token_noise
from .decoder import Rebuilt
from .inputs import in_range
from .model import Orderer
from .objectives import (
    TEXT_TERMS,
    Alignment,
    Balance,
    Discriminator,
    Objectives,
    Teacher,
    Terms,
    perceptual_distance,
)
from .prefix import draw_lengths, keep_mask
from .processor import Said
from .text_terms import text_terms

START_BIAS = -10.0
"""Of every score in the sigmoid form of the contrastive term, where most pairs are none."""

OF_REBUILT = {"reconstruction", "perceptual", "adversarial", "alignment"}
"""Terms that need images rebuilt from a prefix; all of them see the same."""


class Stage1(nn.Module):
    """What is trained: the orderer, and the networks that its terms bring along."""

    def __init__(self, orderer: Orderer, objectives: Objectives) -> None:
        super().__init__()
        for name in ("captioning", "matching"):
            if getattr(objectives, name) and orderer.config.fusion_layers is None:
                raise ValueError(
                    f"{name} of weight {getattr(objectives, name)} needs a model with "
                    f"fusion_layers, got null"
                )
        self.orderer = orderer
        self.objectives = objectives
        is_sigmoid = objectives.similarity == "siglip"
        self.score_bias = nn.Parameter(torch.tensor(START_BIAS)) if is_sigmoid else None
        if objectives.balanced:
            self.balance = Balance(list(objectives.full_weights()))
        self.seen_by = _teacher(objectives.perceptual, objectives.perceptual_model)
        aligned_by = _teacher(objectives.alignment, objectives.alignment_model)
        if aligned_by:
            width, size = orderer.config.width, objectives.alignment_size
            self.alignment = Alignment(width, aligned_by, size)
        self.teachers = {
            name: teacher.weights
            for name, teacher in (("perceptual", self.seen_by), ("alignment", aligned_by))
            if teacher
        }
        """The sha256 of each frozen network's weights."""
        # In a tuple it is no part of this module, whose learner would make it serve the orderer.
        self._opponent = (Discriminator(objectives.lecam),) if objectives.adversarial else ()

    @property
    def discriminator(self) -> Discriminator | None:
        """What the adversarial term is up against; to be moved and trained by itself."""
        return self._opponent[0] if self._opponent else None

    def balanced(self, terms: Terms, weights: Mapping[str, float], step: int) -> dict[str, float]:
        """The weights of a step, or, where terms are balanced, what gives each its share.

        The kl term keeps its weight: it does not pull at the tokens.
        """
        if not self.objectives.balanced:
            return dict(weights)
        shares = {name: weights[name] for name in terms.values if name != "kl"}
        if self.balance.due(step, shares):
            pulls = terms.gradient_norms(dict.fromkeys(terms.values, 1.0))
            self.balance.measure({name: pulls[name] for name in shares})
        return {**weights, **self.balance.weights(shares)}

    def forward(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        said: Said | None,
        wanted: Collection[str],
        generator: torch.Generator | None = None,
        *,
        noise: Float[Tensor, "K D"] | None = None,
    ) -> Terms:
        """Take some terms of a batch of pairs.

        Args:
            images: pixels.
            said: what is said of them; None will do where no term of text is wanted.
            wanted: the names of the terms, as `Objectives.weights` gives them.
            generator: source of the prefix lengths and all noise, on the model's device.
            noise: deviations of noise that all terms see the tokens through; none by default.
        """
        orderer, config = self.orderer, self.orderer.config
        clean, kl, given = orderer.sample_tokens(images, generator)
        tokens = clean if noise is None else _blurred(clean, noise, generator)
        values: dict[str, Tensor] = {}
        apart: dict[str, Tensor] = {}
        if OF_REBUILT & set(wanted):
            rebuilt = self._rebuild(tokens, images, generator)
            if "reconstruction" in wanted:
                values["reconstruction"] = rebuilt.loss
            looks, apart = self._look(rebuilt, images, wanted)
            values |= looks
        if "kl" in wanted and config.bottleneck == "kl":
            values["kl"] = kl
        if any(name in wanted for name in TEXT_TERMS):
            values |= text_terms(
                orderer, self.objectives, self.score_bias, tokens, _given(said), wanted, generator
            )
        return Terms(values=values, tokens=clean, given=given, apart=apart)

    def _rebuild(
        self,
        tokens: Float[Tensor, "B K D"],
        images: UInt8[Tensor, "B 3 H W"],
        generator: torch.Generator | None,
    ) -> Rebuilt:
        """Rebuild each image from a prefix of its tokens, drawn and blurred."""
        config, share = self.orderer.config, self.objectives.full_share
        lengths = draw_lengths(len(images), config.tokens, share, generator=generator)
        keep = keep_mask(lengths.to(tokens.device), config.tokens)
        noisy = add_token_noise(tokens, config.token_noise, generator)
        if self.objectives.text_alone_orders:
            noisy = torch.where(keep.all(dim=1)[:, None, None], noisy, noisy.detach())
        return self.orderer.rebuild(noisy, keep, images, generator)

    def _look(
        self, rebuilt: Rebuilt, images: UInt8[Tensor, "B 3 H W"], wanted: Collection[str]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The terms that other networks take of rebuilt images, and the losses of those."""
        values: dict[str, Tensor] = {}
        apart: dict[str, Tensor] = {}
        if not (OF_REBUILT - {"reconstruction"}) & set(wanted):
            return values, apart
        patch, real = self.orderer.config.patch_size, in_range(images)
        grid = images.shape[2] // patch, images.shape[3] // patch
        if {"perceptual", "adversarial"} & set(wanted):
            drawn = self.orderer.images_of(rebuilt.patches.float(), grid)  # [B, 3, H, W]
        if "perceptual" in wanted and self.seen_by:
            values["perceptual"] = perceptual_distance(self.seen_by, drawn, real)
        if "adversarial" in wanted and self.discriminator:
            values["adversarial"], apart["discriminator"] = self.discriminator(drawn, real)
        if "alignment" in wanted:
            values["alignment"] = self.alignment(rebuilt.states, real, grid)
        return values, apart


def _blurred(
    tokens: Float[Tensor, "B K D"],
    deviation: Float[Tensor, "K D"],
    generator: torch.Generator | None,
) -> Float[Tensor, "B K D"]:
    noise = torch.randn(tokens.shape, device=tokens.device, generator=generator)
    return tokens + (deviation * noise).to(tokens.dtype)


def _teacher(weight: float, folder: Path | None) -> Teacher | None:
    return Teacher(folder) if weight and folder else None


def _given(said: Said | None) -> Said:
    if said is None:
        raise ValueError("the terms of text need what is said of the images, got nothing")
    return said
