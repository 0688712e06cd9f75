"""The terms of stage 1, each switched on by its weight."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

TEXT_TERMS = ("contrastive", "captioning", "matching")

NOT_NEGATIVE = (
    *("reconstruction", *TEXT_TERMS, "kl"),
    *("perceptual", "adversarial", "lecam", "alignment"),
)


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """The weight of each term (0 leaves it out), and how it is taken."""

    reconstruction: float = 25.0
    """Of the squared error of images from a prefix, on pixels in [-1, 1]."""
    contrastive: float = 1.0
    """Of images against captions, the mean over the prefixes."""
    captioning: float = 0.0
    """Of captions written from a prefix, for each word piece. Needs the model's `fusion_layers`."""
    matching: float = 0.0
    """Of telling captions from near ones, from a prefix. Needs the model's `fusion_layers`."""
    kl: float = 1e-4
    """Of the kl bottleneck's nats for each token; the others have none."""
    perceptual: float = 0.0
    """Of the distance between rebuilt images and originals in the eyes of `perceptual_model`."""
    perceptual_model: Path | None = None
    """Folder of a vision model of transformers (ConvNeXt, ResNet, DINOv2 ...)."""
    adversarial: float = 0.0
    """Of how little rebuilt images pass for real before a discriminator, which learns meanwhile."""
    adversarial_from: int = 0
    """Step at which the discriminator begins to learn and to be heard."""
    lecam: float = 1e-3
    """Weight, in the discriminator's own loss, of the term that holds it back."""
    alignment: float = 0.0
    """Of the decoder's states half-way against the features of `alignment_model`."""
    alignment_model: Path | None = None
    """Folder of a vision model of transformers (DINOv2 ...)."""
    alignment_size: int | None = None
    """Shorter side in pixels at which it sees the images; null leaves them as they are."""
    balanced: bool = False
    """True takes the weights as shares: the terms pull at tokens in their proportion."""
    text_from: int = 100
    """Step at which the terms of text come in: from step 0 on they hold reconstruction back for the
    whole run, on features that are already there they are learned within 200 steps."""
    text_ramp: int = 100
    """Steps over which they come to their full weight."""
    similarity: Literal["infonce", "siglip"] = "infonce"
    """The form of the contrastive term."""
    aligned: Literal["prefixes", "full"] = "prefixes"
    """Whether captions go with every measured prefix, or with all tokens only."""
    full_share: float = 0.7
    """Share of the images that are decoded from all their tokens; the others from a prefix."""
    text_alone_orders: bool = False
    """True keeps the gradients of images that are decoded from a prefix away from the tokens: the
    decoder learns every prefix all the same, but captions alone decide what comes first."""

    def __post_init__(self) -> None:
        for name in (*NOT_NEGATIVE, "text_from", "adversarial_from"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        for name in ("perceptual", "alignment"):
            if getattr(self, name) and getattr(self, f"{name}_model") is None:
                raise ValueError(
                    f"{name} needs {name}_model, the folder of a vision model, got none and "
                    f"a weight of {getattr(self, name)}"
                )
        if self.alignment_size is not None and self.alignment_size < 1:
            raise ValueError(f"alignment_size must be at least 1, got {self.alignment_size}")
        if self.text_ramp < 1:
            raise ValueError(f"text_ramp must be at least 1, got {self.text_ramp}")
        if not 0 <= self.full_share <= 1:
            raise ValueError(f"full_share must lie in 0..1, got {self.full_share}")
        if not self.weights(0).keys() - {"kl"}:
            raise ValueError(
                f"no term counts at step 0: those of text come in at step {self.text_from} "
                "(text_from), and no other has a weight"
            )

    def weights(self, step: int) -> dict[str, float]:
        """The terms that count at a step (from 0), each with its weight, which is above 0."""
        ramp = (step + 1 - self.text_from) / self.text_ramp
        weights = self._weights(min(max(ramp, 0.0), 1.0))
        if step < self.adversarial_from:
            weights.pop("adversarial", None)
        return weights

    def full_weights(self) -> dict[str, float]:
        """The terms that count once all have come in."""
        return self._weights(ramp=1.0)

    def replayed(self) -> "Objectives":
        """What later stages go on with: no term whose own network stage 1 does not hand on."""
        return replace(self, adversarial=0.0, alignment=0.0)

    def _weights(self, ramp: float) -> dict[str, float]:
        weights = {
            "reconstruction": self.reconstruction,
            **{name: getattr(self, name) * ramp for name in TEXT_TERMS},
            "kl": self.kl,
            "perceptual": self.perceptual,
            "adversarial": self.adversarial,
            "alignment": self.alignment,
        }
        return {name: weight for name, weight in weights.items() if weight}
