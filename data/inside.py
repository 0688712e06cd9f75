"""Files that an annotation names: read from inside one folder, never from elsewhere."""

from pathlib import Path

from .tar_index import MAX_MEMBER_BYTES


def read_inside(folder: Path, name: str) -> bytes | str:
    """Read the file that a name means in a folder, or say in a short phrase why it is not read."""
    if not name or "\0" in name:
        return "no image"
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            return "image outside the folder"
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, not encodable, links in a circle
        return "no image"
    return read_bounded(path) if is_file else "no image"


def read_bounded(path: Path) -> bytes:
    """Read a file, of a longer one no more than what shows a decoder that it is too long."""
    with path.open("rb") as file:
        return file.read(MAX_MEMBER_BYTES + 1)
