"""Heads against each other: equal operations, figures of seeds, and by how much one loses."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ar import Sampling
from recipes import compare_heads
from recipes.compare_heads import ARMS, Comparison, count, link_shared, of_arm
from recipes.engine.cli import run as start
from recipes.experiment import Experiment
from recipes.heads_report import gather, heads, tables, verdict, write_heads_page
from recipes.training_settings import ARTraining
from recipes.variants import variant

CONFIGS = Path(__file__).parents[2] / "recipes/configs/heads"
COST = {"steps": 10, "flops": {"loss": 10**9, "optimizer": 10**9, "step": 2 * 10**9}}


def written(out: Path, nats: float | None, frechet: float, right: float) -> Path:
    """What `evaluate` leaves of a run; guided images are a little better."""

    def judged(frechet: float, right: float) -> dict[str, Any]:
        return {
            "class": right,
            "deviations": [1.0, 0.9],
            "fidelity": {"frechet": frechet, "kernel": frechet / 10},
        }

    generation = judged(frechet, right)
    generation["fidelity"] |= {
        "frechet_of_rebuilt": 1.0,
        "kernel_of_rebuilt": 0.1,
        "frechet_of_real": 0.5,
        "kernel_of_real": 0.0,
        "frechet_of_halves": None,
        "images": {"real": 300, "generated": 200},
    }
    generation |= {
        "rebuilt": {"class": 0.8},
        "real": {"class": 0.9},
        "chance": {"class": 0.1},
        "guided": {"1.5": judged(frechet - 1, right + 0.1)},
    }
    likelihood = None if nats is None else {"nats": nats, "at": [nats, nats]}
    found = {"generation": generation, "likelihood": likelihood}
    about = {"results": {"separate": found}, "protocol": {"judge": "a small network"}}
    out.mkdir(parents=True)
    (out / "evaluation.json").write_text(json.dumps(about))
    return out


@pytest.fixture
def runs(tmp_path: Path) -> dict[tuple[str, int], Path]:
    of_arms: Mapping[str, tuple[float | None, float, float]] = {
        "flow": (0.5, 4.0, 0.6),
        "energy": (None, 5.0, 0.5),
        "regression": (-0.5, 12.0, 0.55),
    }
    return {
        (arm, seed): written(tmp_path / f"{arm}-{seed}", nats, frechet + seed, right)
        for arm, (nats, frechet, right) in of_arms.items()
        for seed in (0, 1)
    }


def gathered(runs: dict[tuple[str, int], Path]) -> dict[str, Any]:
    return gather(runs, dict.fromkeys(("flow", "energy", "regression"), COST))


def test_figures_are_means_over_seeds_for_each_guidance(runs: Any) -> None:
    figures = gathered(runs)["arms"]["flow"]["figures"]
    assert figures["Fréchet, g 1"]["mean"] == 4.5 and figures["Fréchet, g 1.5"]["mean"] == 3.5
    assert figures["class, g 1.5"]["seeds"] == pytest.approx([0.7, 0.7])
    assert figures["log-likelihood"]["mean"] == 0.5


def test_a_head_without_likelihood_has_none_in_the_table(runs: Any) -> None:
    table = heads(gathered(runs))
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert rows["energy"]["log-likelihood"] is None
    assert rows["rebuilt"]["Fréchet, g 1.5"] == "1.000" and rows["rebuilt"]["steps"] is None
    assert rows["flow"]["GFLOP a step"] == 2.0 and rows["real"]["class, g 1"] == "0.900"


def test_the_verdict_says_by_how_much_the_control_loses(runs: Any) -> None:
    rows = verdict(gathered(runs)).rows
    assert {row[1] for row in rows} == {"flow"}  # the other reference has not been run
    assert {row[0]: row[2:] for row in rows} == {
        "log-likelihood": ("-1.000", "yes"),
        "Fréchet, g 1": ("2.78 times", "yes"),
        "kernel, g 1": ("+0.800", "yes"),
        "class, g 1": ("-0.050", "yes"),
        "Fréchet, g 1.5": ("3.29 times", "yes"),
        "kernel, g 1.5": ("+0.800", "yes"),
        "class, g 1.5": ("-0.050", "yes"),
    }


def test_a_control_that_is_no_worse_does_not_lose(tmp_path: Path) -> None:
    runs = {
        (arm, 0): written(tmp_path / arm, 0.1, frechet, 0.5)
        for arm, frechet in (("flow", 4.0), ("regression", 5.0))
    }
    results = gather(runs, dict.fromkeys(("flow", "regression"), COST))
    assert {row[3] for row in verdict(results).rows if "kernel" not in str(row[0])} == {"no"}


def test_without_the_control_there_is_no_verdict(tmp_path: Path) -> None:
    runs = {("flow", 0): written(tmp_path / "flow", 0.1, 4.0, 0.5)}
    assert len(tables(gather(runs, {"flow": COST}))) == 1


def test_arms_differ_in_their_heads_and_steps_alone(tmp_path: Path) -> None:
    comparison = Comparison(
        ar={"width": 64}, sampling=Sampling(guidance_scale=3.0, context_scale=2.0)
    )
    arms = {arm: of_arm(comparison, arm, 7, 1, tmp_path / arm) for arm in ARMS}
    for arm, experiment in arms.items():
        assert experiment.ar == {"width": 64, **ARMS[arm]}
        assert experiment.train_ar == replace(comparison.train_ar, steps=7)
        assert not experiment.sampling.scales  # it is compared unguided first
        same = replace(arms["flow"], ar=experiment.ar, out=experiment.out)
        assert experiment == same


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"arms": ("other",)}, "arms must be among flow, .*, in_trunk, got 'other'"),
        ({"arms": ()}, "arms must hold at least one, got none"),
        ({"ar": {"head": "flow"}}, "ar.head is what the arms differ in, got 'flow'"),
        ({"train_ar": ARTraining(caption_weight=0.1)}, "caption_weight must be 0, got 0.1"),
    ],
)
def test_a_comparison_of_nothing_is_refused(settings: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Comparison(**settings)


def test_a_folder_without_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "orderer").mkdir()
    with pytest.raises(FileNotFoundError, match="tokens is not a folder"):
        link_shared(tmp_path, tmp_path / "run")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_one_that_the_recipe_reads(path: Path) -> None:
    read: list[Comparison] = []
    start(lambda comparison: read.append(comparison), Comparison, [f"--config={path}"])
    (comparison,) = read
    assert comparison.out == Path("runs/heads") / path.stem
    assert comparison.orderer_config().token_dim <= 32  # likelihoods are exact


def comparison_on(trained: Experiment, out: Path) -> Comparison:
    """A small comparison on the tokens of the tiny experiment."""
    experiment = variant(trained, out, seed=0)
    return Comparison(
        **{
            **vars(experiment),
            "data": replace(trained.data, test_count=258, unseen=None),
            "evaluation": replace(
                trained.evaluation, judge="words", judge_steps=1, generated=130, scored=4
            ),
            "arms": ("flow", "energy", "regression"),
            "tokens_from": trained.out,
        }
    )


def test_the_default_is_counted_and_gets_all_its_steps(trained: Experiment, tmp_path: Path) -> None:
    comparison = replace(comparison_on(trained, tmp_path), arms=("regression",))
    costs = count(comparison, trained.out)
    assert list(costs) == ["flow", "regression"]
    assert costs["regression"]["step"] < costs["flow"]["step"]


@pytest.mark.long
def test_a_whole_comparison_trains_measures_and_writes(
    trained: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = comparison_on(trained, tmp_path)
    compare_heads.main(comparison)
    found = json.loads((tmp_path / "heads.json").read_text())["results"]["arms"]
    assert list(found) == ["flow", "energy", "regression"]
    assert "log-likelihood" not in found["energy"]["figures"]
    measures = {f"{name}, g {scale}" for name in ("Fréchet", "words") for scale in ("1", "1.5")}
    for of_arm_ in found.values():
        assert measures <= of_arm_["figures"].keys()
        assert len(of_arm_["curves"]["deviation"]) == 16
        cost = of_arm_["compute"]["steps"] * of_arm_["compute"]["flops"]["step"]
        assert cost == pytest.approx(4 * found["flow"]["compute"]["flops"]["step"], rel=0.15)
    assert (tmp_path / "heads.html").is_file() and (tmp_path / "flow-0/tokens").is_symlink()
    said = capsys.readouterr().out
    assert "| regression     | against |" in said and "| flow " in said


@pytest.mark.long
def test_programs_of_their_own_do_the_same_and_go_on(
    trained: Experiment, program: Any, tmp_path: Path
) -> None:
    arguments = (
        "recipes.compare_heads",
        "--config=recipes/configs/smoke.yaml",
        f"--out={tmp_path}",
        "--arms=[regression]",
        "--data.unseen=null",
        "--data.test_count=258",
        "--evaluation.judge=words",
        "--evaluation.generated=130",
        "--evaluation.scored=4",
    )
    done = program(*arguments)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "heads.json").read_text())["results"]
    shutil.rmtree(tmp_path / "heads.html", ignore_errors=True)
    (tmp_path / "regression-0" / "evaluation.json").unlink()
    done = program(*arguments, "--resume=true")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "heads.json").read_text())["results"] == first
    done = program(*arguments, "--resume=true", "--orderer.token_dim=6")
    assert done.returncode == 2 and "shared was begun with other settings" in done.stderr


def test_too_few_images_are_refused_before_anything_is_trained(
    trained: Experiment, tmp_path: Path
) -> None:
    few = comparison_on(trained, tmp_path / "few")
    few = replace(few, evaluation=replace(few.evaluation, generated=128))
    with pytest.raises(ValueError, match=r"at least 129 generated images, .*, got 128"):
        compare_heads.main(few)
    assert not (tmp_path / "few").exists()


def test_the_page_shows_every_arm(runs: Any, tmp_path: Path) -> None:
    for out in runs.values():
        folder = out / "pictures" / "separate"
        folder.mkdir(parents=True)
        compare_heads_picture(folder / "generated.png")
    write_heads_page(tmp_path, gathered(runs), runs)
    page = (tmp_path / "heads.html").read_text()
    assert page.count("<img") == 2 + 3 and page.count('class="bars"') == 2


def compare_heads_picture(path: Path) -> None:
    """Any PNG file."""
    from PIL import Image

    Image.new("RGB", (2, 2)).save(path)
