"""From the description of a folder of shards to a page that people look at."""

import io
import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, combinations
from pathlib import Path
from typing import Any

from PIL import Image

from data import Damaged, PairSource, decoded, fit_image
from data.describe import Damage, Description, in_both
from data.frequent import Frequencies
from data.manifest import Manifest
from recipes.engine.charts import Bars, Histogram
from recipes.engine.gallery import SIDE, Gallery, Picture, visible
from recipes.engine.page import Cell, Part, Section, Table, write_page

QUALITY = 85
"""Of a picture: about 5 kB each."""
TOP_TEXTS = 12
"""Of sizes, captions that repeat, and classes."""
TOP_WORDS = 30
FEW = 6
"""Numbers that need no histogram."""
NAME_LETTERS = 60
"""Of a caption, a word or a class in a table."""
MAX_OPTION = 400
"""Letters of a build option."""

Sources = Mapping[str, PairSource]
Descriptions = Mapping[str, Description]


def write_description(
    path: Path, name: str, manifest: Manifest, sources: Sources, described: Descriptions
) -> None:
    """Write the page of a folder: what holds for all of it, then split by split."""
    sections = [
        Section(heading="Splits", text=_limits(described), tables=[_overview(manifest, described)]),
        _origin(manifest, described),
    ]
    if len(described) > 1:
        sections.append(_in_two_splits(sources, described))
    for split, about in described.items():
        sections += _of_split(split, sources[split], about)
    pairs = sum(about.pairs for about in described.values())
    parts = _number(len(described), "split")
    intro = f"{_number(pairs, 'pair')} of images and captions in {parts}."
    write_page(path, visible(name), intro, sections)


def _limits(described: Descriptions) -> str:
    """Say what was not looked at, and what was not counted to the end."""
    texts = [
        f"Of the {about.pairs:,} pairs of {visible(split)}, {about.looked_at:,} were looked at, "
        "evenly spread. All figures are of those; copies and damage among the others were not seen."
        for split, about in described.items()
        if about.looked_at < about.pairs
    ]
    if any(x.is_cut for about in described.values() for x in (about.captions, about.words)):
        texts.append(
            "There are too many captions or words to remember all: the rarest were forgotten on "
            "the way, so that there are more distinct ones than are counted here."
        )
    return "\n\n".join(texts)


def _overview(manifest: Manifest, described: Descriptions) -> Table:
    """Splits side by side, so that a phone has room for them."""
    columns = [_figures(about, manifest["splits"].get(x)) for x, about in described.items()]
    kept = [x for x in columns[0] if any(column[x] is not None for column in columns)]
    return Table(
        columns=("", *map(visible, described)),
        rows=[(name, *(column[name] for column in columns)) for name in kept],
    )


def _figures(about: Description, said: Mapping[str, Any] | None) -> dict[str, Cell]:
    return {
        "pairs": about.pairs,
        "pairs, by the manifest": said["samples"] if said else None,
        "looked at": about.looked_at if about.looked_at < about.pairs else None,
        "damaged or lost": sum(damage.samples for damage in about.damage),
        "exact copies of another image": about.copies.images,
        "kilobytes of images": about.bytes // 1_000,
        "captions": about.captions.total,
        "distinct captions": about.captions.distinct,
        "words in a caption, median": _median(about.caption_words),
        "distinct words": about.words.distinct,
        "classes": about.labels.distinct or None,
    }


def _origin(manifest: Manifest, described: Descriptions) -> Section:
    known = {split: manifest["splits"][split] for split in described if split in manifest["splits"]}
    source, licence = manifest.get("source"), manifest.get("licence")
    texts = [
        f"Source: {visible(source, 2_000) if source else 'not told'}.",
        f"Licence: {visible(licence, 2_000) if licence else 'not told'}.",
    ]
    texts += [
        f"The split {visible(split)} is a part only: its building was never finished."
        for split, said in known.items()
        if not said.get("complete", True)
    ]
    if not manifest["shards"] and not source:
        texts = ["The folder has no manifest: source, licence and build options are not known."]
    builds = {split: _options(said.get("build", {})) for split, said in known.items()}
    skipped = {split: said["skipped"] for split, said in known.items()}
    tables = [
        *_side_by_side("built with", builds),
        *_side_by_side("left out in building", skipped),
    ]
    return Section(heading="Where it comes from", text="\n\n".join(texts), tables=tables)


