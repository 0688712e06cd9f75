"""The format of saved settings: each kind counts its own, and older ones are brought up to date."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Settings: TypeAlias = dict[str, Any]
Migration: TypeAlias = Callable[[Settings], Settings]
"""Gives the settings of the next version; those that it is given stay as they are."""


def up_to_date(
    settings: Settings, name: str, version: int, migrations: Mapping[int, Migration]
) -> Settings:
    """Take saved settings from version to version until they are of the one that is read.

    Args:
        settings: with their `format_version`.
        name: of what reads them.
        version: that it reads.
        migrations: from each older version to the next one.

    Raises:
        ValueError: for a version that is newer, or so old that nothing leads from it to this one.
    """
    found = settings.get("format_version")
    oldest = min(migrations, default=version)
    if type(found) is not int or not oldest <= found <= version:
        newer = ", of a newer Sightline" if type(found) is int and found > version else ""
        readable = f"{oldest} to {version}" if oldest < version else str(version)
        raise ValueError(f"{name} reads settings of format {readable}, got {found!r}{newer}")
    for before in range(found, version):
        settings = {**migrations[before](settings), "format_version": before + 1}
    return settings
