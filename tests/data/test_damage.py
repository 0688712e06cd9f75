"""Nine kinds of damage, twenty times each: no wrong pair, no half one, and every loss is counted.

What is to be expected is worked out from what was written and from what was then done to it; the
places of files in a tar are those that tarfile finds in the undamaged one.
"""

import io
import json
import random
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from data import (
    Batches,
    Counts,
    Framing,
    Pair,
    encode_image,
    find_defects,
    open_source,
    write_shards,
)
from data.manifest import describe_shard, read_manifest
from data.sample import Damaged, decoded
from data.shards import shards_by_split
from data.tars import pairs_in_tar

PER_SHARD = 4
CASES = range(20)
FRAMING = Framing(size=8)

Defects = list[tuple[str, str, str]]
"""Shard, key, reason."""
Files = list[tuple[str, bytes]]


@dataclass(kw_only=True)
class Expected:
    """What is found in a damaged folder, by the keys of what was written."""

    good: set[str]
    """When it is checked."""
    defects: Defects = field(default_factory=list)
    refusal: str = ""
    """Of training, when the folder is opened."""
    trained: set[str] | None = None
    """None: those that are good when it is checked."""
    lost_at_opening: dict[str, int] = field(default_factory=dict)
    lost_in_reading: dict[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class Set:
    """A folder of shards before it is damaged, and chance."""

    folder: Path
    shards: list[list[Pair]]
    random: random.Random

    @property
    def keys(self) -> set[str]:
        return {pair.key for shard in self.shards for pair in shard}

    def drop_manifest(self) -> None:
        (self.folder / "manifest.json").unlink()

    def path(self, shard: int) -> Path:
        return self.folder / f"train-{shard:06d}.tar"


def make_pair(key: str, seed: int) -> Pair:
    image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Pair(key=key, image=image, captions=(f"picture {seed}", f"number {seed}"))


def make_shards(count: int) -> list[list[Pair]]:
    """The last shard has a pair less."""
    pairs = [make_pair(f"pair{n}", n) for n in range(count * PER_SHARD - 1)]
    return [pairs[n : n + PER_SHARD] for n in range(0, len(pairs), PER_SHARD)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A folder of two, one of three and one of four shards."""
    folders = {count: tmp_path_factory.mktemp("written") for count in (2, 3, 4)}
    for count, folder in folders.items():
        pairs = [pair for shard in make_shards(count) for pair in shard]
        write_shards(folder, "train", pairs, per_shard=PER_SHARD)
    return folders


def files_of(pair: Pair) -> Files:
    text = "\n".join(pair.captions).encode()
    return [(f"{pair.key}.png", encode_image(pair.image)), (f"{pair.key}.txt", text)]


def write_tar(path: Path, files: Files) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_by_hand(given: Set, shards: list[Files]) -> None:
    """Write other tars in place of the shards, every second time with a manifest without index."""
    shutil.rmtree(given.folder)
    given.folder.mkdir()
    for number, files in enumerate(shards):
        write_tar(given.path(number), files)
    if given.random.random() < 0.5:
        counts = [len({name.rpartition(".")[0] for name, _ in files}) for files in shards]
        paths = [given.path(number) for number in range(len(shards))]
        entries = {p.name: describe_shard(p, n) for p, n in zip(paths, counts, strict=True)}
        split = {"samples": sum(counts), "captions": 2 * sum(counts), "skipped": {}}
        manifest = {"shards": entries, "splits": {"train": split}}
        (given.folder / "manifest.json").write_text(json.dumps(manifest))


def members(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return tar.getmembers()


def of_many(reason: str, samples: int) -> str:
    return f"{reason}, {samples} samples" if samples > 1 else reason


def truncated(given: Set) -> Expected:
    number = given.random.randrange(len(given.shards))
    path = given.path(number)
    found, whole = members(path), path.read_bytes()
    content = -(-(found[-1].offset_data + found[-1].size) // 512) * 512
    end = given.random.choice([given.random.randrange(content), given.random.randrange(len(whole))])
    path.write_bytes(whole[:end])
    cut = {m.name.rpartition(".")[0] for m in found if m.offset_data + m.size > end}
    good = given.keys - cut
    is_ended = end >= content + 512
    if given.random.random() < 0.5:
        given.drop_manifest()
        defects = [] if is_ended else [(path.name, "", "broken shard")]
        lost = {} if is_ended else {"broken shard": 1}
        return Expected(good=good, defects=defects, lost_at_opening=lost)
    reason = "altered shard" if is_ended else of_many("broken shard", len(cut))
    refusal = f"{path} has {end} bytes, its manifest says {len(whole)}"
    return Expected(good=good, defects=[(path.name, "", reason)], refusal=refusal)


def header_flipped(given: Set) -> Expected:
    number = given.random.randrange(len(given.shards))
    path = given.path(number)
    found, raw = members(path), bytearray(path.read_bytes())
    place = given.random.randrange(len(found))
    byte = given.random.choice([*range(148), *range(156, 512)])  # not the checksum's own
    raw[found[place].offset + byte] ^= given.random.randrange(1, 256)
    path.write_bytes(raw)
    lost = {member.name.rpartition(".")[0] for member in found[place:]}
    good = given.keys - lost
    if given.random.random() < 0.5:
        given.drop_manifest()
        return Expected(
            good=good,
            defects=[(path.name, "", "broken shard")],
            lost_at_opening={"broken shard": 1},
        )
    defects = [(path.name, "", of_many("broken shard", len(lost)))]
    return Expected(good=good, defects=defects, trained=given.keys)


def payload_flipped(given: Set) -> Expected:
    path = given.path(given.random.randrange(len(given.shards)))
    member = given.random.choice(members(path))
    raw = bytearray(path.read_bytes())
    raw[member.offset_data + given.random.randrange(member.size)] ^= given.random.randrange(1, 256)
    path.write_bytes(raw)
    key = member.name.rpartition(".")[0]
    return Expected(
        good=given.keys - {key},
        defects=[(path.name, key, "altered sample")],
        lost_in_reading={"altered sample": 1},
    )


def replaced(given: Set, content: bytes, same_length: bytes) -> Expected:
    """Put other content in a shard's place, or as many bytes of another kind as it has."""
    number = given.random.randrange(len(given.shards))
    path, lost = given.path(number), {pair.key for pair in given.shards[number]}
    length, good = path.stat().st_size, given.keys - lost
    defects = [(path.name, "", of_many("broken shard", len(lost)))]
    kind = given.random.randrange(3)
    path.write_bytes(content if kind else same_length * length)
    if kind == 0:
        return Expected(good=good, defects=defects, lost_in_reading={"altered sample": len(lost)})
    if kind == 1:
        refusal = f"{path} has {len(content)} bytes, its manifest says {length}"
        return Expected(good=good, defects=defects, refusal=refusal)
    given.drop_manifest()
    return Expected(
        good=good,
        defects=[(path.name, "", "broken shard")],
        lost_at_opening={"broken shard": 1},
    )


def zero_bytes(given: Set) -> Expected:
    return replaced(given, b"", b"\0")


def html(given: Set) -> Expected:
    page = b"<html><body>404 Not Found</body></html>\n" * given.random.randrange(1, 99)
    return replaced(given, page, b"<")


def missing(given: Set) -> Expected:
    number = given.random.randrange(len(given.shards))
    path, lost = given.path(number), {pair.key for pair in given.shards[number]}
    kind = given.random.randrange(3)
    if kind == 0:
        index = path.with_suffix(".index.npy")
        index.unlink()
        refusal = f"{index} is missing, its manifest has it"
        defects = [(path.name, "", "missing index")]
        return Expected(good=given.keys, defects=defects, refusal=refusal)
    path.unlink()
    if kind == 1:
        refusal = f"{path} is missing, {given.folder / 'manifest.json'} has it"
        defects = [(path.name, "", f"missing shard, {len(lost)} samples")]
        return Expected(good=given.keys - lost, defects=defects, refusal=refusal)
    given.drop_manifest()  # then nothing tells that it was there
    return Expected(good=given.keys - lost)


def interleaved(given: Set) -> Expected:
    shards = [[file for pair in shard for file in files_of(pair)] for shard in given.shards]
    for files in shards:
        given.random.shuffle(files)
    if given.random.random() < 0.5:
        write_by_hand(given, shards)
        return Expected(good=given.keys)
    moved = next(file for file in shards[0] if file[0].endswith(".txt"))  # to another shard
    shards[0].remove(moved)
    shards[1].insert(given.random.randrange(len(shards[1])), moved)
    key = moved[0].removesuffix(".txt")
    write_by_hand(given, shards)
    return Expected(
        good=given.keys - {key},
        defects=[
            ("train-000000.tar", key, "no caption"),
            ("train-000001.tar", key, "no image"),
        ],
        lost_at_opening={"no caption": 1, "no image": 1},
    )


def duplicate_key(given: Set) -> Expected:
    shards = [[file for pair in shard for file in files_of(pair)] for shard in given.shards]
    number = given.random.randrange(len(shards))
    pair = given.random.choice(given.shards[number])
    again = files_of(make_pair(pair.key, 1_000))
    lost = {"key twice": 1}
    if number == 0 and given.random.random() < 0.7:  # in another shard: the first one stays
        shards[-1] += again
        write_by_hand(given, shards)
        defects = [(given.path(len(shards) - 1).name, pair.key, "key twice")]
        return Expected(good=given.keys, defects=defects, lost_at_opening=lost)
    image, text = again  # in the same: nobody can tell what belongs together
    upper = (f"{pair.key}.PNG", image[1])
    shards[number] += given.random.choice([again, [image], [text], [upper]])
    write_by_hand(given, shards)
    defects = [(given.path(number).name, pair.key, "key twice")]
    return Expected(good=given.keys - {pair.key}, defects=defects, lost_at_opening=lost)


def half_sample(given: Set) -> Expected:
    number = given.random.randrange(len(given.shards))
    key = given.random.choice(given.shards[number]).key
    suffix, reason = given.random.choice([("png", "no image"), ("txt", "no caption")])
    shards = [[file for pair in shard for file in files_of(pair)] for shard in given.shards]
    shards[number] = [file for file in shards[number] if file[0] != f"{key}.{suffix}"]
    path, good = given.path(number), given.keys - {key}
    defects = [(path.name, key, reason)]
    if given.random.random() < 0.5:
        write_by_hand(given, shards)
        return Expected(good=good, defects=defects, lost_at_opening={reason: 1})
    before = path.stat().st_size  # another tar than the manifest's
    write_tar(path, [*shards[number], ("longer.bin", bytes(before))])
    refusal = f"{path} has {path.stat().st_size} bytes, its manifest says {before}"
    return Expected(
        good=good, defects=[*defects, (path.name, "", "altered shard")], refusal=refusal
    )


DAMAGE = (
    truncated,
    header_flipped,
    payload_flipped,
    zero_bytes,
    html,
    missing,
    interleaved,
    duplicate_key,
    half_sample,
)


@pytest.mark.parametrize("number", CASES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_every_loss_is_counted_and_nothing_else_is_lost(
    tmp_path: Path, written: dict[int, Path], damage: Callable[[Set], Expected], number: int
) -> None:
    chance = random.Random(f"{damage.__name__} {number}")
    count = chance.choice([2, 3, 4])
    folder = tmp_path / "shards"
    shutil.copytree(written[count], folder)
    given = Set(folder=folder, shards=make_shards(count), random=chance)
    expected = damage(given)
    pairs = {pair.key: pair for shard in given.shards for pair in shard}
    check_checking(folder, pairs, expected)
    check_training(folder, pairs, expected)


def check_checking(folder: Path, pairs: dict[str, Pair], expected: Expected) -> None:
    counts = Counts()
    found = [(defect.shard, defect.key, defect.reason) for defect in find_defects(folder, counts)]
    assert sorted(found) == sorted(expected.defects)
    assert counts.samples["train"] == len(expected.good)
    assert counts.captions["train"] == 2 * len(expected.good)
    good = set()
    entries = read_manifest(folder)["shards"]
    for path in shards_by_split(folder, entries)["train"]:
        for sample in map(decoded, pairs_in_tar(path, entries.get(path.name))):
            if not isinstance(sample, Damaged) and sample.key not in good:
                assert sample.captions == pairs[sample.key].captions
                assert np.array_equal(sample.image, pairs[sample.key].image)
                good.add(sample.key)
    assert good == expected.good


def check_training(folder: Path, pairs: dict[str, Pair], expected: Expected) -> None:
    if expected.refusal:
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(expected.refusal)):
            open_source([folder], "train", image_size=8, max_skipped=1.0)
        return
    if sum(expected.lost_at_opening.values()) > 1:
        with pytest.raises(ValueError, match="too many bad ones, skipped: "):
            open_source([folder], "train", image_size=8)
    source = open_source([folder], "train", image_size=8, max_skipped=1.0)
    assert Counter(source.skipped) == Counter(expected.lost_at_opening)
    batches = Batches(source, FRAMING, batch_size=len(source), seed=0, max_skipped=1.0)
    batch = batches.at(0)  # an epoch
    trained = set()
    for image, caption, index in zip(
        batch.images, batch.captions, batch.indices.tolist(), strict=True
    ):
        _, key = source.where(index)
        assert caption in pairs[key].captions
        assert np.array_equal(image.permute(1, 2, 0).numpy(), pairs[key].image)
        trained.add(key)
    assert trained == (expected.good if expected.trained is None else expected.trained)
    assert dict(batches.skipped) == expected.lost_in_reading
