"""What a tar that is read as it comes promises: right pairs, and every loss counted."""

import io
import random
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from data import Damaged, Pair, StoredPair, encode_image, write_shards
from data.images import MAX_IMAGE_BYTES
from data.tar_stream import BROKEN, ForwardFile, pairs_in_stream
from data.tars import pairs_in_tar

MakePairs = Callable[[int], list[Pair]]


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def read(raw: bytes) -> tuple[dict[str, tuple[str, ...]], Counter[str]]:
    """Read a shard: the captions by key, and the losses by reason."""
    good, bad = {}, Counter[str]()
    for sample in pairs_in_stream(io.BytesIO(raw), "shard"):
        if isinstance(sample, Damaged):
            bad[sample.reason] += 1
        else:
            assert sample.key not in good
            assert sample.image == f"image of {sample.key}".encode()
            assert sample.captions == (f"caption of {sample.key}",)
            good[sample.key] = sample.captions
    return good, bad


def both(key: str) -> list[tuple[str, bytes]]:
    return [image(key), text(key)]


def image(key: str, suffix: str = "png") -> tuple[str, bytes]:
    return f"{key}.{suffix}", f"image of {key}".encode()


def text(key: str) -> tuple[str, bytes]:
    return f"{key}.txt", f"caption of {key}".encode()


def test_what_is_written_is_read_in_its_order(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(7)
    write_shards(tmp_path, "train", pairs)
    path = tmp_path / "train-000000.tar"
    with path.open("rb") as file:
        streamed = list(pairs_in_stream(file, "shard"))
    assert streamed == list(pairs_in_tar(path))
    assert [x.image for x in streamed] == [encode_image(x.image) for x in pairs]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("files", "good", "bad"),
    [
        ([image("a"), image("b"), text("a"), text("b")], "", {"no caption": 2, "key twice": 2}),
        ([image("a"), *both("b"), text("a")], "b", {"no caption": 1, "key twice": 1}),
        ([*both("a"), *both("b"), *both("a")], "ab", {"key twice": 1}),
        ([*both("a"), *both("a"), *both("b")], "b", {"key twice": 1}),
        ([*both("a"), ("b.txt", b"half"), *both("c")], "ac", {"no image": 1}),
        ([*both("a"), image("b"), *both("c"), image("d")], "ac", {"no caption": 2}),
        ([*both("a"), image("a", "jpg"), *both("b")], "b", {"two images": 1}),
        ([image("a"), ("a.pkl", b"pickle"), ("b.npy", b"array"), text("a")], "a", {}),
        ([image("a"), ("a.txt", b"\xff")], "", {"caption not UTF-8": 1}),
        ([*both("x" * 2000)], "", {"key too long": 1}),
        ([], "", {}),
    ],
)
def test_only_files_of_one_key_that_follow_each_other_make_a_pair(
    files: list[tuple[str, bytes]], good: str, bad: dict[str, int]
) -> None:
    assert read(tar_of(files)) == ({key: (f"caption of {key}",) for key in good}, Counter(bad))


def test_nothing_is_joined_across_shards() -> None:
    first, second = tar_of([*both("a"), image("b")]), tar_of([text("b"), *both("c")])
    cut = first[: len(both("a")) * 1024 + 512 + 6]
    assert read(cut) == ({"a": ("caption of a",)}, Counter({BROKEN: 1}))
    assert read(second) == ({"c": ("caption of c",)}, Counter({"no image": 1}))


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_shard_gives_right_pairs_and_a_count_of_what_is_lost(seed: int) -> None:
    """A cut, a byte of a header, a lost block, garbage between: not bytes inside of files."""
    keys = [f"key{number}" for number in range(6)]
    whole = tar_of([file for key in keys for file in both(key)])
    draw = random.Random(seed)
    for _ in range(100):
        raw, kind = bytearray(whole), draw.randrange(4)
        header = damaged_at = draw.randrange(2 * len(keys)) * 1024
        if kind == 0:
            damaged_at = draw.randrange(2 * len(keys) * 1024)
            del raw[damaged_at:]
        elif kind == 1:
            raw[header + draw.randrange(148)] ^= 1 << draw.randrange(8)
        elif kind == 2:
            raw[header : header + 512] = bytes(512)
        else:
            raw[header:header] = draw.randbytes(draw.randrange(1, 900))
        good, bad = read(bytes(raw))
        assert bad and list(good) == keys[: len(good)] and len(good) >= damaged_at // 2048


