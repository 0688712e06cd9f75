"""Charts that a page draws itself: they follow its width, its letters and its light or dark.

Everything is placed in percent, so that bars stretch with the page and letters do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, log10

MAX_COLUMNS = 40
TAIL = 0.005
"""Share of the values, the largest ones, that may come together in the last column."""
GAP = 0.12
"""Between two columns, as a share of a column."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Columns over whole numbers: how often each of them, or each range of them, comes."""

    title: str
    counts: Mapping[int, int]
    """Number to how often it comes, at least one of them."""

    def __post_init__(self) -> None:
        if not self.counts:
            raise ValueError(f"the histogram {self.title!r} has no numbers")

    def html(self) -> str:
        """Draw it, and give the same numbers as a table that can be unfolded."""
        columns = columns_of(self.counts)
        highest = max(count for _, count in columns)
        step = 100 / len(columns)
        bars = "".join(
            f'<rect x="{(index + GAP / 2) * step:.3f}%" width="{(1 - GAP) * step:.3f}%" '
            f'y="{100 - 100 * count / highest:.2f}%" height="{100 * count / highest:.2f}%">'
            f"<title>{name}: {count:,}</title></rect>"
            for index, (name, count) in enumerate(columns)
        )
        title = escape(self.title)
        rows = "".join(f'<tr><th scope="row">{x}</th>{_number(n)}</tr>' for x, n in columns)
        return (
            f'<figure class="chart"><figcaption>{title}</figcaption>\n'
            f'<svg role="img" aria-label="Histogram: {title}" width="100%" height="190">'
            f'<text y="12">{highest:,}</text><line x2="100%" y1="18" y2="18"/>'
            f'<svg y="18" width="100%" height="148">{bars}</svg>'
            f'<line x2="100%" y1="166" y2="166"/>'
            f"{number_ticks([name for name, _ in columns], 182)}</svg>\n"
            f'<details><summary>The numbers</summary><div class="table"><table>\n'
            f'<thead><tr><th scope="col">{title}</th><th scope="col" class="number">how often</th>'
            f"</tr></thead>\n<tbody>{rows}</tbody>\n</table></div></details></figure>"
        )


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A table of names and counts (or other numbers from 0), each with a bar as long as it is."""

    title: str
    counts: Sequence[tuple[str, float]]

    def html(self) -> str:
        """Draw it; the names are shown as they are."""
        longest = max((count for _, count in self.counts), default=1) or 1
        rows = "\n".join(
            f'<tr><th scope="row"><bdi>{escape(name)}</bdi></th>{_number(count)}'
            f'<td><svg aria-hidden="true" width="100%" height="10">'
            f'<rect width="{100 * count / longest:.2f}%" height="10"/></svg></td></tr>'
            for name, count in self.counts
        )
        return (
            f'<table class="bars"><caption>{escape(self.title)}</caption>\n'
            f"<tbody>\n{rows}\n</tbody></table>"
        )


def columns_of(counts: Mapping[int, int]) -> list[tuple[str, int]]:
    """Gather numbers into about MAX_COLUMNS ranges of one round width, empty ones too.

    Where there are more numbers, the largest TAIL of the values share the last range.
    """
    low, high = min(counts), max(counts)
    if high - low >= MAX_COLUMNS:
        high = _without_tail(counts)
    width = _round_width((high - low + 1) / (MAX_COLUMNS - 2))  # two for the ends
    first = low - low % width
    number = (high - first) // width + 1
    columns = [0] * number
    beyond = 0
    for value, count in counts.items():
        place = (value - first) // width
        if place < number:
            columns[place] += count
        else:
            beyond += count
    named = [(_range(first + i * width, width), count) for i, count in enumerate(columns)]
    return [*named, (f"{first + number * width:,} or more", beyond)] if beyond else named


def _without_tail(counts: Mapping[int, int]) -> int:
    """The value that leaves no more than TAIL of all values above it."""
    allowed = TAIL * sum(counts.values())
    for value in sorted(counts, reverse=True):
        allowed -= counts[value]
        if allowed < 0:
            return value
    return max(counts)


def _round_width(least: float) -> int:
    """The least of 1, 2, 5, 10, 20, 50 and so on that is no less than `least`."""
    if least <= 1:
        return 1
    power = 10 ** ceil(log10(least) - 1)
    return int(next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least))


def _range(start: int, width: int) -> str:
    return f"{start:,}" if width == 1 else f"{start:,} to {start + width - 1:,}"


def number_ticks(names: Sequence[str], y: int) -> str:
    """Names under some of the numbers, `y` pixels down: as many as fit a phone."""
    every = ceil(len(names) / 6)
    return "".join(
        f'<text class="tick" x="{(index + 0.5) * 100 / len(names):.3f}%" y="{y}">'
        f"{escape(names[index].split(' ')[0])}{'+' * names[index].endswith('more')}</text>"
        for index in range(0, len(names), every)
    )


def _number(count: float) -> str:
    text = f"{count:,}" if isinstance(count, int) else f"{count:,.3f}"
    return f'<td class="number">{text}</td>'
