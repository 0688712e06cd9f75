"""Convert a weight file to safetensors, once and on purpose: nothing else here opens such a file.

    python -m recipes.convert_weights IN OUT.safetensors

Reads what torch.save wrote (.bin, .pt, .pth, .ckpt), by `torch.load(weights_only=True)`, which
builds tensors and runs no other code; still, convert only what you have from where you trust.
Takes a state dict, also one below `state_dict` or `model`, strips `module.`, which
DistributedDataParallel writes before every name, and refuses whatever is not a tensor.
"""

import argparse
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from recipes.engine.cli import run as start
from recipes.engine.files import replace_file

NESTED = ("state_dict", "model")
WRAPPED = "module."
SUFFIX = ".safetensors"
NOT_ITS_OWN = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
)
"""What torch.load raises at a file that torch.save did not write."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What becomes what."""

    source: Path
    """A file that torch.save wrote."""
    target: Path
    """A safetensors file that is not there yet."""

    def __post_init__(self) -> None:
        if self.target.suffix != SUFFIX:
            raise ValueError(f"target must end in {SUFFIX}, got {self.target}")


def main(conversion: Conversion) -> None:
    """Read, check, write."""
    if conversion.target.exists():
        raise ValueError(f"{conversion.target} is there already")
    tensors = find_tensors(_open(conversion.source), conversion.source)
    data = safetensors.torch.save(tensors, metadata={"format": "pt"})
    replace_file(conversion.target, data)
    print(f"{conversion.target}: {len(tensors)} tensors, {len(data):,} bytes")


def _open(path: Path) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except NOT_ITS_OWN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} holds more than tensors, or none: {reason}") from error


def find_tensors(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, by their names in the model itself, each with its own memory.

    Raises:
        ValueError: if there is anything else.
    """
    while isinstance(content, Mapping) and (inside := _inside(content)) is not None:
        content = inside
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no state dict, but {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path} holds {name!r}, which is {type(value).__name__}, no tensor")
    wrapped = all(name.startswith(WRAPPED) for name in content)
    return {
        name.removeprefix(WRAPPED) if wrapped else name: tensor.detach().clone().contiguous()
        for name, tensor in content.items()
    }


def _inside(content: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    return next((content[n] for n in NESTED if isinstance(content.get(n), Mapping)), None)


def named(arguments: Sequence[str]) -> list[str]:
    """Read the first two words as the files."""
    words = argparse.ArgumentParser(add_help=False)
    words.add_argument("source", nargs="?")
    words.add_argument("target", nargs="?")
    found, rest = words.parse_known_args(arguments)
    named = {name: value for name, value in vars(found).items() if value is not None}
    return [*(f"--{name}={value}" for name, value in named.items()), *rest]


if __name__ == "__main__":
    start(main, Conversion, named(sys.argv[1:]))
