"""A chart of lines that a page draws itself, beside the charts of `charts`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .charts import number_ticks

COLOURS = ("#1f77b4", "#d9541e", "#2a9d5c", "#8a5cc2", "#b8860b", "#c23b7a", "#4f8f9f", "#7d7d7d")
"""Seen on light and on dark, and told apart by most who see fewer colours."""
DASHES = ("none", "6 3", "2 3")
"""Of the first lines, and of those that have to use a colour again."""

Point = tuple[float, float, float]
"""A value, and the ends of its interval, which are the value itself where there is none."""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Lines over the same numbers, which are evenly apart whatever they are."""

    title: str
    lines: Mapping[str, Mapping[str, Point]]
    """Name to the points by their number, as text."""

    def __post_init__(self) -> None:
        if not any(self.lines.values()):
            raise ValueError(f"the chart {self.title!r} has no points")

    def html(self) -> str:
        """Draw it; the numbers are for a table beside it."""
        places = sorted({k for line in self.lines.values() for k in line}, key=float)
        ends = [end for line in self.lines.values() for point in line.values() for end in point]
        low, high = min(ends), max(ends)
        drawn = "\n".join(
            _line(index, line, places, low, high) for index, line in enumerate(self.lines.values())
        )
        title = escape(self.title)
        return (
            f'<figure class="chart"><figcaption>{title}</figcaption>\n'
            f'<svg role="img" aria-label="Lines: {title}" width="100%" height="230">'
            f'<text y="12">{high:.4g}</text><line x2="100%" y1="18" y2="18"/>'
            f'<svg y="18" width="100%" height="180" viewBox="0 0 100 100" '
            f'preserveAspectRatio="none" fill="none">\n{drawn}\n</svg>'
            f'<line x2="100%" y1="198" y2="198"/><text y="192">{low:.4g}</text>'
            f"{number_ticks(places, 214)}</svg>\n{_legend(list(self.lines))}</figure>"
        )


def _line(
    index: int, line: Mapping[str, Point], places: Sequence[str], low: float, high: float
) -> str:
    """One line, and a stroke up and down for each interval."""
    x = {k: (place + 0.5) * 100 / len(places) for place, k in enumerate(places)}
    points = [(x[k], line[k]) for k in places if k in line]

    def y(value: float) -> float:
        return 50.0 if high == low else 100 - 100 * (value / 2 - low / 2) / (high / 2 - low / 2)

    path = " ".join(f"{at:.2f},{y(value):.2f}" for at, (value, _, _) in points)
    intervals = "".join(
        f"M{at:.2f} {y(bottom):.2f}V{y(top):.2f}" for at, (_, bottom, top) in points
    )
    style = f'stroke="{_colour(index)}" vector-effect="non-scaling-stroke"'
    return (
        f'<polyline points="{path}" {style} stroke-width="2" '
        f'stroke-dasharray="{DASHES[index // len(COLOURS) % len(DASHES)]}"/>'
        f'<path d="{intervals}" {style}/>'
    )


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li style="color: {_colour(index)}"><bdi>{escape(name)}</bdi></li>'
        for index, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
