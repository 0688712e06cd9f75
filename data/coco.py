"""COCO's caption files to pairs, as COCO gives them or as Karpathy split them.

    {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
    {"images": [{"filename", "filepath"?, "split", "sentences": [{"raw"}]}]}

Sources: Chen et al. 2015, "Microsoft COCO Captions", https://arxiv.org/abs/1504.00325; Karpathy and
Fei-Fei 2015, section 4 (the splits), https://arxiv.org/abs/1412.2306.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .inside import read_inside
from .sample import Damaged, StoredPair, listed_pair

SHOWN = 40
"""Letters of a name in a sentence."""


class _NoImageError(Exception):
    """A caption points at no image."""


Listed = tuple[str, list[Any]]
"""An image's name inside the folder of images, and its captions."""


def pairs_from_coco(
    path: str | Path, folder: str | Path, split: str
) -> Iterator[StoredPair | Damaged]:
    """Yield the images of a caption file with all their captions; the key is the image's name.

    Args:
        path: the JSON file.
        folder: that the images' names count from.
        split: train, val, test or restval where the file names splits (Karpathy's `train` is often
            used together with `restval`: write them one after the other); else nothing is asked.

    What cannot be used comes as `Damaged`.

    Raises:
        FileNotFoundError: if the file or the folder is not there.
        ValueError: if it is no caption file, has no image of the split, or a caption of an image
            that it does not list.
    """
    path, folder = Path(path), Path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"there is no caption file {path}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a local folder")
    try:
        listed = _listed(json.loads(path.read_bytes()), split)
    except _NoImageError as error:
        raise ValueError(f"{path} has a caption of image {error}, which it does not list") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path} is no COCO caption file") from None
    if not listed:
        raise ValueError(f"{path} has no image of the split {split!r}")
    return _pairs(listed, folder)


def _listed(found: Any, split: str) -> list[Listed]:
    if "annotations" in found:
        captions: dict[Any, list[Any]] = {image["id"]: [] for image in found["images"]}
        if len(captions) < len(found["images"]):
            raise ValueError("two images have one id")
        for annotation in found["annotations"]:
            if annotation["image_id"] not in captions:
                raise _NoImageError(repr(annotation["image_id"])[:SHOWN])
            captions[annotation["image_id"]].append(annotation["caption"])
        return [(str(image["file_name"]), captions[image["id"]]) for image in found["images"]]
    return [
        (
            "/".join(filter(None, (image.get("filepath"), image["filename"]))),
            [sentence["raw"] for sentence in image["sentences"]],
        )
        for image in found["images"]
        if image["split"] == split
    ]


def _pairs(listed: Iterable[Listed], folder: Path) -> Iterator[StoredPair | Damaged]:
    for name, captions in listed:
        raw = read_inside(folder, name)
        if isinstance(raw, str):
            yield Damaged(key=name, reason=raw)
        else:
            yield listed_pair(name, raw, captions)
