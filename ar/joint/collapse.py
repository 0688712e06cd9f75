"""Collapse: when a joint training has to stop.

The AR loss is no witness: it falls fastest where tokens lose rank and meaning. What is watched is
what a user would miss: how many directions the tokens use, how well images are found by captions,
and how well they are rebuilt.

    N images   K tokens   D channels of a token
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

LOW = 0.1
"""Quantile of the channels' deviations that is limited: of very many one may always be silent."""
SILENT = 0.01
"""Deviation under which a channel says nothing, as a share of the mean one's."""
SHARES = {
    "rank": "rank",
    "deviation": "deviation",
    "channel_deviation": "deviation",
    "novelty": "novelty",
}
"""Figures of which a share must be kept, and the limit that says which."""
FALLS = {"recall": "recall", "recall_": "recall_at_any", "psnr": "psnr", "psnr_": "psnr"}
"""Figures that may fall by so much, and the limit that says how much; those that end in _ stand for
what is measured at single prefixes."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a joint training may fall below its start before it stops itself."""

    rank: float = 0.8
    """Least share of the participation rank that the tokens had."""
    deviation: float = 0.5
    """Least share of its deviation that any position may keep, over its channels together, and that
    nine tenths of the single channels must keep."""
    novelty: float = 0.2
    """Least share that any token may keep of what no single token before it says."""
    recall: float = 0.1
    """Most that recall may fall, in shares of 1, the mean over prefixes."""
    recall_at_any: float = 0.2
    """The same at any one prefix, which few pairs know less well."""
    psnr: float = 1.0
    """Most decibels that rebuilt images may lose, from all tokens and from the first."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"the limit of {name} must be at least 0, got {value}")


def broken(start: Mapping[str, float], now: Mapping[str, float], limits: Limits) -> str | None:
    """Say which limit a training has broken; None, if none.

    Args:
        start: figures `rank`, `deviation`, and `channel_deviation`, `novelty`, `recall` and `psnr`
            where they are measured, the last two also with a prefix: `recall_4`.
        now: the same, later.
        limits: to hold.
    """
    for name, limit in SHARES.items():
        share = getattr(limits, limit)
        if name in start and not now[name] >= share * start[name]:
            return (
                f"{name} is {now[name]:.2f}, under {share:.0%} of the {start[name]:.2f} that it "
                "began with"
            )
    for name in start:
        fall = FALLS.get(name.rstrip("0123456789"))
        if fall is None:
            continue
        most = getattr(limits, fall)
        if not now[name] >= start[name] - most:
            return (
                f"{name} is {now[name]:.3g}, more than {most:g} below the {start[name]:.3g} that "
                "it began with"
            )
    return None


def kept_deviations(
    before: Float[Tensor, "N K D"], after: Float[Tensor, "N K D"]
) -> dict[str, float]:
    """How much of their deviation positions, and single channels of them, have kept.

    Channels that said nothing before cannot fall silent and do not count.
    """
    first, now = before.std(dim=0), after.std(dim=0)  # [K, D]
    position = now.norm(dim=1) / first.norm(dim=1).clamp(min=1e-12)
    speaks = first > SILENT * first.mean()
    channel = now[speaks] / first[speaks] if speaks.any() else first.new_zeros(1)
    return {
        "deviation": position.min().item(),
        "channel_deviation": channel.quantile(LOW).item(),
        "least_channel_deviation": channel.min().item(),
    }
