"""Tars made to do harm give the regular files that are in them, under names that are no paths."""

import gzip
import io
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from data import Damaged, Pair, StoredPair, decoded, open_shards
from data.manifest import read_manifest
from data.tar_stream import pairs_in_stream
from data.tars import pairs_in_tar
from tests.data.hostile.poison import IMAGE, PNG, POISON, array_of_objects


def member(
    name: str, content: bytes = b"", form: int = tarfile.USTAR_FORMAT, **fields: object
) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(form) + padded(content)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pair(key: str, form: int = tarfile.USTAR_FORMAT) -> bytes:
    return member(f"{key}.png", PNG, form) + member(f"{key}.txt", b"a caption", form)


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return member("pax", records, type=kind)


def record(name: str, value: str | bytes) -> bytes:
    text = f" {name}=".encode() + (value.encode() if isinstance(value, str) else value) + b"\n"
    size = len(text) + 1
    while len(str(size)) + len(text) != size:
        size += 1
    return str(size).encode() + text


def with_number(block: bytes, start: int, field: bytes) -> bytes:
    """Write a field of a header and sum it up again."""
    raw = bytearray(block)
    raw[start : start + len(field)] = field
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


def sized(field: bytes) -> bytes:
    """A file whose header gives its size like this."""
    return with_number(member("x.png"), 124, field)


def old_sparse(is_continued: bool = False) -> bytes:
    block = with_number(member("x.png", type=tarfile.GNUTYPE_SPARSE), 482, bytes([is_continued]))
    return block + bytes(512 * is_continued)


