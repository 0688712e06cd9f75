"""Checkpoints: written beside, synced, hashed, renamed; damaged ones are never loaded.

    folder/step-00001234/   model.safetensors  optimizer.safetensors  ...  state.json  manifest.json

A checkpoint counts once it has its name, and it gets its name last, when it reads back as it was
written; only then is the oldest removed. The manifest holds the sha256 of every other file: one
flipped bit loads silently in safetensors and in pickle alike, in 299 and 297 of 300 trials. A
folder named `step-00001234~` is an older copy of the same step, set aside for the moment in which
the new one takes its name.

Of a model that is shared out every process writes its part, so that none has to hold the whole; see
`parts` for these files. All else is the same, and whoever loads it gets whole tensors: any number
of processes can go on.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from .files import FULL, JSON, make_folder, sync_path, write_synced
from .parts import Groups, kinds_of, read_parts, write_parts
from .processes import is_first, others_wait_for

MANIFEST = "manifest.json"
STATE = "state.json"
PARTS = "parts"
"""In a state: of what kinds the tensors are that were written in parts."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was saved after `step` updates, on the CPU."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, JSON]
    path: Path


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Groups,
    state: Mapping[str, JSON],
    *,
    keep: int = 2,
) -> Path:
    """Write one checkpoint, then delete all but the newest `keep`; on the first process only.

    Args:
        folder: where the checkpoints of one training lie.
        step: updates done so far; the same step may be saved again.
        tensors: groups of tensors, one file each.
        state: everything else, as JSON.
        keep: how many to keep, at least 1.

    Raises:
        OSError: if it cannot be written, or reads back otherwise; it then has no name, or, where
            only the last sync of its folder failed, is whole. The checkpoints before it are as they
            were.
    """
    target, temporary = _places(folder, step, keep)
    try:
        _begin(temporary)
        _complete(temporary, target, _encoded(tensors, state), {})
    except OSError as error:
        _give_up(error, target, tensors)
        raise
    _remove_older(folder, step, keep)
    return target


def save_in_parts(
    folder: Path, step: int, tensors: Groups, state: Mapping[str, JSON], *, keep: int = 2
) -> Path:
    """The same where tensors are shared out over processes; call it on all of them.

    The processes must see the same folder.
    """
    target, temporary = _places(folder, step, keep)
    said = [(STATE, json.dumps({**state, PARTS: kinds_of(tensors)}, indent=1).encode())]
    try:
        others_wait_for(lambda: _begin(temporary))
        digests = write_parts(temporary, tensors)
        others_wait_for(lambda: _complete(temporary, target, iter(said), digests))
    except OSError as error:
        if is_first():
            _give_up(error, target, tensors)
        raise
    others_wait_for(lambda: _remove_older(folder, step, keep))
    return target


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is exactly what was written; None if none was ever written.

    Each damaged one is named in the log and passed over for the one before it.

    Raises:
        ValueError: there are checkpoints, and all of them are damaged.
    """
    saved = _saved(folder)
    for path in reversed(saved):
        damaged = _damaged_files(path, _step(path))
        if not damaged:
            return _load(path)
        logging.getLogger(__name__).warning(
            "checkpoint %s is refused: missing or changed: %s", path, ", ".join(damaged)
        )
    if saved:
        raise ValueError(f"every checkpoint in {folder} is damaged, the newest is {saved[-1].name}")
    return None


def find_start(folder: Path, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from; None is a fresh start.

    Raises:
        ValueError: checkpoints lie there and nobody asked to resume; a fresh start would bury them.
    """
    return None if is_fresh(folder, resume) else load_latest(folder)


def is_fresh(folder: Path, resume: bool) -> bool:
    """Whether there is nothing to go on from; it refuses as `find_start` does, and reads none."""
    saved = _saved(folder)
    if saved and not resume:
        raise ValueError(
            f"{folder} already holds {saved[-1].name}: give --resume to go on, or another out"
        )
    return not saved


def _places(folder: Path, step: int, keep: int) -> tuple[Path, Path]:
    """Where a checkpoint will lie, and where it is written."""
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    target = folder / f"step-{step:08d}"
    return target, folder / f".tmp-{target.name}"


def _begin(temporary: Path) -> None:
    make_folder(temporary.parent)
    _clear_away(temporary.parent)
    temporary.mkdir()


def _complete(
    temporary: Path,
    target: Path,
    files: Iterator[tuple[str, bytes]],
    digests: Mapping[str, str],
) -> None:
    """Write what is not there yet, the manifest last; read all of it, and give it its name.

    Args:
        temporary: the folder, in which some files may lie already, synced.
        target: what it will be.
        files: those to write, by name, one after another: memory has to hold only one of them.
        digests: of those that lie there.
    """
    found = dict(digests)
    for name, data in files:
        write_synced(temporary / name, data)
        found[name] = hashlib.sha256(data).hexdigest()
    write_synced(temporary / MANIFEST, _manifest(_step(target), found))
    sync_path(temporary)
    _check_readable(temporary, _step(target))
    _give_name(temporary, target)


