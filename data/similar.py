"""Images that are the same, or nearly: hashes of their pixels, and thumbnails compared one by one.

Thumbnails are compared by how they change from each cell to the next, not by their colours: two
drawings on white, or two photographs under one sky, have most of their colours in common. Turned,
mirrored and far more tightly cropped copies are not found.

Letters: N, M images; H, W height and width in pixels; S cells on a side of a thumbnail; F features.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from .images import resize

SIDE = 16
"""Cells on a side of a thumbnail."""
BLOCK = 4_096
"""Thumbnails that are compared with as many at a time: 100 MB."""
CHECKED = 65_536
"""Pairs whose thumbnails are held beside each other at a time: 150 MB."""
LEAST_STEPS = 1.0
"""Length of all steps of a thumbnail, in levels, below which there are none but of rounding."""
DIGEST_BYTES = 16
CPU = torch.device("cpu")

Thumbnails = UInt8[np.ndarray, "N 16 16 3"]
Progress = Callable[[range, str], Iterable[int]]
"""Goes through a range, and may show how far it is, and with what."""


def silent(steps: range, what: str) -> Iterable[int]:
    """Go through a range and show nothing."""
    return steps


@dataclass(frozen=True, kw_only=True)
class Alike:
    """When two images count as nearly the same."""

    correlation: float
    """Least, of the steps between neighbouring cells, in 0..1. Two photographs of different things
    stay below 0.85 (the nearest are two that have the same frame), copies of another size, quality
    or tone are mostly above 0.9; of images below some 40 px it finds fewer."""
    difference: int = 255
    """Most, in any cell and colour, in levels: 32 tells most drawings apart that differ in a detail
    or in a colour alone, and photographs of different tone too; 255 asks nothing."""

    def __post_init__(self) -> None:
        if not 0 < self.correlation <= 1:
            raise ValueError(f"correlation must be above 0 and at most 1, got {self.correlation}")
        if not 0 <= self.difference <= 255:
            raise ValueError(f"difference must lie in 0..255, got {self.difference}")


def digest(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Hash an image's size and pixels: whatever file they came from, equal ones get the same."""
    hashed = hashlib.blake2b(repr(image.shape).encode(), digest_size=DIGEST_BYTES)
    hashed.update(np.ascontiguousarray(image).data)
    return hashed.digest()


def thumbnail(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "16 16 3"]:
    """Squash an image to its thumbnail, so that a squashed copy has the same one."""
    return resize(image, SIDE, SIDE)


def alike_in(
    thumbnails: Thumbnails,
    others: UInt8[np.ndarray, "M 16 16 3"],
    alike: Alike,
    *,
    device: torch.device = CPU,
    progress: Progress = silent,
) -> Int64[np.ndarray, "N"]:
    """Find for each image the first of the others that is nearly the same, or -1."""
    found = np.full(len(thumbnails), -1)
    for start in progress(range(0, len(thumbnails), BLOCK), "compared"):
        for offset in range(0, len(others), BLOCK):
            rows = start + np.flatnonzero(found[start : start + BLOCK] < 0)
            candidates = np.arange(offset, min(offset + BLOCK, len(others)))
            one, other = _alike(thumbnails[rows], others[candidates], alike, device)
            one, first = np.unique(one, return_index=True)
            found[rows[one]] = candidates[other[first]]
    return found


def alike_among(
    thumbnails: Thumbnails,
    alike: Alike,
    *,
    device: torch.device = CPU,
    progress: Progress = silent,
) -> Int64[np.ndarray, "N"]:
    """Find for each image the first earlier one that stays and is nearly the same, or -1: it stays.

    No two that stay are nearly the same, and each that goes is nearly the same as one that stays.
    """
    found = np.full(len(thumbnails), -1)
    for start in progress(range(0, len(thumbnails), BLOCK), "compared"):
        for offset in range(0, start + 1, BLOCK):
            rows = start + np.flatnonzero(found[start : start + BLOCK] < 0)
            candidates = offset + np.flatnonzero(found[offset : offset + BLOCK] < 0)
            one, other = _alike(thumbnails[rows], thumbnails[candidates], alike, device)
            for late, early in zip(rows[one].tolist(), candidates[other].tolist(), strict=True):
                if early < late and found[late] < 0 and found[early] < 0:
                    found[late] = early
    return found


def _alike(
    thumbnails: Thumbnails,
    others: UInt8[np.ndarray, "M 16 16 3"],
    alike: Alike,
    device: torch.device,
) -> tuple[Int64[np.ndarray, "L"], Int64[np.ndarray, "L"]]:
    """List the pairs (of an image and another one) that are alike, in order."""
    correlation = _steps(thumbnails, device) @ _steps(others, device).T  # [N, M]
    one, other = (correlation >= alike.correlation).nonzero().T.cpu().numpy()
    near = np.ones(len(one), dtype=bool)
    for start in range(0, len(one) if alike.difference < 255 else 0, CHECKED):
        some = slice(start, start + CHECKED)
        difference = thumbnails[one[some]].astype(np.int16) - others[other[some]]
        near[some] = abs(difference).max(axis=(1, 2, 3)) <= alike.difference
    return one[near], other[near]


def _steps(thumbnails: Thumbnails, device: torch.device) -> Float32[Tensor, "N F"]:
    """Unit vectors whose products are the correlations of the steps from cell to cell.

    The steps themselves would be twice as many numbers. Seen as waves, a thumbnail needs only a
    weight for each: a step is a derivative. One of a single colour has no steps and is like none.
    """
    waves, weights = (each.to(device) for each in _waves())
    cells = torch.from_numpy(np.ascontiguousarray(thumbnails)).to(device).float()
    seen = torch.einsum("ki,lj,nijc->nklc", waves, waves, cells) * weights[..., None]
    return torch.nn.functional.normalize(seen.flatten(1), eps=LEAST_STEPS)


@cache
def _waves() -> tuple[Float32[Tensor, "16 16"], Float32[Tensor, "16 16"]]:
    """Build the cosines of a line of cells, and the weight of each pair of them.

    Source: Strang 1999, "The discrete cosine transform", section 2: these cosines are the
    eigenvectors of second differences, https://doi.org/10.1137/S0036144598336745.
    """
    turn = torch.pi * torch.arange(SIDE) / SIDE
    waves = torch.cos(turn[:, None] * (torch.arange(SIDE) + 0.5)) * (2 / SIDE) ** 0.5
    waves[0] /= 2**0.5
    steps = 2 - 2 * torch.cos(turn)  # squared
    return waves, (steps[:, None] + steps).sqrt()
