"""Tables of every kind give the pairs that stand in them, and nothing else."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import Damaged, Pair, decoded, encode_image, pairs_from_table

IMAGES = [np.full((8, 6, 3), level, np.uint8) for level in (10, 200)]
TEXTS = [("a cat", "a cat, asleep"), ("007", "null")]
"""The last two look like a number and a gap."""


def write_paths(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A table of an image's path and two captions, of the kind that the file's ending names."""
    fields = ("file", "short", "long")
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(fields, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".parquet":
        write_parquet(path, dict(zip(fields, map(list, zip(*rows, strict=True)), strict=True)))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writerows([fields, *rows])
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    from pyarrow import parquet, table

    parquet.write_table(table(columns), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number, image in enumerate(IMAGES):
        (tmp_path / f"images/{number}.png").write_bytes(encode_image(image))
    return tmp_path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_gives_the_same_pairs(folder: Path, ending: str) -> None:
    rows = [(f"images/{number}.png", *texts) for number, texts in enumerate(TEXTS)]
    table = write_paths(folder / f"pairs.{ending}", rows)
    pairs = list(map(decoded, pairs_from_table(table, "file", ("short", "long"))))
    assert [pair.key for pair in pairs] == ["00000000", "00000001"]
    for pair, image, texts in zip(pairs, IMAGES, TEXTS, strict=True):
        assert isinstance(pair, Pair) and pair.captions == texts
        assert np.array_equal(pair.image, image)


def test_images_may_lie_in_the_table_as_hugging_face_stores_them(tmp_path: Path) -> None:
    cells = [{"bytes": encode_image(image), "path": None} for image in IMAGES]
    table = tmp_path / "pairs.parquet"
    write_parquet(table, {"image": cells, "captions": [list(texts) for texts in TEXTS]})
    pairs = list(map(decoded, pairs_from_table(table, "image", ("captions",))))
    assert [pair.captions for pair in pairs if isinstance(pair, Pair)] == TEXTS


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "images/none.png", "caption": "a"}, "no image"),
        ({"image": None, "caption": "a"}, "no image"),
        ({"image": 7, "caption": "a"}, "no image"),
        ({"image": "images/0.png\0", "caption": "a"}, "no image"),
        ({"image": "../secret.png", "caption": "a"}, "image outside the folder"),
        ({"image": "/etc/hostname", "caption": "a"}, "image outside the folder"),
        ({"image": "pairs.jsonl", "caption": "a"}, "not an image"),
        ({"image": "images/0.png", "caption": None}, "no caption"),
        ({"image": "images/0.png", "caption": " \n"}, "no caption"),
        ({"image": "images/0.png", "caption": 7}, "caption not text"),
        ({"image": "images/0.png", "caption": ["a", ["b"]]}, "caption not text"),
        ({"image": "images/0.png", "caption": "a" * 2_001}, "caption too long"),
    ],
)
def test_a_bad_row_is_damaged_and_the_next_one_good(
    folder: Path, row: dict[str, Any], reason: str
) -> None:
    table = folder / "pairs.jsonl"
    good = {"image": "images/1.png", "caption": "b"}
    table.write_text(f"{json.dumps(row)}\n{json.dumps(good)}\n")
    first, second = map(decoded, pairs_from_table(table, "image", ("caption",)))
    assert first == Damaged(key="00000000", reason=reason)
    assert isinstance(second, Pair) and second.captions == ("b",)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.csv", b"file,text\na,b\n", r"has no column 'image', it has file, text"),
        ("t.csv", b"image,caption\n\xff,b\n", "cannot be read after 0 rows"),
        ("t.csv", b'image,caption\n"a,b\n', "cannot be read after 0 rows"),
        ("t.jsonl", b'{"image": "a", "caption": "b"}\n{', "cannot be read after 1 rows"),
        ("t.jsonl", b"[1]\n", "has no object in row 0"),
        ("t.parquet", b"PAR1 nothing", "cannot be read"),
        ("t.xlsx", b"", r"a table ends in \.csv, \.tsv, \.jsonl, \.parquet, got .*t\.xlsx"),
    ],
)
def test_a_table_that_is_none_is_refused(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as refused:
        list(pairs_from_table(tmp_path / name, "image", ("caption",)))
    assert "\n" not in str(refused.value)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no table .*none\.csv"):
        pairs_from_table(tmp_path / "none.csv", "image", ("caption",))
