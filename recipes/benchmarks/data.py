"""Reading pairs: the member index and uint8 against webdataset, Pillow and floats."""

import io
import tarfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from data import (
    Batches,
    Framing,
    Pair,
    PairSource,
    StoredPair,
    open_shards,
    open_source,
    read_all,
    write_shards,
)
from data.shards import shards_by_split

from .case import Case, in_turns

SIZE = 256
PAIRS = 1_280
BATCH = 128
SHARDS = 1_000
MEAN = np.array([0.4815, 0.4578, 0.4082], dtype=np.float32)
STD = np.array([0.2686, 0.2613, 0.2758], dtype=np.float32)
"""CLIP's, Radford et al. 2021, https://arxiv.org/abs/2103.00020."""


def measure(runs: int, source: Path | None, split: str) -> Iterator[Case]:
    """Measure reading and opening, on shards that are made now and removed after.

    Args:
        runs: of each side.
        source: a folder of shards whose images are read at 256 pixels; None draws some.
        split: of that folder.
    """
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        pairs = _drawn() if source is None else _enlarged(open_shards(source, split))
        write_shards(photographs, "train", islice(pairs, PAIRS), per_shard=500)
        size = sum(path.stat().st_size for path in photographs.glob("*.tar")) / 1000
        print(f"{len(open_shards(photographs, 'train'))} images, {size:,.0f} kB of shards")
        yield in_turns(
            f"read_{SIZE}px",
            "images/s of one core",
            lambda: _rate(_our_batches(photographs)),
            lambda: _rate(_reference_batches(photographs)),
            runs,
        )
        many = Path(folder) / "many"
        write_shards(many, "train", map(_dot, range(10 * SHARDS)), per_shard=10)
        yield in_turns(
            f"open_{SHARDS}_shards",
            "s",
            lambda: _seconds_to_open(many),
            lambda: _seconds_to_scan(many),
            runs,
            is_rate=False,
        )


def _rate(batches: Iterator[int]) -> float:
    """Images per second of CPU time: of one core, since each side works in one thread."""
    began = time.process_time()
    images = sum(batches)
    return images / (time.process_time() - began)


def _our_batches(folder: Path) -> Iterator[int]:
    source = open_source([folder], "train", image_size=SIZE)
    batches = Batches(source, Framing(size=SIZE), batch_size=BATCH, seed=0)
    for step in range(len(source) // BATCH):
        yield len(batches.at(step).images)


def _reference_batches(folder: Path) -> Iterator[int]:
    import webdataset

    def decode(sample: dict[str, bytes]) -> tuple[np.ndarray, str]:
        with Image.open(io.BytesIO(sample["jpg"])) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
        return ((pixels - MEAN) / STD).transpose(2, 0, 1), sample["txt"].decode()

    urls = [str(path) for path in shards_by_split(folder)["train"]]
    pairs = webdataset.WebDataset(urls, shardshuffle=False).shuffle(1_000).map(decode)
    for images, _ in pairs.batched(BATCH, partial=False):
        yield len(torch.from_numpy(images))


def _seconds_to_open(folder: Path) -> float:
    began = time.perf_counter()
    shards = open_shards(folder, "train")
    shards.read(len(shards) // 2)
    return time.perf_counter() - began


def _seconds_to_scan(folder: Path) -> float:
    """What a reader without an index does before it knows where a sample lies."""
    began = time.perf_counter()
    for path in shards_by_split(folder)["train"]:
        with tarfile.open(path) as tar:
            tar.getmembers()
    return time.perf_counter() - began


def _enlarged(source: PairSource) -> Iterator[StoredPair]:
    for index, pair in enumerate(read_all(source, Framing(size=SIZE))):
        if isinstance(pair, Pair):
            yield StoredPair(key=f"{index:06d}", image=_jpeg(pair.image), captions=pair.captions)


def _drawn() -> Iterator[StoredPair]:
    """Draw pictures with the falling spectrum of photographs: JPEG files of some 22 kB."""
    frequencies = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)) + 1 / SIZE
    for index in range(PAIRS):
        random = np.random.default_rng(index)
        noise = random.standard_normal((3, *frequencies.shape, 2)) @ np.array([1, 1j])
        waves = np.fft.irfft2(noise / frequencies**1.7, s=(SIZE, SIZE))
        waves = waves[:1] + 0.3 * waves  # most of it is grey
        levels = 128 + 50 * (waves - waves.mean()) / waves.std()
        image = levels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        yield StoredPair(key=f"{index:06d}", image=_jpeg(image), captions=("a drawn picture",))


def _jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=90)
    return file.getvalue()


def _dot(index: int) -> Pair:
    colour = np.array([[[index % 256, index // 256 % 256, 0]]], dtype=np.uint8)
    return Pair(key=f"{index:06d}", image=colour, captions=("a dot",))
