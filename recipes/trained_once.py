"""Networks that judge are trained once: runs that are compared are judged by the same one."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


def trained_once(
    folder: Path, make: Callable[[], Net], train: Callable[[], Net], on: tuple[object, ...]
) -> Net:
    """The network that the same training left in a folder, or one that is trained and left there.

    Args:
        folder: of such networks, made if need be.
        make: an untrained one, whose weights are then read.
        train: a trained one.
        on: all that the training depends on: tensors by their values, the rest by how it is
            written.
    """
    key = _digest((torch.__version__, *on))[:16]
    file = folder / f"{type(make()).__name__.lower()}-{key}.safetensors"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")  # another run may train the same one now
        with torch.enable_grad():
            save_model(train(), str(part))
        part.replace(file)
    net = make()
    load_model(net, file)
    return net.eval()


def digest_of_net(net: nn.Module) -> str:
    """The sha256 of a network's weights."""
    return _digest(tuple(net.state_dict().values()))


def _digest(on: tuple[object, ...]) -> str:
    found = hashlib.sha256()
    for each in on:
        if isinstance(each, Tensor):
            found.update(repr((each.shape, each.dtype)).encode())
            found.update(each.cpu().contiguous().numpy().tobytes())
        else:
            found.update(repr(each).encode())
    return found.hexdigest()
