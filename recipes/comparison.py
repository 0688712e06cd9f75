"""What recipes that compare many runs have in common: arms and seeds, a result file, an ending."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from recipes.engine.page import Table, markdown_table
from recipes.engine.result_kinds import write_result
from recipes.engine.results import provenance
from recipes.engine.settings import plain_settings
from recipes.protocol import shared_protocol

Arm = TypeVar("Arm")


class Compared(Protocol):
    """Settings of a comparison."""

    @property
    def seeds(self) -> tuple[int, ...]: ...


def check_arms(arms: Sequence[str], known: Collection[str], seeds: Sequence[int]) -> None:
    """Refuse a comparison of arms that nobody knows, or of nothing.

    Raises:
        ValueError: naming the arm.
    """
    for arm in arms:
        if arm not in known:
            raise ValueError(f"arms must be among {', '.join(known)}, got {arm!r}")
    if not arms or not seeds:
        raise ValueError("a comparison needs at least one arm and one seed, got none")


def check_unguided(guidance_scales: Sequence[float]) -> None:
    """Refuse to compare with guidance alone.

    Raises:
        ValueError: with the scales.
    """
    if 1.0 not in guidance_scales:
        raise ValueError(
            "guidance_scales must hold 1.0, which is unguided, got "
            f"{', '.join(map(str, guidance_scales))}"
        )


def write_comparison(path: Path, settings: Compared, runs: Iterable[Path], results: Any) -> None:
    """Write the results of runs that were measured alike; the name of the file is their kind."""
    about = {
        "config": plain_settings(settings),
        "seeds": list(settings.seeds),
        "protocol": shared_protocol(runs),
        **provenance(),
    }
    write_result(path, path.stem, {"results": results, **about})


def tell(tables: Iterable[Table], page: Path) -> None:
    """Print tables, and where the page is."""
    for table in tables:
        print(f"\n{markdown_table(table)}")
    print(f"\npage: {page}")


def first_runs(runs: Iterable[tuple[Arm, int]]) -> list[tuple[Arm, int]]:
    """The first seed of each arm."""
    first: dict[Arm, tuple[Arm, int]] = {}
    for arm, seed in runs:
        first.setdefault(arm, (arm, seed))
    return list(first.values())
