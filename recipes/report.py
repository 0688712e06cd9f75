r"""Turn result files into one page with tables and curves, and into tables for a README.

    python -m recipes.report runs/demo
    python -m recipes.report recipes/results --out=report.html

Reads the result files that lie in the folders, at any depth: evaluation.json, results.json (the
demo's), ablation.json, order.json, orders.json, heads.json, coevolution.json, losslessness.json,
controls.json, bench-*.json. One that lacks what its kind must say is refused; what older files do
not say stands above their tables, and other JSON files are left out, the first of them by name.
Every figure of a file comes up: curves over prefixes, layers or noise as lines and tables, single
figures in a table with a column for each arm. Writes --out, which needs no other file, and beside
it the same tables in Markdown (report.md). Takes seconds.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.engine.cli import run as start
from recipes.engine.cli import with_words
from recipes.engine.files import replace_file
from recipes.engine.gallery import visible
from recipes.engine.page import Section, markdown_table, write_page
from recipes.engine.result_kinds import check_result, kind_of
from recipes.result_section import section

MOST_BYTES = 64 * 2**20
"""Of a file that is read."""
NAMED = 5
"""Most of the files without results that are named."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to read and where to write."""

    folders: tuple[Path, ...] = (Path("runs/demo"),)
    out: Path = Path("report.html")

    def __post_init__(self) -> None:
        if self.out.suffix != ".html":
            raise ValueError(f"out must end in .html, got {self.out}")


def main(config: Config) -> None:
    """Read, draw, write."""
    known, unknown = {}, []
    for path in files_in(config.folders):
        data = read(path)
        if kind_of(data, path) is None:
            unknown.append(path)
        else:
            check_result(data, path)
            known[path] = data
    if unknown:
        named = ", ".join(visible(str(path)) for path in unknown[:NAMED])
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        print(f"left out, no results: {named}{more}")
    if not known:
        raise ValueError(f"there are no result files in {', '.join(map(str, config.folders))}")
    sections = [_section(path, data) for path, data in known.items()]
    intro = f"{len(sections)} result files."
    if unknown:
        intro += f" Left out, no results: {', '.join(str(path) for path in unknown)}."
    write_page(config.out, "Results", intro, sections)
    tables = config.out.with_suffix(".md")
    replace_file(tables, _markdown(sections).encode("utf-8", errors="replace"))
    print(f"page: {config.out}, tables: {tables}, from {len(sections)} files")


def files_in(folders: Sequence[Path]) -> list[Path]:
    """The JSON files of all folders, each once.

    Raises:
        ValueError: for a folder that is not there.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}")
    return sorted({path for folder in folders for path in folder.rglob("*.json")})


def read(path: Path) -> Any:
    """The tree in a JSON file.

    Raises:
        ValueError: for a file that is too large, no JSON, or nested too deeply.
    """
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, at most {MOST_BYTES:,} are read")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON that can be read: {error}") from error


def _section(path: Path, data: Mapping[str, Any]) -> Section:
    try:
        return section(path, data)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply to be read") from error


def _markdown(sections: Sequence[Section]) -> str:
    """A heading for each file, then its tables."""
    return "\n".join(_lines(sections))


def _lines(sections: Sequence[Section]) -> Iterator[str]:
    for each in sections:
        heading = " ".join(visible(each.heading).split())
        yield f"## {heading}\n"
        for table in each.tables:
            yield f"{markdown_table(table)}\n"


if __name__ == "__main__":
    start(main, Config, with_words(sys.argv[1:], "folders"))