def _give_up(error: OSError, target: Path, tensors: Groups) -> None:
    """Clear away what was begun, and say so if there is no room."""
    _clear_away(target.parent)
    if error.errno in FULL:
        raise _no_room(error, target, tensors) from error


def _encoded(tensors: Groups, state: Mapping[str, JSON]) -> Iterator[tuple[str, bytes]]:
    for name, group in tensors.items():
        yield f"{name}.safetensors", _encode_group(group)
    yield STATE, json.dumps(state, indent=1).encode()


def _encode_group(group: Mapping[str, Tensor]) -> bytes:
    # Copies, because safetensors refuses tensors that share memory, as tied weights do.
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in group.items()}
    return safetensors.torch.save(copies)


def _check_readable(written: Path, step: int) -> None:
    if damaged := _damaged_files(written, step):
        names = ", ".join(damaged)
        raise OSError(errno.EIO, f"{written.parent} does not give back what was written: {names}")


def _no_room(error: OSError, target: Path, tensors: Groups) -> OSError:
    needed = sum(t.nbytes for group in tensors.values() for t in group.values())
    free = shutil.disk_usage(next(path for path in target.parents if path.exists())).free
    saved = _saved(target.parent)
    last = f"the last checkpoint is {saved[-1].name}" if saved else "there is none before it"
    return OSError(
        error.errno,
        f"no room for checkpoint {target}: it needs at least {needed} bytes, {free} are "
        f"free; {last}",
    )


def _give_name(temporary: Path, target: Path) -> None:
    aside = target.with_name(f"{target.name}~")
    if target.exists():
        os.rename(target, aside)
    os.rename(temporary, target)
    sync_path(target.parent)
    if aside.exists():
        _remove(aside)


def _clear_away(folder: Path) -> None:
    """Undo what a save that was killed left behind."""
    for path in folder.glob(".tmp-step-*"):
        _remove(path)
    for aside in folder.glob("step-*~"):
        target = aside.with_name(aside.name.removesuffix("~"))
        if target.exists():
            _remove(aside)
        else:
            os.rename(aside, target)


def _remove_older(folder: Path, step: int, keep: int) -> None:
    """Remove what is not kept any more; a damaged checkpoint keeps no place of a good one."""
    kept = 0
    for path in reversed([path for path in _saved(folder) if _step(path) <= step]):
        if kept == keep:
            _remove(path)
        elif _step(path) == step or not _damaged_files(path, _step(path)):
            kept += 1


def _remove(path: Path) -> None:
    """Remove a folder; one that cannot be removed must not end a training."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        logging.getLogger(__name__).warning("checkpoint %s is left over: %s", path, error)


def _saved(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    named = [
        p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}~?", p.name) and p.is_dir()
    ]
    return sorted(named, key=lambda path: (_step(path), not path.name.endswith("~")))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-").removesuffix("~"))


def _manifest(step: int, digests: Mapping[str, str]) -> bytes:
    return json.dumps({"step": step, "sha256": digests}, indent=1, sort_keys=True).encode()


def _damaged_files(path: Path, step: int) -> list[str]:
    """The files that are missing, changed, unreadable or too many."""
    manifest = path / MANIFEST
    try:
        found = _digests(path)
        written = manifest.read_bytes()
    except OSError:
        return [MANIFEST]
    if unreadable := [name for name, digest in found.items() if not digest]:
        return unreadable
    if written == _manifest(step, found):
        return []
    try:
        listed = json.loads(written)["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [MANIFEST]
    if not isinstance(listed, dict):
        return [MANIFEST]
    names = sorted(listed.keys() | found.keys())
    return [name for name in names if listed.get(name) != found.get(name)] or [MANIFEST]


def _digests(path: Path) -> dict[str, str]:
    """The sha256 of everything in a folder but the manifest; nothing's of what is no file."""
    names = [each for each in path.iterdir() if each.name != MANIFEST]
    return {each.name: _digest(each) if each.is_file() else "" for each in names}


def _digest(file: Path) -> str:
    """The sha256 of a file; nothing's of one that cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _load(path: Path) -> Checkpoint:
    """Read a checkpoint whose hashes are right.

    Raises:
        ValueError: for a file that is not of its kind: right hashes may be anybody's.
    """
    try:
        state = dict(json.loads((path / STATE).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path / STATE} holds no JSON object: {error}") from error
    kinds = state.pop(PARTS, None)
    tensors = _read_files(path) if kinds is None else read_parts(path, kinds)
    return Checkpoint(step=_step(path), tensors=tensors, state=state, path=path)


def _read_files(path: Path) -> dict[str, dict[str, Tensor]]:
    tensors = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            tensors[file.stem] = safetensors.torch.load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} holds no safetensors: {error}") from error
    return tensors