def _options(build: Mapping[str, Any]) -> dict[str, Cell]:
    """Build options as texts."""
    return {
        name: visible(json.dumps(value, ensure_ascii=False), MAX_OPTION)
        for name, value in build.items()
        if value is not None
    }


def _side_by_side(title: str, columns: Mapping[str, Mapping[str, Cell]]) -> list[Table]:
    names = sorted({name for column in columns.values() for name in column})
    rows = [(visible(name), *(column.get(name) for column in columns.values())) for name in names]
    return [Table(columns=(title, *map(visible, columns)), rows=rows)] if rows else []


def _in_two_splits(sources: Sources, described: Descriptions) -> Section:
    """What a model has seen in training must not be what it is measured on."""
    texts, pictures = [], list[Picture]()
    for one, other in combinations(described, 2):
        places = in_both(described[one], described[other]).tolist()
        if places:
            found, elsewhere = _number(len(places), "pair"), visible(other)
            texts.append(
                f"In {visible(one)}, {found} with an image that {elsewhere} has too, bit by bit."
            )
            pictures += _pictures(sources[one], places[:TOP_TEXTS], f"{one} and {other}: ")
    none = "No image that was looked at is in two splits, compared bit by bit."
    return Section(
        heading="The same image in two splits",
        text="\n\n".join(texts) or none,
        parts=[Gallery(pictures=pictures)] if pictures else [],
    )


def _of_split(split: str, source: PairSource, about: Description) -> list[Section]:
    name = visible(split)
    damage = _damage(about.damage)
    if not about.good:
        text = "No pair of this split can be read."
        return [Section(heading=f"{name}: nothing to see", text=text, tables=damage)]
    seen = len(about.shown)
    drawn = f"one from each of {seen} equal parts" if seen < about.good else "all of them"
    return [
        Section(
            heading=f"{name}: a look",
            text=f"{_number(seen, 'pair')}, {drawn}, in stored order.",
            parts=[Gallery(pictures=_pictures(source, about.shown))],
        ),
        _images(name, about),
        _captions(name, about),
        _copies(name, source, about),
        Section(
            heading=f"{name}: damage",
            text="" if damage else "Everything that was looked at can be read.",
            tables=damage,
        ),
    ]


def _images(name: str, about: Description) -> Section:
    parts: list[Part] = []
    formats = ", ".join(f"{count:,} {x}" for x, count in sorted(about.formats.items()))
    text = f"Formats: {formats}; {about.bytes / about.good / 1e3:,.1f} kB each on average."
    if about.sizes.distinct == 1:
        text += f" All are {about.sizes.top[0][0]} pixels."
    else:
        parts += [
            *_lengths("Shorter side in pixels", about.sides),
            Bars(title="Width to height, nearest to", counts=_between(about.aspects)),
            Bars(title=f"Sizes, {_of_all(about.sizes)}", counts=about.sizes.top[:TOP_TEXTS]),
        ]
    return Section(heading=f"{name}: images", text=text, parts=parts)


def _captions(name: str, about: Description) -> Section:
    captions, words = about.captions, about.words
    often = [(text, count) for text, count in captions.top if count > 1]
    repeated = captions.total - captions.distinct
    parts: list[Part] = []
    text = f"{_number(captions.total, 'caption')}, of which {repeated:,} repeat another one."
    text += f" {words.once:,} of {words.distinct:,} words come only once."
    text += _unless_one(about.captions_per_image, "Every image has {}.", "caption")
    text += _unless_one(about.caption_words, "Every caption has {}.", "word")
    parts += _lengths("Words in a caption", about.caption_words)
    parts += _lengths("Captions of an image", about.captions_per_image)
    if words.top and about.caption_words.keys() != {1}:  # else they are the captions
        title = f"Most frequent words, {_of_all(words, TOP_WORDS)}"
        parts.append(Bars(title=title, counts=_named(words.top[:TOP_WORDS])))
    if often:
        title = "Captions that come most often"
        parts.append(Bars(title=title, counts=_named(often[:TOP_TEXTS])))
    if about.labels.top:
        title = f"Classes, {_of_all(about.labels)}"
        parts.append(Bars(title=title, counts=_named(about.labels.top[:TOP_TEXTS])))
    return Section(heading=f"{name}: captions", text=text, parts=parts)


