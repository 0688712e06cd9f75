"""The three trainings: stopped and resumed, on several processes, and what may change meanwhile."""

import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from ar import Sampling
from orderer import Objectives, Orderer
from recipes import train_ar, train_joint, train_orderer, write_tokens
from recipes.data_settings import DataSettings
from recipes.engine.checkpoint import load_latest
from recipes.engine.execution import Execution
from recipes.engine.launch import launch
from recipes.engine.run import Run
from recipes.engine.settings import plain_settings
from recipes.evaluation_settings import Evaluation
from recipes.experiment import Experiment
from recipes.training_settings import OptimSettings

LOGS = {train_orderer: "orderer", train_ar: "ar", train_joint: "joint"}
MODELS = {
    train_orderer: ("orderer",),
    train_ar: ("ar",),
    train_joint: ("joint/orderer", "joint/ar"),
}
stages = pytest.mark.parametrize("stage", LOGS, ids=lambda stage: stage.__name__.split(".")[-1])


@pytest.fixture
def copied(trained: Experiment, tmp_path: Path) -> Experiment:
    """All that the tiny experiment has left, to be changed at will."""
    shutil.copytree(trained.out, tmp_path / "run")
    return replace(trained, out=tmp_path / "run")


def forget(stage: ModuleType, out: Path) -> None:
    """Remove what a stage has written."""
    shutil.rmtree(out / "checkpoints" / LOGS[stage])
    for model in MODELS[stage]:
        shutil.rmtree(out / model)


def weights(stage: ModuleType, out: Path) -> list[bytes]:
    return [(out / model / "model.safetensors").read_bytes() for model in MODELS[stage]]


def losses(out: Path, name: str) -> list[dict[str, float]]:
    lines = map(json.loads, (out / f"logs/{name}.jsonl").read_text().splitlines())
    times = ("seconds", "samples_per_second")
    return [
        {key: x for key, x in line.items() if key not in times} for line in lines if "loss" in line
    ]


