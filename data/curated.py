"""Views: folders that choose pairs of other folders and hold no pair of their own.

    manifest.json    {"view": {SPLIT: of which folders, how many, by which rules}}
    SPLIT.rows.npy   the indices of the pairs that were chosen, in order, as int64

A view is bound to what it was made of: once a shard of that has changed, it is refused.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Int64

from .atomic import written_whole
from .joined import Chosen
from .manifest import NAME, read_json, sha256_of
from .sample import PairSource

SPLIT_NAME = re.compile(r"[\w-]+")


class ViewSplit(TypedDict):
    """One split of a view."""

    of: list[str]
    """Folders, as paths that count from the view's own; the split has the same name in them."""
    fingerprint: str
    """Of the pairs in them."""
    samples: int
    rows_sha256: str
    """Of the file of rows, in hex."""
    rules: list[dict[str, Any]]
    """By which pairs were removed, in their order, with how many."""


def read_view(folder: str | Path) -> dict[str, ViewSplit] | None:
    """Read the manifest of a view; None where a folder has none, or one of shards.

    Raises:
        ValueError: if the file is no manifest.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or "view" not in found:
        return None
    try:
        return {name: _checked(name, split) for name, split in found["view"].items()}
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not a manifest of a view") from None


def write_view(
    folder: str | Path,
    split: str,
    of: Sequence[str | Path],
    source: PairSource,
    rows: Int64[np.ndarray, "N"],
    rules: Sequence[Mapping[str, Any]],
) -> None:
    """Write a split of a view beside those that the folder has.

    Args:
        folder: of the view.
        split: of the view and of what it is made of.
        of: the folders that the source was opened from.
        source: of which rows are chosen.
        rows: their indices, in order.
        rules: what removed the others, for the record.

    Raises:
        ValueError: if the folder has the split already, or holds shards, or there are no rows.
    """
    check_new(folder, split)
    if not len(rows):
        raise ValueError(f"a view of {source.name} must have at least 1 pair, got 0")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = rows_path(folder, split)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(rows, dtype="<i8"), allow_pickle=False)
    splits = read_view(folder) or {}
    splits[split] = {
        "of": [os.path.relpath(Path(each).resolve(), folder.resolve()) for each in of],
        "fingerprint": source.fingerprint,
        "samples": len(rows),
        "rows_sha256": sha256_of(path),
        "rules": [dict(rule) for rule in rules],
    }
    with written_whole(folder / NAME) as temporary:
        temporary.write_text(json.dumps({"view": splits}, indent=1, sort_keys=True) + "\n")


def check_new(folder: str | Path, split: str) -> None:
    """Refuse, before the work of making it, a view that could not be written.

    Raises:
        ValueError: if the folder has the split already, or holds shards.
    """
    if not SPLIT_NAME.fullmatch(split):
        raise ValueError(f"a split's name has letters, digits, _ and - only, got {split!r}")
    view = read_view(folder)
    if view is None and ((Path(folder) / NAME).exists() or any(Path(folder).glob("*.tar"))):
        raise ValueError(f"{folder} holds shards: a view needs a folder of its own")
    if view and split in view:
        raise ValueError(f"{folder} already is a view with split {split!r}: choose another folder")


def open_view(
    folder: str | Path,
    view: Mapping[str, ViewSplit],
    split: str,
    open_folders: Callable[[Sequence[Path], str], PairSource],
) -> PairSource:
    """Open a split of a view.

    Args:
        folder: of the view.
        view: what `read_view` read there.
        split: such as "train".
        open_folders: opens the folders that it is made of.

    Raises:
        FileNotFoundError: if the view has no such split, or the folders of it are not there.
        ValueError: if the folders, or its rows, are no longer what they were.
    """
    if split not in view:
        raise FileNotFoundError(
            f"{folder} has no split {split!r}, it has {', '.join(sorted(view))}"
        )
    said = view[split]
    try:
        source = open_folders(folders_of(folder, said), split)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the view {folder} cannot be opened: {error}") from error
    if source.fingerprint != said["fingerprint"]:
        raise ValueError(
            f"{folder} was made of another {source.name}, which has changed since: curate it again"
        )
    chosen = Chosen(source, _rows(Path(folder), split, said, len(source)), _name(folder, split))
    chosen.counts = (len(chosen),)  # a folder like any other: one set
    chosen.skipped = {}  # what is damaged in the source was never chosen
    return chosen


def folders_of(folder: str | Path, split: ViewSplit) -> list[Path]:
    """Say of which folders a split of a view is made."""
    return [Path(os.path.normpath(Path(folder).resolve() / each)) for each in split["of"]]


def rows_path(folder: Path, split: str) -> Path:
    """Say where the rows of a split lie."""
    return folder / f"{split}.rows.npy"


def _rows(folder: Path, split: str, said: ViewSplit, count: int) -> Int64[np.ndarray, "N"]:
    path = rows_path(folder, split)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, {folder / NAME} has it")
    if sha256_of(path) != said["rows_sha256"]:
        raise ValueError(f"{path} is not the file that its manifest names")
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise ValueError(f"{path} is not a list of rows") from None
    if rows.dtype != np.dtype("<i8") or rows.shape != (said["samples"],):
        raise ValueError(f"{path} is not a list of {said['samples']} rows")
    if not 0 <= rows[0] <= rows[-1] < count or (np.diff(rows) <= 0).any():
        raise ValueError(f"{path} must have rows of 0..{count - 1}, each once and in order")
    return rows


def _checked(name: str, split: Any) -> ViewSplit:
    checked: ViewSplit = {key: split[key] for key in ViewSplit.__annotations__}  # type: ignore
    texts = [*checked["of"], checked["fingerprint"], checked["rows_sha256"]]
    is_good = (
        SPLIT_NAME.fullmatch(name)
        and isinstance(checked["of"], list)
        and checked["of"]
        and all(isinstance(text, str) for text in texts)
        and type(checked["samples"]) is int
        and checked["samples"] > 0
        and isinstance(checked["rules"], list)
    )
    if not is_good:
        raise TypeError
    return checked


def _name(folder: str | Path, split: str) -> str:
    return f"{Path(folder).resolve().name}/{split}"
