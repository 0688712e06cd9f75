"""Files that are whole or absent, at whatever moment the machine stops."""

import errno
import os
from pathlib import Path
from typing import Any, TypeAlias

JSON: TypeAlias = Any
"""None, a bool, a number, a text, or lists and text-keyed dicts of these."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How a system says that there is no room: on the disk, for this user, in one file."""


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and return only when it is on the disk.

    Raises:
        OSError: names the file, also where the system only says what went wrong.
    """
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_path(path: Path) -> None:
    """Return only when a file is on the disk, or what a folder says of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and return only when their names are on the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync_path(each.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    make_folder(path.parent)
    temporary = path.with_name(f".tmp-{path.name}")
    write_synced(temporary, data)
    os.replace(temporary, path)
    sync_path(path.parent)
