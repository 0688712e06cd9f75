"""Collapse: when a joint training has to stop.

The AR loss is no witness: it falls fastest where tokens lose rank and meaning. What is watched is
what a user would miss: how many directions the tokens use, how well images are found by captions,
and how well they are rebuilt.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a joint training may fall below its start before it stops itself."""

    rank: float = 0.8
    """Least share of the participation rank that the tokens had."""
    deviation: float = 0.5
    """Least share of its deviation that any position may keep, over its channels together."""
    recall: float = 0.1
    """Most that recall may fall, in shares of 1."""
    psnr: float = 1.0
    """Most decibels that rebuilt images may lose."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"the limit of {name} must be at least 0, got {value}")


def broken(start: Mapping[str, float], now: Mapping[str, float], limits: Limits) -> str | None:
    """Say which limit a training has broken; None, if none.

    Args:
        start: figures `rank`, `deviation`, and `recall` and `psnr` where they are measured.
        now: the same, later.
        limits: to hold.
    """
    for name in ("rank", "deviation"):
        least = getattr(limits, name) * start[name]
        if not now[name] >= least:
            return (
                f"{name} is {now[name]:.2f}, under {getattr(limits, name):.0%} of the "
                f"{start[name]:.2f} that it began with"
            )
    for name in ("recall", "psnr"):
        if name in start and not now[name] >= start[name] - getattr(limits, name):
            return (
                f"{name} is {now[name]:.3g}, more than {getattr(limits, name):g} below the "
                f"{start[name]:.3g} that it began with"
            )
    return None
