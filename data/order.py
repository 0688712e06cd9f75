"""The order of samples: an endless stream of epochs, a pure function of (seed, epoch, position).

No worker, process or world size enters, so a run resumes anywhere and continues on any number of
processes. Every sample comes once per epoch, the last ones too. Letters: N samples, L positions.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Int64


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> Int64[np.ndarray, "{count}"]:
    """Permute 0..count-1 for one epoch (read-only).

    Sorts raw Philox bits: numpy keeps those the same in every version, but not `permutation`.

    Raises:
        ValueError: for a negative seed or epoch, or a count below 1.
    """
    _at_least("seed", seed, 0)
    _at_least("epoch", epoch, 0)
    _at_least("count", count, 1)
    bits = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(count)
    order = np.argsort(bits, kind="stable")
    order.setflags(write=False)
    return order


def global_indices(
    seed: int, start: int, length: int, count: int
) -> tuple[Int64[np.ndarray, "{length}"], Int64[np.ndarray, "{length}"]]:
    """Look up `length` positions of the stream from `start` on: the samples, and their epochs."""
    _at_least("start", start, 0)
    _at_least("count", count, 1)
    positions = np.arange(start, start + length, dtype=np.int64)
    epochs, places = np.divmod(positions, count)
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = epoch_order(seed, int(epoch), count)[places[here]]
    return indices, epochs


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
