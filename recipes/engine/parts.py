"""Tensors that are shared out over processes, each of which writes its own part, and their reading.

    folder/shard-00001-model-00001-of-00001.safetensors     what the first process holds

torch's distributed checkpoint writes them in its safetensors form, whose headers say where in the
whole tensor a part belongs: its usual form keeps that in a pickle.

Source: https://docs.pytorch.org/docs/stable/distributed.checkpoint.html, HuggingFaceStorageWriter.
"""

import errno
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from .files import sync_path
from .processes import texts_of_all

Groups = Mapping[str, Mapping[str, Tensor]]


def are_shared_out(groups: Groups) -> bool:
    """Whether a process holds only its part of some tensor."""
    return any(isinstance(x, DTensor) for group in groups.values() for x in group.values())


def shapes_of(groups: Groups) -> dict[str, dict[str, list[int]]]:
    """The shapes of whole tensors, as JSON keeps them."""
    return {
        name: {key: list(x.shape) for key, x in group.items()} for name, group in groups.items()
    }


def write_parts(folder: Path, groups: Groups) -> None:
    """Write into a folder, synced, what each process holds; call it on all of them.

    What all hold whole is written by one. Returns when every file reads back as it was written.

    Raises:
        OSError: on all processes, if one cannot write its part.
    """
    tensors = {
        f"{name}/{key}": x.detach() for name, group in groups.items() for key, x in group.items()
    }
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        save(tensors, storage_writer=writer)
    except CheckpointException as error:
        raise _first_of(error) from error
    wrong = [text for text in texts_of_all(_not_as_written(folder, tensors)) if text]
    if wrong:
        raise OSError(errno.EIO, f"{folder.parent} does not give back what was written: {wrong[0]}")


def read_parts(
    folder: Path, shapes: Mapping[str, Mapping[str, list[int]]]
) -> dict[str, dict[str, Tensor]]:
    """The whole tensors of a folder on the CPU, however many processes wrote them.

    Args:
        folder: into which `write_parts` wrote.
        shapes: that they must have, as `shapes_of` said.

    Raises:
        ValueError: if the files do not hold parts that make whole tensors of these shapes.
    """
    try:
        reader = HuggingFaceStorageReader(str(folder))
        kinds = reader.read_metadata().state_dict_metadata
        tensors = {
            f"{name}/{key}": _room_for(kinds[f"{name}/{key}"], shape)
            for name, group in shapes.items()
            for key, shape in group.items()
        }
        with warnings.catch_warnings():  # that it is alone is meant
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(tensors, storage_reader=reader, no_dist=True)
    except (*FOREIGN, CheckpointException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{folder} holds no parts of whole tensors: {reason}") from error
    return {
        name: {key: tensors[f"{name}/{key}"] for key in group} for name, group in shapes.items()
    }


FOREIGN = (
    SafetensorError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
)
"""What torch's reader raises at files that its writer did not write."""


def _room_for(kind: Any, shape: list[int]) -> Tensor:
    """A tensor to read into; the parts must fill it, or it would hold what memory held before."""
    held = sum(math.prod(part.sizes) for part in kind.chunks)
    if list(kind.size) != shape or held != math.prod(shape):
        raise ValueError(f"{held} values of {list(kind.size)} are there of {shape}")
    return torch.empty(kind.size, dtype=kind.properties.dtype)


def _not_as_written(folder: Path, tensors: Mapping[str, Tensor]) -> str:
    """The name of this process' file if the disk does not hold what it should, else nothing."""
    file = folder / f"shard-{dist.get_rank() + 1:05d}-model-00001-of-00001.safetensors"
    if not file.exists():  # a process may hold nothing
        return ""
    try:
        sync_path(file)  # torch's writer does so before the last bytes have left its buffer
        written = safetensors.torch.load_file(file)
    except (SafetensorError, OSError):
        return file.name
    same = all(_bytes(part) == _bytes(_here(tensors[key])) for key, part in written.items())
    return "" if same else file.name


def _here(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _first_of(error: CheckpointException) -> BaseException:
    """What went wrong on the first process on which something did."""
    return next(iter(error.failures.values()))[0]