def _copies(name: str, source: PairSource, about: Description) -> Section:
    copies = about.copies
    if not copies.groups:
        text = "No two images are equal bit by bit once they are decoded."
        return Section(heading=f"{name}: copies", text=text)
    text = (
        f"Images that come more than once, bit by bit once they are decoded: {copies.groups:,}. "
        f"Pairs that would have to go so that each comes once: {copies.images:,}."
    )
    groups = [_group(source, places) for places in copies.largest]
    pictures = [picture for group in groups for picture in group]
    return Section(heading=f"{name}: copies", text=text, parts=[Gallery(pictures=pictures)])


def _group(source: PairSource, places: Sequence[int]) -> list[Picture]:
    """One picture for a group of equal ones, with a caption and the key of each."""
    found = (decoded(source.read(place)) for place in places)
    pairs = [pair for pair in found if not isinstance(pair, Damaged)]
    if not pairs:
        return []
    texts = [pair.captions[0] for pair in pairs]
    return [_picture(pairs[0].image, texts, " = ".join(pair.key for pair in pairs))]


def _damage(damage: Iterable[Damage]) -> list[Table]:
    rows = [
        (visible(x.reason), x.samples, ", ".join(visible(key, NAME_LETTERS) for key in x.keys))
        for x in damage
    ]
    return [Table(columns=("reason", "samples", "first in"), rows=rows)] if rows else []


def _pictures(source: PairSource, places: Iterable[int], note: str = "") -> list[Picture]:
    pairs = (decoded(source.read(place)) for place in places)
    return [
        _picture(pair.image, pair.captions, note + pair.key)
        for pair in pairs
        if not isinstance(pair, Damaged)
    ]


def _picture(image: Any, texts: Sequence[str], note: str) -> Picture:
    small = fit_image(image, SIDE, "longer")
    file = io.BytesIO()
    Image.fromarray(small).save(file, format="JPEG", quality=QUALITY)
    height, width, _ = small.shape
    return Picture(jpeg=file.getvalue(), width=width, height=height, texts=texts, note=note)


def _between(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Leave out what is empty before the first and after the last count."""
    filled = [index for index, count in enumerate(counts.values()) if count]
    return list(counts.items())[filled[0] : filled[-1] + 1]


def _named(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return [(visible(text, NAME_LETTERS), count) for text, count in counts]


def _of_all(found: Frequencies, most: int = TOP_TEXTS) -> str:
    shown = min(most, found.distinct)
    return f"{shown} of {found.distinct:,}" if shown < found.distinct else "all"


def _lengths(title: str, counts: Mapping[int, int]) -> list[Part]:
    """Draw how often numbers come, in the form that suits how many there are."""
    if len(counts) <= 1:
        return []
    if len(counts) > FEW:
        return [Histogram(title=title, counts=counts)]
    return [Bars(title=title, counts=[(f"{value:,}", counts[value]) for value in sorted(counts)])]


def _unless_one(counts: Mapping[int, int], sentence: str, what: str) -> str:
    """A sentence in the place of a histogram that would have one column."""
    return " " + sentence.format(_number(next(iter(counts)), what)) if len(counts) == 1 else ""


def _median(counts: Mapping[int, int]) -> int | None:
    """The value that half of all values do not exceed."""
    values = sorted(counts)
    ends = list(accumulate(counts[value] for value in values))
    return values[bisect_left(ends, ends[-1] / 2)] if values else None


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
