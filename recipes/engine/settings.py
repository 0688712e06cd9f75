"""The settings of a run, as they are saved and as they are compared on resume."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from .files import JSON


def plain_settings(config: Any) -> dict[str, JSON]:
    """A config (a dataclass) as JSON gives it back: paths are texts, tuples are lists."""
    return _plain(dataclasses.asdict(config))


def settings_named(config: Any, *names: str) -> dict[str, JSON]:
    """Some of a config's settings by their dotted names; the name of a branch takes all of it."""
    leaves = _leaves(plain_settings(config))
    return {
        leaf: value
        for leaf, value in leaves
        if any(f"{leaf}.".startswith(f"{name}.") for name in names)
    }


def scalars_named(name: str, settings: Mapping[str, JSON]) -> dict[str, JSON]:
    """The settings of a model, defaults too, but those that follow from towers or captions."""
    return {
        f"{name}.{key}": value
        for key, value in settings.items()
        if not isinstance(value, dict | list)
    }


def check_same_settings(
    saved: Mapping[str, JSON], now: Mapping[str, JSON], free: str | None = None
) -> None:
    """Refuse to resume with settings other than the saved ones.

    Args:
        saved: the settings in the checkpoint.
        now: the settings of this run.
        free: the dotted name of one that may differ.

    Raises:
        ValueError: names every field that differs, with both values.
    """
    if found := differences(saved, now, free):
        raise ValueError(f"cannot resume with other settings: {', '.join(found)}")


def differences(
    saved: Mapping[str, JSON], now: Mapping[str, JSON], free: str | None = None
) -> list[str]:
    """Say of every field that differs what it was and what it is, see `check_same_settings`."""
    before, after = dict(_leaves(_plain(saved))), dict(_leaves(_plain(now)))
    return [
        f"{name} was {before.get(name, 'absent')} and is {after.get(name, 'absent')}"
        for name in {**before, **after}
        if (name in before, before.get(name)) != (name in after, after.get(name))
        and not (name == free and isinstance(before.get(name), type(after.get(name))))
    ]


def _plain(settings: Mapping[str, JSON]) -> dict[str, JSON]:
    return json.loads(json.dumps(settings, default=str))


def _leaves(settings: Mapping[str, JSON], prefix: str = "") -> Iterator[tuple[str, JSON]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def at_least(least: float, **settings: float) -> None:
    """Refuse a setting below `least`, by its name."""
    for name, value in settings.items():
        if not value >= least:  # NaN is refused too
            raise ValueError(f"{name} must be at least {least}, got {value}")


def share(**settings: float) -> None:
    """Refuse a setting outside 0..1, by its name."""
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in 0..1, got {value}")
