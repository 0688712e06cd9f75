"""The demo at smoke size: one command, and everything that it promises is there."""

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ar import ARModel, Sampling
from orderer import Orderer, OrdererProcessor
from recipes import demo, evaluate, train_ar, train_joint, train_orderer, write_tokens
from recipes.conditions import condition_on
from recipes.engine.cli import run as start
from recipes.experiment import Experiment

SMOKE = Path(__file__).parents[2] / "recipes/configs/smoke.yaml"
PREFIXES = ["1", "2", "4", "8", "16"]
SHARES = ("colour", "shape", "colour_and_shape", "place")
PICTURES = ("losses.png", "psnr.png", "retrieval.png", "watched.png")
DIFFERENT = {"orderers", "seconds", "config", "command", "date", "hardware", "commit"}
"""Between two runs; of the config only the folder, of the commit what was edited meanwhile."""
STAGES = {
    "train_orderer": train_orderer,
    "write_tokens": write_tokens,
    "train_ar": train_ar,
    "train_joint": train_joint,
    "evaluate": evaluate,
}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A demo that came to its end."""

    out: Path
    said: str
    log: str

    def results(self) -> Any:
        return json.loads((self.out / "results.json").read_text())


def launch_here(stage: str, arguments: list[str | Path], processes: int) -> int:
    """A stage in this process: without the five starts of an interpreter."""
    assert processes == 1
    start(STAGES[stage].main, Experiment, [*map(str, arguments)])
    return 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("demo") / "run"
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(StringIO()) as said,
        redirect_stderr(StringIO()) as log,
    ):
        patch.setattr(demo, "launch", launch_here)
        start(demo.main, Experiment, ["--config", str(SMOKE), f"--out={out}"])
    return Finished(out=out, said=said.getvalue(), log=log.getvalue())


@pytest.fixture(scope="module")
def results(run: Finished) -> Any:
    return run.results()


def test_the_retrieval_of_every_prefix_is_there(results: Any) -> None:
    for when in (results, results["joint"]["before"], results["joint"]["after"]):
        for direction in ("image_to_text", "text_to_image"):
            found = when["retrieval"][direction]
            assert list(found) == PREFIXES
            assert all(0 <= found[k][r] <= 1 for k in PREFIXES for r in ("r1", "r5"))


def test_the_error_of_every_prefix_is_there(results: Any) -> None:
    assert list(results["reconstruction"]["psnr"]) == PREFIXES
    assert all(value > 0 for value in results["reconstruction"]["psnr"].values())


def test_generated_images_stand_beside_real_ones(results: Any) -> None:
    for when in (results, results["joint"]["before"], results["joint"]["after"]):
        found = when["generation"]
        assert all(0 <= of[share] <= 1 for of in (found, found["real"]) for share in SHARES)


def test_what_comes_before_stage_three_is_what_stands_at_the_top(results: Any) -> None:
    before, after = results["joint"]["before"], results["joint"]["after"]
    assert before.keys() == after.keys()
    assert all(results[measure] == before[measure] for measure in before)
    assert after["reconstruction"] != before["reconstruction"]


def test_the_order_is_measured(results: Any) -> None:
    assert 0 <= results["order"]["raster_leak"] <= 1


def test_the_numbers_say_where_they_come_from(results: Any) -> None:
    assert list(results["seconds"]) == list(STAGES)
    assert all(seconds > 0 for seconds in results["seconds"].values())
    protocol = results["protocol"]
    assert (protocol["split"], protocol["images"], protocol["captions"]) == ("val", 32, 160)
    assert protocol["unseen"]["split"] == "test" and protocol["unseen"]["images"] == 32
    assert {"dtype", "ties", "judge", "dataset", "skipped"} <= protocol.keys()
    assert results["config"]["train_orderer"]["steps"] == 4
    assert results["seeds"] == [0]
    assert results["versions"]["torch"] == torch.__version__
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", results["commit"])


def test_the_report_needs_no_other_file(run: Finished) -> None:
    page = (run.out / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)', page)
    assert len(sources) >= 7
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_the_pictures_are_there(run: Finished) -> None:
    folder = run.out / "pictures"
    assert all((folder / name).is_file() for name in PICTURES)
    for when in ("separate", "joint"):
        names = {path.name for path in (folder / when).iterdir()}
        assert names == {"strips.png", "gains.png", "generated.png", "unseen"}


@pytest.mark.parametrize("models", [".", "joint"])
def test_the_models_load_and_draw(models: str, run: Finished) -> None:
    folder = run.out / models
    orderer = Orderer.from_pretrained(folder / "orderer")
    processor = OrdererProcessor.from_pretrained(folder / "orderer")
    model = ARModel.from_pretrained(folder / "ar")
    model.check_orderer(orderer.encoding_hash())
    with torch.no_grad():
        condition = condition_on(["a red ring"], model, orderer, processor)
        images = orderer.decode(model.generate(condition, sampling=Sampling(steps=2)))
    assert (
        images.shape == (1, 3, processor.image_size, processor.image_size)
        and images.isfinite().all()
    )


def test_the_log_is_clean_and_ends_with_the_figures(run: Finished) -> None:
    check_said(run.said, run.log, run.out)


def check_said(said: str, log: str, out: Path) -> None:
    assert not re.search("warning|traceback|error", log, flags=re.IGNORECASE)
    assert "| measure " in said and "| PSNR in dB " in said
    assert said.endswith(f"report:  {out / 'report.html'}\n")


def check_same(again: Path, run: Finished) -> None:
    """To the last bit, but for time and place."""
    results, found = run.results(), json.loads((again / "results.json").read_text())
    assert all(found[name] == results[name] for name in results.keys() - DIFFERENT)
    for model in ("orderer", "ar", "joint/orderer", "joint/ar"):
        weights = f"{model}/model.safetensors"
        assert (again / weights).read_bytes() == (run.out / weights).read_bytes()


@pytest.mark.long
def test_started_by_a_user_it_gives_the_same_numbers(
    run: Finished, program: Any, tmp_path: Path
) -> None:
    done = program("recipes.demo", "--config", SMOKE, f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    check_said(done.stdout, done.stderr, tmp_path)
    check_same(tmp_path, run)
    command = json.loads((tmp_path / "results.json").read_text())["command"]
    assert "-m recipes.demo --config" in command


@pytest.mark.long
def test_stopped_on_the_way_it_gives_the_same_numbers(
    run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def launch(stage: str, arguments: list[str | Path], processes: int) -> int:
        launch_here(stage, arguments, processes)
        started.append(stage)
        return 143 if started == ["train_orderer"] else 0

    monkeypatch.setattr(demo, "launch", launch)
    again = ["--config", str(SMOKE), f"--out={tmp_path}"]
    with pytest.raises(SystemExit) as stopped:
        start(demo.main, Experiment, again)
    assert stopped.value.code == 143 and started == ["train_orderer"]
    (tmp_path / "stages.json").write_text('{"train_orderer": 1000.0}')

    start(demo.main, Experiment, [*again, "--resume"])
    check_same(tmp_path, run)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["seconds"]["train_orderer"] > 1000  # of both parts


def test_the_trainings_alone_run_on_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def launch(stage: str, arguments: list[str | Path], processes: int) -> int:
        started.append((stage, processes))
        return 3 if stage == "evaluate" else 0

    monkeypatch.setattr(demo, "launch", launch)
    with pytest.raises(SystemExit) as stopped:
        start(demo.main, Experiment, ["--config", str(SMOKE), f"--out={tmp_path}", "--processes=2"])
    assert stopped.value.code == 3
    assert started == [
        ("train_orderer", 2),
        ("write_tokens", 1),
        ("train_ar", 2),
        ("train_joint", 2),
        ("evaluate", 1),
    ]


def test_starting_over_leaves_what_is_not_the_demos(tmp_path: Path) -> None:
    for name in ("notes.txt", "results.json"):
        (tmp_path / name).touch()
    (tmp_path / "orderer").mkdir()
    demo.start_over(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ar": {"depth": 3}}, "ARConfig has no setting named depth, got 3"),
        ({"ar": {"tokens": 3}}, "ar.tokens follows from the orderer .*, got 3"),
        ({"orderer": {"tokens": 0}}, "tokens must be at least 1, got 0"),
        ({"orderer": {"context_length": 6}}, "the caption '.*' has .* word pieces, .* at most 4"),
        ({"data": {"test": "tset"}}, "tset"),
        (
            {"train_ar": {"batch_size": 33}},
            "train_ar.batch_size must divide by the 2 processes, got 33",
        ),
        (
            {"train_orderer": {"objectives": {"full_share": 1.5}}},
            "full_share must lie in 0..1, got 1.5",
        ),
        ({"sampling": {"guidance_scale": -1}}, "guidance_scale must be at least 0, got -1"),
        ({"evaluation": {"tasks": ["retrieval"]}}, "evaluation.tasks lacks reconstruction"),
        (
            {"train_orderer": {"objectives": {"captioning": 1.0}}},
            "captioning of weight 1.0 needs a model with fusion_layers, got null",
        ),
        (
            {"train_orderer": {"objectives": {"perceptual": 1.0, "perceptual_model": "nowhere"}}},
            "nowhere",
        ),
        ({"dry_run": True}, "dry_run is of the trainings, here it must be false, got true"),
        ({"train_orderer": {"accumulate": 3}}, "2 processes x 3 micro-batches, got 128"),
        (
            {"train_orderer": {"qformer": "nowhere"}},
            "the weights of a Q-Former are for the encoder 'cross', got JointEncoder",
        ),
        ({"evaluation": {"rerank": 4}}, "evaluation.rerank 4 needs an orderer with fusion_layers"),
        (
            {"train_orderer": {"objectives": {"reconstruction": 0.0}}},
            "no term counts at step 0: those of text come in at step 100",
        ),
        (
            {"data": {"templates": ["{}" + " very" * 40], "train_count": 8}},
            r"pair 0 \(from 0\): the caption '.*' has .* word pieces",
        ),
    ],
)
def test_what_a_late_stage_would_refuse_is_refused_before_anything_is_lost(
    settings: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text("{}")
    config = tmp_path / "wrong.yaml"
    config.write_text(yaml.safe_dump({"out": str(tmp_path), **settings}))
    with pytest.raises(SystemExit) as refused:
        few = "--data.train_count=64"
        start(demo.main, Experiment, [few, "--config", str(config)])
    assert refused.value.code == 2
    assert re.fullmatch(f"error: .*{sentence}.*\n", capsys.readouterr().err)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "wrong.yaml"}
