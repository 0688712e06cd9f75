"""Other collections to pairs: a folder of images with their captions beside them."""

from collections.abc import Iterator
from pathlib import Path

from .inside import read_bounded
from .sample import Damaged, StoredPair, stored_pair
from .tar_index import split_name


def pairs_from_folder(folder: str | Path) -> Iterator[StoredPair | Damaged]:
    """Yield the pairs KEY.jpg, png or webp with KEY.txt or json, sub-folders too, sorted by key.

    KEY.cls, where it is, has the name or number of a class.

    An image without captions and captions without an image come as `Damaged`.

    Raises:
        FileNotFoundError: if the folder is not there, or has neither images nor captions.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a local folder")
    samples = _files_by_key(folder)
    if not samples:
        raise FileNotFoundError(f"{folder} has no images and no captions")
    return (_pair(key, samples[key]) for key in sorted(samples))


def _files_by_key(folder: Path) -> dict[str, list[tuple[str, Path]]]:
    samples: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted(folder.rglob("*")):
        key, suffix = split_name(path.relative_to(folder).as_posix())
        is_report = path.name.endswith("_stats.json")  # img2dataset's, beside each of its folders
        if suffix and path.is_file() and not is_report:
            samples.setdefault(key, []).append((suffix, path))
    return samples


def _pair(key: str, paths: list[tuple[str, Path]]) -> StoredPair | Damaged:
    files = {suffix: read_bounded(path) for suffix, path in paths}
    if len(files) < len(paths):  # KEY.jpg and KEY.JPG
        return Damaged(key=key, reason="key twice")
    return stored_pair(key, files)
