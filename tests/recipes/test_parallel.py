"""Stage 1 on two processes, replicated and shared out: the same steps as on one.

What the processes do, see `work`; no noise, which differs from process to process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from orderer import Objectives, Orderer, OrdererConfig, Said, Stage1
from recipes.engine.checkpoint import load_latest
from recipes.engine.execution import Execution
from recipes.engine.optim import Schedule, make_optimizers, optimizer_tensors
from recipes.engine.processes import average_gradients, seed_everything
from recipes.engine.run import Run
from recipes.engine.saving import Saver
from recipes.engine.sharding import whole
from recipes.engine.training import Learner, Progress, prepare_device, update

WORLD, STEPS, HALF, PAIRS = 2, 20, 10, 8
MUONS = 1e-3
"""Muon multiplies in bf16: it makes much of the last bits of a gradient."""
OBJECTIVES = Objectives(text_from=3, text_ramp=2, full_share=1.0)


def make_stage() -> Stage1:
    seed_everything(0, rank=0)
    config = OrdererConfig(
        image_size=16, patch_size=4, tokens=4, token_dim=6, width=16, heads=2, text_width=16,
        text_heads=2, embed_dim=8, token_noise=0.0,
        encoder_layers=1, decoder_layers=1, readout_layers=1, text_layers=1,
    )  # fmt: skip
    return Stage1(Orderer(config), OBJECTIVES).train()


def make_learner(stage: Stage1, muon: bool) -> Learner:
    optimizers = make_optimizers(
        stage,
        lambda name, _: muon and "blocks." in name,
        muon_lr=1e-3,
        adamw_lr=1e-3,
        weight_decay=0.02,
    )
    return Learner(
        model=stage, optimizers=optimizers, schedule=Schedule(optimizers, STEPS, 2), clip=0.5
    )


def pairs(rank: int, world: int) -> tuple[Tensor, Said]:
    """One process' share of eight pairs."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (PAIRS, 3, 16, 16), generator=generator).to(torch.uint8)
    texts = torch.randint(1, 40_000, (PAIRS, 7), generator=generator)
    texts[:, -1] = 49407  # ends the text
    mine = slice(rank * PAIRS // world, (rank + 1) * PAIRS // world)
    number = PAIRS // world
    at = torch.arange(number)[:, None].expand(-1, 3)
    return images[mine], Said(texts=texts[mine], numbers=torch.arange(PAIRS)[mine], at=at)


def learn(learner: Learner, steps: range, rank: int = 0, world: int = 1) -> list[float]:
    """Losses of some steps, on this process' share."""
    losses = []
    for step in steps:
        weights = OBJECTIVES.weights(step)
        terms = learner.model(*pairs(rank, world), weights)
        loss = terms.total(weights)
        if step % 4 == 0:
            terms.gradient_norms(weights)  # as at a step that is logged
        update(step, loss, [learner])
        losses.append(loss.item())
    return losses


def alone(muon: bool) -> list[float]:
    return learn(make_learner(make_stage(), muon), range(STEPS))


class Work:
    """What each process does; everything that it finds is a mean over the processes."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run = folder, run

    def learned(self, way: str, muon: bool, resume_from: str | None = None) -> list[float]:
        """Losses of all steps, with a checkpoint half-way; or of the second half, from one."""
        stage = make_stage()
        Execution(parallel=way, gradient_checkpointing=muon).prepare(stage)  # type: ignore[arg-type]
        learner = make_learner(stage, muon)
        progress = Progress(
            saver=Saver(folder=self.folder / f"{resume_from or way}-{muon}"),
            learners={"orderer": learner},
            settings={},
        )
        first, _ = progress.restore(resume_from is not None)
        if resume_from:
            self.check_restored(progress, learner)
        losses = learn(learner, range(first, HALF), self.run.rank, WORLD)
        if not resume_from:
            progress.save(HALF, self.run)
        losses += learn(learner, range(HALF, STEPS), self.run.rank, WORLD)
        return self.mean(losses)

    def check_restored(self, progress: Progress, learner: Learner) -> None:
        """Momentum too comes back to the bit, on whatever it is placed."""
        now = whole(optimizer_tensors(learner.optimizers[0])[0])
        saved = load_latest(progress.saver.folder)
        assert saved is not None and saved.step == HALF
        for name, tensor in saved.tensors["orderer-optimizer-0"].items():
            assert not self.run.is_main or torch.equal(tensor, now[name])

    def mean(self, values: list[float]) -> list[float]:
        together = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(together)
        return (together / WORLD).tolist()

    def frozen(self) -> list[float]:
        """How far a frozen encoder and another part move in a step of the shared-out model."""
        stage = make_stage()
        stage.orderer.encoder.requires_grad_(False)
        Execution(parallel="sharded").prepare(stage)
        before = whole(stage.state_dict())
        learn(make_learner(stage, muon=True), range(1), self.run.rank, WORLD)
        after = whole(stage.state_dict())
        names = ("orderer.encoder.embed.weight", "orderer.decoder.embed.weight")
        if not self.run.is_main:
            return []
        return [(after[name] - before[name]).abs().max().item() for name in names]

    def wrapped(self) -> list[float]:
        """The largest difference of DDP's gradients from ours, and the largest gradient."""
        ours, theirs = make_stage(), make_stage()
        weights = OBJECTIVES.full_weights()
        mine = pairs(self.run.rank, WORLD)
        ours(*mine, weights).total(weights).backward()
        average_gradients(ours.parameters())
        ddp = DistributedDataParallel(theirs)
        ddp(*mine, weights).total(weights).backward()
        both = list(zip(ours.parameters(), theirs.parameters(), strict=True))
        apart = max((a.grad - b.grad).abs().max().item() for a, b in both)
        return [apart, max(a.grad.abs().max().item() for a, _ in both)]

    def starts(self) -> list[float]:
        """1 if the processes start with one model; 1 if they draw different noise."""
        total = sum(p.double().abs().sum() for p in make_stage().parameters())
        seed_everything(0, self.run.rank)
        here = torch.stack([total.detach(), torch.rand((), dtype=torch.float64)])
        found = [torch.empty_like(here) for _ in range(WORLD)]
        dist.all_gather(found, here)
        return [float(found[0][0] == found[1][0]), float(found[0][1] != found[1][1])]


def work(folder: Path) -> None:
    prepare_device()
    with Run(  # which waits for all at its end, and then leaves the group
        folder, "toy", STEPS, 1
    ) as run:
        each = Work(folder, run)
        found = {
            "replicated": each.learned("replicated", muon=False),
            "sharded": each.learned("sharded", muon=False),
            "replicated-muon": each.learned("replicated", muon=True),
            "sharded-muon": each.learned("sharded", muon=True),
            "sharded-then-replicated": each.learned("replicated", True, resume_from="sharded"),
            "replicated-then-sharded": each.learned("sharded", True, resume_from="replicated"),
            "frozen": each.frozen(),
            "wrapped": each.wrapped(),
            "starts": each.starts(),
        }
        if run.is_main:
            (folder / "found.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def folder(forked_once: Any) -> Path:
    """Where two processes have left what they found."""
    assert forked_once.run(lambda: work(forked_once.folder), WORLD) == [0] * WORLD
    return forked_once.folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, list[float]]:
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("muon", [False, True], ids=["adamw", "muon"])
def test_twenty_steps_are_those_of_one_process(found: dict[str, list[float]], muon: bool) -> None:
    expected = alone(muon)
    assert expected[-1] < expected[5]  # something was learned since the text came in
    suffix = "-muon" if muon else ""
    for way in ("replicated", "sharded"):
        assert found[way + suffix] == pytest.approx(expected, rel=MUONS if muon else 1e-5)


def test_a_run_goes_on_shared_out_or_not_whatever_it_was_before(
    found: dict[str, list[float]],
) -> None:
    expected = found["sharded-muon"][HALF:]
    assert found["sharded-then-replicated"] == pytest.approx(expected, rel=MUONS)
    assert found["replicated-then-sharded"] == pytest.approx(expected, rel=MUONS)


def test_a_run_that_was_shared_out_goes_on_alone(
    folder: Path, found: dict[str, list[float]]
) -> None:
    learner = make_learner(make_stage(), muon=True)
    saver = Saver(folder=folder / "sharded-True")
    progress = Progress(saver=saver, learners={"orderer": learner}, settings={})
    assert progress.restore(resume=True)[0] == HALF
    losses = learn(learner, range(HALF, STEPS))
    assert losses == pytest.approx(found["sharded-muon"][HALF:], rel=MUONS)


def test_a_frozen_part_stays_as_it_is(found: dict[str, list[float]]) -> None:
    encoder, decoder = found["frozen"]
    assert encoder == 0 < decoder


def test_ddp_around_stage_1_has_our_gradients(found: dict[str, list[float]]) -> None:
    apart, largest = found["wrapped"]
    assert apart <= 1e-6 * largest


def test_processes_start_alike_and_draw_different_noise(found: dict[str, list[float]]) -> None:
    assert found["starts"] == [1, 1]


def test_accelerates_own_sharding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="to sharded, got ACCELERATE_USE_FSDP=true"):
        Execution().prepare(make_stage())


def test_on_one_process_there_is_nothing_to_share() -> None:
    stage = make_stage()
    Execution(parallel="sharded").prepare(stage)
    assert {type(p) for p in stage.parameters()} == {torch.nn.Parameter}


@pytest.mark.long
def test_compiled_blocks_learn_the_same() -> None:
    """In a program of its own: the shapes' checks, which all tests run under, do not compile."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    compare = [sys.executable, __file__]
    done = subprocess.run(compare, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


def compare_compiled() -> None:
    plain, compiled = make_stage(), make_stage()
    Execution(compile=True).prepare(compiled)
    losses = [learn(make_learner(stage, muon=False), range(8)) for stage in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert plain.state_dict().keys() == compiled.state_dict().keys()


if __name__ == "__main__":
    compare_compiled()
