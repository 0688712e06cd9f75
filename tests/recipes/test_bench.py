"""A benchmark prints both sides and their ratio, and writes what it prints."""

import json
from pathlib import Path

import pytest
import torch

from orderer import Orderer, OrdererConfig
from recipes import bench
from recipes.benchmarks import data, orderer
from recipes.benchmarks.case import Case, in_turns
from recipes.benchmarks.stock_orderer import StockOrderer
from recipes.engine.cli import run as start


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
def test_the_benchmark_of_the_orderer_measures_both_sides_and_their_errors(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    start(bench.main, bench.Config, bench.with_what(["orderer", "--runs=1", f"--json={out}"]))
    cases = json.loads(out.read_text())
    names = ("linear", "encode_16px", "encode_1_of_8_tokens", "train_step_16px")
    assert set(cases) == {f"{name}_{p}" for name in names for p in ("fp32", "bf16")}
    for precision, most in (("fp32", 1e-5), ("bf16", 0.2)):
        case = cases[f"encode_16px_{precision}"]
        assert 0 < case["error_ours"] < most and 0 < case["error_reference"] < most


def test_both_sides_have_the_same_tokens_loss_and_gradients(small: Orderer) -> None:
    small = small.double()
    images = orderer._images(small, 2)
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
    images = orderer._images(small, 2)
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
