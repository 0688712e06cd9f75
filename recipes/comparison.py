"""What recipes that compare many runs have in common: arms and seeds, a result file, an ending."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from recipes.engine.page import Table, markdown_table
from recipes.engine.result_kinds import write_result
from recipes.engine.results import provenance
from recipes.engine.settings import plain_settings
from recipes.evaluation_settings import Task
from recipes.experiment import Experiment
from recipes.feature_space import check_apart
from recipes.fidelity import check_enough, check_fidelity
from recipes.judging import check_judge
from recipes.protocol import shared_protocol
from recipes.training_record import RECORD

Arm = TypeVar("Arm")
FRECHET, KERNEL = "Fréchet", "kernel"
"""Distances of generated images, as arms are compared by them."""


@dataclass(frozen=True, kw_only=True)
class Compared(Experiment):
    """An experiment that runs in several ways."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """With each of which every way is run; three are the least that decide anything."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_is_done()
        if not self.seeds:
            raise ValueError("seeds must hold at least one, got none")


def check_arms(arms: Sequence[str], known: Collection[str]) -> None:
    """Refuse a comparison of arms that nobody knows, or of nothing.

    Raises:
        ValueError: naming the arm.
    """
    for arm in arms:
        if arm not in known:
            raise ValueError(f"arms must be among {', '.join(known)}, got {arm!r}")
    if not arms:
        raise ValueError("arms must hold at least one, got none")


def check_measured(experiment: Experiment, tasks: Sequence[Task]) -> None:
    """Refuse now what evaluation would refuse after the trainings.

    Raises:
        ValueError: naming the setting.
    """
    measured = replace(experiment, evaluation=replace(experiment.evaluation, tasks=tuple(tasks)))
    check_judge(measured)
    check_fidelity(measured)
    config = experiment.orderer_config()
    check_apart(experiment.evaluation.features, config)
    check_enough(measured, experiment.data.open_unseen(config.image_size))


def runs_of(out: Path, arms: Sequence[Arm], seeds: Sequence[int]) -> dict[tuple[Arm, int], Path]:
    """The folder of each run, all arms of the first seed first."""
    return {(arm, seed): out / f"{arm}-{seed}" for seed in seeds for arm in arms}


def curves_of(arms: Mapping[str, Any], name: str) -> dict[str, dict[int, float]]:
    """A curve of each arm that has it, by position."""
    return {
        arm: {int(k): value for k, value in of_arm["curves"][name].items()}
        for arm, of_arm in arms.items()
        if name in of_arm["curves"]
    }


def bounds_of(generation: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """What no arm can be expected to pass: figures of rebuilt and of real images; and chance."""
    fidelity = generation["fidelity"]
    return {
        "rebuilt": {
            FRECHET: fidelity["frechet_of_rebuilt"],
            KERNEL: fidelity["kernel_of_rebuilt"],
            **generation["rebuilt"],
        },
        "training images": {
            FRECHET: fidelity["frechet_of_real"],
            KERNEL: fidelity["kernel_of_real"],
        },
        "halves of the real": {FRECHET: fidelity["frechet_of_halves"]},
        "real": generation["real"],
        "chance": generation["chance"],
    }


def write_comparison(
    path: Path,
    settings: Compared,
    runs: Collection[Path],
    results: Any,
    measured: Collection[Path] | None = None,
) -> None:
    """Write the results of runs that were measured alike; the name of the file is their kind.

    Args:
        path: OUT/KIND.json.
        settings: of the comparison.
        runs: the folders of all.
        results: what they come to.
        measured: those whose protocol is that of all; by default each has it.
    """
    about = {
        "config": plain_settings(settings),
        "seeds": list(settings.seeds),
        "protocol": shared_protocol(measured or runs),
        "runs": made_by(runs),
        **provenance(),
    }
    write_result(path, path.stem, {"results": results, **about})


def made_by(runs: Iterable[Path]) -> dict[str, list[str]]:
    """The commits and processors that trained and measured some runs, which may be older ones.

    More than one commit is said aloud, too: a comparison that was resumed after a change of the
    code may hold figures of both.
    """
    found: dict[str, set[str]] = {"trained": set(), "measured": set(), "hardware": set()}
    for run in runs:
        for name, of in (("trained", RECORD), ("measured", "evaluation.json")):
            for path in run.rglob(of):
                said = json.loads(path.read_text())
                said = said.get("made_with", said)
                found[name].add(str(said.get("commit")))
                hardware = said.get("hardware", {})
                found["hardware"].add(str(hardware.get("gpu") or hardware.get("cpu")))
    by = {name: sorted(each) for name, each in found.items()}
    for name in ("trained", "measured"):
        if len(by[name]) > 1:
            print(f"runs were {name} at {len(by[name])} commits: {', '.join(by[name])}")
    return by


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
