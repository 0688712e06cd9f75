"""Caption files made to do harm give pairs from inside their folder, or a line."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from data import (
    Damaged,
    Pair,
    decoded,
    open_shards,
    pairs_from_coco,
    write_shards,
)
from tests.data.hostile.poison import IMAGE, PNG


@pytest.fixture
def pictures(folder: Path) -> Path:
    (folder / "a.png").write_bytes(PNG)
    (folder / "link.png").symlink_to("/etc/hostname")
    (folder / "circle.png").symlink_to("circle.png")
    os.mkfifo(folder / "pipe.png")
    return folder


def told(samples: Any) -> list[str]:
    return [each.reason if isinstance(each, Damaged) else "good" for each in map(decoded, samples)]


def listed(name: object, caption: object = "a") -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": name}],
        "annotations": [{"image_id": 1, "caption": caption}],
    }


def karpathy(**fields: object) -> dict[str, Any]:
    image = {"filename": "a.png", "split": "val", "sentences": [{"raw": "a"}], **fields}
    return {"images": [image]}


COCO: dict[str, tuple[object, str | list[str]]] = {
    "a name that climbs": (listed("../a.png"), ["image outside the folder"]),
    "a name from the root": (listed("/etc/hostname"), ["image outside the folder"]),
    "a name of nothing": (listed(""), ["no image"]),
    "a name of half a surrogate": (listed("\ud800.png"), ["no image"]),
    "a name with a zero": (listed("a.png\0"), ["no image"]),
    "a name of 10,000 letters": (listed("a" * 10_000), ["no image"]),
    "a name that is a number": (listed(7), ["no image"]),
    "a link that leads out": (listed("link.png"), ["image outside the folder"]),
    "a pipe": (listed("pipe.png"), ["no image"]),
    "a caption that is a list": (listed("a.png", ["a"]), ["caption not text"]),
    "a caption that is null": (listed("a.png", None), ["caption not text"]),
    "a caption of half a surrogate": (listed("a.png", "\ud800"), ["caption not UTF-8"]),
    "two images of one id": (
        {"images": [{"id": 1, "file_name": n} for n in "ab"], "annotations": []},
        "is no COCO caption file",
    ),
    "an id that is a list": (
        {"images": [{"id": [], "file_name": "a.png"}], "annotations": []},
        "is no COCO caption file",
    ),
    "a caption of no image": (
        {"images": [], "annotations": [{"image_id": 1, "caption": "a"}]},
        "has a caption of image 1, which it does not list",
    ),
    "a folder that climbs": (karpathy(filepath="../.."), ["image outside the folder"]),
    "a folder that is a list": (karpathy(filepath=["a"]), "is no COCO caption file"),
    "sentences that are a text": (karpathy(sentences="abc"), "is no COCO caption file"),
    "a sentence that is a number": (karpathy(sentences=[{"raw": 7}]), ["caption not text"]),
}


@pytest.mark.parametrize("name", COCO)
def test_a_hostile_caption_file_gives_pairs_or_a_line(pictures: Path, name: str) -> None:
    content, outcome = COCO[name]
    path = pictures / "captions.json"
    path.write_text(json.dumps(content))
    if isinstance(outcome, str):
        with pytest.raises(ValueError, match=outcome):
            list(pairs_from_coco(path, pictures, "val"))
    else:
        assert told(pairs_from_coco(path, pictures, "val")) == outcome


def test_names_that_cannot_be_written_are_quoted_or_left_out(folder: Path) -> None:
    odd = ["\ud800", "../../canary", "a\n\0b", "/", "ü" * 200]
    pairs = [Pair(key=key, image=IMAGE, captions=("a",)) for key in odd]
    manifest = write_shards(folder, "train", pairs)
    assert manifest["splits"]["train"]["skipped"] == {"key too long": 1}
    shards = open_shards(folder, "train")
    keys = [shards.read(index).key for index in range(len(shards))]
    assert keys == ["%5Cud800", "%2E%2E%2F%2E%2E%2Fcanary", "a%0A%00b", "%2F"]
