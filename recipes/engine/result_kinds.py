"""What each kind of result file must say of where its numbers come from.

A file that says its kind holds everything that is demanded of it, or is not written. Files from
before kinds were said are known by their names and hold less; `lacking` says what.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import JSON
from .results import write_json

MADE_BY = ("commit", "versions", "hardware", "command", "date")
COUNTED = tuple(f"protocol.{name}" for name in ("split", "images", "captions", "dataset"))
COMPUTED = tuple(f"protocol.{name}" for name in ("dtype", "ties", "rerank", "templates"))
OF_MODELS = (*MADE_BY, "config", "seeds", *COUNTED, *COMPUTED)
DEMANDED: Mapping[str, tuple[str, ...]] = {
    "evaluation": (*OF_MODELS, "results", "orderers", "protocol.tasks", "protocol.intervals"),
    "clip": (*OF_MODELS, "results", "models", "protocol.tasks", "protocol.intervals"),
    "results": (*OF_MODELS, "joint", "orderers", "seconds"),
    "ablation": (*OF_MODELS, "results"),
    "heads": (*OF_MODELS, "results", "protocol.judge", "protocol.sampling"),
    "order": (*OF_MODELS, "results", "protocol.factors"),
    "orders": (*OF_MODELS, "results", "protocol.judge", "protocol.sampling"),
    "coevolution": (*OF_MODELS, "results"),
    "losslessness": (*OF_MODELS, "results"),
    "controls": (*MADE_BY, "config", "seeds", "results"),
}
"""Fields that may be null, where there is nothing to say, but not left out."""
BEFORE: Mapping[str, tuple[str, ...]] = {
    "evaluation": (*MADE_BY, "config", "results", "protocol"),
    "results": (*MADE_BY, "config", "seeds", "protocol", "joint"),
    **dict.fromkeys(
        ("ablation", "heads", "order", "coevolution", "losslessness", "controls"),
        ("results", "config", *MADE_BY),
    ),
}
"""Those of files that do not say their kind."""
BENCH = "bench"
OF_CASE = ("ours", "reference", "ratio", "runs", "unit", *MADE_BY)
OVER_SEEDS = ("ablation", "heads", "order", "orders", "coevolution", "losslessness", "controls")
"""Kinds whose means are over seeds."""
OF_INTERVAL = ("low", "high", "seeds")
"""What stands beside a mean; `low` and `high` are null for one seed."""


def write_result(path: Path, kind: str, data: Mapping[str, JSON]) -> None:
    """Write a result file that says its kind, whole or not at all.

    Raises:
        ValueError: names the first field that is missing, or a number that is not finite.
    """
    said = {**data, "kind": kind}
    check_result(said, path)
    write_json(path, said)


def kind_of(data: Any, path: Path) -> str | None:
    """The kind of a result file, by what it says or else by its name; None for any other file."""
    if not isinstance(data, Mapping):
        return None
    if isinstance(data.get("kind"), str) and data["kind"] in DEMANDED:
        return data["kind"]
    if data and all(map(_is_case, data.values())):
        return BENCH
    return path.stem if path.stem in BEFORE and path.suffix == ".json" else None


def check_result(data: Mapping[str, Any], path: Path) -> None:
    """Refuse a result file without what is demanded of its kind, and of its age.

    Raises:
        ValueError: names the file and the field.
    """
    kind = kind_of(data, path)
    if kind is None:
        raise ValueError(f"{path} is no result file that is known here")
    if missing := next(_missing(data, kind, is_new="kind" in data), None):
        raise ValueError(f"{path} is no whole result of the kind {kind}, it lacks {missing}")


def lacking(data: Mapping[str, Any], path: Path) -> list[str]:
    """What a file would have to say if it were written now."""
    kind = kind_of(data, path)
    return [] if kind is None else list(_missing(data, kind, is_new=True))


def _missing(data: Mapping[str, Any], kind: str, *, is_new: bool) -> Iterator[str]:
    if kind == BENCH:
        for case, found in data.items():
            yield from (f"{case}.{name}" for name in OF_CASE if name not in found)
        return
    demanded = DEMANDED[kind] if is_new else BEFORE[kind]
    yield from (name for name in demanded if not _has(data, name))
    if kind in OVER_SEEDS:
        yield from _without_interval(data.get("results"), "results")


def _has(data: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(data, Mapping) or part not in data:
            return False
        data = data[part]
    return True


def _without_interval(tree: Any, name: str) -> Iterator[str]:
    """Means that do not say how sure they are."""
    if isinstance(tree, Mapping):
        if isinstance(tree.get("mean"), int | float):
            yield from (f"{name}.{end}" for end in OF_INTERVAL if end not in tree)
        for key, value in tree.items():
            yield from _without_interval(value, f"{name}.{key}")


def _is_case(found: Any) -> bool:
    return isinstance(found, Mapping) and {"ours", "reference"} <= found.keys()
