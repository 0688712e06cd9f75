"""Tables made to do harm give pairs from inside their folder, or a line."""

import os
from pathlib import Path
from typing import Any

import pytest

from data import (
    Damaged,
    decoded,
    pairs_from_table,
)
from tests.data.hostile.poison import DEEP, PNG, POISON

TABLES: dict[str, tuple[str, bytes, str | list[str]]] = {
    "nothing in CSV": ("csv", b"", "has no column 'image'"),
    "a zero in CSV": ("csv", b"image,caption\na.png,\0\n", ["no caption"]),
    "a cell of 1 MB": ("csv", b"image,caption\na.png," + b"x" * 10**6, "cannot be read after 0"),
    "too few cells": ("csv", b"image,caption\na.png\n", ["no caption"]),
    "too many cells": ("csv", b"image,caption\na.png,a,b,c\n", ["good"]),
    "a column twice": ("csv", b"image,caption,image\nb.png,a,a.png\n", ["good"]),
    "a quote without end": ("csv", b'image,caption\n"a', "cannot be read after 0"),
    "16 MB of one line": ("csv", b"image,caption\n" + b"," * 2**24, "has a line of 16777216"),
    "a formula": ("csv", b"image,caption\na.png,=cmd|' /C calc'!A0\n", ["good"]),
    "an absolute path": ("csv", b"image,caption\n/etc/hostname,a\n", ["image outside the folder"]),
    "a path that climbs": ("csv", b"image,caption\n../a.png,a\n", ["image outside the folder"]),
    "a path of 10,000 letters": ("csv", b"image,caption\n" + b"a" * 10_000 + b",a\n", ["no image"]),
    "a link that leads out": ("csv", b"image,caption\nlink.png,a\n", ["image outside the folder"]),
    "links in a circle": ("csv", b"image,caption\ncircle.png,a\n", ["no image"]),
    "a pipe": ("csv", b"image,caption\npipe.png,a\n", ["no image"]),
    "the folder itself": ("csv", b"image,caption\n.,a\n", ["no image"]),
    "lists in lists": ("jsonl", b'{"image": "a.png", "caption": ' + DEEP + b"}", "cannot be read"),
    "5,000 digits": ("jsonl", b'{"image": 1, "caption": ' + b"1" * 5_000 + b"}", "cannot be read"),
    "half a surrogate in a path": ("jsonl", b'{"image": "\\ud800", "caption": "a"}', ["no image"]),
    "half a surrogate": (
        "jsonl",
        b'{"image": "a.png", "caption": "\\ud800"}',
        ["caption not UTF-8"],
    ),
    "a caption of 2 MB": (
        "jsonl",
        b'{"image": "a.png", "caption": "' + b"x" * 2**21 + b'"}',
        ["caption too long"],
    ),
    "an object for a path": ("jsonl", b'{"image": {"path": 7}, "caption": "a"}', ["no image"]),
    "a path in an object": ("jsonl", b'{"image": {"path": "a.png"}, "caption": "a"}', ["good"]),
    "lists for captions": (
        "jsonl",
        b'{"image": "a.png", "caption": [["a"]]}',
        ["caption not text"],
    ),
    "not a number": ("jsonl", b'{"image": "a.png", "caption": NaN}', ["caption not text"]),
    "16 MB of one object": ("jsonl", b'{"image": "' + b"a" * 2**24, "has a line of 16777216"),
    "nothing in Parquet": ("parquet", b"", "cannot be read"),
    "Parquet of a signature": ("parquet", b"PAR1PAR1", "cannot be read"),
    "Parquet with a footer of 4 GB": ("parquet", b"PAR1\xff\xff\xff\xffPAR1", "cannot be read"),
    "a pickle as Parquet": ("parquet", POISON, "cannot be read"),
}


@pytest.fixture
def pictures(folder: Path) -> Path:
    (folder / "a.png").write_bytes(PNG)
    (folder / "link.png").symlink_to("/etc/hostname")
    (folder / "circle.png").symlink_to("circle.png")
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.parametrize("name", TABLES)
def test_a_hostile_table_gives_pairs_or_a_line(pictures: Path, name: str) -> None:
    kind, raw, outcome = TABLES[name]
    path = pictures / f"table.{kind}"
    path.write_bytes(raw)
    if isinstance(outcome, str):
        with pytest.raises(ValueError, match=outcome) as refused:
            list(pairs_from_table(path, "image", ("caption",)))
        assert "\n" not in str(refused.value)
    else:
        assert told(pairs_from_table(path, "image", ("caption",))) == outcome


def told(samples: Any) -> list[str]:
    return [each.reason if isinstance(each, Damaged) else "good" for each in map(decoded, samples)]
