"""Weight files of others: safetensors alone, read whole and put in place whole.

Every other format can run code when it is opened. What is refused is refused in a sentence.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

SUFFIX = ".safetensors"
UNSAFE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x93NUMPY")
"""Of a zip, as torch.save and numpy make it, of a bare pickle, and of a numpy array."""
SHOWN = 3
"""Names that a sentence holds."""


def check_safe(path: Path) -> None:
    """Refuse a file that is not there, or not in safetensors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another format, also under the name of a safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    with path.open("rb") as file:
        start = file.read(8)
    if path.suffix != SUFFIX or start.startswith(UNSAFE_STARTS):
        raise ValueError(
            f"{path} is not in safetensors and could run code when it is opened: convert it once "
            f"by `python -m recipes.convert_weights {path} {path.with_suffix('')}-safe{SUFFIX}`"
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        OSError: if the file is not there or damaged.
        ValueError: if it is in another format.
    """
    check_safe(path)
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"no weights can be read from {path}: {reason}") from error


def digest_of(files: Sequence[Path]) -> str:
    """The sha256 of a file; of several, that of their digests in this order."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()


def check_names(where: object, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Refuse weights that lack some, or have some of which there is no use."""
    for trouble, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            first = ", ".join(sorted(names)[:SHOWN])
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise ValueError(f"the weights in {where} have {trouble} keys: {first}{more}")


def fill(network: nn.Module, weights: Mapping[str, Tensor], where: object) -> None:
    """Put weights into a network, each in its place and none left over.

    Raises:
        ValueError: if names or shapes differ, naming them and where the weights come from.
    """
    own = network.state_dict()
    check_names(where, own.keys() - weights.keys(), weights.keys() - own.keys())
    for name, wanted in own.items():
        check_shape(where, name, weights[name].shape, wanted.shape)
    network.load_state_dict(weights)


def check_shape(where: object, name: str, found: Sequence[int], wanted: Sequence[int]) -> None:
    """Refuse a tensor of another shape."""
    if list(found) != list(wanted):
        raise ValueError(
            f"the weights in {where} do not fit: {name} is {list(found)} and must be {list(wanted)}"
        )
