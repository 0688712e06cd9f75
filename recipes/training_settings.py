"""Settings of the three stages: how long each trains, on how much, and how."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from ar import ARModel
from ar.joint import Limits, Route
from orderer import Borrowed, Objectives
from recipes.engine.optim import Schedule, make_optimizers
from recipes.engine.settings import at_least, share
from recipes.engine.training import Learner

BLOCKS = ("blocks.", "layers.", ".layer.")
"""What the names of the block matrices hold: ours, transformers' and those of its BERTs."""


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """Muon on the block matrices, AdamW on the rest and on tuned towers of other libraries."""

    muon_lr: float = 4e-3
    adamw_lr: float = 3e-3
    tower_lr: float = 1e-5
    """Of the towers, and of a trunk with trained weights: what they know is easily lost."""
    weight_decay: float = 0.02
    warmup_steps: int = 50
    clip: float = 1.0
    """Most that the joint norm of all gradients may be."""

    def __post_init__(self) -> None:
        at_least(0, muon_lr=self.muon_lr, adamw_lr=self.adamw_lr, clip=self.clip)
        at_least(0, tower_lr=self.tower_lr)
        at_least(0, weight_decay=self.weight_decay, warmup_steps=self.warmup_steps)

    def learner(self, model: nn.Module, steps: int, first: int = 0) -> Learner:
        """Let all parameters of a model learn up to a step, but those of frozen towers.

        Args:
            model: what learns.
            steps: updates of the whole training.
            first: the step in which the model learns first.
        """
        optimizers = make_optimizers(
            model,
            lambda name, _: any(part in name for part in BLOCKS),
            muon_lr=self.muon_lr,
            adamw_lr=self.adamw_lr,
            weight_decay=self.weight_decay,
            slow=_borrowed(model),
            slow_lr=self.tower_lr,
        )
        warmup = min(self.warmup_steps, steps - first)
        schedule = Schedule(optimizers, steps, warmup, first)
        return Learner(model=model, optimizers=optimizers, schedule=schedule, clip=self.clip)


def _borrowed(model: nn.Module) -> set[str]:
    """The names of the parameters of other libraries' towers, and of a trunk of theirs that began
    with trained weights.
    """
    towers = [(name, part) for name, part in model.named_modules() if _is_tower(part)]
    return {
        f"{name}.{own}".removeprefix(".")
        for name, part in towers
        for own, _ in part.named_parameters()
        if isinstance(part, Borrowed) or own.startswith("trunk.decoder.")
    }


def _is_tower(part: nn.Module) -> bool:
    is_ar = isinstance(part, ARModel) and part.config.trunk_weights is not None
    return isinstance(part, Borrowed) or is_ar


@dataclass(frozen=True, kw_only=True)
class OrdererTraining:
    """Stage 1."""

    steps: int = 1000
    """Updates of the whole training, on which its learning rates depend; it may grow on resume."""
    batch_size: int = 128
    """Pairs in one step, over all processes."""
    qformer: Path | None = None
    """Folder of a trained BLIP-2 model, with whose Q-Former the encoder 'cross' starts. It is read
    once: a training that is resumed, and the saved orderer, do without it."""
    accumulate: int = 1
    """Micro-batches that a step's pairs are cut into, one after another, for less memory. The
    contrastive term and matching then find their negatives in the micro-batch, and captioning is
    the mean over the word pieces of each: their means over the micro-batches are not what the whole
    batch gives. The other terms are; the noise is another."""
    detail: bool = False
    """True pairs growing prefixes with growing captions: an image's first caption, its barest, with
    the first tokens, the last with all. False pairs all prefixes with the one that is drawn."""
    objectives: Objectives = field(default_factory=Objectives)
    optim: OptimSettings = field(default_factory=OptimSettings)
    discriminator_optim: OptimSettings = field(default_factory=lambda: OptimSettings(adamw_lr=5e-4))
    """How the adversarial term's opponent learns."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, batch_size=self.batch_size, accumulate=self.accumulate)


@dataclass(frozen=True, kw_only=True)
class ARTraining:
    """Stage 2."""

    steps: int = 1100
    """Updates of the whole training, on which its learning rates depend; it may grow on resume."""
    batch_size: int = 64
    """Sequences of tokens in one step, over all processes."""
    condition_drop: float = 0.1
    """Share of the images that are learned without their condition, for guidance."""
    caption_weight: float = 0.0
    """Weight of the loss of writing captions from prefixes of the tokens, beside the head's loss;
    above 0 the model writes. NextStep has 0.01 there; what is right depends on the head."""
    optim: OptimSettings = field(default_factory=lambda: OptimSettings(muon_lr=1e-2, adamw_lr=5e-3))
    ema_decay: float = 0.99
    """Of a moving average of the weights. What is saved is the average or the weights themselves,
    whichever the held pairs are likelier under."""
    held: int = 64
    """Pairs of the training split that are set apart for validation."""
    validate_every: int = 500
    """Steps between two validations; the last step has one in any case."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, batch_size=self.batch_size)
        at_least(1, held=self.held, validate_every=self.validate_every)
        at_least(0, caption_weight=self.caption_weight)
        share(condition_drop=self.condition_drop)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")


