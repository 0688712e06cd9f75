"""The order of samples: an endless stream of epochs, a pure function of (seed, epoch, position).

No worker, process or world size enters, so a run resumes anywhere and continues on any number of
processes. Every sample comes once per epoch, the last ones too. Letters: N samples, L positions.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

Indices = Int64[np.ndarray, "L"]
TURN = 1_000
"""Positions in which sets that are mixed by weight come exactly as often as their weights say."""


@lru_cache(maxsize=8)
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


def global_indices(seed: int, start: int, length: int, count: int) -> tuple[Indices, Indices]:
    """Look up `length` positions of the stream from `start` on: the samples, and their epochs."""
    _at_least("start", start, 0)
    _at_least("count", count, 1)
    return _look_up(seed, np.arange(start, start + length, dtype=np.int64), count)


def mixed_indices(
    seed: int, start: int, length: int, counts: Sequence[int], shares: Sequence[int]
) -> tuple[Indices, Indices]:
    """Like `global_indices`, over several sets of which each has its own epochs.

    Args:
        seed: of the order.
        start: first position.
        length: positions.
        counts: samples of each set; the indices of the second follow those of the first.
        shares: how many of each 1,000 positions are each set's, see `thousandths`.
    """
    _at_least("start", start, 0)
    positions = np.arange(start, start + length, dtype=np.int64)
    turns, places = np.divmod(positions, TURN)
    whose = np.repeat(np.arange(len(shares)), shares)
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    indices, epochs = np.empty_like(positions), np.empty_like(positions)
    for turn in np.unique(turns):
        drawn = whose[epoch_order(seed + 1, int(turn), TURN)]  # another order than any set's
        for each, (count, share) in enumerate(zip(counts, shares, strict=True)):
            earlier = np.cumsum(drawn == each) - 1
            here = (turns == turn) & (drawn[places] == each)
            own = hashed(seed, each) if each else seed  # two sets of one size differ in order
            found, epochs[here] = _look_up(own, turn * share + earlier[places[here]], count)
            indices[here] = offsets[each] + found
    return indices, epochs


def thousandths(weights: Sequence[float]) -> tuple[int, ...]:
    """Share 1,000 positions out by weight; what rounding leaves goes to the largest remainders.

    Raises:
        ValueError: for a weight that is not above 0, or too small beside the others to get one.
    """
    if not weights or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"weights must be above 0, got {list(weights)}")
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * TURN
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: TURN - shares.sum()]] += 1
    if not shares.all():
        raise ValueError(f"weights must be at least a thousandth of their sum, got {list(weights)}")
    return tuple(shares.tolist())


def hashed(*names: int) -> int:
    """Draw 64 bits that are a pure function of their names, such as seed, epoch and sample.

    Source: Steele et al. 2014, SplitMix, https://doi.org/10.1145/2660193.2660195.
    """
    mask = 2**64 - 1
    state = 0
    for name in names:
        state = ((state ^ name) + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state


def _look_up(seed: int, positions: Indices, count: int) -> tuple[Indices, Indices]:
    epochs, places = np.divmod(positions, count)
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = epoch_order(seed, int(epoch), count)[places[here]]
    return indices, epochs


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
