"""What shards promise: what is read is what was written, and whatever is lost is counted."""

import io
import pickle
import random
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import (
    Damaged,
    Pair,
    Pairs,
    decoded,
    encode_image,
    in_memory,
    open_shards,
    open_source,
    write_shards,
)
from data.manifest import read_manifest
from data.shards import shards_by_split
from data.tars import pairs_in_tar

MakePairs = Callable[[int], list[Pair]]
Files = list[tuple[str, bytes]]


def write_tar(path: Path, files: Files) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def without_end(path: Path) -> bytes:
    """Give a tar's bytes up to the zeros that end it."""
    with tarfile.open(path) as tar:
        tar.getmembers()
        return path.read_bytes()[: tar.offset]


def files_of(pairs: list[Pair]) -> Files:
    return [
        file
        for pair in pairs
        for file in (
            (f"{pair.key}.png", encode_image(pair.image)),
            (f"{pair.key}.txt", "\n".join(pair.captions).encode()),
        )
    ]


def load(folders: list[Path], size: int = 8, **options: object) -> Pairs:
    options.setdefault("split", "train")
    return in_memory(open_source(folders, image_size=size, **options), size)


def good_and_bad(folder: Path, pairs: list[Pair]) -> tuple[list[str], Counter[str]]:
    """Read a folder's train split, check that every pair is a right one, and count the rest."""
    right = {pair.key: pair for pair in pairs}
    good, bad = [], Counter[str]()
    entries = read_manifest(folder)["shards"]
    for path in shards_by_split(folder, entries)["train"]:
        for sample in map(decoded, pairs_in_tar(path, entries.get(path.name))):
            if isinstance(sample, Damaged):
                bad[sample.reason] += sample.samples
            else:
                assert sample.captions == right[sample.key].captions
                assert np.array_equal(sample.image, right[sample.key].image)
                good.append(sample.key)
    return good, bad


