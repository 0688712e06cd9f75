"""Stage 1: the terms that an orderer is trained on, each switched on by its weight.

B batch   S image side   K tokens   D channels of a token   J measured prefixes   E embedding size
L word pieces
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.export import register_dataclass

from .bottleneck import add_token_noise
from .decoder import Rebuilt
from .model import Orderer
from .objectives import (
    Alignment,
    Balance,
    Discriminator,
    Negatives,
    Teacher,
    captioning_loss,
    contrastive_loss,
    hard_negatives,
    matching_loss,
    perceptual_distance,
    sigmoid_loss,
)
from .prefix import draw_lengths, keep_mask, prefix_lengths
from .processor import Said

START_BIAS = -10.0
"""Of every score in the sigmoid form of the contrastive term, where most pairs are none."""

OF_REBUILT = {"reconstruction", "perceptual", "adversarial", "alignment"}
"""Terms that need images rebuilt from a prefix; all of them see the same."""

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

    def weights(self, step: int) -> dict[str, float]:
        """The terms that count at a step (from 0), each with its weight, which is above 0."""
        weights = self._weights(min(max((step - self.text_from) / self.text_ramp, 0.0), 1.0))
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


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of one batch, unweighted."""

    values: Mapping[str, Float[Tensor, ""]]
    tokens: Float[Tensor, "B K D"]
    """Those of the images, without noise: no term, but what all terms share."""
    apart: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Losses of what learns beside the orderer, which they do not reach."""

    def total(self, weights: Mapping[str, float]) -> Float[Tensor, ""]:
        """The weighted sum, and the losses apart."""
        weighted = [weights[name] * value for name, value in self.values.items()]
        return torch.stack([*weighted, *self.apart.values()]).sum()

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
        for name in ("captioning", "matching"):
            if getattr(objectives, name) and orderer.config.fusion_layers is None:
                raise ValueError(
                    f"{name} of weight {getattr(objectives, name)} needs a model with "
                    f"fusion_layers, got null"
                )
        self.orderer = orderer
        self.objectives = objectives
        if objectives.similarity == "siglip":
            self.score_bias = nn.Parameter(torch.tensor(START_BIAS))
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
        """The weights of a step, or, where terms are balanced, what gives each its share."""
        if not self.objectives.balanced:
            return dict(weights)
        if self.balance.due(step, terms.values):
            self.balance.measure(terms.gradient_norms(dict.fromkeys(terms.values, 1.0)))
        return self.balance.weights({name: weights[name] for name in terms.values})

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
        apart: dict[str, Tensor] = {}
        if OF_REBUILT & set(wanted):
            lengths = draw_lengths(
                len(images), config.tokens, self.objectives.full_share, generator=generator
            )
            keep = keep_mask(lengths.to(tokens.device), config.tokens)
            noisy = add_token_noise(tokens, config.token_noise, generator)
            if self.objectives.text_alone_orders:
                noisy = torch.where(keep.all(dim=1)[:, None, None], noisy, noisy.detach())
            rebuilt = orderer.rebuild(noisy, keep, images, generator)
            if "reconstruction" in wanted:
                values["reconstruction"] = rebuilt.loss
            looks, apart = self._look(rebuilt, images, wanted)
            values |= looks
        if "kl" in wanted and config.bottleneck == "kl":
            values["kl"] = kl
        if any(name in wanted for name in TEXT_TERMS):
            values |= self._of_text(tokens, _given(said), wanted, generator)
        return Terms(values=values, tokens=tokens, apart=apart)

    def _look(
        self, rebuilt: Rebuilt, images: UInt8[Tensor, "B 3 H W"], wanted: Collection[str]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The terms that other networks take of rebuilt images, and the losses of those."""
        values: dict[str, Tensor] = {}
        apart: dict[str, Tensor] = {}
        if not (OF_REBUILT - {"reconstruction"}) & set(wanted):
            return values, apart
        patch, real = self.orderer.config.patch_size, images / 127.5 - 1
        grid = images.shape[2] // patch, images.shape[3] // patch
        drawn = self.orderer.images_of(rebuilt.patches.float(), grid)  # [B, 3, H, W]
        if "perceptual" in wanted and self.seen_by:
            values["perceptual"] = perceptual_distance(self.seen_by, drawn, real)
        if "adversarial" in wanted and self.discriminator:
            values["adversarial"], apart["discriminator"] = self.discriminator(drawn, real)
        if "alignment" in wanted:
            values["alignment"] = self.alignment(rebuilt.states, real, grid)
        return values, apart

    def _of_text(
        self,
        tokens: Float[Tensor, "B K D"],
        said: Said,
        wanted: Collection[str],
        generator: torch.Generator | None,
    ) -> dict[str, Float[Tensor, ""]]:
        lengths = prefix_lengths(tokens.shape[1])
        if self.objectives.aligned == "full":
            lengths, said = lengths[-1:], replace(said, at=said.at[:, -1:])
        values = {}
        if "contrastive" in wanted or "matching" in wanted:
            images = self.orderer.readout(tokens, lengths).float()  # [B, J, E]
            texts = self.orderer.embed_texts(said.texts).float()[said.at]  # [B, J, E]
        if "contrastive" in wanted:
            values["contrastive"] = self._contrast(images, texts, said)
        if "captioning" in wanted or "matching" in wanted:
            places = _draw_places(len(tokens), len(lengths), generator).to(tokens.device)
            keep = keep_mask(torch.tensor(lengths, device=tokens.device)[places], tokens.shape[1])
            text = said.texts[said.at.gather(1, places[:, None])[:, 0]]  # [B, L]
        if "captioning" in wanted:
            values["captioning"] = self._write(tokens, keep, text)
        if "matching" in wanted:
            wrong = hard_negatives(
                images, texts, said.numbers[said.at], self.orderer.scale, places, generator
            )
            of_others = said.texts[said.at[wrong.texts, places]]  # [B, L]
            values["matching"] = self._match(tokens, keep, text, of_others, wrong)
        return values

    def _contrast(
        self, images: Float[Tensor, "B J E"], texts: Float[Tensor, "B J E"], said: Said
    ) -> Float[Tensor, ""]:
        captions, scale = said.numbers[said.at], self.orderer.scale
        if self.objectives.similarity == "infonce":
            return contrastive_loss(images, texts, captions, scale).mean()
        return sigmoid_loss(images, texts, captions, scale, self.score_bias).mean()

    def _write(
        self, tokens: Float[Tensor, "B K D"], keep: Bool[Tensor, "B K"], text: Int[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        fusion, words = self.orderer.fusing, self.orderer.text.words(text[:, :-1])
        return captioning_loss(fusion.write(tokens, keep, words), fusion.targets(text))

    def _match(
        self,
        tokens: Float[Tensor, "B K D"],
        keep: Bool[Tensor, "B K"],
        text: Int[Tensor, "B L"],
        of_others: Int[Tensor, "B L"],
        wrong: Negatives,
    ) -> Float[Tensor, ""]:
        """Right pairs, images with captions of others, captions with images of others, at once."""
        logits = self.orderer.fusing.match(
            torch.cat([tokens, tokens, tokens[wrong.images]]),
            keep.repeat(3, 1),
            *self.orderer.embed_words(torch.cat([text, of_others, text])),
        )
        right, wrong_texts, wrong_images = logits.chunk(3)
        return matching_loss(right, wrong_texts, wrong_images, wrong.exist)


def _draw_places(batch: int, prefixes: int, generator: torch.Generator | None) -> Int[Tensor, "B"]:
    """Draw, for each image, which of the measured prefixes its caption is written from."""
    device = generator.device if generator is not None else None
    return torch.randint(prefixes, (batch,), generator=generator, device=device)


def _teacher(weight: float, folder: Path | None) -> Teacher | None:
    return Teacher(folder) if weight and folder else None


def _given(said: Said | None) -> Said:
    if said is None:
        raise ValueError("the terms of text need what is said of the images, got nothing")
    return said
