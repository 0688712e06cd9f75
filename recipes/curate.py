r"""Choose which pairs of a set are worth training on, and say why the others are not.

    python -m recipes.curate --source='[shards/mine]' --out=shards/mine-clean \
        --against='[shards/mine]' --against_split=test
    python -m recipes.curate --source='[shards/web]' --out=shards/web-clean --least_side=128 \
        --most_aspect=3 --least_words=3 --script=LATIN --most_images_of_caption=20 \
        --scorer=models/clip --least_score=0.2 --words_balanced_at=2000

The rules are applied in the order of the settings below, each to what the ones before have left;
null switches a rule off. An image whose captions all fail a rule goes; one that has a good caption
keeps the others too. Damaged samples go as well. All images are decoded once.

Writes OUT, a view: a folder that training reads like any other, as `--data.source='[OUT]'`, and
that holds no pair, only which of the source's were chosen: keep the source where it is. Its
manifest and OUT/SPLIT.curation.json have what each rule removed; OUT/SPLIT.alike.png has some of
the images that were removed for being alike. On 2 CPU cores 20,000 images of 32 px take 20 seconds,
most of it to compare each with each: twice as many take up to four times as long.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from data import (
    Alike,
    Curated,
    Damaged,
    Looks,
    Pair,
    PairSource,
    Rule,
    Step,
    StoredPair,
    curate,
    decoded,
    is_drawn,
    look_at,
    open_source,
    write_view,
)
from data.caption_rules import balance, repeated_caption, repetition, script, word_count
from data.curated import check_new
from data.image_rules import (
    aspect_ratio,
    exact_duplicates,
    exact_leakage,
    near_duplicates,
    near_leakage,
    resolution,
    score,
)
from data.images import resize
from data.source import HUGGING_FACE
from recipes.engine.cli import run as start
from recipes.engine.results import provenance, write_json
from recipes.engine.settings import plain_settings
from recipes.engine.sheets import captioned_grid
from recipes.engine.training import prepare_alone
from recipes.scorers import open_scorer

T = TypeVar("T")

SHOWN = 6
"""Pairs of images in the picture, of each rule that removes what is alike."""
SHOWN_SIZE = 96
NAMED = 100
"""Pairs of keys in the report, of each such rule."""
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to choose from, what to ask, where to write."""

    source: tuple[str, ...]
    """Folders of shards, or views."""
    split: str = "train"
    """To read, and its name in OUT."""
    out: Path
    """Folder of the view."""
    against: tuple[str, ...] = ()
    """Folders of evaluation sets: what is in them is removed from the split."""
    against_split: str = "test"

    least_words: int | None = None
    """Of a caption."""
    most_words: int | None = None
    most_repetition: float | None = None
    """Most that a caption may be one word said again and again, as a share of its words."""
    script: str | None = None
    """Of the letters of a caption, as their names in Unicode begin: LATIN, CYRILLIC, CJK ..."""
    script_share: float = 0.5
    """Least share of the letters that are of that script."""
    most_images_of_caption: int | None = None
    """Images with the same caption; where more have it, it says too little of each."""
    least_side: int | None = None
    """Pixels of an image's shorter side."""
    most_aspect: float | None = None
    """An image's longer side over its shorter."""
    least_score: float | None = None
    """How well an image's best caption must fit it, as `scorer` says: in -1..1."""
    scorer: Path | None = None
    """Folder of a model of open_clip's, or of an orderer; without `least_score` it is asked, and
    its scores are only reported."""
    near: float | None = 0.9
    """Least correlation at which an image is nearly the same as an earlier one, and goes. Exact
    duplicates always go."""
    near_difference: int = 32
    """Most that they may then differ anywhere, in levels of 0..255 on a grid of 16 x 16: so
    drawings that differ in a detail or a colour both stay, and photographs of different tone. With
    255 only the correlation counts."""
    leak: float | None = 0.85
    """The same for an image that is nearly the same as one of an evaluation set. Equal ones always
    go."""
    leak_difference: int = 255
    """Stricter than within the set: an image too few costs little, one too many spoils a result.
    For drawings 32: with 255 those of an evaluation set in another colour go."""
    words_balanced_at: int | None = None
    """Images that a word needs: where it has more, it keeps about so many of them, by chance; the
    others stay only for a rarer word of theirs. See `data.caption_rules.balance`."""
    seed: int = 0
    """Of that chance."""

    def __post_init__(self) -> None:
        if is_drawn(self.source):
            raise ValueError(
                f"source must name folders, {self.source[0]} are drawn and need no curation"
            )
        for each in self.source:
            if each.startswith(HUGGING_FACE):
                raise ValueError(f"source must name folders: build shards of {each} first")
        if self.least_score is not None and self.scorer is None:
            raise ValueError(f"least_score needs a scorer, got {self.least_score} and none")


