"""An experiment: one file of settings that every stage reads, so that no two stages disagree.

`python -m recipes.train_orderer --config FILE`, `recipes.write_tokens`, `recipes.train_ar` and
`recipes.train_joint` each do their stage of the same experiment and find in `out` what the stage
before left there; `python -m recipes.demo` runs them all.

    out/orderer   out/tokens   out/ar   out/joint/orderer   out/joint/ar   out/logs
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn
from tqdm import tqdm

from ar import ARConfig
from data import (
    Batches,
    Columns,
    Draw,
    Framing,
    Kept,
    Pairs,
    PairSource,
    ShardUrls,
    Stream,
    fits,
    in_memory,
    in_words,
    is_url,
    open_source,
    shard_urls,
)
from orderer import OrdererConfig, OrdererProcessor
from recipes.engine.optim import Schedule, make_optimizers
from recipes.engine.run import Run
from recipes.engine.training import Learner


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which pairs to read."""

    source: tuple[str, ...] = ("scenes",)
    """The word `scenes`, or folders of shards or views of them, and Hugging Face datasets as
    `hf:NAME`; for stage 1 also URLs of shards, which are read as they come:
    `"https://host/train-{000000..000123}.tar"`, of http, https, s3 or hf."""
    train: str = "train"
    """Split to train on."""
    test: str = "val"
    """Split to measure on; never trained on."""
    unseen: str | None = "test"
    """Split whose attributes never came together in training: images are generated from its
    captions, and the other measures are taken on it beside. Null where the test split serves."""
    train_count: int | None = 20_000
    """Pairs to train on; null takes all that a folder has."""
    test_count: int | None = 500
    """Pairs to measure on; null takes all that a folder has."""
    last_share: float = 0.75
    """Chance that training shows an image's last caption rather than any: for sets whose captions
    grow in detail. Bare phrases fit many images, and learn little from few of them."""

    length_power: float = 0.0
    """Otherwise captions are drawn with a weight of their number of words to this power: above 0
    long ones come more often, below 0 bare phrases."""
    weights: tuple[float, ...] = ()
    """How often the folders come in training beside each other, each in epochs of its own; none:
    every pair of every folder comes once an epoch."""
    crop_area: float = 1.0
    """Least share of an image that a random crop keeps in training; 1 always takes the centred
    square."""
    mirrored: float = 0.0
    """Share of the images that training shows mirrored; captions that name a side then lie."""
    max_skipped: float = 0.01
    """Share of damaged samples that is put up with; more end the run."""
    columns: Columns = field(default_factory=Columns)
    """Of Hugging Face datasets among the sources."""
    workers: int = 1
    """Threads that read and decode ahead of the training, in each process; for URLs, processes."""

    def __post_init__(self) -> None:
        _at_least(1, workers=self.workers)
        _share(last_share=self.last_share, mirrored=self.mirrored, max_skipped=self.max_skipped)

    def open_train(self, image_size: int) -> PairSource:
        """Open the pairs to train on, saying what was skipped."""
        pairs = self._opened(self.train, image_size, self.train_count)
        tell_skipped(pairs.name, pairs.skipped)
        return pairs

    def open_train_or_urls(self, image_size: int) -> PairSource | ShardUrls:
        """Open the pairs to train on, or check the URLs of their shards."""
        if not any(map(is_url, self.source)):
            return self.open_train(image_size)
        if self.train_count is not None:
            raise ValueError(
                "nobody knows how many pairs lie behind URLs: data.train_count must be null, got "
                f"{self.train_count}"
            )
        return shard_urls(self.source)

    def open_test(self, image_size: int) -> Pairs:
        """Load the pairs to measure on, saying what was skipped."""
        return self.load(self.test, image_size, self.test_count)

    def open_unseen(self, image_size: int) -> Pairs:
        """Load the pairs to generate from, saying what was skipped."""
        if self.unseen is None:
            return self.open_test(image_size)
        return self.load(self.unseen, image_size, self.test_count)

    def load(self, split: str, image_size: int, count: int | None) -> Pairs:
        """Load pairs into memory, saying what was skipped."""
        opened = self._opened(split, image_size, count)
        pairs = in_memory(opened, image_size, max_skipped=self.max_skipped)
        tell_skipped(pairs.name, pairs.skipped)
        return pairs

    def batches(
        self, pairs: PairSource | ShardUrls, draw: Draw, processor: OrdererProcessor
    ) -> Batches | Stream:
        """Show pairs for training, in the order of `draw`; from URLs, with captions that fit.

        A small set is decoded only once.
        """
        size = processor.image_size
        framing = Framing(size=size, crop_area=self.crop_area, mirrored=self.mirrored)
        if isinstance(pairs, ShardUrls):
            return Stream(pairs, framing, self.max_skipped, processor.fits, **vars(draw))
        if self.crop_area == 1 and not isinstance(pairs, Pairs) and fits(pairs, size):
            pairs = Kept(pairs, size)
        return Batches(pairs, framing, self.max_skipped, **vars(draw))

    def draw(self, batch_size: int, seed: int, run: Run) -> Draw:
        """Say which samples make up a batch, on one of the processes of a run."""
        return Draw(
            batch_size=batch_size,
            seed=seed,
            rank=run.rank,
            world=run.world,
            weights=self.weights,
            last_share=self.last_share,
            length_power=self.length_power,
        )

    def _opened(self, split: str, image_size: int, count: int | None) -> PairSource:
        for item in filter(is_url, self.source):
            raise ValueError(
                "only the training of stage 1 reads from URLs, here data.source must be local "
                f"folders, got {item.partition('?')[0]}"
            )
        return open_source(
            self.source,
            split,
            image_size=image_size,
            count=count,
            max_skipped=self.max_skipped,
            columns=self.columns,
        )