END = bytes(1024)
GOOD, BROKEN = (["ant", "bee"], {}), (["ant"], {"broken shard": 1})
TARS: dict[str, tuple[Callable[[], bytes], tuple[list[str], dict[str, int]]]] = {
    # names, which are no paths
    "a key that climbs": (lambda: pair("../../canary"), (["ant", "../../canary", "bee"], {})),
    "a key from the root": (lambda: pair("/tmp/canary"), (["ant", "/tmp/canary", "bee"], {})),
    "a key with a line end": (lambda: pair("a\nb\r\x1b[2J"), (["ant", "a\nb\r\x1b[2J", "bee"], {})),
    "a key of dots": (lambda: pair("....."), (["ant", ".....", "bee"], {})),
    "a key of nothing": (lambda: pair(""), GOOD),
    "a key that is not UTF-8": (
        lambda: pair("a\udcff"),
        (["ant", "a\\udcff", "bee"], {}),
    ),
    "a key of 10,000 characters": (
        lambda: pair("k" * 10_000, tarfile.GNU_FORMAT),
        (["ant", "bee"], {"key too long": 1}),
    ),
    "a key of 10,000 characters in PAX": (
        lambda: pair("k" * 10_000, tarfile.PAX_FORMAT),
        (["ant", "bee"], {"key too long": 1}),
    ),
    "a key that ends in a zero": (
        lambda: pax(record("path", "ant\0.png")) + member("x.png", PNG),
        GOOD,
    ),
    "a key that is the shard's": (
        lambda: member("train-000000.tar.png", PNG),
        (["ant", "bee"], {"no caption": 1}),
    ),
    # what is no file
    **{
        f"a {name}": (
            lambda kind=kind: (
                member("x.png", type=kind, linkname="/etc/passwd") + member("x.txt", b"text")
            ),
            (["ant", "bee"], {"no image": 1}),
        )
        for name, kind in (
            ("symbolic link", tarfile.SYMTYPE),
            ("hard link", tarfile.LNKTYPE),
            ("device", tarfile.CHRTYPE),
            ("block device", tarfile.BLKTYPE),
            ("folder", tarfile.DIRTYPE),
            ("pipe", tarfile.FIFOTYPE),
        )
    },
    "a link to a caption": (
        lambda: (
            member("x.png", PNG) + member("x.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        ),
        (["ant", "bee"], {"no caption": 1}),
    ),
    "a file of an unknown kind": (lambda: member("x.png", PNG, type=b"Z"), GOOD),
    "pickles": (
        lambda: b"".join(member(f"ant.{s}", POISON) for s in ("pyd", "pkl", "pickle", "pth", "pt")),
        GOOD,
    ),
    "an array of objects": (lambda: member("ant.npy", array_of_objects()), GOOD),
    "a pickle as an image": (
        lambda: member("x.jpg", POISON) + member("x.txt", b"text"),
        (["ant", "bee"], {"not an image": 1}),
    ),
    "a pickle as a label": (
        lambda: pair("x") + member("x.cls", POISON),
        (["ant", "bee"], {"label not UTF-8": 1}),
    ),
    "an old sparse file": (old_sparse, GOOD),
    "an old sparse file of two blocks": (lambda: old_sparse(True), GOOD),
    "an old sparse file without end": (
        lambda: old_sparse(True)[:512] + b"\1" * 2**20,
        BROKEN,
    ),
    "a PAX sparse file": (
        lambda: (
            pax(record("GNU.sparse.major", "1") + record("GNU.sparse.realsize", "9" * 18))
            + member("x.png", b"99999999\n" * 99)
        ),
        GOOD,
    ),
    # sizes
    "a size of 4 GB": (lambda: sized(b"40000000000\0"), BROKEN),
    "a size of 8 GB": (lambda: sized(b"777777777777"), BROKEN),
    "a negative size": (lambda: sized(b"-0000001000\0"), BROKEN),
    "a size that is no number": (lambda: sized(b"0x00000200\0 "), BROKEN),
    "a size in 11 bytes": (lambda: sized(b"\x80" + b"\xff" * 11), BROKEN),
    "a size below nothing in 11 bytes": (lambda: sized(b"\xff" * 10 + b"\xfe\0"), BROKEN),
    "a size of nothing in 11 bytes": (
        lambda: sized(b"\x80" + bytes(11)),
        (["ant", "bee"], {"no caption": 1}),
    ),
    "a PAX size of 1 EB": (lambda: pax(record("size", "9" * 18)) + member("x.png", PNG), BROKEN),
    "a PAX size below nothing": (lambda: pax(record("size", "-512")) + member("x.png"), BROKEN),
    "a PAX size of a million digits": (
        lambda: pax(record("size", "9" * 10**6)) + member("x.png"),
        BROKEN,
    ),
    "a PAX size that hides the next": (
        lambda: pax(record("size", str(len(pair("bee"))))) + member("x.png"),
        (["ant"], {"no caption": 1}),
    ),
    # headers before headers
    "a PAX header of 1 GB": (lambda: with_number(pax(b""), 124, b"10000000000\0"), BROKEN),
    "a long name of 1 GB": (
        lambda: with_number(pax(b"", tarfile.GNUTYPE_LONGNAME), 124, b"10000000000\0"),
        BROKEN,
    ),
    "PAX of digits": (lambda: pax(b"1" * 2**20), BROKEN),
    "PAX of a charset without end": (lambda: pax(b"9 hdrcharset=" * 70_000), BROKEN),
    "PAX without a line end": (lambda: pax(b"11 path=a.b"), BROKEN),
    "PAX of no length": (lambda: pax(b"0 path=a\n"), BROKEN),
    "PAX longer than itself": (lambda: pax(b"99 path=a\n"), BROKEN),
    "PAX without a name": (lambda: pax(b"5 =a\n"), BROKEN),
    "PAX of 100,000 records": (lambda: pax(b"6 a=b\n" * 99_999), GOOD),
    "PAX that renames": (
        lambda: pax(record("path", "../x.txt")) + member("y.png", b"text"),
        (["ant", "bee"], {"no image": 1}),
    ),
    "PAX that renames to nothing": (lambda: pax(record("path", "")) + member("x.png", PNG), GOOD),
    "PAX that renames all": (
        lambda: pax(record("path", "x.png"), tarfile.XGLTYPE),
        (["ant"], {"key twice": 1}),
    ),
    "40,000 sparse names for all": (
        lambda: (
            pax(b"".join(record(f"GNU.sparse.{n}", "") for n in range(40_000)), tarfile.XGLTYPE)
            + member("x.png", PNG) * 999
        ),
        (["ant"], {}),
    ),
    "a comment for all": (lambda: pax(record("comment", "x" * 999), tarfile.XGLTYPE), GOOD),
    "a thousand long names": (
        lambda: member("n", b"x.png\0", type=tarfile.GNUTYPE_LONGNAME) * 1_000,
        (["ant"], {"no image": 1, "no caption": 1}),
    ),
    "a thousand long links": (
        lambda: member("n", b"x.png\0", type=tarfile.GNUTYPE_LONGLINK) * 1_000,
        GOOD,
    ),
    "5,000 files": (lambda: member("x.bin") * 5_000, GOOD),
    # what comes after
    "an end in the middle": (lambda: END, BROKEN),
    "zeros in the middle": (lambda: bytes(512), BROKEN),
    "text in the middle": (lambda: b"<html>" * 99, BROKEN),
    "a wrong checksum": (lambda: b"y" + member("x.bin")[1:], BROKEN),
}


@pytest.mark.parametrize("name", TARS)
def test_a_hostile_tar_gives_the_files_that_it_has(folder: Path, name: str) -> None:
    make, outcome = TARS[name]
    path = folder / "train-000000.tar"
    path.write_bytes(pair("ant") + make() + pair("bee") + END)
    assert counted(pairs_in_tar(path)) == outcome
    with path.open("rb") as file:
        assert counted(pairs_in_stream(file, "shard")) == outcome
    shards = open_shards(folder, "train")
    read = [decoded(shards.read(index)) for index in range(len(shards))]
    assert [each.key for each in read if isinstance(each, Pair)] == outcome[0]


def counted(samples: Iterable[StoredPair | Damaged]) -> tuple[list[str], dict[str, int]]:
    read = list(map(decoded, samples))
    good = [each for each in read if isinstance(each, Pair)]
    assert all(np.array_equal(each.image, IMAGE) for each in good)
    lost = Counter(each.reason for each in read if isinstance(each, Damaged))
    return [each.key for each in good], dict(lost)


@pytest.mark.parametrize(
    "raw",
    [
        gzip.compress(bytes(10**8)),
        b"",
        bytes(511),
        b"\x1f\x8b",
        b"<html>" * 999,
        PNG,
        POISON,
        b"\xff" * 10_240,
        b"x" * 511,
    ],
)
def test_what_is_no_tar_is_broken(folder: Path, raw: bytes) -> None:
    (folder / "train-000000.tar").write_bytes(raw)
    assert counted(pairs_in_tar(folder / "train-000000.tar")) == ([], {"broken shard": 1})
    assert counted(pairs_in_stream(io.BytesIO(raw), "shard")) == ([], {"broken shard": 1})
    with pytest.raises(ValueError, match="has no pair that can be read"):
        open_shards(folder, "train")


def test_a_shard_may_be_a_pipe_or_a_folder_and_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "train-000000.tar")
    with pytest.raises(FileNotFoundError, match=r"train-000000\.tar is missing"):
        open_shards(folder, "train")
    os.mkfifo(folder / "manifest.json")
    assert read_manifest(folder) == {"shards": {}, "splits": {}}
