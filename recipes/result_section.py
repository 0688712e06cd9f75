"""A result file as a section of a page: where it comes from, then every figure that it holds."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.engine.lines import Lines
from recipes.engine.page import Section, Table
from recipes.engine.result_kinds import BENCH, OF_CASE, kind_of, lacking
from recipes.figures import Curve, Figure, Measured, figures_in, in_cell, in_words
from recipes.figures import Path as Place

LONGEST = 200
"""Letters of a text in a table or above it."""
WIDEST = 24
"""Numbers of a curve that a table has columns for; of a longer one some are left out."""
Arms = dict[str, dict[Place, Figure]]
"""Name of an arm to its figures."""


def section(path: Path, data: Mapping[str, Any]) -> Section:
    """All figures of a file that has been checked."""
    kind = kind_of(data, path)
    assert kind is not None
    arms = {name: dict(figures_in(tree)) for name, tree in _arms(data, kind).items()}
    curves = list(_curves(arms))
    single = _single(arms, BENCH if kind == BENCH else "")
    return Section(
        heading=f"{path}: {kind}",
        text=_text(path, data, kind),
        tables=[*([single] if single.rows else []), *(_table(*each) for each in curves)],
        parts=[_lines(*each) for each in curves if _is_line(each[1])],
    )


def _arms(data: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The trees that are compared, by name: those of arms or models, else the only one."""
    if kind == BENCH:
        measured = [name for name in OF_CASE if name in ("ours", "reference", "ratio", "unit")]
        return {case: {name: data[case][name] for name in measured} for case in data}
    if kind == "results":
        joint = _maps(data["joint"])
        return {name: joint[name] for name in ("before", "after") if name in joint}
    results = _maps(data["results"]) if isinstance(data["results"], Mapping) else {}
    if "arms" not in results:
        return results
    rest = {name: tree for name, tree in results.items() if name not in ("arms", "compute")}
    return {**_maps(results["arms"]), **rest}


def _maps(tree: Any) -> dict[str, Any]:
    """The maps in a map, by name."""
    if not isinstance(tree, Mapping):
        return {}
    return {name: value for name, value in tree.items() if isinstance(value, Mapping)}


def _text(path: Path, data: Mapping[str, Any], kind: str) -> str:
    """Where the numbers come from, and what the file does not say."""
    about = next(iter(data.values())) if kind == BENCH else data
    protocol = _protocol(about.get("protocol"))
    versions = about["versions"] if isinstance(about["versions"], Mapping) else {}
    made = {name: about.get(name) for name in ("command", "commit", "date", "seeds")}
    lines = [f"{name}: {_short(value)}" for name, value in {**made, **protocol}.items()]
    lines.append(f"versions: {_short(', '.join(f'{n} {v}' for n, v in versions.items()))}")
    if missing := lacking(data, path):
        lines.append(f"The file is older than what is demanded now, it lacks {', '.join(missing)}.")
    return "\n\n".join(lines)


def _protocol(protocol: Any) -> dict[str, Any]:
    wanted = ("split", "images", "captions", "dtype", "ties", "rerank", "judge", "features")
    found = protocol if isinstance(protocol, Mapping) else {}
    return {name: found[name] for name in wanted if found.get(name) is not None}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _single(arms: Arms, title: str) -> Table:
    """Single figures: a row for each, a column for each arm, or turned where arms are many."""
    rows = {
        name: {at: each for at, each in figures.items() if isinstance(each, Measured | str)}
        for name, figures in arms.items()
    }
    rows = {name: figures for name, figures in rows.items() if figures}
    places = list(dict.fromkeys(place for figures in rows.values() for place in figures))
    if len(rows) > len(places):
        return Table(
            columns=(title, *map(in_words, places)),
            rows=[(name, *(_cell(f.get(place)) for place in places)) for name, f in rows.items()],
        )
    return Table(
        columns=(title or "figure", *rows),
        rows=[(in_words(place), *(_cell(f.get(place)) for f in rows.values())) for place in places],
    )


def _cell(figure: Figure | None) -> str:
    assert not isinstance(figure, dict)
    return _short(in_cell(figure))


def _curves(arms: Arms) -> Iterator[tuple[str, dict[str, Curve]]]:
    """Curves of one path together, an arm each."""
    found: dict[Place, dict[str, Curve]] = {}
    for name, figures in arms.items():
        for place, figure in figures.items():
            if isinstance(figure, dict):
                found.setdefault(place, {})[name] = figure
    yield from ((in_words(place), of_arms) for place, of_arms in found.items())


def _table(title: str, of_arms: Mapping[str, Curve]) -> Table:
    """A row for each arm, a column for each number."""
    places = _chosen(sorted({k for curve in of_arms.values() for k in curve}, key=float))
    return Table(
        columns=(title, *places),
        rows=[(name, *(in_cell(curve.get(k)) for k in places)) for name, curve in of_arms.items()],
    )


def _chosen(places: Sequence[str]) -> list[str]:
    """The first, the last and some between, where they are many."""
    if len(places) <= WIDEST:
        return list(places)
    last = len(places) - 1
    return [places[round(i * last / (WIDEST - 1))] for i in range(WIDEST)]


def _is_line(of_arms: Mapping[str, Curve]) -> bool:
    return any(len(curve) > 1 for curve in of_arms.values())


def _lines(title: str, of_arms: Mapping[str, Curve]) -> Lines:
    return Lines(
        title=title,
        lines={
            name: {k: _point(measured) for k, measured in curve.items()}
            for name, curve in of_arms.items()
        },
    )


def _point(measured: Measured) -> tuple[float, float, float]:
    value = measured.value
    if measured.low is None or measured.high is None:
        return value, value, value
    return value, measured.low, measured.high