def test_what_is_written_is_read_in_its_order(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(7)
    write_shards(tmp_path, "train", pairs, per_shard=3)
    assert sorted(p.name for p in tmp_path.glob("*.tar")) == [
        f"train-{n:06d}.tar" for n in range(3)
    ]
    assert good_and_bad(tmp_path, pairs) == ([pair.key for pair in pairs], Counter())


def test_a_split_in_memory_has_every_pixel_and_a_fingerprint(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    pairs = make_pairs(5)
    write_shards(tmp_path, "train", pairs, per_shard=2)
    held, again = load([tmp_path], 8), load([tmp_path], 8)
    assert np.array_equal(held.images[4].permute(1, 2, 0).numpy(), pairs[4].image)
    assert held.fingerprint == again.fingerprint
    assert held.fingerprint != load([tmp_path], 8, count=4).fingerprint
    assert load([tmp_path], 4).images.shape == (5, 3, 4, 4)


def test_keys_of_several_folders_stay_apart(tmp_path: Path, make_pairs: MakePairs) -> None:
    for name in ("a/shards", "b/shards"):
        write_shards(tmp_path / name, "train", make_pairs(2))
    held = load([tmp_path / "a/shards", tmp_path / "b/shards"], 8)
    assert held.keys == (
        "a/shards/pair0",
        "a/shards/pair1",
        "b/shards/pair0",
        "b/shards/pair1",
    )


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_shard_cut_anywhere_gives_no_wrong_pair_and_counts_what_is_lost(
    tmp_path: Path, make_pairs: MakePairs, with_manifest: bool
) -> None:
    pairs = make_pairs(6)
    write_shards(tmp_path, "train", pairs)
    if not with_manifest:
        (tmp_path / "manifest.json").unlink()
    path = tmp_path / "train-000000.tar"
    whole = path.read_bytes()
    content = len(whole.rstrip(b"\0"))
    points = {0, 1, 511, 512, 513, *range(512, content, 512)}
    for end in points | set(random.Random(0).sample(range(content), 40)):
        path.write_bytes(whole[:end])
        good, bad = good_and_bad(tmp_path, pairs)
        assert good == [pair.key for pair in pairs[: len(good)]]
        assert set(bad) <= {"broken shard"}
        assert sum(bad.values()) == (max(1, 6 - len(good)) if with_manifest else 1)


def test_a_cut_between_two_members_is_seen(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(3)
    path = tmp_path / "train-000000.tar"
    write_tar(path, files_of(pairs[:2]))
    path.write_bytes(without_end(path))
    write_tar(tmp_path / "train-000001.tar", files_of(pairs[2:]))
    assert good_and_bad(tmp_path, pairs) == (
        ["pair0", "pair1", "pair2"],
        Counter({"broken shard": 1}),
    )


def test_a_cut_shard_is_never_joined_to_the_next(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(2)
    image, text = files_of(pairs[:1])
    write_tar(tmp_path / "train-000000.tar", [image])
    write_tar(tmp_path / "train-000001.tar", [text, *files_of(pairs[1:])])
    assert good_and_bad(tmp_path, pairs) == (["pair1"], Counter({"no caption": 1, "no image": 1}))


def test_a_flipped_byte_in_any_header_is_counted(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(5)
    write_shards(tmp_path, "train", pairs)
    path = tmp_path / "train-000000.tar"
    with tarfile.open(path) as tar:
        headers = [member.offset for member in tar]
    whole = path.read_bytes()
    for header in headers:
        for byte in (0, 60, 124, 130, 156, 300):
            damaged = bytearray(whole)
            damaged[header + byte] ^= 0x15
            path.write_bytes(damaged)
            good, bad = good_and_bad(tmp_path, pairs)
            assert len(good) + bad["broken shard"] == 5 and len(good) < 5


def test_a_block_of_zeros_is_counted(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(5)
    path = tmp_path / "train-000000.tar"
    write_tar(path, files_of(pairs))
    with tarfile.open(path) as tar:
        header = tar.getmembers()[4].offset
    raw = bytearray(path.read_bytes())
    raw[header : header + 512] = bytes(512)
    path.write_bytes(raw)
    assert good_and_bad(tmp_path, pairs) == (["pair0", "pair1"], Counter({"broken shard": 1}))


def test_a_flipped_byte_in_a_caption_is_told_by_the_manifest(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    write_shards(tmp_path, "train", make_pairs(3))
    path = tmp_path / "train-000000.tar"
    path.write_bytes(path.read_bytes().replace(b"picture 1", b"picture 7"))
    assert load([tmp_path], 8).skipped == {"altered sample": 1}


def test_a_missing_shard_is_told_by_the_manifest(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(6)
    write_shards(tmp_path, "train", pairs, per_shard=2)
    (tmp_path / "train-000001.tar").unlink()
    good, bad = good_and_bad(tmp_path, pairs)
    assert (len(good), bad) == (4, Counter({"missing shard": 2}))


@pytest.mark.parametrize("raw", [b"", b"<html>404</html>" * 100, b"\x1f\x8b" + bytes(600)])
def test_a_shard_that_is_no_tar_is_counted(
    tmp_path: Path, make_pairs: MakePairs, raw: bytes
) -> None:
    pairs = make_pairs(2)
    write_tar(tmp_path / "train-000000.tar", files_of(pairs))
    (tmp_path / "train-000001.tar").write_bytes(raw)
    assert good_and_bad(tmp_path, pairs) == (["pair0", "pair1"], Counter({"broken shard": 1}))


def test_interleaved_files_find_their_pair(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(3)
    files = files_of(pairs)
    write_tar(tmp_path / "train-000000.tar", files[::2] + files[1::2])
    assert good_and_bad(tmp_path, pairs) == (["pair0", "pair1", "pair2"], Counter())


def test_a_key_that_comes_twice_is_not_guessed_at(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(3)
    files = files_of(pairs)
    write_tar(tmp_path / "train-000000.tar", [*files, ("pair1.txt", b"another text")])
    assert good_and_bad(tmp_path, pairs) == (["pair0", "pair2"], Counter({"key twice": 1}))
    write_tar(tmp_path / "train-000001.tar", files[:2])
    shards = open_shards(tmp_path, "train")
    assert (len(shards), shards.skipped) == (2, {"key twice": 2})


class Canary:
    """Pickled, it writes a file when anybody unpickles it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_other_members_are_left_alone_and_names_are_no_paths(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    pairs = make_pairs(2)
    canary = tmp_path / "canary"
    poison = pickle.dumps(Canary(str(canary)))
    folder = tmp_path / "shards"
    folder.mkdir()
    outside = Pair(key="../../etc/x", image=pairs[0].image, captions=("outside",))
    rooted = Pair(key=str(tmp_path / "rooted"), image=pairs[0].image, captions=("rooted",))
    extra = [(f"pair0.{suffix}", poison) for suffix in ("pyd", "pkl", "pickle", "pth", "npy")]
    write_tar(folder / "train-000000.tar", extra + files_of([*pairs, outside, rooted]))
    good, bad = good_and_bad(folder, [*pairs, outside, rooted])
    assert good == ["pair0", "pair1", outside.key, rooted.key] and not bad
    assert not canary.exists() and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_only_regular_files_are_read(tmp_path: Path, make_pairs: MakePairs, kind: bytes) -> None:
    pairs = make_pairs(1)
    path = tmp_path / "train-000000.tar"
    write_tar(path, [*files_of(pairs), ("link.txt", b"text")])
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = kind, "/etc/passwd"
    with tarfile.open(path, "a") as tar:
        tar.addfile(link)
    assert good_and_bad(tmp_path, pairs) == (["pair0"], Counter({"no image": 1}))


def header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("hostile.png")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
@pytest.mark.parametrize("size", [2**30, 2**60, -512, -1024])
def test_a_header_that_lies_about_its_size_ends_the_shard(
    tmp_path: Path, make_pairs: MakePairs, kind: bytes, size: int
) -> None:
    pairs = make_pairs(2)
    path = tmp_path / "train-000000.tar"
    write_tar(path, files_of(pairs[:1]))
    first = without_end(path)
    write_tar(path, files_of(pairs[1:]))
    path.write_bytes(first + header(kind, size) + path.read_bytes())
    assert good_and_bad(tmp_path, pairs) == (["pair0"], Counter({"broken shard": 1}))


def test_a_chain_of_long_names_ends_the_shard(tmp_path: Path) -> None:
    chain = (header(tarfile.GNUTYPE_LONGNAME, 1) + b"x" + bytes(511)) * 3_000
    (tmp_path / "train-000000.tar").write_bytes(chain)
    assert good_and_bad(tmp_path, []) == ([], Counter({"broken shard": 1}))


def test_a_damaged_sample_is_skipped_and_counted(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(3)
    files = files_of(pairs)
    files[2] = (files[2][0], files[2][1][:80])
    write_tar(tmp_path / "train-000000.tar", files)
    held = load([tmp_path], 8)
    assert held.keys == ("pair0", "pair2") and sum(held.skipped.values()) == 1


def test_too_many_damaged_samples_are_refused(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(20)
    write_tar(tmp_path / "train-000000.tar", [*files_of(pairs), ("a.txt", b"a"), ("b.txt", b"b")])
    with pytest.raises(
        ValueError, match="20 good pairs and too many bad ones, skipped: 2 no image"
    ):
        load([tmp_path], 8)
    assert len(open_source([tmp_path], "train", image_size=8, max_skipped=0.1)) == 20


def test_nothing_but_damage_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-000000.tar", [("a.txt", b"a dog")])
    with pytest.raises(ValueError, match="has no pair that can be read, skipped: 1 no image"):
        load([tmp_path], 8)


@pytest.mark.parametrize("source", ["pipe:touch canary", "https://example.org/a", "nowhere"])
def test_only_local_folders_are_opened(source: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{source} is not a local folder$"):
        load([source], 8)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no shards named"):
        load([tmp_path], 8)


def test_a_missing_split_is_refused_by_the_names_of_the_others(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    for split in ("train", "train-clean"):
        write_shards(tmp_path, split, make_pairs(1))
    with pytest.raises(FileNotFoundError, match="no split 'val', it has train, train-clean"):
        load([tmp_path], split="val")
    assert len(load([tmp_path], 8)) == 1


def test_folders_must_be_given_and_given_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder of shards"):
        load([], 8)
    with pytest.raises(ValueError, match="a folder is given twice"):
        load([tmp_path, tmp_path], 8)


def test_numbers_out_of_range_are_refused(tmp_path: Path, make_pairs: MakePairs) -> None:
    write_shards(tmp_path, "train", make_pairs(2))
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        load([tmp_path], 0)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        load([tmp_path], 8, count=0)
    with pytest.raises(ValueError, match="has 2 pairs, 3 were asked for"):
        load([tmp_path], 8, count=3)


def test_a_strange_manifest_is_refused(tmp_path: Path, make_pairs: MakePairs) -> None:
    write_shards(tmp_path, "train", make_pairs(1))
    for text in ("{", "[]", '{"shards": {"a": {"samples": "2"}}}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match="is not a manifest of shards"):
            load([tmp_path], 8)
