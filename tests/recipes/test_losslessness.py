"""The probe of losslessness: runs become curves, and all of it goes on where it was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.strings import BITS, load_strings
from orderer.evaluation import StringReading
from recipes import probe_losslessness, train_orderer
from recipes.data_settings import DataSettings
from recipes.engine.cli import run as start
from recipes.engine.page import markdown_table
from recipes.evaluate import main as evaluate
from recipes.evaluation_settings import Evaluation
from recipes.experiment import Experiment
from recipes.losslessness import by_bits, by_dims, by_length, gather, table, write_losslessness_page
from recipes.probe_losslessness import Losslessness, ceiling, of_length
from recipes.training_settings import OrdererTraining

ROOT = Path(__file__).parents[2]
STRINGS = DataSettings(source=("strings",), unseen=None, train_count=32, test_count=20)
READING = StringReading(strings=40, steps=2, batch_size=8, width=16, codes=4, levels=(1, 2))


@pytest.fixture(scope="module")
def probe(tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Losslessness:
    return Losslessness(
        out=tmp_path_factory.mktemp("losslessness"),
        data=STRINGS,
        orderer={**tiny.orderer, "image_size": 32, "patch_size": 8, "token_dim": 4},
        train_orderer=replace(tiny.train_orderer, steps=2),
        evaluation=Evaluation(strings=READING),
        tokens=(2, 4),
        seeds=(0,),
        processes=1,
        log_every=1,
    )


@pytest.fixture(scope="module")
def runs(probe: Losslessness) -> dict[tuple[int, int], Path]:
    """Trained and measured here, where the recipe starts programs."""
    found = {}
    for length in probe.tokens:
        experiment = of_length(probe, length, 0, probe.out / f"tokens{length}-0")
        experiment = replace(
            experiment,
            evaluation=replace(experiment.evaluation, tasks=("reconstruction", "strings")),
        )
        train_orderer.main(experiment)
        evaluate(experiment)
        found[length, 0] = experiment.out
    return found


@pytest.fixture(scope="module")
def results(probe: Losslessness, runs: dict[tuple[int, int], Path]) -> dict[str, Any]:
    return gather(runs, {0: ceiling(probe, 0)})


def test_every_length_is_read_from_tokens_and_from_codes(results: dict[str, Any]) -> None:
    assert list(results["lengths"]) == ["2", "4"] and results["dims"] == {"2": 8, "4": 16}
    for length, found in results["lengths"].items():
        assert set(found) == {"continuous", "1", "2"}
        bits = {code: each["bits"] for code, each in found.items()}
        assert bits == {"continuous": None, "1": 2 * int(length), "2": 4 * int(length)}
        assert found["1"]["most"] < found["2"]["most"] <= 1


def test_shares_and_characters_say_the_same(results: dict[str, Any]) -> None:
    mean_length = results["protocol"]["characters"]
    for found in results["lengths"]["4"].values():
        assert found["characters"]["mean"] == pytest.approx(found["share"]["mean"] * mean_length)
    texts = [text for (text,) in load_strings("val", 20, 32).captions]
    assert mean_length == pytest.approx(sum(map(len, texts)) / 20)
    assert results["protocol"]["bits"] == pytest.approx(BITS * mean_length)


def test_curves_go_over_numbers_and_over_bits(results: dict[str, Any]) -> None:
    assert set(by_dims(results)["continuous"]) == {8, 16}
    assert set(by_bits(results)["K = 4"]) == {8, 16}
    assert by_bits(results).keys() == {"the most by the bits", "K = 2", "K = 4"}
    assert "1 x 4 codes" in markdown_table(table(results)) and len(by_length(results).rows) == 3


def test_the_page_shows_curves_and_strips(
    results: dict[str, Any], runs: dict[tuple[int, int], Path], tmp_path: Path
) -> None:
    write_losslessness_page(tmp_path, results, runs)
    assert (tmp_path / "losslessness.html").read_text().count("<img") == 4


def test_the_ceiling_is_read_once(
    probe: Losslessness, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_losslessness, "pixels_read", lambda _: pytest.fail("read again"))
    assert ceiling(replace(probe, resume=True), 0)["share"] == results["pixels"]["share"]["mean"]


def test_runs_differ_in_nothing_but_length_and_seed(probe: Losslessness, tmp_path: Path) -> None:
    short, long = (of_length(probe, length, 3, tmp_path) for length in (2, 4))
    assert short.orderer["tokens"] == 2 and short.seed == 3
    assert replace(short, orderer={**short.orderer, "tokens": 4}) == long


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"data": DataSettings()}, "data.source must be strings, which are read, got scenes"),
        ({"data": STRINGS, "tokens": ()}, "tokens must hold at least one number, got none"),
        ({"data": STRINGS, "orderer": {"tokens": 3}}, "orderer.tokens is what the runs differ in"),
    ],
)
def test_a_probe_of_nothing_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Losslessness(**settings)


def test_what_holds_no_strings_is_not_read(tiny: Experiment) -> None:
    measuring = replace(tiny, evaluation=replace(tiny.evaluation, tasks=("strings",)))
    with pytest.raises(ValueError, match="the task strings is for strings, got data from scenes"):
        evaluate(measuring)


def test_the_config_is_one_that_the_recipe_reads() -> None:
    read: list[Losslessness] = []
    config = ROOT / "recipes/configs/losslessness/strings.yaml"
    start(lambda probe: read.append(probe), Losslessness, [f"--config={config}"])
    assert read[0].train_orderer.objectives == replace(
        OrdererTraining().objectives, contrastive=0.0, full_share=1.0
    )


@pytest.mark.long
def test_a_whole_probe_runs_and_goes_on_where_it_was(program: Any, tmp_path: Path) -> None:
    arguments = (
        "recipes.probe_losslessness",
        "--config=recipes/configs/losslessness/strings.yaml",
        f"--out={tmp_path}",
        *("--tokens=[2,4]", "--seeds=[0]", "--processes=2", "--train_orderer.steps=2"),
        *("--data.train_count=128", "--data.test_count=20"),
        *("--evaluation.strings.strings=300", "--evaluation.strings.steps=2"),
    )
    done = program(*arguments)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "losslessness.json").read_text())["results"]
    (tmp_path / "tokens4-0" / "evaluation.json").unlink()
    done = program(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "losslessness.json").read_text())["results"] == first
