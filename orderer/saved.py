"""Folders of saved models, on this disk or by their name from a hub, checked before they are read.

Of a hub only settings and safetensors are fetched: nothing that could run when it is opened.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .weights import check_safe

FETCHED = ("*.json", "*.txt", "model*.safetensors")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""In one file, or the index of several."""
UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Formats that may run code when they are opened."""
UNSAFE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""Of a zip, as torch.save makes it, and of a bare pickle."""
MOST_BYTES = 10_000_000
"""Of a file of settings; ours have about a thousand."""
COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Saved:
    """Where something that was saved lies, and where it comes from."""

    folder: Path
    name: str
    """As it was asked for: a folder, or a repository of a hub."""
    commit: str | None
    """Of the repository, 40 hex digits; None for a folder that comes from no hub."""

    def origin(self) -> dict[str, str | None]:
        """For the record of a result: what was asked for, and what that was at the time."""
        return {"name": self.name, "commit": self.commit}


def find_saved(
    name: str | Path,
    what: str,
    *,
    revision: str | None = None,
    subfolder: str = "",
    **options: Any,
) -> Saved:
    """Find a folder, or fetch it from a hub.

    Args:
        name: of a folder, or as OWNER/NAME of a hub's repository; a `Path` is always local.
        what: is looked for, in a word.
        revision: commit, tag or branch of the repository; its main branch by default.
        subfolder: in the folder or repository.
        options: `token`, `cache_dir`, `local_files_only` and `force_download`, see
            `huggingface_hub.snapshot_download`.

    Raises:
        OSError: if there is no such folder, and no hub has one.
    """
    if isinstance(name, Path) or Path(name).is_dir():
        return Saved(folder=Path(name, subfolder), name=str(name), commit=_commit(Path(name)))
    within = f"{subfolder.strip('/')}/" if subfolder else ""
    patterns = [f"{within}{pattern}" for pattern in FETCHED]
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=patterns, **options)
    except (OSError, HFValidationError) as error:
        reason = _in_a_sentence(error, revision)
        raise OSError(f"no {what} can be read from {name}: {reason}") from error
    return Saved(folder=Path(folder, subfolder), name=name, commit=_commit(Path(folder)))


def _commit(folder: Path) -> str | None:
    """The commit that a folder of the hub's cache is named after."""
    folder = folder.absolute()
    is_of_hub = folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name)
    return folder.name if is_of_hub else None


def _in_a_sentence(error: Exception, revision: str | None) -> str:
    match error:
        case RevisionNotFoundError():
            return f"it has no revision {revision!r}"
        case RepositoryNotFoundError():
            return "it is no folder, and the hub has or shows nothing of this name"
        case HFValidationError():
            return "it is no folder, and no name of a hub's repository, OWNER/NAME"
        case LocalEntryNotFoundError() if isinstance(error.__cause__, OfflineModeIsEnabled):
            return "it is no folder, it was not fetched before, and HF_HUB_OFFLINE forbids to ask"
        case LocalEntryNotFoundError() if error.__cause__:
            return f"the hub cannot be reached, {_first_line(error.__cause__)}"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_settings(folder: Path, file: str) -> dict[str, Any]:
    """Read a JSON file of settings in a saved model's folder.

    Raises:
        FileNotFoundError: if the folder or the file is not there.
        ValueError: if the file is not JSON with named values, or asks for code of its own.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    if not (folder / file).is_file():
        raise FileNotFoundError(f"{folder} holds no saved model, it has no {file}")
    size = (folder / file).stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{folder / file} has {size} bytes, settings have at most {MOST_BYTES}")
    try:
        settings = json.loads((folder / file).read_bytes())
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"{folder / file} is not JSON with named values")
    if "auto_map" in settings:
        raise ValueError(f"{folder / file} asks for code of its own (auto_map), which is never run")
    return settings


def read_index(folder: Path) -> dict[str, Path]:
    """The file in which each tensor lies, of a model saved in several.

    Raises:
        OSError: if a file is not there.
        ValueError: if the index names none, or one that lies elsewhere or is not in safetensors.
    """
    index = folder / WEIGHTS[1]
    said = read_settings(folder, WEIGHTS[1])
    names = said.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index} has no weight_map, it names no files of weights")
    if not isinstance(said.get("metadata"), dict):
        raise ValueError(f"{index} has no metadata, which transformers asks for")
    for name in names.values():
        if not isinstance(name, str) or "\\" in name or Path(name).name != name:
            raise ValueError(f"{index} must name files that lie beside it, got {name!r}")
    for name in sorted(set(names.values())):
        check_safe(folder / name)
    return {tensor: folder / name for tensor, name in names.items()}


def read_pixels(said: Mapping[str, Any], where: object) -> dict[str, list[float]]:
    """Mean and deviation of pixels in 0..1, as `image_mean` and `image_std` of settings say.

    Raises:
        ValueError: if they are not three numbers each.
    """
    for name in ("image_mean", "image_std"):
        found = said.get(name)
        is_list = isinstance(found, list | tuple) and len(found) == 3
        if not is_list or not all(type(each) in (int, float) for each in found or ()):
            raise ValueError(f"{name} in {where} must be three numbers, got {found!r}")
    return {"mean": list(said["image_mean"]), "std": list(said["image_std"])}


def check_weights(saved: Saved) -> list[Path]:
    """The weight files of a folder, refused if they are not in safetensors.

    Raises:
        OSError: if it has no weights at all.
        ValueError: if it has them in a format that may run code.
    """
    if (saved.folder / WEIGHTS[0]).is_file():
        if has_unsafe_start(saved.folder / WEIGHTS[0]):
            raise ValueError(unsafe_weights(saved.name, WEIGHTS[0]))
        return [saved.folder / WEIGHTS[0]]
    if (saved.folder / WEIGHTS[1]).is_file():
        return sorted(set(read_index(saved.folder).values()))
    unsafe = [file for file in _files(saved) if Path(file).suffix in UNSAFE]
    if unsafe:
        raise ValueError(unsafe_weights(saved.name, sorted(unsafe)[0]))
    raise OSError(f"no model can be read from {saved.name}: it has no {WEIGHTS[0]}")


def unsafe_weights(name: str, file: str) -> str:
    """The sentence that refuses a format, and names what converts it."""
    return (
        f"{name} has its weights in {file}, a format that may run code when it is opened: "
        "turn them into safetensors with python -m recipes.convert_weights"
    )


def has_unsafe_start(file: Path) -> bool:
    """Whether a file is a pickle, or a zip that may hold one, whatever its name says."""
    with file.open("rb") as opened:
        return opened.read(4).startswith(UNSAFE_STARTS)


def _files(saved: Saved) -> Iterable[str]:
    """Names of all files, those that were not fetched too."""
    if saved.commit is None or Path(saved.name).is_dir():
        return [path.name for path in saved.folder.iterdir()]
    try:
        return HfApi().list_repo_files(saved.name, revision=saved.commit)
    except OSError:  # it is only asked to refuse in better words
        return []