def tell_skipped(name: str, skipped: Mapping[str, int]) -> None:
    """Say which samples were left out, if any were."""
    if any(skipped.values()):
        print(f"{name}: {in_words(skipped)}", flush=True)


def captions_of_all(pairs: PairSource | ShardUrls) -> Iterator[tuple[str, ...]]:
    """Read the captions of every pair, and no image, showing how far it is if it takes long.

    Those behind URLs are not known beforehand: `Stream` looks at each as it comes.
    """
    if isinstance(pairs, ShardUrls):
        return
    for index in tqdm(range(len(pairs)), "captions", unit="pair", delay=5, disable=None):
        yield pairs.captions_of(index)


def check_captions(captions: Iterable[Sequence[str]], processor: OrdererProcessor) -> None:
    """Read every caption now: one that is too long must not end a training after an hour.

    The processor remembers what it has read, so that a training does not pay for it again.

    Raises:
        ValueError: for the first caption longer than the context, naming both.
    """
    for of_one in filter(None, captions):
        processor.text(of_one)


def _at_least(least: float, **settings: float) -> None:
    for name, value in settings.items():
        if not value >= least:  # NaN is refused too
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _share(**settings: float) -> None:
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in 0..1, got {value}")


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """Muon on the block matrices, AdamW on the rest."""

    muon_lr: float = 4e-3
    adamw_lr: float = 3e-3
    weight_decay: float = 0.02
    warmup_steps: int = 50
    clip: float = 1.0
    """Most that the joint norm of all gradients may be."""

    def __post_init__(self) -> None:
        _at_least(0, muon_lr=self.muon_lr, adamw_lr=self.adamw_lr, clip=self.clip)
        _at_least(0, weight_decay=self.weight_decay, warmup_steps=self.warmup_steps)

    def learner(self, model: nn.Module, steps: int) -> Learner:
        """Let all parameters of a model learn for a number of steps."""
        optimizers = make_optimizers(
            model,
            lambda name, _: "blocks." in name or "layers." in name,
            muon_lr=self.muon_lr,
            adamw_lr=self.adamw_lr,
            weight_decay=self.weight_decay,
        )
        schedule = Schedule(optimizers, steps, min(self.warmup_steps, steps))
        return Learner(model=model, optimizers=optimizers, schedule=schedule, clip=self.clip)


@dataclass(frozen=True, kw_only=True)
class OrdererTraining:
    """Stage 1."""

    steps: int = 1000
    """Updates of the whole training. The learning rates depend on it: to resume, keep it."""
    batch_size: int = 128
    """Pairs in one step, over all processes."""
    reconstruction: float = 25.0
    """Weight of the squared error, on pixels in [-1, 1]."""
    contrastive: float = 1.0
    """Weight of the contrastive loss, the mean over the prefixes."""
    contrastive_from: int = 100
    """Step at which the contrastive loss comes in: from step 0 on it holds reconstruction back for
    the whole run, on features that are already there it is learned within 200 steps."""
    contrastive_ramp: int = 100
    """Steps over which it comes to its full weight."""
    full_share: float = 0.7
    """Share of the images that are decoded from all their tokens."""
    optim: OptimSettings = field(default_factory=OptimSettings)

    def __post_init__(self) -> None:
        _at_least(1, steps=self.steps, batch_size=self.batch_size)
        _at_least(1, contrastive_ramp=self.contrastive_ramp)
        _at_least(0, reconstruction=self.reconstruction, contrastive=self.contrastive)
        _at_least(0, contrastive_from=self.contrastive_from)
        _share(full_share=self.full_share)


@dataclass(frozen=True, kw_only=True)
class ARTraining:
    """Stage 2."""

    steps: int = 1100
    """Updates of the whole training. The learning rates depend on it: to resume, keep it."""
    batch_size: int = 64
    """Sequences of tokens in one step, over all processes."""
    condition_drop: float = 0.1
    """Share of the images that are learned without their condition, for guidance."""
    optim: OptimSettings = field(default_factory=lambda: OptimSettings(muon_lr=1e-2, adamw_lr=5e-3))

    def __post_init__(self) -> None:
        _at_least(1, steps=self.steps, batch_size=self.batch_size)
        _share(condition_drop=self.condition_drop)


