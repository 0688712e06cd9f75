"""All three stages on one experiment, then measures, pictures and a page to look at.

    python -m recipes.demo                                        # scenes: ten minutes on 2 cores
    python -m recipes.demo --config recipes/configs/emoji.yaml --data.source='[FOLDER, FOLDER]'

Runs train_orderer, write_tokens, train_ar, train_joint and evaluate as programs of their own and
writes OUT/results.json, OUT/report.html, OUT/pictures, and the models: OUT/orderer and OUT/ar
(stages 1 and 2) and OUT/joint (stage 3). A second run starts over; `--resume` goes on where one
stopped.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from recipes.engine.cli import run as start
from recipes.engine.page import markdown_table
from recipes.engine.results import write_json
from recipes.engine.settings import plain_settings
from recipes.experiment import Experiment
from recipes.reporting import summary, write_report

STAGES = ("train_orderer", "write_tokens", "train_ar", "train_joint", "evaluate")
WRITTEN = ("checkpoints", "logs", "orderer", "tokens", "ar", "joint", "pictures", "stages.json")


def main(experiment: Experiment) -> None:
    """Run the stages, gather the results, write the page."""
    out = experiment.out
    experiment.orderer_config()  # refuse bad settings before anything is lost
    if not experiment.resume:
        start_over(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = out / "experiment.yaml"
    settings.write_text(yaml.safe_dump(plain_settings(experiment), sort_keys=False))

    seconds = read_seconds(out)
    began = time.perf_counter()
    for stage in STAGES:
        print(f"\n=== {stage}", flush=True)
        seconds[stage] = run_stage(stage, settings)
        write_json(out / "stages.json", seconds)
    results = gather(out, seconds)
    write_json(out / "results.json", results)
    write_report(out, results)
    print(f"\n{markdown_table(summary(results))}")
    print(f"\nseconds: {time.perf_counter() - began:.0f}\nreport:  {out / 'report.html'}")


def start_over(out: Path) -> None:
    """Remove what an earlier run of the stages left, and nothing else."""
    for name in WRITTEN:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def read_seconds(out: Path) -> dict[str, float]:
    """The seconds of the stages that an earlier, resumed run has done."""
    path = out / "stages.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def run_stage(stage: str, settings: Path) -> float:
    """Run one recipe as a program and return its seconds; its failure is ours.

    The settings file says whether to resume.
    """
    began = time.perf_counter()
    command = [sys.executable, "-m", f"recipes.{stage}", "--config", str(settings)]
    ended = subprocess.run(command, check=False).returncode
    if ended:
        raise SystemExit(ended)
    return time.perf_counter() - began


def gather(out: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """One result: stages 1 and 2 at the top, stage 3 beside what it started from."""
    measured = json.loads((out / "evaluation.json").read_text())
    found = measured.pop("results")
    results = {**found["separate"], "joint": {}, "seconds": seconds, **measured}
    for when, name in (("before", "separate"), ("after", "joint")):
        parts = found[name]
        results["joint"][when] = {key: parts[key] for key in parts}
    results["seeds"] = results["protocol"]["seeds"]
    return results


if __name__ == "__main__":
    start(main, Experiment)