@pytest.mark.parametrize(
    "ending",
    [b"", bytes(300), b"garbage" * 100, bytes(1024) + b"garbage", bytes(1024) + b"x" * 9000],
    ids=["no end", "half an end", "garbage", "garbage after the end", "more of it"],
)
def test_a_tar_that_does_not_end_as_a_tar_ends_is_broken(ending: bytes) -> None:
    members = tar_of(both("a"))[:2048]
    assert read(members + ending) == ({"a": ("caption of a",)}, Counter({BROKEN: 1}))
    assert read(members + bytes(1024)) == ({"a": ("caption of a",)}, Counter())


@pytest.mark.parametrize("raw", [b"", b"<html>Not found</html>", b"x" * 5000])
def test_what_is_no_tar_is_a_broken_shard(raw: bytes) -> None:
    assert read(raw) == ({}, Counter({BROKEN: 1}))


class _Stream:
    """Gives a few bytes at a time, and fails in the end."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.asked = raw, 0

    def read(self, size: int, /) -> bytes:
        self.asked = max(self.asked, size)
        if not self.raw:
            raise ConnectionResetError
        given, self.raw = self.raw[: min(size, 7)], self.raw[7:]
        return given

    def close(self) -> None: ...


def test_a_connection_that_is_lost_loses_the_rest_of_its_shard() -> None:
    found = list(pairs_in_stream(_Stream(tar_of([*both("a"), *both("b")])[:3000]), "shard"))
    assert [getattr(sample, "reason", sample.key) for sample in found] == ["a", BROKEN]


def test_a_header_that_asks_for_a_gigabyte_is_not_believed() -> None:
    info = tarfile.TarInfo("a.png")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**30
    zeros = _Endless(info.tobuf())
    assert [x.reason for x in pairs_in_stream(zeros, "shard")] == [BROKEN]  # type: ignore[union-attr]
    assert zeros.given < 2**20


class _Endless:
    """Some bytes, then zeros without end."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.given = raw, 0

    def read(self, size: int, /) -> bytes:
        given, self.raw = self.raw[:size] or bytes(size), self.raw[size:]
        self.given += len(given)
        return given

    def close(self) -> None: ...


def test_zeros_without_end_are_no_end() -> None:
    zeros = _Endless(tar_of(both("a")))
    assert [getattr(x, "reason", x.key) for x in pairs_in_stream(zeros, "shard")] == ["a", BROKEN]


def test_of_a_file_that_is_too_long_no_more_is_held_than_shows_it() -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 2 * MAX_IMAGE_BYTES
    raw = tar_of([("a.txt", b"caption")])[:1024] + info.tobuf()
    (pair, broken) = pairs_in_stream(_Endless(raw), "shard")
    assert isinstance(pair, StoredPair) and len(pair.image) == MAX_IMAGE_BYTES + 1
    assert isinstance(broken, Damaged)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_only_regular_files_are_read(kind: bytes) -> None:
    info = tarfile.TarInfo("a.png")
    info.type, info.linkname = kind, "/etc/passwd"
    assert read(info.tobuf() + tar_of([text("a"), *both("b")])) == (
        {"b": ("caption of b",)},
        Counter({"no image": 1}),
    )


def test_a_stream_skips_and_never_goes_back() -> None:
    file = ForwardFile(io.BytesIO(bytes(range(100))))
    assert file.read_at(7, 2) == b"\7\x08" and file.read_at(98, 9) == b"bc"
    assert file.read_at(200, 1) == b""
    with pytest.raises(ValueError, match="cannot go back from 100 to 5"):
        file.read_at(5, 1)