@dataclass(frozen=True, kw_only=True)
class JointTraining:
    """Stage 3."""

    route: Literal["frozen", "align"] = "align"
    """How stage 2 reaches the orderer: not at all, or through an alignment loss."""
    steps: int = 50
    """Updates of the whole training. The learning rates depend on it: to resume, keep it."""
    batch_size: int = 64
    """Pairs in one step, over all processes."""
    align: float = 0.5
    """Weight of the alignment loss, beside the AR model's own and stage 1's."""
    align_from: int = 20
    """Step from which the alignment loss reaches the orderer; its projector learns before."""
    orderer_optim: OptimSettings = field(
        default_factory=lambda: OptimSettings(muon_lr=1e-4, adamw_lr=1e-4, warmup_steps=20)
    )
    ar_optim: OptimSettings = field(
        default_factory=lambda: OptimSettings(muon_lr=1e-3, adamw_lr=5e-4, warmup_steps=10)
    )

    def __post_init__(self) -> None:
        _at_least(1, steps=self.steps, batch_size=self.batch_size)
        _at_least(0, align=self.align, align_from=self.align_from)


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How images are generated."""

    guidance_scale: float = 1.5
    """1.0 is off."""
    steps: int = 15
    """Euler steps per token."""

    def __post_init__(self) -> None:
        _at_least(1, steps=self.steps)
        _at_least(0, guidance_scale=self.guidance_scale)


Task = Literal["retrieval", "reconstruction", "generation"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured, on the test split and the unseen one."""

    tasks: tuple[Task, ...] = ("retrieval", "reconstruction", "generation")
    captions: Literal["all", "last"] = "last"
    """Queries: every caption of an image, or the last (for sets whose captions grow in detail)."""
    generated: int = 500
    """Images to generate, from the first captions of the unseen (or test) split."""
    judge: Literal["scenes", "classes", "retrieval"] = "scenes"
    """Who judges generated images: a network trained on real scenes or on real classes, or, where
    there is neither, the orderer's own retrieval (which then judges itself)."""
    judge_steps: int = 300
    """Training of the judge."""
    judge_scenes: int = 10_000
    """Real scenes that the judge of scenes is trained on."""

    def __post_init__(self) -> None:
        _at_least(1, generated=self.generated)
        _at_least(1, judge_steps=self.judge_steps, judge_scenes=self.judge_scenes)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The data, the two models, and how each stage trains them."""

    out: Path = Path("runs/demo")
    """Folder of everything that the stages write."""
    data: DataSettings = field(default_factory=DataSettings)
    orderer: dict[str, Any] = field(default_factory=dict)
    """Settings of `orderer.OrdererConfig` that differ from its defaults."""
    ar: dict[str, Any] = field(default_factory=dict)
    """Settings of `ar.ARConfig` that differ from its defaults."""
    train_orderer: OrdererTraining = field(default_factory=OrdererTraining)
    train_ar: ARTraining = field(default_factory=ARTraining)
    train_joint: JointTraining = field(default_factory=JointTraining)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    evaluation: Evaluation = field(default_factory=Evaluation)
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of the matrix products in training; weights and losses stay in fp32."""
    processes: int = 2
    """With which the demo trains on a CPU, each on its share of the cores: at our sizes two of one
    core each are about 1.5 times as fast as one of two. The noise, hence the result, depends on it,
    also after a resume."""
    log_every: int = 10
    """Steps between two lines of the log."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    resume: bool = False
    """Go on from the newest checkpoint in `out`."""

    def __post_init__(self) -> None:
        _at_least(0, seed=self.seed)
        _at_least(1, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        _at_least(1, processes=self.processes)

    def orderer_config(self) -> OrdererConfig:
        """Check and complete the settings of the orderer."""
        return OrdererConfig(**self.orderer)

    def ar_config(
        self, orderer: OrdererConfig, orderer_hash: str, captions: Iterable[Sequence[str]]
    ) -> ARConfig:
        """Check the settings of the AR model, completed by what the orderer and captions decide.

        Raises:
            ValueError: for a setting that is wrong, or not ours to make.
        """
        is_of_classes = self.ar.get("condition") == "class"
        names = {caption for of_one in captions for caption in of_one} if is_of_classes else ()
        decided = {
            "orderer_hash": orderer_hash,
            "tokens": orderer.tokens,
            "token_dim": orderer.token_dim,
            "condition_dim": orderer.text_width,
            "context_length": orderer.context_length,
            "class_names": sorted(names),
        }
        for name in decided:
            if name in self.ar:
                raise ValueError(
                    f"ar.{name} follows from the orderer and the captions and cannot be set, "
                    f"got {self.ar[name]!r}"
                )
        return ARConfig(**decided, **self.ar)
