"""Which pairs a recipe reads, and how training shows them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tqdm import tqdm

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
    apart,
    every_phrase,
    fits,
    in_memory,
    in_words,
    is_of_scenes,
    is_url,
    open_source,
    shard_urls,
)
from data.order import thousandths
from data.templates import check_templates
from orderer import OrdererProcessor
from recipes.engine.run import Run
from recipes.engine.settings import at_least, share
from recipes.known_templates import spelled_out

TUNING = "tuning"
"""The name, as a split, of what training leaves out."""
WHAT_A_STEP_SEES = (
    "data.train",
    "data.train_count",
    "data.last_share",
    "data.length_power",
    "data.templates",
    "data.weights",
    "data.crop_area",
    "data.mirrored",
)
"""Settings on which it depends what a step that reads pairs learns from."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which pairs to read."""

    source: tuple[str, ...] = ("scenes",)
    """The word `scenes`, or `scenes_ground_first` for captions that begin with the ground, or
    `strings`, images of random letters and digits, of at least 32 pixels a side; or
    folders of shards or views of them, and Hugging Face datasets as `hf:NAME`; for stage 1 also
    URLs of shards, which are read as they come: `"https://host/train-{000000..000123}.tar"`, of
    http, https, s3 or hf."""
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
    tuning_count: int = 0
    """Pairs, spread over the training split, that training leaves out: `--data.test=tuning`
    measures on them, so that settings are not chosen on a test split."""
    last_share: float = 0.75
    """Chance that training shows an image's last caption rather than any: for sets whose captions
    grow in detail. Bare phrases fit many images, and learn little from few of them."""

    length_power: float = 0.0
    """Otherwise captions are drawn with a weight of their number of words to this power: above 0
    long ones come more often, below 0 bare phrases."""
    templates: tuple[str, ...] = ()
    """For labelled sets: what stage 1 puts each label into, `a photo of a {}`, one drawn for each
    image and epoch; evaluation takes their mean. Conditions of stage 2 stay the bare labels.
    `open_clip:openai` stands for the 80 templates of CLIP's authors, `open_clip:simple` for 7."""
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
        at_least(1, workers=self.workers)
        at_least(0, tuning_count=self.tuning_count)
        share(last_share=self.last_share, max_skipped=self.max_skipped)
        self._framing(image_size=1)
        object.__setattr__(self, "templates", spelled_out(self.templates))
        check_templates(self.templates)
        if self.weights:
            thousandths(self.weights)

    @property
    def is_of_scenes(self) -> bool:
        """Whether the pairs are scenes."""
        return is_of_scenes(self.source)

    def open_train(self, image_size: int) -> PairSource:
        """Open the pairs to train on, saying what was skipped."""
        pairs = self._opened(self.train, image_size, self.train_count)
        tell_skipped(pairs.name, pairs.skipped)
        return apart(pairs, self.tuning_count)[0] if self.tuning_count else pairs

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
        if split == TUNING:
            train = self._opened(self.train, image_size, self.train_count)
            opened = apart(train, self.tuning_count)[1]
        else:
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
        framing = self._framing(size)
        if isinstance(pairs, ShardUrls):
            fits_all = partial(_fits, processor, self.templates)
            return Stream(pairs, framing, self.max_skipped, fits_all, **vars(draw))
        if self.crop_area == 1 and not isinstance(pairs, Pairs) and fits(pairs, size):
            pairs = Kept(pairs, size)
        return Batches(pairs, framing, self.max_skipped, **vars(draw))

    def draw(self, batch_size: int, seed: int, run: Run | None = None) -> Draw:
        """Say which samples make up a batch on one of the processes of a run, or without one."""
        return Draw(
            batch_size=batch_size,
            seed=seed,
            rank=run.rank if run else 0,
            world=run.world if run else 1,
            weights=self.weights,
            last_share=self.last_share,
            length_power=self.length_power,
            templates=self.templates,
        )

    def phrased(self, captions: Iterable[Sequence[str]]) -> Iterator[list[str]]:
        """The captions of each pair in every template, where there are any."""
        for of_one in captions:
            yield [text for caption in of_one for text in every_phrase(self.templates, caption)]

    def _framing(self, image_size: int) -> Framing:
        return Framing(size=image_size, crop_area=self.crop_area, mirrored=self.mirrored)

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


def _fits(processor: OrdererProcessor, templates: tuple[str, ...], caption: str) -> bool:
    return all(map(processor.fits, every_phrase(templates, caption)))


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


def known_pieces(
    captions: Iterable[Sequence[str]], processor: OrdererProcessor
) -> list[int] | None:
    """The word pieces of all captions; None where no caption is known beforehand."""
    pieces = processor.pieces(captions)
    return pieces if len(pieces) > 1 else None  # the end is always one of them


def check_captions(captions: Iterable[Sequence[str]], processor: OrdererProcessor) -> None:
    """Read every caption now: one that is too long must not end a training after an hour.

    The processor remembers what it has read, so that a training does not pay for it again.

    Raises:
        ValueError: for the first caption longer than the context, naming both and the pair.
    """
    for number, of_one in enumerate(captions):
        try:
            if of_one:  # none, where they are damaged
                processor.text(of_one)
        except ValueError as error:
            raise ValueError(f"pair {number} (from 0): {error}") from error
