"""A benchmark prints both sides and their ratio, and writes what it prints."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from ar import ARModel, Sampling
from ar.sampling import row_noise
from orderer import Orderer, OrdererConfig
from orderer.evaluation import retrieval_metrics
from recipes import bench
from recipes.benchmarks import ar as ar_cases
from recipes.benchmarks import checkpoint, data, orderer, retrieval
from recipes.benchmarks import joint as joint_cases
from recipes.benchmarks.case import DTYPES, FASTEST, Case, in_turns
from recipes.benchmarks.plain_ar import PlainAR, mar_head, time_head
from recipes.benchmarks.stock_orderer import StockOrderer
from recipes.engine.cli import run as start
from recipes.experiment import Experiment

MOST = {"fp32": 1e-5, "bf16": 0.2}
"""How far a side may lie from the exact outcome."""


def test_the_benchmark_of_data_measures_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, small in (("SIZE", 32), ("PAIRS", 8), ("BATCH", 4), ("SHARDS", 5)):
        monkeypatch.setattr(data, name, small)
    out = tmp_path / "bench.json"
    start(bench.main, bench.Config, bench.with_what(["data", "--runs=2", f"--json={out}"]))
    cases, said = json.loads(out.read_text()), capsys.readouterr().out
    assert set(cases) == {"read_32px", "open_5_shards"}
    for name, case in cases.items():
        assert {"unit", "commit", "hardware", "command"} < set(case) and case["runs"] == 2
        assert case["ours"] > 0 and case["reference"] > 0 and case["ratio"] > 0
        assert f"{name}: ours " in said


def test_a_ratio_says_how_many_times_better_ours_is() -> None:
    figures = {"name": "x", "unit": "s", "ours": (2.0, 4.0, 1.0), "reference": (8.0, 8.0, 8.0)}
    assert Case(**figures, is_rate=False).ratio == 4
    assert Case(**figures, is_rate=True).ratio == 0.25


def test_the_sides_take_turns_after_one_that_does_not_count() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    case = in_turns("x", "s", lambda: side("a"), lambda: side("b"), 2)
    assert calls == list("ababab")
    assert (case.ours, case.reference) == ((3.0, 5.0), (4.0, 6.0))


def test_no_runs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        start(bench.main, bench.Config, ["--what=data", "--runs=0"])
    assert capsys.readouterr().err == "error: runs must be at least 1, got 0\n"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Orderer:
    """The benchmark's orderer with 16 patches, 8 tokens and 2 layers."""
    few = {"image_size": 16, "patch_size": 4, "tokens": 8, "width": 32, "heads": 2}
    few |= {"encoder_layers": 2, "decoder_layers": 2}
    for name, value in few.items():
        monkeypatch.setitem(orderer.SIZE, name, value)
    monkeypatch.setattr(orderer, "BATCH", 2)
    return Orderer(OrdererConfig(**orderer.SIZE, **orderer.NOT_RUN)).eval()


@pytest.mark.usefixtures("small")
def test_the_benchmark_of_checkpoints_measures_a_save_and_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "BATCH", 2)
    out = tmp_path / "bench.json"
    start(bench.main, bench.Config, bench.with_what(["checkpoint", "--runs=2", f"--json={out}"]))
    cases = json.loads(out.read_text())
    assert list(cases) == ["save", "save_every_500_steps", "wait_for_a_save_in_the_background"]
    share, seconds = cases["save_every_500_steps"], cases["save"]
    assert share["ours"] / share["reference"] == pytest.approx(
        seconds["ours"] / seconds["reference"]
    )
    waited = cases["wait_for_a_save_in_the_background"]
    assert 0 < waited["ours"] < waited["reference"]