def main(config: Config) -> None:
    """Open, apply the rules, write, report."""
    began = time.perf_counter()
    check_new(config.out, config.split)
    device = prepare_alone()
    rules = [*_caption_rules(config), *_image_rules(config, device)]
    at_last = _balancing_rules(config)
    scorer = open_scorer(config.scorer, device) if config.scorer else None
    source = open_source(config.source, config.split, image_size=1, max_skipped=1.0)
    against = _open_against(config)
    if against:
        rules += _leakage_rules(config, device, against)

    found = curate(source, [*rules, *at_last], scorer=scorer, progress=_bar)
    print(f"{source.name}: {len(source)} pairs\n{'rule':<18}{'removed':>9}{'left':>9}")
    for step in found.steps:
        print(f"{step.rule:<18}{step.removed:>9}{step.left:>9}")
    records = [step.record() for step in found.steps]
    write_view(config.out, config.split, config.source, source, found.candidates.rows, records)
    twins = list(_twins(found.steps, source, against))
    _write_report(config, found, twins, time.perf_counter() - began)
    _draw_twins(config.out / f"{config.split}.alike.png", twins)
    print(f"{config.out}: {len(found.candidates)} pairs of {config.split}")


def _caption_rules(config: Config) -> Iterator[Rule]:
    if config.least_words is not None or config.most_words is not None:
        yield word_count(config.least_words, config.most_words)
    if config.most_repetition is not None:
        yield repetition(config.most_repetition)
    if config.script is not None:
        yield script(config.script, config.script_share)
    if config.most_images_of_caption is not None:
        yield repeated_caption(config.most_images_of_caption)


def _image_rules(config: Config, device: torch.device) -> Iterator[Rule]:
    if config.least_side is not None:
        yield resolution(config.least_side)
    if config.most_aspect is not None:
        yield aspect_ratio(config.most_aspect)
    if config.least_score is not None:
        yield score(config.least_score)
    yield exact_duplicates()
    if config.near is not None:
        alike = Alike(correlation=config.near, difference=config.near_difference)
        yield near_duplicates(alike, device, _bar)


def _leakage_rules(config: Config, device: torch.device, against: PairSource) -> Iterator[Rule]:
    rows = np.arange(len(against))
    looks, is_good, _ = look_at(against, rows, progress=_bar)
    print(f"{against.name}: {is_good.sum()} images to keep out of training")
    yield exact_leakage(looks)
    if config.leak is not None:
        alike = Alike(correlation=config.leak, difference=config.leak_difference)
        yield near_leakage(looks, alike, device, _bar)


def _balancing_rules(config: Config) -> list[Rule]:
    if config.words_balanced_at is None:
        return []
    return [balance(config.words_balanced_at, config.seed)]


def _open_against(config: Config) -> PairSource | None:
    if not config.against:
        return None
    return open_source(config.against, config.against_split, image_size=1, max_skipped=1.0)


def _bar(steps: range, what: str) -> Iterable[int]:
    return tqdm(steps, what, unit="", delay=1, disable=None)  # on terminals only


@dataclass(frozen=True, kw_only=True, eq=False)
class _Twin:
    """An image that was removed, and the one it is like."""

    rule: str
    removed: StoredPair | Pair
    like: StoredPair | Pair


def _twins(
    steps: Iterable[Step], source: PairSource, against: PairSource | None
) -> Iterator[_Twin]:
    """Read some of the images that were removed for being alike, from the first to the last."""
    for step in steps:
        for removed, like in _spread(step.alike.tolist(), NAMED):
            one = source.read(removed)
            other = (against if against and step.is_leakage else source).read(like)
            if not isinstance(one, Damaged) and not isinstance(other, Damaged):
                yield _Twin(rule=step.rule, removed=one, like=other)


def _write_report(config: Config, found: Curated, twins: Iterable[_Twin], seconds: float) -> None:
    looks = found.candidates.looks
    report = {
        "settings": plain_settings(config),
        "rules": [step.record() for step in found.steps],
        "pairs": len(found.candidates),
        "scores": _quantiles(looks) if config.scorer and looks else None,
        "alike": [[twin.rule, twin.removed.key, twin.like.key] for twin in twins],
        "seconds": round(seconds, 1),
        **provenance(),
    }
    write_json(config.out / f"{config.split}.curation.json", report)


def _quantiles(looks: Looks) -> dict[str, float]:
    """Of the scores of the pairs that are left, to choose `least_score` by."""
    return {f"{share:.2f}": float(np.quantile(looks.scores, share)) for share in QUANTILES}


def _draw_twins(path: Path, twins: Sequence[_Twin]) -> None:
    """Draw pairs of images side by side, the removed one first, a few of each rule."""
    images, texts = [], []
    for rule in dict.fromkeys(twin.rule for twin in twins):
        for twin in _spread([twin for twin in twins if twin.rule == rule], SHOWN):
            for sample, word in ((twin.removed, f"{rule}:"), (twin.like, "is like")):
                pair = decoded(sample)
                assert isinstance(pair, Pair)  # it was looked at
                image = resize(pair.image, SHOWN_SIZE, SHOWN_SIZE)
                images.append(image.transpose(2, 0, 1))
                texts.append(f"{word} {pair.key}")
    if images:
        captioned_grid(np.stack(images), texts, path)


def _spread(values: Sequence[T], most: int) -> list[T]:
    """Take no more than `most` values, evenly from the first on."""
    return list(values[:: ceil(max(1, len(values)) / most)])


if __name__ == "__main__":
    start(main, Config)
