"""The ablation: figures of seeds become intervals, and verdicts follow from them."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import yaml
from scipy import stats

from orderer import Objectives
from orderer.objectives import TEXT_TERMS
from recipes.ablate_orderer import ARMS, TASKS, Ablation, of_arm
from recipes.ablation import gather, tables, wanted, write_ablation_page
from recipes.engine.cli import run as start
from recipes.engine.settings import plain_settings
from recipes.experiment import Experiment
from recipes.intervals import interval
from recipes.prove_order import Policies
from recipes.training_record import RECORD
from recipes.training_settings import OrdererTraining
from recipes.variants import train_and_measure, variant

CONFIGS = Path(__file__).parents[2] / "recipes/configs/ablation"


def written(out: Path, own: float, fresh: float, psnr: float) -> Path:
    """What `evaluate` leaves of a run whose recall is alike at every prefix."""
    recall = {k: {"r1": own, "r5": own} for k in ("1", "2", "16")}
    found = {k: {"r1": fresh, "r5": fresh} for k in ("1", "2", "16")}
    separate = {
        "reconstruction": {"psnr": {k: psnr for k in ("1", "2", "16")}},
        "retrieval": {"text_to_image": recall},
        "probe": {"text_to_image": found},
    }
    out.mkdir(parents=True)
    (out / "evaluation.json").write_text(json.dumps({"results": {"separate": separate}}))
    return out


@pytest.fixture
def figures(tmp_path: Path) -> Any:
    of_arms = {
        "ours": (0.80, 0.81, 30.0),
        "no_text": (0.0, 0.20, 30.4),
        "last_only": (0.10, 0.70, 30.0),
        "unordered": (0.05, 0.60, 30.0),
    }
    return gather(
        {
            (arm, seed): written(tmp_path / f"{arm}-{seed}", own + seed / 100, fresh, psnr)
            for arm, (own, fresh, psnr) in of_arms.items()
            for seed in (0, 1, 2)
        }
    )


def test_an_interval_of_many_seeds_is_rather_too_wide() -> None:
    values = [float(x) for x in range(21)]
    exact = stats.t.interval(0.95, 20, mean(values), stats.sem(values))
    found = interval(values)
    assert found["low"] < exact[0] and found["high"] > exact[1]
    assert found["high"] - exact[1] < 0.1 * (exact[1] - exact[0])


def test_an_interval_is_students(figures: Any) -> None:
    at = figures["ours"]["own R@1"]["2"]
    assert at["seeds"] == pytest.approx([0.80, 0.81, 0.82])
    assert at["mean"] == pytest.approx(0.81)
    assert at["high"] - at["mean"] == pytest.approx(4.303 * 0.01 / 3**0.5)


def test_a_readout_that_has_never_seen_a_caption_has_no_figure(figures: Any) -> None:
    assert set(figures["no_text"]) == {"PSNR", "fresh R@1", "fresh R@5"}


def test_the_verdicts_follow_from_the_figures(figures: Any) -> None:
    verdicts = {row[0]: row[2] for row in wanted(figures).rows}
    assert verdicts == {
        "own R@1 at k <= K/8 at least 2 x last_only's": "yes",
        "own R@1 at k <= K/8 at least 2 x unordered's": "yes",
        "fresh R@1 at k <= K/8 at least 2 x no_text's": "yes",
        "fresh R@1 at k <= K/8, intervals apart, points": "yes",
        "own R@1 at K at most 2 points below the best fresh": "yes",
        "PSNR at K at most 0.5 dB below no_text's": "yes",
        "own R@1 at K above that at 1, points": "no",
        "own R@1 at most 3 points below fresh, at every k": "yes",
    }


def test_the_page_shows_every_measure(figures: Any, tmp_path: Path) -> None:
    write_ablation_page(tmp_path, figures)
    page = (tmp_path / "ablation.html").read_text()
    assert page.count("<img") == 5 and all(arm in page for arm in ARMS)
    assert len(tables(figures)) == 6


def test_arms_differ_in_nothing_but_what_they_are_named_after(tmp_path: Path) -> None:
    training = OrdererTraining(objectives=Objectives(captioning=1.0, matching=1.0))
    ablation = Ablation(out=tmp_path, train_orderer=training)
    runs = {arm: of_arm(ablation, arm, 1, tmp_path / arm) for arm in ARMS}
    assert runs["ours"].train_orderer == ablation.train_orderer
    assert {run.seed for run in runs.values()} == {1}
    objectives = {arm: run.train_orderer.objectives for arm, run in runs.items()}
    assert not any(getattr(objectives["no_text"], term) for term in TEXT_TERMS)
    assert objectives["last_only"].aligned == objectives["unordered"].aligned == "full"
    assert runs["unordered"].orderer == {"causal": False, "readout": "pooled"}
    for arm in ("no_text", "last_only"):
        assert runs[arm].orderer == runs["ours"].orderer


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"arms": ("other",)},
            "arms must be among ours, no_text, last_only, unordered, got 'other'",
        ),
        ({"arms": ()}, "arms must hold at least one, got none"),
        ({"seeds": ()}, "seeds must hold at least one, got none"),
    ],
)
def test_an_ablation_of_nothing_is_refused(settings: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Ablation(**settings)


@pytest.mark.long
def test_a_whole_ablation_runs_and_goes_on_where_it_was(program: Any, tmp_path: Path) -> None:
    arguments = (
        "recipes.ablate_orderer",
        "--config=recipes/configs/smoke.yaml",
        f"--out={tmp_path}",
        "--arms=[ours,no_text]",
        "--seeds=[0]",
        "--processes=2",
        "--train_orderer.objectives.text_from=0",
        "--evaluation.probe_steps=2",
        "--data.unseen=null",
    )
    done = program(*arguments)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "ablation.json").read_text())["results"]
    assert first["ours"]["own R@1"] and "own R@1" not in first["no_text"]
    (tmp_path / "ours-0" / "evaluation.json").unlink()
    done = program(*arguments, "--resume=true")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "ablation.json").read_text())["results"] == first


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_one_that_the_recipes_read(path: Path) -> None:
    read: list[Experiment] = []
    kind = Policies if path.stem == "policies" else Ablation
    start(lambda experiment: read.append(experiment), kind, [f"--config={path}"])
    (experiment,) = read
    assert experiment.out == Path("runs/ablation") / path.stem
    experiment.orderer_config()


@pytest.mark.parametrize("resume", [True, False])
def test_what_was_measured_with_other_settings_is_not_taken_for_ones_own(
    resume: bool, tmp_path: Path
) -> None:
    experiment = variant(Experiment(), tmp_path / "ours-0", seed=0)
    experiment.out.mkdir()
    (experiment.out / "evaluation.json").write_text("{}")
    settings = yaml.safe_dump(plain_settings(experiment))
    (experiment.out / "experiment.yaml").write_text(settings)
    (experiment.out / "orderer").mkdir()
    (experiment.out / "orderer" / RECORD).write_text("{}")
    before = sorted(each.name for each in experiment.out.iterdir())
    train_and_measure([experiment], TASKS, at_once=1, resume=True)  # starts no program
    assert sorted(each.name for each in experiment.out.iterdir()) == before
    other = variant(experiment, experiment.out, seed=1)
    with pytest.raises(
        ValueError, match=r"ours-0 was begun with other settings.*: seed was 0 and is 1; give"
    ):
        train_and_measure([other], TASKS, at_once=1, resume=resume)
    assert (experiment.out / "experiment.yaml").read_text() == settings
