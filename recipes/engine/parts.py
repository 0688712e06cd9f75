"""Tensors that are shared out over processes, each of which writes its own part, and their reading.

    folder/shard-00001-model-00001-of-00001.safetensors     what the first process holds

N files   G groups of tensors

The format is that of torch's `HuggingFaceStorageWriter`, whose reader reads these files: a header
says where in the whole tensor each part begins. Torch's writer itself syncs a file before the last
bytes have left the buffer, and does not say what it has written; here each process hashes the bytes
of its part before it writes them.

Source: https://docs.pytorch.org/docs/stable/distributed.checkpoint.html.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from .files import JSON, write_synced
from .processes import all_do, rank_and_world, texts_of_all

Groups = Mapping[str, Mapping[str, Tensor]]
PLACES = "DCP_SHARDING_INFO"
OFFSETS = "saved_offsets"
ABOUT = {"format": "pt", "DCP_VERSION": "1.0"}


def are_shared_out(groups: Groups) -> bool:
    """Whether a process holds only its part of some tensor."""
    return any(isinstance(x, DTensor) for group in groups.values() for x in group.values())


def kinds_of(groups: Groups) -> dict[str, dict[str, JSON]]:
    """Shapes and types of whole tensors, as JSON keeps them, by group and name."""
    return {name: {key: _kind(x) for key, x in group.items()} for name, group in groups.items()}


def write_parts(folder: Path, groups: Groups) -> dict[str, str]:
    """Write into a folder, synced, what each process holds; call it on all of them.

    What all hold whole is written by the first.

    Returns:
        The sha256 of each of the N files, of the bytes as they were to be written.

    Raises:
        OSError: on all processes, if one cannot write its part.
    """
    rank, _ = rank_and_world()
    file = folder / f"shard-{rank + 1:05d}-model-00001-of-00001.safetensors"
    digest = ""

    def write() -> None:
        nonlocal digest
        data = _encoded(groups)
        digest = hashlib.sha256(data).hexdigest()
        write_synced(file, data)

    all_do(write)
    return dict(json.loads(text) for text in texts_of_all(json.dumps([file.name, digest])))


def read_parts(
    folder: Path, kinds: Mapping[str, Mapping[str, JSON]]
) -> dict[str, dict[str, Tensor]]:
    """The whole tensors of a folder on the CPU, however many processes wrote them.

    Args:
        folder: into which `write_parts` wrote.
        kinds: of the G groups of tensors, as `kinds_of` said.

    Raises:
        ValueError: if the files do not hold parts that make whole tensors of these kinds.
    """
    found: dict[str, list[tuple[list[int], Tensor]]] = {}
    try:
        for file in sorted(folder.glob("shard-*.safetensors")):
            for name, offsets, part in _parts_in(file):
                found.setdefault(name, []).append((offsets, part))
        return {
            name: {key: _joined(found[f"{name}/{key}"], kind) for key, kind in group.items()}
            for name, group in kinds.items()
        }
    except FOREIGN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{folder} holds no parts of whole tensors: {reason}") from error


FOREIGN = (
    SafetensorError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    RecursionError,
)
"""What files raise that `write_parts` did not write."""


def _encoded(groups: Groups) -> bytes:
    """The file of this process: its parts, with where they begin."""
    parts, places = {}, {}
    for name, group in groups.items():
        for key, tensor in group.items():
            here = _here(tensor)
            if here is not None:
                offset, part = here
                # A copy, because safetensors refuses tensors that share memory, as tied weights do.
                parts[f"{name}/{key}"] = part.detach().to("cpu", copy=True).contiguous()
                places[f"{name}/{key}"] = {OFFSETS: [offset, *[0] * (part.ndim - 1)][: part.ndim]}
    return safetensors.torch.save(parts, {**ABOUT, PLACES: json.dumps(places)})


def _here(tensor: Tensor) -> tuple[int, Tensor] | None:
    """What this process writes of a tensor and the row at which that begins; None if nothing."""
    rank, world = rank_and_world()
    if not isinstance(tensor, DTensor):
        return None if rank else (0, tensor)
    if tensor.placements != (Shard(0),):
        raise ValueError(f"a part must be some rows of a tensor, got {tensor.placements}")
    part, share = tensor.to_local(), -(-len(tensor) // world)
    first = min(rank * share, len(tensor))
    assert len(part) == min(share, len(tensor) - first)  # as torch.chunk shares out
    return (first, part) if len(part) or not rank else None


def _parts_in(file: Path) -> Iterator[tuple[str, list[int], Tensor]]:
    with safe_open(file, "pt") as opened:
        places = json.loads((opened.metadata() or {})[PLACES])
        for name in list(opened.keys()):
            yield name, places[name][OFFSETS], opened.get_tensor(name)


def _joined(parts: list[tuple[list[int], Tensor]], kind: JSON) -> Tensor:
    """Put rows together, which must follow on each other and make the whole."""
    shape = kind["shape"]
    if not shape and len(parts) == 1:
        return _checked(parts[0][1], kind)
    reached, rows = 0, []
    for (first, *others), part in sorted(parts, key=lambda each: (each[0], len(each[1]))):
        if first != reached or any(others) or len(others) != part.ndim - 1:
            raise ValueError(f"rows from {first} on do not follow on {reached}")
        reached += len(part)
        rows.append(part)
    if len({part.dtype for part in rows}) != 1:
        raise ValueError("parts of one tensor are of several types")
    return _checked(torch.cat(rows), kind)


def _checked(tensor: Tensor, kind: JSON) -> Tensor:
    if (found := _kind(tensor)) != kind:
        raise ValueError(f"{found} is there where {kind} was written")
    return tensor


def _kind(tensor: Tensor) -> dict[str, JSON]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
