"""An experiment: one file of settings that every stage reads, so that no two stages disagree.

`python -m recipes.train_orderer --config FILE`, `recipes.write_tokens`, `recipes.train_ar` and
`recipes.train_joint` each do their stage of the same experiment and find in `out` what the stage
before left there; `python -m recipes.demo` runs them all.

    out/orderer   out/tokens   out/held   out/ar   out/joint/orderer   out/joint/ar   out/logs
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ar import ARConfig, ARModel, Sampling
from ar import complete_settings as complete_ar_settings
from ar.joint import Limits, Route
from orderer import Borrowed, Objectives, OrdererConfig, OrdererProcessor, complete_settings
from orderer.evaluation import StringReading
from orderer.sequences import SequenceConfig
from recipes.data_settings import DataSettings
from recipes.engine.bf16 import Precision, fastest_precision
from recipes.engine.execution import Execution
from recipes.engine.optim import Schedule, make_optimizers
from recipes.engine.run import Run
from recipes.engine.saving import Saver
from recipes.engine.settings import at_least, plain_settings, share
from recipes.engine.training import Learner
from recipes.feature_space import parse_features

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
    cap: float = 0.2
    """Most that its gradient at the tokens may be, as a share of stage 1's; `full` has no cap.
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


Task = Literal[
    "retrieval",
    "classification",
    "labels",
    "reconstruction",
    "generation",
    "search",
    "fidelity",
    "likelihood",
    "rate",
    "trunk",
    "order",
    "probe",
    "factors",
    "strings",
    "captioning",
]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured, on the test split and the unseen one."""

    tasks: tuple[Task, ...] = ("retrieval", "reconstruction", "generation")
    """`classification` is for labelled sets: an image's only caption is the name of its class."""
    captions: Literal["all", "last"] = "last"
    """Queries: every caption of an image, or the last (for sets whose captions grow in detail)."""
    rerank: int = 0
    """The best of each query that the matching logit ranks again, reported apart; 0 is off."""
    generated: int = 500
    """Images to generate, from the first captions of the unseen (or test) split."""
    guidance_scales: tuple[float, ...] = ()
    """Others than that of `sampling`, with which the same images are generated as well."""
    judge: Literal["scenes", "classes", "words", "retrieval"] = "scenes"
    """Who judges generated images: a network trained on real scenes, on real classes, or on the
    commonest words of real captions; or the orderer's own retrieval (which then judges itself)."""
    features: str = "judge"
    """Of which network `fidelity` compares images in: `judge`, `open_clip:NAME@FILE` or
    `inception:FILE`, see `recipes.feature_space`."""
    perceptual_model: Path | None = None
    """Folder of a vision model of transformers, in whose eyes rebuilt images are compared, too."""
    judge_steps: int = 300
    """Training of the judge."""
    judges: Path | None = None
    """Where trained judges are left and looked for; null: OUT/judges."""
    scored: int = 500
    """Images of the test split whose likelihood and rate are taken."""
    judge_scenes: int = 10_000
    """Real scenes that the judge of scenes is trained on."""
    probe_steps: int = 400
    """Training of the fresh readers of `probe`, and of the small models of `order`."""
    probe_scenes: int = 3000
    """Images that linear probes are fitted on, and neighbours found among; those of `factors`,
    scenes, are tested on a third as many."""
    strings: StringReading = field(default_factory=StringReading)
    """How strings are read."""

    def __post_init__(self) -> None:
        at_least(0, rerank=self.rerank)
        parse_features(self.features)
        at_least(1, generated=self.generated, scored=self.scored)
        for scale in self.guidance_scales:
            at_least(0, guidance_scales=scale)
        at_least(1, judge_steps=self.judge_steps, judge_scenes=self.judge_scenes)
        at_least(1, probe_steps=self.probe_steps, probe_scenes=self.probe_scenes)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The data, the two models, and how each stage trains them."""

    out: Path = Path("runs/demo")
    """Folder of everything that the stages write."""
    data: DataSettings = field(default_factory=DataSettings)
    orderer: dict[str, Any] = field(default_factory=dict)
    """Settings of `orderer.OrdererConfig` that differ from its defaults; `features` and `text` may
    name a tower of another library, as `orderer.start` says."""
    order: dict[str, Any] = field(default_factory=dict)
    """Settings of `orderer.sequences.SequenceConfig`, for `recipes.fit_order`: a fixed order in the
    orderer's place, with its patches, and as many channels."""
    ar: dict[str, Any] = field(default_factory=dict)
    """Settings of `ar.ARConfig` that differ from its defaults; `trunk` may name a decoder of
    another library, as `ar.start` says."""
    train_orderer: OrdererTraining = field(default_factory=OrdererTraining)
    train_ar: ARTraining = field(default_factory=ARTraining)
    train_joint: JointTraining = field(default_factory=JointTraining)
    sampling: Sampling = field(default_factory=Sampling)
    """How images are generated."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    seed: int = 0
    precision: Precision = field(default_factory=fastest_precision)
    """Of the matrix products in training, bf16 where the processor has instructions for it; weights
    and losses stay in fp32."""
    execution: Execution = field(default_factory=Execution)
    """How stage 1 is computed, the largest of the three in training."""
    processes: int = 2
    """With which the demo trains on a CPU, each on its share of the cores: at our sizes two of one
    core each are about 1.5 times as fast as one of two. The noise, hence the result, depends on it,
    also after a resume."""
    log_every: int = 10
    """Steps between two lines of the log."""
    tracker: str = "tensorboard"
    """Of accelerate's, whichever is installed, for what is logged; the log itself is JSON lines."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    checkpoint_keep: int = 2
    """The newest checkpoints that are kept."""
    checkpoint_in_background: bool = False
    """True writes them while training goes on, from a copy in the CPU's memory; not for a model
    that is shared out."""
    preempted_code: int = 0
    """Exit code of a training that was asked to stop, and saved: 0 is done for most schedulers, 75
    or 143 asks some of them to start it again."""
    resume: bool = False
    """Go on from the newest checkpoint in `out`."""
    dry_run: bool = False
    """True says what a training would do, and with how much memory, and stops."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be at least 0 and below 2^63, got {self.seed}")
        at_least(1, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        at_least(1, processes=self.processes, checkpoint_keep=self.checkpoint_keep)
        if not 0 <= self.preempted_code <= 255:
            raise ValueError(f"preempted_code must lie in 0..255, got {self.preempted_code}")
        if self.checkpoint_in_background and self.execution.parallel == "sharded":
            raise ValueError(
                "checkpoint_in_background is for models that every process holds whole, got true "
                "with execution.parallel=sharded"
            )
        if self.data.templates and self.train_orderer.detail:
            raise ValueError(
                "train_orderer.detail is for captions that grow in detail and data.templates for "
                f"labels, got both, {self.data.templates[0]!r} the first template"
            )

    def saver(self, training: str) -> Saver:
        """The checkpoints of a training."""
        return Saver(
            folder=self.out / "checkpoints" / training,
            every=self.checkpoint_every,
            keep=self.checkpoint_keep,
            in_background=self.checkpoint_in_background,
        )

    def run(
        self,
        training: str,
        settings: OrdererTraining | ARTraining | JointTraining,
        first_step: int,
        earlier_seconds: float,
        shown: Sequence[str] = ("loss",),
    ) -> Run:
        """The surroundings of a training, from its first step or from where it is resumed."""
        return Run(
            self.out,
            training,
            settings.steps,
            self.log_every,
            first_step,
            samples_per_step=settings.batch_size,
            earlier_seconds=earlier_seconds,
            shown=shown,
            config=plain_settings(self),
            tracker=self.tracker,
            preempted_code=self.preempted_code,
        )

    def orderer_config(self, caption_pieces: list[int] | None = None) -> OrdererConfig:
        """Check the settings of the orderer, completed by what the captions decide.

        Args:
            caption_pieces: those of the training captions, where the orderer writes any.

        Raises:
            ValueError: for a setting that is wrong, or not ours to make.
        """
        if "caption_pieces" in self.orderer:
            raise ValueError("orderer.caption_pieces follows from the captions and cannot be set")
        if caption_pieces is None:
            return complete_settings(self.orderer)
        return complete_settings({**self.orderer, "caption_pieces": caption_pieces})

    def sequence_config(self) -> SequenceConfig:
        """Check the settings of a fixed order, completed by those of the orderer it stands for.

        Raises:
            ValueError: for a setting that is wrong.
        """
        orderer = self.orderer_config()
        shared = {
            "image_size": orderer.image_size,
            "patch_size": orderer.patch_size,
            "channels": orderer.token_dim,
            "context_length": orderer.context_length,
        }
        return SequenceConfig(**{**shared, **self.order})

    def ar_config(
        self,
        orderer: OrdererConfig | SequenceConfig,
        orderer_hash: str,
        captions: Iterable[Sequence[str]],
    ) -> ARConfig:
        """Check the settings of the AR model, completed by what the orderer and captions decide.

        Raises:
            ValueError: for a setting that is wrong, or not ours to make.
        """
        is_fixed = isinstance(orderer, SequenceConfig)
        if is_fixed and self.ar.get("condition", "text") == "text":
            raise ValueError(
                "a fixed order has no text tower: ar.condition must be none, class or words, "
                "got text"
            )
        captions = list(captions)
        is_of_classes = self.ar.get("condition") == "class"
        names = {caption for of_one in captions for caption in of_one} if is_of_classes else ()
        writes = self.train_ar.caption_weight > 0
        has_words = writes or self.ar.get("condition") == "words"
        decided = {
            "orderer_hash": orderer_hash,
            "tokens": orderer.tokens,
            "token_dim": orderer.token_dim,
            "condition_dim": 1 if is_fixed else orderer.text_width,
            "context_length": orderer.context_length,
            "class_names": sorted(names),
            "caption_pieces": _own_pieces(orderer, captions) if has_words else [],
        }
        if self.ar.get("writes", writes) != writes:
            raise ValueError(
                f"ar.writes follows from train_ar.caption_weight {self.train_ar.caption_weight}, "
                f"got {self.ar['writes']!r}"
            )
        for name in decided:
            if name in self.ar:
                raise ValueError(
                    f"ar.{name} follows from the orderer and the captions and cannot be set, "
                    f"got {self.ar[name]!r}"
                )
        return complete_ar_settings({"writes": writes, **decided, **self.ar})


def _own_pieces(
    orderer: OrdererConfig | SequenceConfig, captions: Iterable[Sequence[str]]
) -> list[int]:
    """The word pieces of captions, for an AR model with words of its own.

    Raises:
        ValueError: for an orderer with another tokenizer, or a caption that is too long.
    """
    if isinstance(orderer, OrdererConfig) and orderer.text == "transformers":
        raise ValueError(
            "an AR model reads and writes captions in open_clip's word pieces, beside a text tower "
            "of transformers train_ar.caption_weight must be 0 and ar.condition not 'words'"
        )
    return OrdererProcessor(orderer.image_size, orderer.context_length).pieces(captions)
