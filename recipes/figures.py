"""The figures in a tree of results, whatever program wrote it.

A tree is what JSON gives: maps, lists, numbers, texts. A figure is a number, a text, a mean with
its interval, or a curve: a map from numbers (prefix lengths, layers, noise) to figures, or a list
of numbers. Each is found under its path, the names of the maps it lies in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeAlias

from recipes.engine.page import NOTHING

LARGEST = 1e300
"""Whatever is beyond, whole numbers of any length among it, is no figure."""

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number, and the interval that it lies in where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        middle = f"{self.value:.4g}"
        if self.low is None or self.high is None:
            return middle
        return f"{middle} ± {(self.high - self.low) / 2:.2g}"


Curve: TypeAlias = dict[str, Measured]
"""Number, as text, to what was measured there."""
Figure: TypeAlias = Measured | Curve | str


def figures_in(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Figure]]:
    """Every figure of a tree, in its order."""
    if (one := _measured(tree)) or isinstance(tree, str):
        yield path, one or tree
    elif isinstance(tree, list):
        yield from _of_list(tree, path)
    elif isinstance(tree, Mapping) and tree and all(map(_is_numeral, tree)):
        yield from _of_curves(tree, path)
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from figures_in(value, (*path, name))


def _of_list(items: Sequence[Any], path: Path) -> Iterator[tuple[Path, Figure]]:
    """A curve of numbers; of anything else each by itself."""
    if items and all(_measured(item) for item in items):
        yield from _of_curves({str(i): item for i, item in enumerate(items, start=1)}, path)
        return
    for number, item in enumerate(items, start=1):
        yield from figures_in(item, (*path, f"no. {number}"))


def _of_curves(tree: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Figure]]:
    """One curve for each figure that lies under the numbers; curves of curves stand by number."""
    curves: dict[Path, Curve] = {}
    for k, value in tree.items():
        for inner, found in figures_in(value):
            if isinstance(found, Measured):
                curves.setdefault(inner, {})[k] = found
            else:
                yield (*path, k, *inner), found
    for inner, curve in curves.items():
        yield (*path, *inner), curve


def _measured(value: Any) -> Measured | None:
    """A number, or a mean with its interval; None for anything else."""
    if _is_number(value):
        return Measured(value=float(value))
    if not isinstance(value, Mapping) or not {"mean", "low", "high"} <= value.keys():
        return None
    if not _is_number(value["mean"]):
        return None
    low, high = (float(value[end]) if _is_number(value[end]) else None for end in ("low", "high"))
    return Measured(value=float(value["mean"]), low=low, high=high)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LARGEST


def _is_numeral(name: str) -> bool:
    try:
        return isfinite(float(name))
    except ValueError:
        return False


def in_words(path: Path) -> str:
    """A path as a reader sees it."""
    return ", ".join(name.replace("_", " ") for name in path) or "all"


def in_cell(figure: Measured | str | None) -> str:
    """A figure as it stands in a table."""
    return NOTHING if figure is None else str(figure)
