"""All three stages on one experiment, then measures, pictures and a page to look at.

    python -m recipes.demo                                      # scenes: 6 to 30 minutes on 2 cores
    python -m recipes.demo --config recipes/configs/emoji.yaml --data.source='[FOLDER, FOLDER]'

Runs train_orderer, write_tokens, train_ar, train_joint and evaluate as programs of their own and
writes OUT/results.json, OUT/report.html, OUT/pictures, and the models: OUT/orderer and OUT/ar
(stages 1 and 2) and OUT/joint (stage 3). On a CPU the trainings run on two processes. A second run
starts over; `--resume` goes on where one stopped. Interrupted, it lets the stage that runs save a
checkpoint first.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from ar import start_ar
from orderer import start_processor
from recipes.checking import check_fusion, check_stage1
from recipes.data_settings import check_captions
from recipes.engine.checkpoint import find_start
from recipes.engine.cli import run as start
from recipes.engine.launch import launch
from recipes.engine.page import markdown_table
from recipes.engine.result_kinds import write_result
from recipes.engine.results import provenance, write_json
from recipes.engine.settings import plain_settings
from recipes.evaluation_settings import Task
from recipes.experiment import Experiment
from recipes.judging import check_judge
from recipes.reporting import summary, write_report
from recipes.training_record import read_record

STAGES = ("train_orderer", "write_tokens", "train_ar", "train_joint", "evaluate")
TRAININGS = ("train_orderer", "train_ar", "train_joint")
REPORTED: tuple[Task, ...] = ("retrieval", "reconstruction", "generation")
FOLDERS = ("checkpoints", "logs", "orderer", "tokens", "ar", "joint", "judges", "pictures")
FILES = ("stages.json", "evaluation.json", "results.json", "report.html")


def main(experiment: Experiment) -> None:
    """Run the stages, gather the results, write the page."""
    out = experiment.out
    check(experiment)
    if not experiment.resume:
        start_over(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = out / "experiment.yaml"
    settings.write_text(yaml.safe_dump(plain_settings(experiment), sort_keys=False))

    processes = dict.fromkeys(TRAININGS, processes_of(experiment))
    seconds = read_seconds(out)
    began = time.perf_counter()
    for stage in STAGES:
        print(f"\n=== {stage}", flush=True)
        started = time.perf_counter()
        exit_code = launch(stage, ["--config", settings], processes.get(stage, 1))
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
        write_json(out / "stages.json", seconds)
        if exit_code:
            raise SystemExit(exit_code)
    results = gather(out, seconds)
    write_result(out / "results.json", "results", results)
    write_report(out, results)
    for table in summary(results):
        print(f"\n{markdown_table(table)}")
    print(f"\nseconds: {time.perf_counter() - began:.0f}\nreport:  {out / 'report.html'}")


def check(experiment: Experiment) -> None:
    """Refuse now what a later stage would refuse after minutes of training."""
    experiment.check_is_done()
    config = experiment.orderer_config()
    check_fusion(experiment, config, ar_writes=experiment.train_ar.caption_weight > 0)
    check_processes(experiment)
    processor = start_processor(config)
    test = experiment.data.open_test(config.image_size)
    unseen = experiment.data.open_unseen(config.image_size)
    check_captions((*test.captions, *unseen.captions), processor)
    start_ar(experiment.ar_config(config, "", test.captions))
    check_judge(experiment)
    for task in REPORTED:
        if task not in experiment.evaluation.tasks:
            raise ValueError(f"the demo measures everything, evaluation.tasks lacks {task}")
    checkpoints = experiment.out / "checkpoints" / "orderer"
    is_fresh = not experiment.resume or find_start(checkpoints, resume=True) is None
    check_stage1(experiment, is_fresh, processes_of(experiment))  # reads every caption: last


def check_processes(experiment: Experiment) -> None:
    """Refuse a batch that the processes cannot share equally."""
    together = processes_of(experiment)
    for name in TRAININGS:
        size = getattr(experiment, name).batch_size
        if size % together:
            raise ValueError(
                f"{name}.batch_size must divide by the {together} processes, got {size}"
            )


def processes_of(experiment: Experiment) -> int:
    """How many processes train together: one on a GPU."""
    return 1 if torch.cuda.is_available() else experiment.processes


def start_over(out: Path) -> None:
    """Remove what an earlier demo left, and nothing else."""
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in FILES:
        (out / name).unlink(missing_ok=True)


def read_seconds(out: Path) -> dict[str, float]:
    """The seconds that each stage has taken already, in a run that is resumed."""
    path = out / "stages.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def gather(out: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """One result: stages 1 and 2 at the top, stage 3 beside what it started from."""
    measured = json.loads((out / "evaluation.json").read_text())
    found = measured.pop("results")
    watched = (read_record(out / "joint" / "orderer") or {})["joint"]["watched"]
    joint = {"before": found["separate"], "after": found["joint"], "watched": watched}
    return {
        **found["separate"],
        "joint": joint,
        "seconds": seconds,
        **measured,
        **provenance(),
    }


if __name__ == "__main__":
    start(main, Experiment)
