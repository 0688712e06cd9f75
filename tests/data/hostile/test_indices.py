"""Indices made to do harm name no wrong pair."""

import io
import json
import struct
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from data import (
    Damaged,
    Pair,
    decoded,
    open_shards,
    write_shards,
)
from data.member_index import row_type
from tests.data.hostile.poison import IMAGE, POISON, array_of_objects

PAIRS = [Pair(key=key, image=IMAGE, captions=(f"a {key}",)) for key in ("ant", "bee", "cat")]


def rows_of(folder: Path) -> np.ndarray:
    return np.load(folder / "train-000000.index.npy")


def changed(rows: np.ndarray, field: str, value: object) -> np.ndarray:
    rows = rows.copy()
    rows[field][1] = value
    return rows


def file_of(rows: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=True)
    return file.getvalue()


def header_of(text: bytes) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


DESCRIPTION = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}"
NO_INDEX, ALTERED = "is not an index of a shard", {"altered sample": 1}
INDICES: dict[str, tuple[Callable[[np.ndarray], bytes], str | dict[str, int]]] = {
    "pickled objects": (lambda rows: array_of_objects(), NO_INDEX),
    "a pickle": (lambda rows: POISON, NO_INDEX),
    "a zip": (lambda rows: b"PK\3\4" + bytes(99), NO_INDEX),
    "nothing": (lambda rows: b"", NO_INDEX),
    "a header alone": (lambda rows: file_of(rows)[:128], NO_INDEX),
    "cut": (lambda rows: file_of(rows)[:-9], NO_INDEX),
    "a list": (lambda rows: file_of(np.arange(3)), NO_INDEX),
    "of two axes": (lambda rows: file_of(rows[None]), NO_INDEX),
    "of no axis": (lambda rows: file_of(rows[0]), NO_INDEX),
    "a field less": (lambda rows: file_of(rows[[*rows.dtype.names[:-1]]].copy()), NO_INDEX),
    "a field more": (
        lambda rows: file_of(np.zeros(3, [*rows.dtype.descr, ("path", "S99")])),
        NO_INDEX,
    ),
    "signed places": (
        lambda rows: file_of(
            rows.astype([(n, k.replace("<u8", "<i8")) for n, k in rows.dtype.descr])
        ),
        NO_INDEX,
    ),
    "the other byte order": (
        lambda rows: file_of(rows.astype(rows.dtype.newbyteorder())),
        NO_INDEX,
    ),
    "a billion rows": (
        lambda rows: file_of(rows).replace(b"(3,)", b"(9" + b"9" * 8 + b",)", 1),
        NO_INDEX,
    ),
    "rows below nothing": (lambda rows: file_of(rows).replace(b"(3,)", b"(-3,)", 1), NO_INDEX),
    "a shape that is a call": (
        lambda rows: header_of(DESCRIPTION.replace(b"(3,)", b"open('canary','w')")),
        NO_INDEX,
    ),
    "a kind that is an object": (
        lambda rows: header_of(DESCRIPTION.replace(b"<f8", b"|O")),
        NO_INDEX,
    ),
    "a header in brackets": (lambda rows: header_of(b"(" * 9_000), NO_INDEX),
    "a header of minus signs": (lambda rows: header_of(b"-" * 9_000 + b"1"), NO_INDEX),
    "a header of 4 GB": (lambda rows: b"\x93NUMPY\2\0\xff\xff\xff\xff", NO_INDEX),
    "keys of 1 MB": (
        lambda rows: file_of(rows.astype(row_type(2**20))),
        NO_INDEX,
    ),
    "two rows of three": (lambda rows: file_of(rows[:2]), "has 2 pairs, its manifest says 3"),
    "a file of 4 GB": (lambda rows: file_of(changed(rows, "image_size", 2**32 - 1)), NO_INDEX),
    "captions of 4 GB": (lambda rows: file_of(changed(rows, "captions_size", 2**32 - 1)), NO_INDEX),
    "a place past all files": (
        lambda rows: file_of(changed(rows, "image_start", 2**64 - 1)),
        NO_INDEX,
    ),
    "a place past the tar": (lambda rows: file_of(changed(rows, "image_start", 2**40)), ALTERED),
    "another sample's image": (
        lambda rows: file_of(changed(rows, "image_start", rows["image_start"][0] + 512)),
        ALTERED,
    ),
    "another sample's captions": (
        lambda rows: file_of(changed(rows, "captions_start", rows["captions_start"][0])),
        ALTERED,
    ),
    "a part of the captions": (lambda rows: file_of(changed(rows, "captions_size", 3)), ALTERED),
    "another checksum": (lambda rows: file_of(changed(rows, "crc", 7)), ALTERED),
    "a key that is not UTF-8": (lambda rows: file_of(changed(rows, "key", b"\xff\xfe")), {}),
    "a key with a zero": (lambda rows: file_of(changed(rows, "key", b"a\0b")), {}),
    "a key that climbs": (lambda rows: file_of(changed(rows, "key", b"../a")), {}),
}


@pytest.mark.parametrize("name", INDICES)
def test_a_hostile_index_names_no_wrong_pair(folder: Path, name: str) -> None:
    write_shards(folder, "train", PAIRS)
    make, outcome = INDICES[name]
    raw = make(rows_of(folder))
    (folder / "train-000000.index.npy").write_bytes(raw)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"]["train-000000.tar"]["index_sha256"] = sha256(raw).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shards = open_shards(folder, "train")
    if isinstance(outcome, str):
        with pytest.raises(ValueError, match=outcome):
            shards.read(1)
        return
    read = [decoded(shards.read(index)) for index in range(3)]
    assert Counter(each.reason for each in read if isinstance(each, Damaged)) == outcome
    for each, right in zip(read, PAIRS, strict=True):
        assert isinstance(each, Damaged) or each.captions == right.captions
    assert shards.where(1)[0] == "train-000000.tar"


def test_an_index_of_another_shard_is_not_taken(folder: Path) -> None:
    write_shards(folder, "train", PAIRS)
    (folder / "train-000000.index.npy").write_bytes(file_of(rows_of(folder)[::-1].copy()))
    with pytest.raises(ValueError, match="is not the index that its manifest names"):
        open_shards(folder, "train").read(0)


def test_without_a_manifest_an_index_is_not_read(folder: Path) -> None:
    write_shards(folder, "train", PAIRS)
    (folder / "manifest.json").unlink()
    (folder / "train-000000.index.npy").write_bytes(POISON)
    shards = open_shards(folder, "train")
    assert [shards.read(index).captions for index in range(3)] == [p.captions for p in PAIRS]