def after_step(number: int, happen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen once, when a step is done."""
    log, left = Run.log, [number]

    def log_and_then(self: Run, step: int, values: Any) -> None:
        log(self, step, values)
        if [step] == left:
            left.clear()
            happen()

    monkeypatch.setattr(Run, "log", log_and_then)


@stages
def test_a_training_that_is_asked_to_stop_goes_on_to_the_same_bits(
    stage: ModuleType, trained: Experiment, copied: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(stage, copied.out)
    after_step(1, lambda: signal.raise_signal(signal.SIGTERM), monkeypatch)
    stage.main(copied)
    status = json.loads((copied.out / f"logs/{LOGS[stage]}.status.json").read_text())
    assert (status["status"], status["steps_done"]) == ("preempted", 2)
    assert not any((copied.out / model).exists() for model in MODELS[stage])

    stage.main(replace(copied, resume=True))
    assert weights(stage, copied.out) == weights(stage, trained.out)
    assert losses(copied.out, LOGS[stage]) == losses(trained.out, LOGS[stage])


@stages
def test_what_does_not_change_the_learning_may_differ_on_resume(
    stage: ModuleType, trained: Experiment, copied: Experiment
) -> None:
    others = {
        train_orderer: {"train_ar", "train_joint", "ar"},
        train_ar: {"train_orderer", "train_joint", "orderer"},
        train_joint: {"orderer", "ar"},
    }
    fresh = Experiment()
    stage.main(
        replace(
            copied,
            data=replace(copied.data, test_count=99, workers=3),
            sampling=Sampling(steps=9),
            evaluation=Evaluation(judge="retrieval"),
            log_every=7,
            checkpoint_every=7,
            checkpoint_keep=1,
            checkpoint_in_background=True,
            preempted_code=75,
            processes=1,
            execution=Execution(stall_seconds=5),
            resume=True,
            **{name: getattr(fresh, name) for name in others[stage]},
        )
    )
    assert weights(stage, copied.out) == weights(stage, trained.out)


def changed(experiment: Experiment, name: str, **changes: Any) -> Experiment:
    return replace(experiment, **{name: replace(getattr(experiment, name), **changes)})


@pytest.mark.parametrize(
    ("stage", "change", "sentence"),
    [
        (
            train_orderer,
            lambda e: replace(e, orderer={**e.orderer, "tokens": 8}),
            r"orderer\.tokens was 16 and is 8$",
        ),
        (
            train_orderer,
            lambda e: replace(e, orderer={**e.orderer, "bottleneck": "none"}),
            r"orderer\.bottleneck was norm and is none$",
        ),
        (
            train_orderer,
            lambda e: changed(e, "train_orderer", batch_size=32),
            r"train_orderer\.batch_size was 16 and is 32$",
        ),
        (
            train_orderer,
            lambda e: changed(e, "train_orderer", accumulate=2),
            r"train_orderer\.accumulate was 1 and is 2$",
        ),
        (
            train_orderer,
            lambda e: changed(e, "data", crop_area=0.5),
            r"data\.crop_area was 1\.0 and is 0\.5$",
        ),
        (
            train_ar,
            lambda e: changed(e, "train_ar", ema_decay=0.9),
            r"train_ar\.ema_decay was 0\.99 and is 0\.9$",
        ),
        (
            train_joint,
            lambda e: changed(e, "train_joint", weight=0.25),
            r"train_joint\.weight was 0\.5 and is 0\.25$",
        ),
        (train_orderer, lambda e: replace(e, seed=1), "seed was 0 and is 1$"),
        (train_orderer, lambda e: replace(e, precision="bf16"), "precision was fp32 and is bf16$"),
        (
            train_orderer,
            lambda e: replace(e, orderer={**e.orderer, "width": 16}),
            r"orderer\.width was 32 and is 16$",
        ),
        (
            train_orderer,
            lambda e: replace(e, data=DataSettings(train_count=65)),
            r"data\.train_count was 64 and is 65, pairs was [0-9a-f]{64} and is [0-9a-f]{64}$",
        ),
        (
            train_orderer,
            lambda e: changed(e, "train_orderer", optim=OptimSettings()),
            r"train_orderer\.optim\.warmup_steps was 1 and is 50$",
        ),
        (
            train_ar,
            lambda e: replace(e, ar={**e.ar, "draws": 2}),
            r"ar\.draws was 1 and is 2$",
        ),
        (
            train_joint,
            lambda e: changed(e, "train_orderer", objectives=replaced(e, full_share=0.5)),
            r"train_orderer\.objectives\.full_share was 0\.7 and is 0\.5$",
        ),
        (
            train_joint,
            lambda e: changed(e, "train_ar", condition_drop=0.5),
            r"train_ar\.condition_drop was 0\.1 and is 0\.5$",
        ),
    ],
)
def test_what_changes_the_learning_is_refused_on_resume(
    stage: ModuleType, change: Any, sentence: str, trained: Experiment
) -> None:
    with pytest.raises(ValueError, match=f"cannot resume with other settings: {sentence}"):
        stage.main(replace(change(trained), resume=True))


@pytest.mark.parametrize(
    ("stage", "learner"), [(train_orderer, "orderer"), (train_ar, "ar"), (train_joint, "ar")]
)
def test_a_training_goes_on_for_more_steps_at_the_learning_rates_of_all_of_them(
    stage: ModuleType, learner: str, copied: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    for after_it in list(LOGS)[list(LOGS).index(stage) + 1 :]:
        forget(after_it, copied.out)
    folder, name = copied.out / "checkpoints" / LOGS[stage], f"train_{LOGS[stage]}"
    before = load_latest(folder)
    stage.main(changed(replace(copied, resume=True), name, steps=6))
    after = load_latest(folder)
    assert before is not None and after is not None and (before.step, after.step) == (4, 6)
    assert f"{name}.steps was 4 and is 6: from step 4 on, learning rates are those" in caplog.text
    # The last of four updates was number 3, the last of six is number 5; one was to warm up.
    for checkpoint, share in ((before, 2 / 3), (after, 4 / 5)):
        for group in checkpoint.state["groups"][f"{learner}-optimizer-0"]:
            factor = 0.5 * (1 + math.cos(math.pi * share))
            assert group["lr"] == pytest.approx(factor * group["initial_lr"])
    assert after.state["settings"][f"{name}.steps"] == 6
    record = json.loads((copied.out / RECORDS[stage]).read_text())
    assert record.get("joint", record)["totals"] == [[0, 4], [4, 6]]


RECORDS = {
    train_orderer: "orderer/training.json",
    train_ar: "ar/training.json",
    train_joint: "joint/orderer/training.json",
}


@pytest.mark.parametrize("later", [(train_orderer, train_ar), (train_ar, train_joint)])
def test_a_stage_on_which_another_builds_takes_no_more_steps(
    later: tuple[ModuleType, ModuleType], trained: Experiment
) -> None:
    first, second = later
    more = changed(replace(trained, resume=True), f"train_{LOGS[first]}", steps=6)
    with pytest.raises(ValueError, match=rf"checkpoints/{LOGS[second]} builds upon the 4 steps of"):
        first.main(more)


def test_fewer_steps_are_refused(trained: Experiment) -> None:
    with pytest.raises(ValueError, match=r"train_ar\.steps may grow on resume, was 4 and is 3"):
        train_ar.main(changed(replace(trained, resume=True), "train_ar", steps=3))


def test_tokens_of_other_pairs_are_refused_on_resume(copied: Experiment) -> None:
    write_tokens.main(replace(copied, data=DataSettings(train_count=65)))
    with pytest.raises(ValueError, match="other settings: pairs was"):
        train_ar.main(replace(copied, resume=True))


def test_how_many_pairs_are_held_is_harmless_until_the_tokens_are_written_anew(
    copied: Experiment,
) -> None:
    others = changed(replace(copied, resume=True), "train_ar", held=4, validate_every=3)
    before = weights(train_ar, copied.out)
    train_ar.main(others)
    assert weights(train_ar, copied.out) == before
    write_tokens.main(others)
    with pytest.raises(ValueError, match="other settings: pairs was"):
        train_ar.main(others)


def test_the_frozen_route_leaves_the_orderer_as_it_is(copied: Experiment) -> None:
    forget(train_joint, copied.out)
    train_joint.main(changed(copied, "train_joint", route="frozen"))
    before, after = (
        Orderer.from_pretrained(copied.out / folder).state_dict()
        for folder in ("orderer", "joint/orderer")
    )
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert weights(train_ar, copied.out) != weights(train_ar, copied.out / "joint")


def test_the_align_route_moves_the_orderer_and_its_hash_binds_the_ar_model(
    trained: Experiment,
) -> None:
    before, after = (
        Orderer.from_pretrained(trained.out / folder).encoding_hash()
        for folder in ("orderer", "joint/orderer")
    )
    assert before != after
    config = json.loads((trained.out / "joint/ar/config.json").read_text())
    assert config["orderer_hash"] == after


def replaced(experiment: Experiment, **changes: Any) -> Objectives:
    return replace(experiment.train_orderer.objectives, **changes)


def config_file(experiment: Experiment, folder: Path) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(plain_settings(experiment)))
    return path


def noiseless(tiny: Experiment, **terms: Any) -> Experiment:
    quiet = replace(tiny, precision="fp32", orderer={**tiny.orderer, "token_noise": 0.0})
    return changed(quiet, "train_orderer", objectives=replaced(tiny, full_share=1.0, **terms))


@pytest.mark.long  # tests of fewer steps: test_parallel, test_elastic
@pytest.mark.parametrize("parallel", ["replicated", "sharded"])
def test_two_processes_learn_what_one_does(
    program: Any, tiny: Experiment, tmp_path: Path, parallel: str
) -> None:
    """Without noise, which differs from process to process; Muon's bf16 enlarges rounding."""
    quiet = noiseless(tiny)
    train_orderer.main(replace(quiet, out=tmp_path / "one"))
    both = changed(replace(quiet, out=tmp_path / "two"), "execution", parallel=parallel)
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    done = program(*launch, "recipes.train_orderer", "--config", config_file(both, tmp_path))
    assert done.returncode == 0, done.stderr
    alone, together = (losses(tmp_path / name, "orderer") for name in ("one", "two"))
    assert len(together) == 4 and together[-1]["contrastive"] > 0
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    for one, two in zip(alone, together, strict=True):
        assert two == pytest.approx(one, rel=1e-3)
    saved = [Orderer.from_pretrained(tmp_path / name / "orderer") for name in ("one", "two")]
    for mine, other in zip(*(model.parameters() for model in saved), strict=True):
        # Single values differ more: where a gradient is about zero, its sign makes a whole step.
        assert (mine - other).abs().mean() < 2e-4


def test_a_step_of_micro_batches_is_the_mean_of_their_own_steps(
    tiny: Experiment, tmp_path: Path
) -> None:
    """The law of accumulation, the contrastive term's too: seen where nothing learns."""
    still = OptimSettings(muon_lr=0, adamw_lr=0, weight_decay=0, warmup_steps=0)
    quiet = changed(noiseless(tiny, text_ramp=1), "train_orderer", optim=still)
    small = changed(quiet, "train_orderer", steps=8, batch_size=8)
    train_orderer.main(changed(replace(quiet, out=tmp_path / "a"), "train_orderer", accumulate=2))
    train_orderer.main(replace(small, out=tmp_path / "b"))
    two, one = losses(tmp_path / "a", "orderer"), losses(tmp_path / "b", "orderer")
    for step in range(1, 4):  # from 1 on with text
        for name in ("contrastive", "reconstruction", "loss"):
            mean = (one[2 * step][name] + one[2 * step + 1][name]) / 2
            assert two[step][name] == pytest.approx(mean, rel=1e-5)


def test_without_contrast_micro_batches_learn_what_the_whole_batch_does(
    tiny: Experiment, tmp_path: Path
) -> None:
    quiet = noiseless(tiny, contrastive=0.0)
    for number in (1, 2, 4):
        stage = changed(replace(quiet, out=tmp_path / str(number)), "train_orderer")
        train_orderer.main(changed(stage, "train_orderer", accumulate=number))
    whole = losses(tmp_path / "1", "orderer")
    for number in (2, 4):
        for cut, expected in zip(losses(tmp_path / str(number), "orderer"), whole, strict=True):
            for name in ("reconstruction", "gradient_norm"):
                assert cut[name] == pytest.approx(expected[name], rel=1e-3)  # Muon's bf16


def test_a_batch_that_cannot_be_cut_evenly_is_refused(tiny: Experiment, tmp_path: Path) -> None:
    uneven = changed(replace(tiny, out=tmp_path), "train_orderer", accumulate=3)
    with pytest.raises(ValueError, match="by 1 processes x 3 micro-batches, got 16"):
        train_orderer.main(uneven)


def test_weights_and_losses_are_fp32_in_bf16_training(
    tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = set()
    log = Run.log

    def log_and_see(self: Run, step: int, values: Any) -> None:
        kinds.update(value.dtype for value in values.values())
        log(self, step, values)

    monkeypatch.setattr(Run, "log", log_and_see)
    train_orderer.main(replace(tiny, out=tmp_path / "run", precision="bf16"))
    model = Orderer.from_pretrained(tmp_path / "run/orderer")
    assert kinds == {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.long
def test_two_processes_learn_the_same_twice(
    tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        config = config_file(replace(tiny, out=tmp_path / name), tmp_path / name)
        assert launch("train_orderer", ["--config", config], processes=2) == 0
    assert weights(train_orderer, tmp_path / "first") == weights(train_orderer, tmp_path / "second")


def test_accelerate_launches_the_same_training(
    program: Any, trained: Experiment, tmp_path: Path
) -> None:
    launched = config_file(replace(trained, out=tmp_path / "run"), tmp_path)
    launch = ("accelerate.commands.launch", "--cpu", "--num_processes=1", "-m")
    done = program(*launch, "recipes.train_orderer", "--config", launched)
    assert done.returncode == 0, done.stderr
    assert weights(train_orderer, tmp_path / "run") == weights(train_orderer, trained.out)
