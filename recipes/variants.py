"""Variants of an experiment: each trained and measured by programs of its own, side by side."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from data.tokens import STORE
from recipes.engine.files import replace_file
from recipes.engine.settings import differences, plain_settings
from recipes.engine.side_by_side import Job, run_side_by_side
from recipes.experiment import Experiment
from recipes.judging import judges_of
from recipes.training_record import RECORD

LEAVES = {"train_orderer": "orderer", "train_ar": "ar"}
"""Training to the folder of its model."""


def variant(experiment: Experiment, out: Path, seed: int, **changes: Any) -> Experiment:
    """One run of an experiment that is to run in many ways: on one process, in its own folder.

    All are judged by the judge of the first.
    """
    settings = {field.name: getattr(experiment, field.name) for field in fields(Experiment)}
    plain = Experiment(**{**settings, "out": out, "seed": seed, "processes": 1, "resume": False})
    changed = replace(plain, **changes)
    judged = replace(changed.evaluation, judges=judges_of(experiment))
    return replace(changed, evaluation=judged)


def train_and_measure(
    experiments: Iterable[Experiment],
    tasks: Sequence[str],
    at_once: int,
    resume: bool,
    training: str = "train_orderer",
) -> None:
    """Run one training of each experiment, and measure what it leaves.

    Args:
        experiments: each with a folder of its own.
        tasks: to measure.
        at_once: that run side by side.
        resume: whether to keep what is done.
        training: the recipe that trains.

    Raises:
        SystemExit: with the exit code of one that failed.
        ValueError: if one was begun with other settings than it would have now.
    """
    jobs = []
    for experiment in experiments:
        out = experiment.out
        recipes = [
            ((training,), out / LEAVES[training] / RECORD),
            (("evaluate", *tasks), out / "evaluation.json"),
        ]
        jobs.append(job_of(experiment, recipes, resume))
    run_all(jobs, at_once)


def job_of(
    experiment: Experiment, recipes: Sequence[tuple[Sequence[str], Path]], resume: bool
) -> Job:
    """The recipes of a run, one after the other; of one that is resumed, those still to do.

    Args:
        experiment: that all of them read.
        recipes: each with its arguments, and the file that it writes last.
        resume: whether to keep what is done.

    Raises:
        ValueError: if the run was begun with other settings.
    """
    out = experiment.out
    settings, wanted = out / "experiment.yaml", plain_settings(experiment)
    _check_begun(settings, wanted)
    replace_file(settings, yaml.safe_dump(wanted).encode())
    config = ("--config", str(settings))
    todo: deque[Sequence[str]] = deque()
    for recipe, outcome in recipes:
        if resume and outcome.exists():
            continue
        tasks = [word for word in recipe if not word.startswith("-")]
        options = [word for word in recipe if word.startswith("-")]
        if resume and tasks[0].startswith("train_"):
            options.append("--resume")
        todo.append((*tasks, *config, *options))
    return Job(name=out.name, log=out / "output.txt", recipes=todo)


def job_of_pair(experiment: Experiment, tasks: Sequence[str], resume: bool) -> Job:
    """Stage 1, or the fixed order that stands for it, stage 2, and their measures."""
    out = experiment.out
    recipes: list[tuple[Sequence[str], Path]] = [
        (("fit_order" if experiment.order else "train_orderer",), out / "orderer" / RECORD),
        (("write_tokens",), out / "held" / STORE),
        (("train_ar",), out / "ar" / RECORD),
        (("evaluate", *tasks), out / "evaluation.json"),
    ]
    return job_of(experiment, recipes, resume)


def run_all(jobs: Sequence[Job], at_once: int) -> None:
    """Run jobs side by side; those without anything left to do are done.

    Raises:
        SystemExit: with the exit code of one that failed.
    """
    if exit_code := run_side_by_side([job for job in jobs if job.recipes], at_once):
        raise SystemExit(exit_code)


def _check_begun(settings: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse a folder of other settings, resumed or not: what lies there would pass for theirs."""
    if not settings.is_file():
        return
    if found := differences(yaml.safe_load(settings.read_text()), wanted):
        raise ValueError(
            f"{settings.parent} was begun with other settings, which stand in {settings}: "
            f"{', '.join(found)}; give another out, or remove the folder"
        )
