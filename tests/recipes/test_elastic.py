"""A training that goes on with more processes, and with fewer again, sees and learns the same.

Dropout and the noise on tokens are off: what is drawn differs from process to process.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from data import Draw
from orderer import Objectives, Orderer, OrdererConfig, OrdererProcessor, Stage1
from recipes.captioning import say
from recipes.data_settings import DataSettings
from recipes.engine.optim import Schedule, make_optimizers
from recipes.engine.processes import seed_everything, texts_of_all, world_size
from recipes.engine.run import Run
from recipes.engine.saving import Saver
from recipes.engine.training import Learner, Progress, prepare_device, update

OBJECTIVES = Objectives(text_from=3, text_ramp=2, full_share=1.0)
BATCH, PAIRS = 8, 24
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}


def learner_of(muon: bool, dtype: torch.dtype, steps: int) -> Learner:
    seed_everything(0, rank=0)
    config = OrdererConfig(
        image_size=16, patch_size=4, tokens=4, token_dim=6, width=16, heads=2, text_width=16,
        text_heads=2, embed_dim=8, token_noise=0.0,
        encoder_layers=1, decoder_layers=1, readout_layers=1, text_layers=1,
    )  # fmt: skip
    stage = Stage1(Orderer(config), OBJECTIVES).train().to(dtype)
    optimizers = make_optimizers(
        stage,
        lambda name, _: muon and "blocks." in name,
        muon_lr=1e-3,
        adamw_lr=1e-3,
        weight_decay=0.02,
    )
    return Learner(
        model=stage, optimizers=optimizers, schedule=Schedule(optimizers, steps, 2), clip=0.5
    )


def train(out: Path, total: int, last: int, muon: bool, dtype: torch.dtype) -> None:
    """Go on until step `last`, and write down keys and losses of the whole batches."""
    prepare_device()
    learner = learner_of(muon, dtype, total)
    progress = Progress(saver=Saver(folder=out / "saved"), learners={"it": learner}, settings={})
    first, _ = progress.restore(resume=True)
    data = DataSettings(train_count=PAIRS, crop_area=0.5, mirrored=0.5)
    with Run(out, "toy", total, 1, first) as run:
        draw = Draw(batch_size=BATCH, seed=0, rank=run.rank, world=run.world)
        processor = OrdererProcessor(16, 40)
        batches = data.batches(data.open_train(16), draw, processor)
        for step in range(first, last):
            batch = batches.at(step)
            weights = OBJECTIVES.weights(step)
            terms = learner.model(batch.images, say(batch, processor, 4, False), weights)
            loss = terms.total(weights)
            update(step, loss, [learner])
            together = loss.detach().double().clone()
            if world_size() > 1:
                dist.all_reduce(together)
            keys = [
                key for text in texts_of_all(json.dumps(batch.keys)) for key in json.loads(text)
            ]
            run.record(step, {"mean": together.item() / world_size()})
            run.log(step, {})
            with (out / "keys").open("a") as file:
                if run.is_main:
                    print(" ".join(keys), file=file)
        progress.save(last, run)


def learned(forked: Any, out: Path, worlds: tuple[int, ...], **how: Any) -> list[float]:
    for number, world in enumerate(worlds, start=1):
        last = how["total"] * number // len(worlds)
        assert forked.run(lambda last=last: train(out, last=last, **how), world) == [0] * world
    lines = map(json.loads, (out / "logs/toy.jsonl").read_text().splitlines())
    return [line["mean"] for line in lines if "mean" in line]


@pytest.mark.parametrize(
    ("precision", "muon", "apart"),
    [("fp32", False, 1e-5), ("fp64", False, 1e-10), ("fp32", True, 1e-2)],
)
@pytest.mark.parametrize("total", [12, pytest.param(50, marks=pytest.mark.long)])
def test_one_two_and_one_processes_learn_what_one_does(
    precision: str, muon: bool, apart: float, total: int, forked: Any, tmp_path: Path
) -> None:
    how = {"total": total, "muon": muon, "dtype": DTYPES[precision]}
    alone = learned(forked, tmp_path / "alone", (1,), **how)
    changing = learned(forked, tmp_path / "changing", (1, 2, 1), **how)
    assert len(alone) == total and min(alone) < alone[5]
    worst = max(abs(b / a - 1) for a, b in zip(alone, changing, strict=True))
    print(f"{precision}, {'Muon' if muon else 'AdamW'}, {total} steps: at most {worst:.1e} apart")
    assert worst <= apart
    seen, expected = ((tmp_path / name / "keys").read_text() for name in ("changing", "alone"))
    assert seen == expected
    keys = expected.split()
    assert len(keys) == total * BATCH and len({*keys[:PAIRS]}) == PAIRS
