"""What the header of a safetensors file says of its tensors, checked beyond what its library does.

The library takes the last of two tensors with one name, and hands whole numbers on as weights.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NUMBERS = ("F", "BF")
"""With which the kinds of numbers that are weights begin: F32, BF16, F8_E4M3."""


def kinds_in(file: Path) -> dict[str, str]:
    """The kind of numbers of every tensor in a file that the library has read.

    Raises:
        ValueError: for a name that comes twice.
    """
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length), object_pairs_hook=_once)
    return {name: about["dtype"] for name, about in header.items() if name != "__metadata__"}


def is_of_weights(kind: str) -> bool:
    """Whether numbers of a kind have a fraction."""
    return kind.startswith(NUMBERS)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} comes twice in the header")
        found[name] = value
    return found
