"""A report as one HTML file that needs nothing else: no network, no other file, no script."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Protocol, TypeAlias

from .files import replace_file

Cell: TypeAlias = str | int | float | None
"""A text, a number, or None where there is nothing to say."""

PNG = b"\x89PNG\r\n\x1a\n"
"""What every PNG file begins with."""

NOTHING = "–"  # noqa: RUF001, an en dash is meant

# The first line makes the browser itself refuse whatever would have to be fetched.
HEAD = """\
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --ink: #222831; --soft: #5b6570; --line: #dfe3e8; --paper: #fff;
  --bar: #1f5f99 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #a3adb8; --line: #363d46; --paper: #15181c; --bar: #6ea8dc }
}
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 60rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.6 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { margin: 0 0 1rem; line-height: 1.2 }
h2 { margin: 3rem 0 .75rem; padding-top: 1.25rem; border-top: 1px solid var(--line);
  line-height: 1.3 }
p { margin: 0 0 1rem; max-width: 44rem; white-space: pre-line }
figure { margin: 1.5rem 0 }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px }
figcaption { margin-top: .5rem; max-width: 44rem; color: var(--soft); font-size: .875rem }
.table { margin: 1.5rem 0; overflow-x: auto; overflow-wrap: normal }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .35rem 1.25rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top }
td { max-width: 18rem; overflow-wrap: break-word }
th { color: var(--soft); font-weight: 600 }
.number { text-align: right; white-space: nowrap }
svg { display: block; overflow: visible; fill: var(--bar) }
svg line { stroke: var(--line) }
svg text { fill: var(--soft); font-size: .75rem }
.tick { text-anchor: middle }
.chart figcaption, caption { margin: 0 0 .5rem; color: var(--ink); font-weight: 600;
  font-size: 1rem; text-align: left }
.chart { max-width: 44rem }
.legend { display: flex; flex-wrap: wrap; gap: 0 1.25rem; padding-left: 1.25rem;
  font-size: .875rem }
.legend li { margin-right: .75rem }
.bars { width: 100%; max-width: 44rem; margin: 1.5rem 0; table-layout: fixed }
.bars th, .bars td { padding-block: .1rem; border: 0; color: var(--ink); font-weight: 400 }
.bars th { width: 40% }
.bars .number { width: 4.5rem }
.bars td:last-child { padding-right: 0 }
.bars svg { margin-top: .5rem }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr));
  gap: 1.5rem 1rem; margin: 1.5rem 0; padding: 0; list-style: none; font-size: .875rem;
  line-height: 1.4 }
.gallery li { min-width: 0; overflow: hidden }
.gallery img { image-rendering: pixelated }
.gallery p { margin: .4rem 0 0 }
.gallery .note, summary { color: var(--soft); font-size: .75rem }
summary { margin-top: .4rem; cursor: pointer }
</style>"""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under named columns; a column that holds only numbers is set to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a table must have at least 1 column, got 0")
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} of a table has {len(row)} cells for {len(self.columns)} columns"
                )


class Part(Protocol):
    """What draws itself, such as a chart or a gallery: markup in which every text is escaped."""

    def html(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with text, then pictures, then tables, then other parts."""

    heading: str
    text: str = ""
    """Blank lines part the paragraphs."""
    pictures: Sequence[tuple[Path, str]] = ()
    """PNG files, each with what it shows."""
    tables: Sequence[Table] = ()
    parts: Sequence[Part] = ()


def write_page(path: Path, title: str, intro: str, sections: Sequence[Section]) -> None:
    """Write the report, whole or not at all; every text is shown as it is, never as markup.

    Raises:
        FileNotFoundError: if a picture is not there.
        ValueError: if a picture is no PNG file.
    """
    body = "\n".join([f"<h1>{escape(title)}</h1>", _paragraphs(intro), *map(_section, sections)])
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{HEAD}\n'
        f"<title>{escape(title)}</title>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    # A caption may hold half a surrogate pair, which no UTF-8 file can.
    replace_file(path, page.encode("utf-8", errors="replace"))


def markdown_table(table: Table) -> str:
    """The table as aligned Markdown, for a terminal or a README; ends without a newline."""
    right = _number_columns(table)
    rows = [[_one_line(text).replace("|", r"\|") for text in row] for row in _texts(table)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = [
        "-" * (width - 1) + ":" if is_right else "-" * width
        for width, is_right in zip(widths, right, strict=True)
    ]
    lines = [
        [
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(row, widths, right, strict=True)
        ]
        for row in (rows[0], rule, *rows[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _section(section: Section) -> str:
    return "\n".join(
        [
            f"<section>\n<h2>{escape(section.heading)}</h2>",
            _paragraphs(section.text),
            *(_figure(picture, caption) for picture, caption in section.pictures),
            *map(_html_table, section.tables),
            *(part.html() for part in section.parts),
            "</section>",
        ]
    )


def _paragraphs(text: str) -> str:
    return "\n".join(
        f"<p>{escape(part.strip())}</p>" for part in text.split("\n\n") if part.strip()
    )


def _figure(picture: Path, caption: str) -> str:
    data = picture.read_bytes()
    if not data.startswith(PNG):
        raise ValueError(f"a picture of the page must be a PNG file, got {picture}")
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    text = escape(caption)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _html_table(table: Table) -> str:
    head, *rows = _texts(table)
    right = _number_columns(table)
    body = "\n".join(_html_row("td", row, right) for row in rows)
    return (
        f'<div class="table"><table>\n<thead>\n{_html_row("th", head, right)}\n</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _html_row(tag: str, texts: Sequence[str], right: Sequence[bool]) -> str:
    cells = (
        f'<{tag} class="number">{escape(text)}</{tag}>'
        if is_right
        else f"<{tag}>{escape(text)}</{tag}>"
        for text, is_right in zip(texts, right, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _number_columns(table: Table) -> list[bool]:
    """Which columns hold numbers: at least one of them, and no text."""
    columns = [[row[index] for row in table.rows] for index in range(len(table.columns))]
    return [
        any(cell is not None for cell in column) and not any(isinstance(x, str) for x in column)
        for column in columns
    ]


def _texts(table: Table) -> list[list[str]]:
    """The head and the rows, as texts."""
    columns = [
        [name, *_column_texts([row[index] for row in table.rows])]
        for index, name in enumerate(table.columns)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def _column_texts(cells: Sequence[Cell]) -> list[str]:
    """Floats of one column share their decimals: three if all are below 10, else one."""
    floats = [abs(x) for x in cells if isinstance(x, float) and math.isfinite(x)]
    decimals = 3 if max(floats, default=0.0) < 10 else 1
    return [_text(x, decimals) for x in cells]


def _text(cell: Cell, decimals: int) -> str:
    if cell is None or isinstance(cell, str):
        return NOTHING if cell is None else cell
    return f"{cell:,.{decimals}f}" if isinstance(cell, float) else f"{cell:,}"


def _one_line(text: str) -> str:
    """Without line breaks and control characters, which a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