@pytest.mark.usefixtures("small")
def test_the_benchmark_of_the_orderer_measures_both_sides_and_their_errors(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    start(bench.main, bench.Config, bench.with_what(["orderer", "--runs=1", f"--json={out}"]))
    cases = json.loads(out.read_text())
    names = ("linear", "encode_16px", "encode_1_of_8_tokens", "train_step_16px")
    assert set(cases) == {f"{name}_{p}" for name in names for p in DTYPES}
    for precision in DTYPES:
        most = MOST[precision]
        case = cases[f"encode_16px_{precision}"]
        assert 0 < case["error_ours"] < most and 0 < case["error_reference"] < most


def test_both_sides_have_the_same_tokens_loss_and_gradients(small: Orderer) -> None:
    small = small.double()
    images = orderer.draw_images(small, 2)
    pixels, stock = images.double() / 127.5 - 1, StockOrderer(small)
    torch.testing.assert_close(stock.encode(pixels), small.encode(pixels))
    keep = torch.ones(2, 8, dtype=torch.bool)
    ours = small.rebuild(small.encode(pixels), keep, pixels).loss
    theirs = stock.loss(pixels)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    gradients = dict(small.named_parameters())
    for name, parameter in stock.named_parameters():
        if name == "decoder.null":  # nothing is cut here
            continue
        torch.testing.assert_close(gradients[name].grad, parameter.grad)


def test_both_steps_of_training_go_the_same_way(small: Orderer) -> None:
    images = orderer.draw_images(small, 2)
    steps = [make(small, images, "fp32") for make in (orderer.our_step, orderer.stock_step)]
    ours, theirs = ([step() for _ in range(5)] for step in steps)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[-1] < ours[0]


def test_the_share_of_a_devices_rate_counts_what_is_multiplied(
    small: Orderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orderer, "GPU_BATCH", 2)
    monkeypatch.setattr(orderer, "PRODUCT", 64)
    case = orderer.share_of_rate(small, torch.device("cpu"), runs=1)
    assert case.is_rate and case.ours[0] > 0 and case.reference[0] > 0


@pytest.fixture
def small_ar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's AR model with 6 tokens of 4 channels and 2 layers."""
    few = {"tokens": 6, "token_dim": 4, "width": 32, "heads": 2, "layers": 2, "mlp_width": 48}
    for name, value in (few | {"head_width": 24, "head_layers": 2}).items():
        monkeypatch.setitem(ar_cases.SIZE, name, value)
    monkeypatch.setitem(ar_cases.BASE, "tokens", 6)
    monkeypatch.setattr(ar_cases, "COSTS", {"tokens": (2, 6), "steps": (4,), "batch": (1,)})
    monkeypatch.setattr(ar_cases, "BATCHES", (1, 3))
    monkeypatch.setattr(ar_cases, "TRAINED", 2)


@pytest.mark.usefixtures("small_ar")
def test_the_benchmark_of_the_ar_model_measures_both_sides_and_their_errors(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    start(bench.main, bench.Config, bench.with_what(["ar", "--runs=1", f"--json={out}"]))
    cases = json.loads(out.read_text())
    for batch in (1, 3):
        for precision in DTYPES:
            most = MOST[precision]
            case = cases[f"sample_same_maths_25_steps_batch_{batch}_{precision}"]
            assert 0 < case["error_ours"] < most
            assert f"linear_{batch}_rows_{precision}" in cases
        assert {f"sample_{steps}_steps_batch_{batch}_{FASTEST}" for steps in (8, 4)} < set(cases)
    assert cases["train_step_batch_2_fp32"]["error_ours"] < 1e-5
    assert {name for name in cases if name.startswith("cost")} == {
        "cost_of_tokens_2",
        "cost_of_tokens_6",
        "cost_of_steps_4",
        "cost_of_batch_1",
    }


@pytest.mark.usefixtures("small_ar")
def test_the_plain_loop_draws_what_we_draw() -> None:
    model = ar_cases.make_model("token")
    ours = model.generate(
        model.unconditioned(3), sampling=Sampling(guidance_scale=1.0, steps=5), seeds=[0, 1, 2]
    )
    noise = row_noise([0, 1, 2], (6, 1, 4), torch.device("cpu"))[:, :, 0]
    plain = PlainAR(model).sample(noise, 5)
    assert ours.std() > 0.5
    torch.testing.assert_close(plain, ours, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("small_ar")
@pytest.mark.parametrize(("modulation", "head"), [("token", mar_head), ("time", time_head)])
def test_a_plain_head_is_ours(modulation: Literal["time", "token"], head: Any) -> None:
    net = ar_cases.make_model(modulation).head.net
    x, t, states = torch.randn(2, 6, 4), torch.rand(2, 6), torch.randn(2, 6, 32)
    torch.testing.assert_close(
        head(net, x, t, states), net(x, 1_000 * t, states), atol=1e-5, rtol=0
    )


@pytest.mark.usefixtures("small_ar")
def test_the_plain_loss_reaches_the_same_parameters_and_learns_as_ours_does() -> None:
    torch.manual_seed(0)
    model: ARModel = ar_cases.make_model("time")
    tokens = torch.randn(64, 6, 4)
    plain, before = PlainAR(model), model.loss(tokens, model.unconditioned(64)).mean()
    loss = plain.loss(tokens)
    assert loss.item() == pytest.approx(before.item(), rel=0.1)
    loss.backward()
    assert all(parameter.grad is not None for parameter in plain.parameters())
    for step in (ar_cases.our_step(model, tokens, "fp32"), ar_cases.plain_step(model, tokens)):
        losses = [step() for _ in range(30)]
        assert sum(losses[-5:]) < sum(losses[:5])


def test_the_benchmark_of_stage_3_measures_every_route_against_separate_steps(
    tiny: Experiment,
) -> None:
    cases = list(joint_cases.measure(1, tiny))
    assert [case.name for case in cases] == [
        f"joint_step_{route}" for route in ("align", "context", "decode", "rate")
    ]
    for case in cases:
        assert (
            case.ours[0] > 0
            and case.reference[0] > 0
            and case.errors["peak_memory_so_far_bytes"] > 1e8
        )


def test_the_benchmark_of_retrieval_measures_both_sides_and_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, small in (("IMAGES", 12), ("CAPTIONS", 62), ("SIZE", 8), ("PREFIXES", 2)):
        monkeypatch.setattr(retrieval, name, small)
    out = tmp_path / "bench.json"
    start(bench.main, bench.Config, bench.with_what(["retrieval", "--runs=1", f"--json={out}"]))
    (case,) = json.loads(out.read_text()).values()
    assert case["ours"] > 0 and case["reference"] > 0 and case["peak_memory_bytes"] > 1e8


def test_without_ties_plain_lists_find_the_same() -> None:
    images, texts, owner = torch.randn(20, 8), torch.randn(100, 8), torch.arange(100) % 20
    ours = retrieval_metrics(images, texts, owner)
    for direction, recalls in retrieval.plain_recalls(images, texts, owner, (1, 5, 10)).items():
        assert recalls == pytest.approx({k: ours[direction][k] for k in recalls}, abs=1e-12)
