"""Files that an annotation names: read from inside one folder, never from elsewhere."""

from pathlib import Path

from .tar_index import MAX_MEMBER_BYTES


def read_inside(folder: Path, name: str) -> bytes | str:
    """Read the file that a name means in a folder, or say in a short phrase why it is not read."""
    if not name or "\0" in name:
        return "no image"
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        return "image outside the folder"
    return read_bounded(path) if path.is_file() else "no image"


def read_bounded(path: Path) -> bytes:
    """Read a file, of a longer one no more than what shows a decoder that it is too long."""
    with path.open("rb") as file:
        return file.read(MAX_MEMBER_BYTES + 1)
