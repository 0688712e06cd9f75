r"""Write pairs as WebDataset shards: KEY.png (or jpg, webp) and KEY.txt, 2,000 samples to a tar.

    python -m recipes.build_shards --source=FOLDER --out=shards/mine --split=train
    python -m recipes.build_shards --source=scenes --count=10000 --out=shards/scenes --split=train
    python -m recipes.build_shards --source=pairs.csv --image=file --captions='[short, long]' \
        --out=shards/mine
    python -m recipes.build_shards --source=dataset_coco.json --image_folder=coco --split=val \
        --image_format=jpg --out=shards/coco

The source is a folder of images with side-car captions (KEY.jpg, .png or .webp beside KEY.txt, one
caption a line, or KEY.json); a table (.csv, .tsv, .jsonl or .parquet) with a column of images
(bytes, or paths that count from the table's folder) and columns of captions; a COCO caption file
(.json), also as Karpathy split it; or the word `scenes`. Writes OUT/SPLIT-*.tar and
OUT/manifest.json (samples, bytes and sha256 of each shard). A damaged sample is left out, counted
and reported. A thousand small pairs take about a second.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from data import (
    Damaged,
    ImageFormat,
    Pair,
    in_words,
    pairs_from_coco,
    pairs_from_folder,
    pairs_from_table,
    write_shards,
)
from data.scenes import scene_pairs
from data.tables import READERS as TABLES
from recipes.engine.cli import run as start


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to write where."""

    source: str
    """A folder of images with captions beside them, a table, a COCO file, or the word `scenes`."""
    image: str = "image"
    """Column of a table's images."""
    captions: tuple[str, ...] = ("caption",)
    """Columns of a table's captions."""
    image_folder: Path | None = None
    """Folder of the images that a COCO file names; null takes the file's own."""
    out: Path
    """Folder of the shards; a split that is already there is refused."""
    split: str = "train"
    count: int | None = None
    """Pairs to write; null takes all of a folder. Scenes need a number."""
    image_size: int = 36
    """Of scenes; images of a folder keep their size."""
    per_shard: int = 2_000
    image_format: ImageFormat = "png"

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")


def main(config: Config) -> None:
    """Read, write, report."""
    pairs = islice(_pairs(config), config.count)
    shown = tqdm(pairs, desc=config.split, unit="pair", disable=None)  # a bar on terminals only
    manifest = write_shards(
        config.out,
        config.split,
        iter(shown),
        per_shard=config.per_shard,
        image_format=config.image_format,
    )
    written = manifest["splits"][config.split]
    print(f"{config.out}: {written['samples']} samples of {config.split}")
    if written["skipped"]:
        print(in_words(written["skipped"]))


def _pairs(config: Config) -> Iterable[Pair | Damaged]:
    if Path(config.source).suffix in TABLES:
        return pairs_from_table(config.source, config.image, config.captions)
    if config.source.endswith(".json"):
        folder = config.image_folder or Path(config.source).parent
        return pairs_from_coco(config.source, folder, config.split)
    if config.source != "scenes":
        return pairs_from_folder(config.source)
    if config.count is None:
        raise ValueError("scenes never end: count must be a number, got null")
    return scene_pairs(config.split, config.count, config.image_size)


if __name__ == "__main__":
    start(main, Config)
