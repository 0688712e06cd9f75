"""An experiment: one file of settings that every stage reads, so that no two stages disagree.

`python -m recipes.train_orderer --config FILE`, `recipes.write_tokens`, `recipes.train_ar` and
`recipes.train_joint` each do their stage of the same experiment and find in `out` what the stage
before left there; `python -m recipes.demo` runs them all.

    out/orderer   out/tokens   out/held   out/ar   out/joint/orderer   out/joint/ar   out/logs
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ar import ARConfig, Sampling
from ar import complete_settings as complete_ar_settings
from orderer import OrdererConfig, OrdererProcessor, complete_settings
from orderer.sequences import SequenceConfig
from recipes.data_settings import DataSettings
from recipes.engine.bf16 import Precision, fastest_precision
from recipes.engine.cli import STOPPED_ITSELF
from recipes.engine.execution import Execution
from recipes.engine.run import Run
from recipes.engine.saving import Saver
from recipes.engine.settings import at_least, plain_settings
from recipes.evaluation_settings import Evaluation
from recipes.training_settings import (
    ARTraining,
    DecoderTuning,
    JointTraining,
    OrdererTraining,
    Training,
)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The data, the two models, and how each stage trains them."""

    out: Path = Path("runs/demo")
    """Folder of everything that the stages write."""
    data: DataSettings = field(default_factory=DataSettings)
    orderer: dict[str, Any] = field(default_factory=dict)
    """Settings of `orderer.OrdererConfig` that differ from its defaults: image_size, patch_size,
    tokens, token_dim, token_noise and others, all of which stand in orderer/config.py; `features`
    and `text` may name a tower of another library, as `orderer.start` says."""
    order: dict[str, Any] = field(default_factory=dict)
    """Settings of `orderer.sequences.SequenceConfig`, for `recipes.fit_order`: a fixed order in the
    orderer's place, with its patches, and as many channels; they stand in
    orderer/sequences/config.py."""
    ar: dict[str, Any] = field(default_factory=dict)
    """Settings of `ar.ARConfig` that differ from its defaults: head, condition, width, layers,
    timesteps and others, all of which stand in ar/config.py; `trunk` may name a decoder of another
    library, as `ar.start` says."""
    train_orderer: OrdererTraining = field(default_factory=OrdererTraining)
    train_ar: ARTraining = field(default_factory=ARTraining)
    train_joint: JointTraining = field(default_factory=JointTraining)
    tune_decoder: DecoderTuning = field(default_factory=DecoderTuning)
    sampling: Sampling = field(default_factory=Sampling)
    """How images are generated."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    seed: int = 0
    """Of the models' starts, the order of the data and all noise; runs of a comparison have one of
    its `seeds` instead."""
    precision: Precision = field(default_factory=fastest_precision)
    """Of the matrix products in training, bf16 where the processor has instructions for it; weights
    and losses stay in fp32."""
    execution: Execution = field(default_factory=Execution)
    """How stage 1 is computed, the largest of the three in training."""
    processes: int = 2
    """Started at once on a CPU, each on its share of the cores. The demo trains with so many
    together: at our sizes two of one core each are about 1.5 times as fast as one of two, and the
    noise, hence the result, depends on their number, also after a resume. A comparison does so many
    of its runs side by side."""
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
    """True says what one of the trainings would do, and with how much memory, and stops."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be at least 0 and below 2^63, got {self.seed}")
        at_least(1, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        at_least(1, processes=self.processes, checkpoint_keep=self.checkpoint_keep)
        if not 0 <= self.preempted_code <= 255:
            raise ValueError(f"preempted_code must lie in 0..255, got {self.preempted_code}")
        if 1 <= self.preempted_code <= STOPPED_ITSELF:
            raise ValueError(
                f"preempted_code must not be among 1..{STOPPED_ITSELF}, which say that something "
                f"went wrong, got {self.preempted_code}"
            )
        if self.checkpoint_in_background and self.execution.parallel == "sharded":
            raise ValueError(
                "checkpoint_in_background is for models that every process holds whole, got true "
                "with execution.parallel=sharded"
            )
        scales = (self.sampling.guidance_scale, *self.evaluation.guidance_scales)
        is_conditional = self.ar.get("condition", "text") != "none"
        if is_conditional and not self.train_ar.condition_drop and {*scales} != {1.0}:
            raise ValueError(
                "guidance compares with what is learned without a condition: "
                "train_ar.condition_drop must be above 0, or sampling.guidance_scale and "
                f"evaluation.guidance_scales 1, got 0 and {', '.join(map(str, scales))}"
            )
        if self.data.templates and self.train_orderer.detail:
            raise ValueError(
                "train_orderer.detail is for captions that grow in detail and data.templates for "
                f"labels, got both, {self.data.templates[0]!r} the first template"
            )

    def check_is_done(self) -> None:
        """Refuse to only say what would be done, where it is not said.

        Raises:
            ValueError: for a dry run.
        """
        if self.dry_run:
            raise ValueError("dry_run is of the trainings, here it must be false, got true")

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
        settings: Training,
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
