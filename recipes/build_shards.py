r"""Write pairs as WebDataset shards, with a member index beside each and a manifest over all.

    python -m recipes.build_shards --source=FOLDER --out=shards/mine --split=train
    python -m recipes.build_shards --source=pairs.csv --image=file --captions='[short, long]' \
        --size=256 --out=shards/mine
    python -m recipes.build_shards --source=dataset_coco.json --image_folder=coco --split=val \
        --out=shards/coco
    python -m recipes.build_shards --source=hf:FOLDER --captions='[caption]' --out=shards/hub
    python -m recipes.build_shards --source=scenes --count=10000 --out=shards/scenes --split=train

The source is one of:
  a folder of images with side-car captions: KEY.jpg, .png or .webp beside KEY.txt (one caption a
    line) or KEY.json, perhaps with KEY.cls (a class); what img2dataset writes as `files`
  a folder of tars of such files; what img2dataset writes as `webdataset`
  a table (.csv, .tsv, .jsonl, .parquet) with a column of images, bytes or paths that count from the
    table's folder, and columns of captions; what img2dataset writes as `parquet`
  a COCO caption file (.json), also as Karpathy split it
  hf:NAME, a Hugging Face dataset: a folder of `save_to_disk`, or whatever `load_dataset` takes;
    hf:NAME#CONFIG where it has several
  a view, which recipes.curate has made: its pairs in a folder of their own
  the word `scenes`: drawn pairs

Writes OUT/SPLIT-*.tar, their indices, and after every shard OUT/manifest.json: samples, bytes and
sha256 of each shard; counts, statistics, source, licence and options of each split. A damaged
sample is left out, counted and reported. Stopped in the middle, the same line goes on where it was;
a full disk ends it with exit code 1, and every finished shard stays good.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from data import (
    Columns,
    Damaged,
    Encoding,
    Fit,
    Pair,
    StoredPair,
    in_words,
    open_source,
    pairs_from_coco,
    pairs_from_folder,
    pairs_from_hf,
    pairs_from_table,
    pairs_from_tars,
    write_shards,
)
from data.curated import read_view
from data.manifest import read_manifest
from data.scenes import scene_pairs
from data.source import HUGGING_FACE
from data.tables import READERS as TABLES
from recipes.engine.cli import run as start

SCENE_SIZE = 36


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to write where."""

    source: str
    """A folder, a table, a COCO file, hf:NAME, or the word `scenes`."""
    image: str = "image"
    """Column of a table's images."""
    captions: tuple[str, ...] = ("caption",)
    """Columns of a table's captions."""
    label: str | None = None
    """Column of a table's classes."""
    image_folder: Path | None = None
    """Folder of the images that a COCO file names; null takes the file's own."""
    source_split: str | None = None
    """Split of the source to read: of COCO files, views and Hugging Face datasets, where null takes
    `split`, and of tars named SPLIT-000000.tar, where null takes all."""
    streaming: bool = False
    """Read a Hugging Face dataset as it comes, without fetching all of it first."""
    out: Path
    """Folder of the shards."""
    split: str = "train"
    """Its name in OUT."""
    count: int | None = None
    """Samples of the source to read; null reads all. Scenes need a number."""
    size: int | None = None
    """Pixels that images are brought to; null keeps every size, and draws scenes at 36."""
    fit: Fit = "shorter"
    """Which sides have that size: `crop` (the largest centred square) and `squash` make squares,
    `shorter` and `longer` scale that side down and keep the proportions."""
    image_format: Literal["keep", "jpg", "png", "webp"] = "keep"
    """`keep` leaves a file byte by byte as it is, unless it is resized; then it keeps its format.
    png loses nothing, jpg and webp are of quality 95."""
    per_shard: int = 2_000
    workers: int = 2
    """Threads that decode, resize and encode."""
    about: str | None = None
    """Where the pairs come from, in words, for the manifest."""
    licence: str | None = None
    """For the manifest."""

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")


def main(config: Config) -> None:
    """Read, write, report."""
    before = read_manifest(config.out)["splits"].get(config.split)
    pairs = islice(_pairs(config), config.count)
    shown = tqdm(pairs, desc=config.split, unit="pair", disable=None)  # a bar on terminals only
    manifest = write_shards(
        config.out,
        config.split,
        iter(shown),
        encoding=Encoding(format=config.image_format, size=config.size, fit=config.fit),
        per_shard=config.per_shard,
        workers=config.workers,
        build={
            "source": config.source,
            "source_split": config.source_split,
            "image_folder": str(config.image_folder) if config.image_folder else None,
            "streaming": config.streaming,
            "image": config.image,
            "captions": list(config.captions),
            "label": config.label,
            "count": config.count,
        },
        about=config.about,
        licence=config.licence,
    )
    written = manifest["splits"][config.split]
    print(f"{config.out}: {written['samples']} samples of {config.split}")
    if before and before.get("complete"):
        print("complete already, nothing was read: remove the split to build it again")
    if written["skipped"]:
        print(in_words(written["skipped"]))


def _pairs(config: Config) -> Iterable[StoredPair | Pair | Damaged]:
    source, path = config.source, Path(config.source)
    split = config.source_split or config.split
    if source == "scenes":
        if config.count is None:
            raise ValueError("scenes never end: count must be a number, got null")
        return scene_pairs(split, config.count, config.size or SCENE_SIZE)
    if source.startswith(HUGGING_FACE):
        columns = Columns(image=config.image, captions=config.captions, label=config.label)
        name = source.removeprefix(HUGGING_FACE)
        return pairs_from_hf(name, split, columns, streaming=config.streaming)
    if path.suffix.lower() in TABLES:
        return pairs_from_table(path, config.image, config.captions, config.label)
    if path.suffix.lower() == ".json":
        return pairs_from_coco(path, config.image_folder or path.parent, split)
    if read_view(path):
        view = open_source([path], split, image_size=1)
        return map(view.read, range(len(view)))
    if path.is_dir() and any(path.glob("*.tar")):
        return pairs_from_tars(path, config.source_split)
    return pairs_from_folder(path)


if __name__ == "__main__":
    start(main, Config)
