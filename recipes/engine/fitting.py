"""Whether a checkpoint holds what a training can go on from: right hashes may be anybody's."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.optim import Optimizer

from .checkpoint import Checkpoint
from .optim import check_state

KINDS: Mapping[str, type | tuple[type, ...]] = {
    "settings": dict,
    "groups": dict,
    "seconds": (int, float),
}


def check_parts(found: Checkpoint, names: Sequence[str]) -> None:
    """Refuse a checkpoint that lacks one of these groups of tensors, or a part of its state.

    Raises:
        ValueError: names all that is missing, or what is of another kind.
    """
    missing = [name for name in names if name not in found.tensors]
    missing += [name for name in KINDS if name not in found.state]
    if missing:
        raise ValueError(f"checkpoint {found.path} lacks {', '.join(missing)}")
    for name, kind in KINDS.items():
        if not isinstance(found.state[name], kind):
            raise ValueError(
                f"{name} in checkpoint {found.path} is of another kind, {found.state[name]!r}"
            )
    if not 0 <= found.state["seconds"] < math.inf:
        raise ValueError(
            f"seconds in checkpoint {found.path} must not be below 0, got {found.state['seconds']}"
        )


def check_tensors(found: Checkpoint, name: str, now: Mapping[str, Tensor]) -> None:
    """Refuse a group of saved tensors that are not those of now in names, shapes and types.

    Raises:
        ValueError: names the first that is not.
    """
    saved, where = found.tensors[name], f"{name} in checkpoint {found.path}"
    for key in sorted(saved.keys() | now.keys()):
        if key not in saved:
            raise ValueError(f"{where} lacks {key}")
        if key not in now:
            raise ValueError(f"{where} has {key}, which nothing here is called")
        if (was := _kind(saved[key])) != (must := _kind(now[key])):
            raise ValueError(f"{key} of {where} is {was} and must be {must}")


def check_optimizer(found: Checkpoint, name: str, optimizer: Optimizer) -> None:
    """Refuse the saved state of another optimizer.

    Raises:
        ValueError: says what does not fit.
    """
    if name not in found.state["groups"]:
        raise ValueError(f"checkpoint {found.path} lacks the groups of {name}")
    try:
        check_state(optimizer, found.tensors[name], found.state["groups"][name])
    except ValueError as error:
        raise ValueError(f"{name} in checkpoint {found.path} does not fit: {error}") from error


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
