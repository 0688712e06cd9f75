"""Figures of arms that ran with the same seeds: intervals, paired differences, fair choices.

Values are those of each arm and seed, by measure. What one run lacks is left out of them all.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from recipes.intervals import interval
from recipes.rating import Curve, saved

Values = Mapping[tuple[str, int], Mapping[str, float]]
Curves = Mapping[tuple[str, int], Curve]

COMPARED_AT = "0.12"
"""The noise at which the worst rebuilt run sets the error."""


def figures(values: Values, arm: str, seeds: Sequence[int]) -> dict[str, Any]:
    """What an arm comes to over its seeds."""
    return {
        measure: interval([values[arm, seed][measure] for seed in seeds])
        for measure in _common([values[arm, seed] for seed in seeds])
    }


def differences(
    values: Values, arm: str, control: str, seeds: Sequence[int], better: Callable[[str], int]
) -> dict[str, Any]:
    """By how much an arm is better than a control: above 0 it is.

    Args:
        values: of both.
        arm: that is to be better.
        control: than which.
        seeds: that both ran with.
        better: 1 for a measure of which more is better, else -1.
    """
    return {
        measure: interval(
            [
                better(measure) * (values[arm, seed][measure] - values[control, seed][measure])
                for seed in seeds
            ]
        )
        for measure in _common([values[of, seed] for of in (arm, control) for seed in seeds])
    }


def _common(found: Sequence[Mapping[str, float]]) -> list[str]:
    """The measures that all have."""
    return [measure for measure in found[0] if all(measure in each for each in found)]


def saved_nats(
    curves: Curves, arm: str, control: str, seeds: Sequence[int]
) -> dict[str, Any] | None:
    """The share of a control's nats that an arm saves at equal error, whatever the error.

    None if a seed has no error that both reach.
    """
    shares = [saved(curves[arm, seed], curves[control, seed]) for seed in seeds]
    known = [share for share in shares if share is not None]
    return interval(known) if len(known) == len(shares) else None


def common_psnr(curves: Sequence[Curve]) -> tuple[float, float]:
    """The PSNR in dB at which nats are compared, after the least that all can fall to.

    Where the least is above it, nats cannot be compared.
    """
    least = max(min(at["psnr"] for at in curve.values()) for curve in curves)
    return least, min(curve[COMPARED_AT]["psnr"] for curve in curves)


def chosen(of_seeds: Sequence[Mapping[str, float]], better: int) -> list[float]:
    """Of each seed the value of one option, which its own figures had no say in.

    It is the best in the mean over the other seeds. A seed alone can only choose for itself, which
    flatters it.

    Args:
        of_seeds: the value of every option.
        better: 1 if more is better, else -1.
    """
    found = []
    for i, own in enumerate(of_seeds):
        others = [each for j, each in enumerate(of_seeds) if j != i] or [own]
        best = max(own, key=lambda option: better * mean(each[option] for each in others))
        found.append(own[best])
    return found
