"""Tables to pairs: a row holds an image, as bytes or as a path, and one or more captions.

CSV and TSV (UTF-8, the first row names the columns), JSON lines, and Parquet. Nothing is guessed: a
cell of a CSV file is the text that stands there, not the number or the gap that it looks like.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .inside import read_inside
from .sample import Damaged, StoredPair, listed_pair

Row = Mapping[str, Any]
ROWS_AT_ONCE = 64
"""Of a Parquet file: its images may lie in it."""
MAX_LINE = 2**24
"""Characters."""


def pairs_from_table(
    path: str | Path, image: str, captions: Sequence[str], label: str | None = None
) -> Iterator[StoredPair | Damaged]:
    """Yield a pair for each row; its key is the row's number, from 0.

    Args:
        path: a file that ends in .csv, .tsv, .jsonl or .parquet.
        image: the column of the images: bytes, a mapping with `bytes` or `path` (as Hugging Face
            datasets store them), or a path. Paths count from the table's folder and stay in it.
        captions: the columns of the captions, in this order; a cell holds a text or a list of them.
        label: the column of the names or numbers of classes, if there is one.

    A row that cannot be used comes as `Damaged`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another kind of file, one that cannot be read as what it is, or a column
            that it lacks.
    """
    path = Path(path)
    if path.suffix.lower() not in READERS:
        raise ValueError(f"a table ends in {', '.join(READERS)}, got {path}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}")
    if not captions:
        raise ValueError("a table needs at least one column of captions, got none")
    return _pairs(path, image, captions, label)


def _pairs(
    path: Path, image: str, captions: Sequence[str], label: str | None
) -> Iterator[StoredPair | Damaged]:
    number = 0
    try:
        columns = (image, *captions) if label is None else (image, *captions, label)
        for row in READERS[path.suffix.lower()](path, columns):
            yield pair_of_row(f"{number:08d}", row, path.parent, image, captions, label)
            number += 1
    except (csv.Error, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read after {number} rows: {reason}") from error


def pair_of_row(
    key: str,
    row: Row,
    folder: Path,
    image: str,
    captions: Sequence[str],
    label: str | None,
) -> StoredPair | Damaged:
    """Make a pair of a row, see `pairs_from_table`; paths count from `folder` and stay in it."""
    texts: list[Any] = []
    for column in captions:
        cell = row.get(column)
        texts += cell if isinstance(cell, list) else [cell]
    raw = _image(row.get(image), folder)
    if isinstance(raw, str):
        return Damaged(key=key, reason=raw)
    listed = [text for text in texts if text is not None]
    return listed_pair(key, raw, listed, None if label is None else row.get(label))


def _image(cell: Any, folder: Path) -> bytes | str:
    """The bytes of an image file, or why there are none."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    return read_inside(folder, cell) if isinstance(cell, str) else "no image"


def _comma_separated(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    return _separated(path, columns, ",")


def _tab_separated(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    return _separated(path, columns, "\t")


def _separated(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[Row]:
    rows = csv.DictReader(_lines(path, newline=""), delimiter=delimiter, strict=True)
    _check_columns(path, columns, rows.fieldnames or ())
    yield from rows


def _json_lines(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(filter(str.strip, _lines(path))):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read after {number} rows: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path} has no object in row {number}")
        if number == 0:
            _check_columns(path, columns, row)
        yield row


def _lines(path: Path, newline: str | None = None) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline=newline) as file:
        while line := file.readline(MAX_LINE):
            if len(line) == MAX_LINE:
                raise ValueError(f"{path} has a line of {MAX_LINE} characters or more")
            yield line


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    from pyarrow import ArrowException  # slow to import
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            _check_columns(path, columns, file.schema_arrow.names)
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:  # it says of a bad block that the disk failed
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _check_columns(path: Path, columns: Sequence[str], present: Any) -> None:
    for column in columns:
        if column not in present:
            raise ValueError(f"{path} has no column {column!r}, it has {', '.join(present)}")


READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".csv": _comma_separated,
    ".tsv": _tab_separated,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
"""How each kind of table is read, by its file's ending."""
