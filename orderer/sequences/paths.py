"""Paths over a square grid of cells: in which order each of them is visited.

c cells on a side   N = c * c cells, counted row by row
"""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Int
from torch import Tensor

Path = Int[Tensor, "N"]
"""The cells in the order in which they are visited."""


def raster(side: int) -> Path:
    """Row by row."""
    return torch.arange(side * side)


def spiral(side: int) -> Path:
    """Along the edge, clockwise from the top left, then inwards."""
    parts, rest = [], raster(side).view(side, side)
    while rest.numel():
        parts.append(rest[0])
        rest = rest[1:].rot90()  # the next side of the spiral comes to the top
    return torch.cat(parts)


def morton(side: int) -> Path:
    """Quarter by quarter, and so within each: the bits of row and column take turns."""
    return _by_key(side, lambda row, column: _interleaved(row, column))


def hilbert(side: int) -> Path:
    """Quarter by quarter, each turned so that the next cell is a neighbour.

    So it is where the side is a power of two; on others the curve of the next power is followed,
    and what lies outside is left out.

    Source: Warren 2012, "Hacker's Delight", section 16-1.
    """
    return _by_key(side, lambda row, column: _along_hilbert(row, column, _power_above(side)))


def centre_out(side: int) -> Path:
    """From the centre outwards, by angle where cells are equally far."""
    middle = (side - 1) / 2

    def key(row: int, column: int) -> tuple[float, float]:
        down, right = row - middle, column - middle
        return round(math.hypot(down, right), 6), math.atan2(down, right)

    return _by_key(side, key)


def shuffled(side: int, seed: int) -> Path:
    """At random, the same for every image."""
    return torch.randperm(side * side, generator=torch.Generator().manual_seed(seed))


PATHS: Mapping[str, Callable[[int], Path]] = {
    "raster": raster,
    "spiral": spiral,
    "z": morton,
    "hilbert": hilbert,
    "centre_out": centre_out,
}
"""Those that follow from the side alone."""


def _by_key(side: int, key: Callable[[int, int], object]) -> Path:
    keys = [key(*divmod(cell, side)) for cell in range(side * side)]
    return torch.tensor(sorted(range(side * side), key=keys.__getitem__))


def _interleaved(row: int, column: int) -> int:
    bits = max(row, column).bit_length()
    return sum(
        (column >> bit & 1) << 2 * bit | (row >> bit & 1) << 2 * bit + 1 for bit in range(bits)
    )


def _along_hilbert(row: int, column: int, side: int) -> int:
    """How far along the curve of a square with a power of two cells on a side a cell lies."""
    place = 0
    while side > 1:
        side //= 2
        below, right = row >= side, column >= side
        place += side * side * (3 * below ^ right)
        row, column = row % side, column % side
        if not right:  # enter the quarter where the one before was left
            if below:
                row, column = side - 1 - row, side - 1 - column
            row, column = column, row
    return place


def _power_above(side: int) -> int:
    return 1 << (side - 1).bit_length()
