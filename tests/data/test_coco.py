"""COCO's caption files, in both of their forms, give every image all its captions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import Damaged, Pair, decoded, encode_image, pairs_from_coco

COCO = {
    "images": [{"id": 7, "file_name": "val/a.png"}, {"id": 3, "file_name": "val/b.png"}],
    "annotations": [
        {"image_id": 3, "caption": "a second one"},
        {"image_id": 7, "caption": "one"},
        {"image_id": 3, "caption": "again"},
    ],
}
KARPATHY = {
    "images": [
        {"filepath": "val", "filename": "a.png", "split": "test", "sentences": [{"raw": "one"}]},
        {"filename": "val/b.png", "split": "train", "sentences": [{"raw": "x"}, {"raw": "y"}]},
    ]
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "val").mkdir()
    for name, level in (("a", 9), ("b", 99)):
        image = np.full((4, 4, 3), level, np.uint8)
        (tmp_path / f"val/{name}.png").write_bytes(encode_image(image))
    return tmp_path


def read(folder: Path, content: Any, split: str = "train") -> list[Pair | Damaged]:
    (folder / "captions.json").write_text(json.dumps(content))
    return list(map(decoded, pairs_from_coco(folder / "captions.json", folder, split)))


def told(pairs: list[Pair | Damaged]) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(p.key, int(p.image[0, 0, 0]), p.captions) for p in pairs if isinstance(p, Pair)]


def test_captions_go_to_the_image_that_they_name(folder: Path) -> None:
    assert told(read(folder, COCO)) == [
        ("val/a.png", 9, ("one",)),
        ("val/b.png", 99, ("a second one", "again")),
    ]


def test_a_split_of_karpathys_is_the_one_asked_for(folder: Path) -> None:
    assert told(read(folder, KARPATHY, "test")) == [("val/a.png", 9, ("one",))]
    assert told(read(folder, KARPATHY, "train")) == [("val/b.png", 99, ("x", "y"))]


def test_an_image_without_captions_or_file_is_damaged(folder: Path) -> None:
    without = {**COCO, "annotations": COCO["annotations"][::2]}
    assert Damaged(key="val/a.png", reason="no caption") in read(folder, without)
    (folder / "val/b.png").unlink()
    assert Damaged(key="val/b.png", reason="no image") in read(folder, COCO)
    outside = {**COCO, "images": [{"id": 7, "file_name": "../a"}, {"id": 3, "file_name": "b"}]}
    assert Damaged(key="../a", reason="image outside the folder") in read(folder, outside)


@pytest.mark.parametrize(
    "content",
    [[], 7, {}, {"images": 7}, {"images": [{}]}, {"images": [7]}],
)
def test_what_is_no_caption_file_is_refused(folder: Path, content: Any) -> None:
    with pytest.raises(ValueError, match=r"captions\.json is no COCO caption file"):
        read(folder, content)


def test_a_caption_that_points_at_no_image_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"has a caption of image 3, which it does not list$"):
        read(folder, {**COCO, "images": COCO["images"][:1]})


def test_a_split_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no image of the split 'val'"):
        read(folder, KARPATHY, "val")
