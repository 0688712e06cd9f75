"""A set of a few pairs, whose every number is known, and what remains of it when it is damaged."""

import math
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import Encoding, Pair, open_shards, write_shards
from data.describe import (
    Description,
    describe,
    evenly,
    in_both,
    nearest_aspect,
    one_of_each_part,
)
from data.frequent import FrequentTexts
from data.salvage import salvage


def pair(key: str, colour: int, size: tuple[int, int], *captions: str, label: str = "x") -> Pair:
    image = np.full((*size, 3), colour, np.uint8)
    return Pair(key=key, image=image, captions=captions, label=label)


PAIRS = [
    pair("a", 1, (8, 8), "A dog, a dog's hat", "one"),
    pair("b", 2, (6, 8), "one"),
    pair("c", 1, (8, 8), "one", label="y"),
    pair("d", 1, (6, 8), "two dogs"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of two pairs, and one of another split with the first of them again."""
    write_shards(tmp_path, "train", PAIRS, per_shard=2)
    write_shards(tmp_path, "test", [PAIRS[0]], encoding=Encoding(format="webp"))
    return tmp_path


def described(folder: Path, split: str = "train") -> Description:
    found = salvage(folder, split)[split]
    return describe(found.pairs, range(len(found.pairs)), found.losses, shown=2)


def test_the_numbers_of_a_set_are_those_it_was_made_with(folder: Path) -> None:
    about = described(folder)
    assert (about.pairs, about.looked_at, about.good, about.damage) == (4, 4, 4, ())
    assert about.formats == {"png": 4} and about.bytes > 0
    assert about.sizes.top == (("8x6", 2), ("8x8", 2))
    assert about.sides == {8: 2, 6: 2}
    assert {name: count for name, count in about.aspects.items() if count} == {"1:1": 2, "4:3": 2}
    assert (about.captions.total, about.captions.distinct, about.captions.once) == (5, 3, 2)
    assert about.captions.top[0] == ("one", 3)
    assert about.captions_per_image == {2: 1, 1: 3}
    assert about.caption_words == {5: 1, 1: 3, 2: 1}
    assert dict(about.words.top) == {"one": 3, "a": 2, "dog": 1, "dog's": 1, "hat": 1} | {
        "two": 1,
        "dogs": 1,
    }
    assert about.labels.top == (("x", 3), ("y", 1))


def test_images_of_equal_pixels_are_copies_and_those_of_another_shape_are_not(
    folder: Path,
) -> None:
    copies = described(folder).copies
    assert (copies.images, copies.groups, copies.largest) == (1, 1, ((0, 2),))


def test_an_image_of_one_split_is_found_in_another_whatever_its_file(folder: Path) -> None:
    train, test = described(folder), described(folder, "test")
    assert in_both(train, test).tolist() == [0, 2] and in_both(test, train).tolist() == [0]


def test_a_folder_without_a_manifest_has_the_same_numbers(folder: Path) -> None:
    before = described(folder)
    for path in (folder / "manifest.json", *folder.glob("*.npy")):
        path.unlink()
    after = described(folder)
    assert (after.bytes, after.words, after.copies) == (before.bytes, before.words, before.copies)
    assert after.damage == ()


def flip(path: Path, find: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[whole.index(find) + 1] ^= 1
    path.write_bytes(whole)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4_000])  # in the second sample


@pytest.mark.parametrize(
    ("damage", "good", "reasons"),
    [
        (lambda f: (f / "train-000000.tar").unlink(), 2, {"missing shard": 2}),
        (lambda f: cut(f / "train-000000.tar"), 3, {"broken shard": 1}),
        (lambda f: (f / "train-000000.tar").write_text("<html>"), 2, {"broken shard": 2}),
        (lambda f: flip(f / "train-000001.tar", b"IDAT"), 3, {"altered sample": 1}),
        (lambda f: flip(f / "train-000001.index.npy", b"descr"), 4, {"altered index": 1}),
        (lambda f: (f / "train-000001.index.npy").unlink(), 4, {"missing index": 1}),
        (
            lambda f: (f / "train-000009.tar").write_bytes((f / "train-000001.tar").read_bytes()),
            6,
            {"not in the manifest": 1},
        ),
    ],
)
def test_a_damaged_set_is_described_as_far_as_it_can_be_read(
    folder: Path, damage: Callable[[Path], object], good: int, reasons: dict[str, int]
) -> None:
    damage(folder)
    about = described(folder)
    assert about.good == good
    assert {lost.reason: lost.samples for lost in about.damage} == reasons
    assert all(0 < len(lost.keys) <= 5 for lost in about.damage)


def test_what_is_salvaged_of_a_whole_set_is_what_training_reads(folder: Path) -> None:
    salvaged, opened = salvage(folder)["train"].pairs, open_shards(folder, "train")
    assert [salvaged.read(i) for i in range(4)] == [opened.read(i) for i in range(4)]


def test_a_split_of_which_nothing_is_left_has_zeros(folder: Path) -> None:
    (folder / "test-000000.tar").unlink()
    about = described(folder, "test")
    assert (about.pairs, about.good, about.copies.groups, about.shown) == (0, 0, 0, ())
    assert about.damage[0].keys == ("test-000000.tar",)


def test_half_a_sample_and_a_key_twice_are_damage(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    shutil.copy(folder / "train-000000.tar", folder / "train-000008.tar")
    with tarfile.open(folder / "train-000009.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("half.txt"))
    reasons = {lost.reason: lost.keys for lost in described(folder).damage}
    assert reasons == {"no image": ("half",), "key twice": ("a", "b")}


def test_a_folder_or_split_that_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no split 'val', it has test, train"):
        salvage(folder, "val")
    with pytest.raises(FileNotFoundError, match="is not a local folder"):
        salvage(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no shards named SPLIT-000000\.tar"):
        salvage(tmp_path / "empty")


def test_places_are_evenly_spread() -> None:
    assert evenly(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly(3, 9).tolist() == [0, 1, 2] and evenly(0, 9).tolist() == []
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        evenly(10, 0)


@pytest.mark.parametrize(("count", "parts"), [(100, 7), (5, 5), (3, 8), (0, 4)])
def test_every_part_of_a_set_shows_one_of_its_own(count: int, parts: int) -> None:
    chosen = one_of_each_part(count, parts, seed=3)
    parts = min(parts, count)
    assert [((index + 1) * parts - 1) // count for index in chosen] == list(range(parts))


def test_another_seed_shows_others() -> None:
    assert one_of_each_part(1_000, 8, seed=0) != one_of_each_part(1_000, 8, seed=1)


def test_an_image_counts_under_the_proportion_it_is_nearest_to() -> None:
    assert [nearest_aspect(*size) for size in ((640, 480), (1, 20), (99, 100), (1920, 1080))] == [
        "4:3",
        "1:4",
        "1:1",
        "16:9",
    ]
    between = math.sqrt(4 / 3 * 3 / 2)
    assert nearest_aspect(round(between * 1e4) - 9, 10_000) == "4:3"
    assert nearest_aspect(round(between * 1e4) + 9, 10_000) == "3:2"


def test_frequent_texts_outlive_rare_ones_in_bounded_memory() -> None:
    texts = FrequentTexts(max_bytes=20_000)
    for number in range(2_000):
        texts.add(["often", f"rare {number}", "also often"][: 2 + number % 2])
    found = texts.frequencies(top=2)
    assert found.is_cut and found.total == 5_000
    assert found.top == (("often", 2_000), ("also often", 1_000))
    assert found.distinct < 20_000 / 150