@dataclass(frozen=True, kw_only=True)
class JointTraining:
    """Stage 3."""

    route: Route = "align"
    """How stage 2 reaches the orderer: `align` by an alignment of the trunk's states with captions;
    `context` by the AR loss, through the tokens looked back at only; `decode` by the error of
    images decoded from the head's guesses; `rate` by the nats of tokens in fixed noise; `frozen`
    not at all. Controls: `apart`, in which the orderer goes on by itself; `shuffled`, aligned with
    the captions of other images; `full`, by the AR loss everywhere, which collapses."""
    steps: int = 50
    """Updates of the whole training, on which its learning rates depend; it may grow on resume."""
    batch_size: int = 64
    """Pairs in one step, over all processes."""
    weight: float = 0.5
    """Of what stage 2 asks of the tokens, beside stage 1 at full weight."""
    cap: float = 0.1
    """Most that its gradient at the tokens may be, as a share of stage 1's; `full` has no cap. On a
    toy 0.1 harms with none of five seeds; 0.2 costs the rank with one (`align`), 0.5 with one
    (`context`).
    Where it binds, `rate` is no longer minimised with one weight."""
    ar_learns: bool = True
    """False keeps the AR model as it is, so that only the orderer gains: a control, of `align`."""
    rewarm: int = 20
    """Steps before the orderer learns, in which the AR model finds its feet on the old tokens."""
    orderer_every: int = 1
    """Steps to one in which the orderer learns."""
    trust: float = 0.001
    """Share of the way back to its start that the orderer is drawn after each of its steps."""
    noise: float = 0.1
    """Of the route `rate`: deviation, in those of each channel before stage 3."""
    follow: float = 0.01
    """Share by which the AR model's statistics of tokens follow those of a batch; not with `rate`,
    whose noise must not shrink with the tokens."""
    ema_decay: float = 0.98
    """Of the moving averages of both models, which are what is saved; 0 saves the models."""
    watched: int = 128
    """Pairs of the training split that are set apart, to watch the orderer on."""
    watch_every: int = 25
    """Steps between two looks at them; there is one before every checkpoint too."""
    limits: Limits = field(default_factory=Limits)
    """What ends the training, at the last state that kept them."""
    orderer_optim: OptimSettings = field(
        default_factory=lambda: OptimSettings(
            muon_lr=1e-4, adamw_lr=1e-4, weight_decay=0.0, warmup_steps=20
        )
    )
    ar_optim: OptimSettings = field(
        default_factory=lambda: OptimSettings(muon_lr=1e-3, adamw_lr=5e-4, warmup_steps=10)
    )

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, batch_size=self.batch_size)
        at_least(1, orderer_every=self.orderer_every, watch_every=self.watch_every)
        at_least(4, watched=self.watched)
        at_least(0, weight=self.weight, cap=self.cap, rewarm=self.rewarm)
        share(trust=self.trust, follow=self.follow)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")
        if self.route != "frozen" and self.rewarm >= self.steps:
            raise ValueError(
                f"the orderer never learns: rewarm must be below {self.steps} steps, got "
                f"{self.rewarm}"
            )
        if self.route == "rate" and not 0 < self.noise < 1:
            raise ValueError(f"the noise of a rate must be above 0 and below 1, got {self.noise}")
        if not self.ar_learns and self.route not in ("align", "shuffled"):
            raise ValueError(
                "an AR model that does not learn is for the routes align and shuffled, got "
                f"{self.route}"
            )
        strength = self.weight if self.route == "full" else self.weight * self.cap
        if self.route not in ("frozen", "apart") and not strength:
            raise ValueError(
                f"the route {self.route} does not reach the orderer with weight {self.weight} and "
                f"cap {self.cap}: route must be frozen"
            )

    def reaches(self, step: int) -> bool:
        """Whether the orderer learns at a step (from 0)."""
        since = step - self.rewarm
        return self.route != "frozen" and since >= 0 and since % self.orderer_every == 0


def _of_pixels() -> Objectives:
    return Objectives(contrastive=0.0, kl=0.0, adversarial=0.1)


@dataclass(frozen=True, kw_only=True)
class DecoderTuning:
    """After stage 1: the decoder alone."""

    steps: int = 1200
    """Updates, on which its learning rates depend; they may grow on resume."""
    batch_size: int = 64
    """Images in one step, over all processes."""
    objectives: Objectives = field(default_factory=_of_pixels)
    """`reconstruction`, `adversarial` and `perceptual`; the others are of tokens, which stay."""
    optim: OptimSettings = field(
        default_factory=lambda: OptimSettings(muon_lr=1e-3, adamw_lr=5e-4, weight_decay=0.0)
    )
    discriminator_optim: OptimSettings = field(default_factory=lambda: OptimSettings(adamw_lr=5e-4))
    ema_decay: float = 0.995
    """Of the moving average of the decoder's weights, which is saved."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, batch_size=self.batch_size)
        wanted = self.objectives.full_weights()
        others = sorted(set(wanted) - {"reconstruction", "adversarial", "perceptual"})
        if others:
            raise ValueError(
                f"tune_decoder.objectives are of rebuilt images, of which {others[0]} is none: "
                f"its weight must be 0, got {wanted[others[0]]:g}"
            )
        if "adversarial" not in wanted:
            raise ValueError("tune_decoder.objectives.adversarial must be above 0, got 0")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")


Training = OrdererTraining | ARTraining | JointTraining | DecoderTuning
