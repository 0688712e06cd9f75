"""The settings of a run, as they are saved and as they are compared on resume."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from .files import JSON


def plain_settings(config: Any) -> dict[str, JSON]:
    """A config (a dataclass) as JSON gives it back: paths are texts, tuples are lists."""
    return _plain(dataclasses.asdict(config))


def check_same_settings(
    saved: Mapping[str, JSON], now: Mapping[str, JSON], free: frozenset[str]
) -> None:
    """Refuse to resume with settings other than the saved ones.

    Args:
        saved: the settings in the checkpoint.
        now: the settings of this run.
        free: dotted names of the settings that may differ, such as "log_every".

    Raises:
        ValueError: names every field that differs, with both values.
    """
    before, after = dict(_leaves(_plain(saved))), dict(_leaves(_plain(now)))
    names = [name for name in {**before, **after} if name not in free]
    differences = [
        f"{name} was {before.get(name, 'absent')} and is {after.get(name, 'absent')}"
        for name in names
        if (name in before, before.get(name)) != (name in after, after.get(name))
    ]
    if differences:
        raise ValueError(f"cannot resume with other settings: {', '.join(differences)}")


def _plain(settings: Mapping[str, JSON]) -> dict[str, JSON]:
    return json.loads(json.dumps(settings, default=str))


def _leaves(settings: Mapping[str, JSON], prefix: str = "") -> Iterator[tuple[str, JSON]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
