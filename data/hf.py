"""Hugging Face datasets as pairs, by random access or one after the other.

Columns are read as stored: images are decoded by us, within our bounds, and never by the dataset's
own code, which is not run either.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .sample import Damaged, StoredPair
from .tables import pair_of_row


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a table has its pairs."""

    image: str = "image"
    captions: tuple[str, ...] = ("caption",)
    """A cell holds a text or a list of them."""
    label: str | None = None
    """Of the classes; null where there are none."""

    @property
    def names(self) -> tuple[str, tuple[str, ...], str | None]:
        return self.image, self.captions, self.label

    @property
    def all(self) -> list[str]:
        return [self.image, *self.captions, *([self.label] if self.label else [])]


def pairs_from_hf(
    name: str,
    split: str,
    columns: Columns,
    *,
    streaming: bool = False,
) -> Iterator[StoredPair | Damaged]:
    """Yield a pair for each row; its key is the row's number, from 0.

    Args:
        name: a folder that `save_to_disk` wrote, or what `load_dataset` takes: a folder of images
            or of Parquet files, or a name on the hub, with `#CONFIG` if it has several.
        split: such as "train".
        columns: what to read.
        streaming: read rows as they come, without fetching the whole set first.

    A row that cannot be used comes as `Damaged`.

    Raises:
        FileNotFoundError: if there is no such dataset.
        ValueError: if it lacks the split or a column, or cannot be read.
    """
    rows, folder = _open(name, split, streaming)
    rows = _undecoded(rows, name, columns)
    return (
        pair_of_row(f"{number:08d}", row, folder, *columns.names) for number, row in enumerate(rows)
    )


class HFPairs:
    """A Hugging Face dataset by random access, see `pairs_from_hf`."""

    def __init__(self, name: str, split: str, columns: Columns) -> None:
        rows, self._folder = _open(name, split, streaming=False)
        self._columns = columns
        self._rows = _undecoded(rows, name, columns)
        self._texts = self._rows.select_columns(list(dict.fromkeys(columns.captions)))
        self.name = f"{Path(name).name}/{split}"
        about = repr((self._rows._fingerprint, columns))
        self.fingerprint = hashlib.sha256(about.encode()).hexdigest()
        self.skipped: Mapping[str, int] = {}

    @property
    def counts(self) -> tuple[int, ...]:
        return (len(self),)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> StoredPair | Damaged:
        """Read the pair of row `index`."""
        row = self._rows[index]
        return pair_of_row(f"{index:08d}", row, self._folder, *self._columns.names)

    def captions_of(self, index: int) -> tuple[str, ...]:
        """Read the captions of row `index` alone; none where they are damaged."""
        row = {**self._texts[index], "": b""}  # in the place of an image
        pair = pair_of_row("", row, self._folder, "", self._columns.captions, None)
        return pair.captions if isinstance(pair, StoredPair) else ()


def _open(name: str, split: str, streaming: bool) -> tuple[Any, Path]:
    """Open a split, and say from which folder the paths in it may be read."""
    import datasets  # slow to import

    folder = Path(name)
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(name)
            if not isinstance(found, datasets.DatasetDict):
                found = {str(found.split or "train"): found}
            found = found[split]
        else:
            path, _, config = name.partition("#")
            found = datasets.load_dataset(path, config or None, split=split, streaming=streaming)
    except IndexError as error:  # the library cannot load a saved set without a row
        raise ValueError(f"{name} cannot be read, a split of it has no pair") from error
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no Hugging Face dataset {name}") from None
    except Exception as error:  # the library raises nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{name} has no split {split!r} that can be read: {reason}") from error
    return found, folder if folder.is_dir() else Path(datasets.config.HF_CACHE_HOME)


def _undecoded(rows: Any, name: str, columns: Columns) -> Any:
    """Keep the columns that are asked for, images as they are stored."""
    import datasets

    features = rows.features or {}
    for column in columns.all:
        if column not in features:
            raise ValueError(f"{name} has no column {column!r}, it has {', '.join(features)}")
        if isinstance(features[column], datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        elif isinstance(features[column], datasets.ClassLabel):
            rows = rows.cast_column(column, datasets.Value("int64"))
    return rows.select_columns(list(dict.fromkeys(columns.all)))
