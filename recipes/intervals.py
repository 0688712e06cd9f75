"""What seeds come to: a mean with its interval, and how it is said in a table."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any

STUDENT = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5% quantiles of Student's t with 1, 2, ... degrees of freedom; with more, the last
one makes intervals rather too wide."""


def interval(values: Sequence[float]) -> dict[str, Any]:
    """The mean over seeds and, from two seeds on, its 95% interval."""
    middle, degrees = mean(values), len(values) - 1
    if not degrees:
        return {"mean": middle, "low": None, "high": None, "seeds": list(values)}
    quantile = STUDENT[min(degrees, len(STUDENT)) - 1]
    reach = quantile * stdev(values) / sqrt(len(values))
    return {"mean": middle, "low": middle - reach, "high": middle + reach, "seeds": list(values)}


def plus_minus(value: Mapping[str, Any], scale: float = 1.0, digits: int | None = None) -> str:
    """A mean and, where there is one, half of its interval.

    Args:
        value: as `interval` gives it.
        scale: 100 for percent.
        digits: behind the point; by default as `number` has them.
    """

    def shown(x: float) -> str:
        return number(scale * x) if digits is None else f"{scale * x:.{digits}f}"

    if value["low"] is None:
        return shown(value["mean"])
    return f"{shown(value['mean'])} ± {shown(value['high'] - value['mean'])}"


def cell(value: Mapping[str, Any] | None) -> str | None:
    """The same in a table, in which some have no value."""
    return None if value is None else plus_minus(value)


def number(value: float) -> str:
    """A number with three digits behind the point if it is small, else with one."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
