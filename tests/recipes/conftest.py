"""For the recipes: no GPU, programs as a user starts them, and a tiny experiment trained once."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import yaml
from accelerate.state import AcceleratorState

from ar import Sampling
from ar.joint import Limits
from orderer import Objectives
from recipes import train_ar, train_joint, train_orderer, write_tokens
from recipes.data_settings import DataSettings
from recipes.evaluation_settings import Evaluation
from recipes.experiment import Experiment
from recipes.training_settings import ARTraining, JointTraining, OptimSettings, OrdererTraining

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "recipes/configs/smoke.yaml"

Program = Callable[..., subprocess.CompletedProcess[str]]
Work = Callable[[], object]


@pytest.fixture(scope="session", autouse=True)
def _without_gpu() -> Iterator[None]:
    """Equal to the last bit is a promise for the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.accelerator, "is_available", lambda: False)
        yield


@pytest.fixture(scope="session")
def program() -> Program:
    """Runs `python -m` with some arguments, as a user does."""
    environment = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return start


class Forked:
    """Copies of this process, several as one group; quick to start, and gone after the test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, list[BaseProcess]()

    def start(self, work: Work, world: int = 1, stall_seconds: float = 60) -> list[BaseProcess]:
        """Let some processes work; they find each other by a file, not a port."""
        meeting = self.folder / f"meeting-{len(self.started)}"

        def child(rank: int) -> None:
            AcceleratorState._reset_state(reset_partial_state=True)
            if world > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                os.environ |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
                patience = timedelta(seconds=stall_seconds)
                where = f"file://{meeting}"
                dist.init_process_group("gloo", where, patience, world, rank)
            work()

        fork = multiprocessing.get_context("fork")
        processes: list[BaseProcess] = [
            fork.Process(target=child, args=(rank,)) for rank in range(world)
        ]
        for process in processes:
            process.start()
        self.started += processes
        return processes

    def finish(self, processes: list[BaseProcess], seconds: float = 240) -> list[int | None]:
        """Wait for processes; their exit codes, None for one that did not end in time."""
        end = time.monotonic() + seconds  # a join would wait for what outlives a process, too
        while any(process.exitcode is None for process in processes) and time.monotonic() < end:
            time.sleep(0.01)
        return [process.exitcode for process in processes]

    def run(self, work: Work, world: int = 1) -> list[int | None]:
        return self.finish(self.start(work, world))

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.join()


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[Forked]:
    """Starts copies of this process that do something."""
    forks = Forked(tmp_path)
    yield forks
    forks.end()


@pytest.fixture(scope="module")
def forked_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """The same for what all tests of a file share."""
    forks = Forked(tmp_path_factory.mktemp("forked"))
    yield forks
    forks.end()


@pytest.fixture(scope="session")
def tiny() -> Experiment:
    """Four steps of each stage, in which every loss has its say."""
    smoke = yaml.safe_load(SMOKE.read_text())
    optim = OptimSettings(warmup_steps=1)
    return Experiment(
        data=DataSettings(train_count=64, test_count=16),
        orderer=smoke["orderer"],
        ar=smoke["ar"],
        train_orderer=OrdererTraining(
            steps=4, batch_size=16, objectives=Objectives(text_from=0, text_ramp=2), optim=optim
        ),
        train_ar=ARTraining(steps=4, batch_size=16, held=8, validate_every=2, optim=optim),
        train_joint=JointTraining(
            steps=4,
            batch_size=16,
            rewarm=2,
            watched=8,
            orderer_optim=optim,
            ar_optim=optim,
            # Whether so few steps on so few pairs look like a collapse is chance.
            limits=Limits(rank=0.0, deviation=0.0, recall=1.0, psnr=100.0),
        ),
        sampling=Sampling(steps=2),
        evaluation=Evaluation(captions="last", generated=8, judge_steps=2, judge_scenes=32),
        log_every=1,
        precision="fp32",
    )


@pytest.fixture(scope="session")
def trained(tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """The tiny experiment after all three stages; copy its folder before you write there."""
    experiment = replace(tiny, out=tmp_path_factory.mktemp("trained") / "run")
    for stage in (train_orderer, write_tokens, train_ar, train_joint):
        stage.main(experiment)
    return experiment
