"""Orders against each other: equal total operations, differences paired by seed, one claim."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ar import ARModel
from data import in_memory
from orderer import Objectives
from orderer.sequences import FixedOrder, load_sequence
from recipes import evaluate, fit_order, train_ar, write_tokens
from recipes.compare_orders import ARMS, Laboratory, check, of_arm
from recipes.components import check_enough_cells
from recipes.engine.cli import run as start
from recipes.engine.sheets import GAP, MARGIN, TEXT_LINE
from recipes.evaluation_settings import Evaluation
from recipes.experiment import Experiment
from recipes.order_costs import Costs, costs_of, steps_within
from recipes.order_quality import errors_of_prefixes
from recipes.orders_gallery import draw_paths, draw_together
from recipes.orders_page import write_orders_page
from recipes.orders_report import (
    SAVED,
    SAVED_OF_WHOLE,
    better,
    claim,
    gather,
    tables,
)
from recipes.rating import saved
from recipes.training_settings import ARTraining, OrdererTraining

TITLE = MARGIN + TEXT_LINE + GAP // 2
"""Pixels above the images of a strip."""
CONFIGS = Path(__file__).parents[2] / "recipes/configs/orders"
COST = {"steps": 10, "step": 10**9, "stage_1": 0, "encoding": 10**8, "total": 10**10}
TINY = {
    "image_size": 16,
    "patch_size": 4,
    "tokens": 4,
    "token_dim": 6,
    "width": 16,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "readout_layers": 1,
    "text_width": 16,
    "text_heads": 2,
    "text_layers": 1,
    "embed_dim": 16,
}
SMALL_AR = {
    "width": 16,
    "heads": 2,
    "layers": 1,
    "mlp_width": 32,
    "head_width": 16,
    "context_drop": 0.1,
}
UNGUIDED, GUIDED = "Fréchet, unguided", "Fréchet, g 1, context 3"


def written(out: Path, nats: float, frechet: float, right: float, quality: bool = True) -> Path:
    """What `evaluate` leaves of a run; guided images are nearer and follow better."""

    def judged(frechet: float, right: float) -> dict[str, Any]:
        distances = {"frechet": frechet, "kernel": frechet / 10, "precision": 0.5, "recall": 0.4}
        return {"class": right, "deviations": [1.0, 0.9], "fidelity": distances}

    generation = judged(frechet, right)
    bounds = {f"{d}_of_{who}": 1.0 for d in ("frechet", "kernel") for who in ("rebuilt", "real")}
    generation["fidelity"] |= bounds | {"images": {"real": 300, "generated": 200}}
    generation["fidelity"] |= {"frechet_of_halves": 2.0}
    generation |= {
        "chance": {"class": 0.1},
        "rebuilt": {"class": 0.8},
        "real": {"class": 0.9},
        "guided": {"1.5": judged(frechet - 1, right + 0.1)},
    }
    alike = {
        "equivariance": {
            "eq": 0.5,
            "gain": {"mean": 0.3, "gini": 0.4},
            "conflict": {"mean": 0.2, "below_zero": 0.1},
            "transfer": {"mean": 0.4, "without_positions": None, "shifted": 0.3},
        },
        "positions": {"told": 0.6},
    }
    found = {
        "generation": generation,
        "likelihood": {"nats": -nats / 100},
        "rate": {
            "at_noise": {
                "0.5": {"nats": nats / 2, "together": nats, "psnr": 15.0},
                "0.12": {"nats": nats, "together": 3 * nats, "psnr": 20.0},
                "0.05": {"nats": 2 * nats, "together": 4 * nats, "psnr": 25.0},
            },
            "white": {
                "0.5": {"nats": nats / 4, "psnr": 19.0},
                "0.05": {"nats": nats / 2, "psnr": 21.0},
            },
            "entropy_rank": 3.0,
        },
        "reconstruction": {"psnr": {"1": 15.0, "2": 25.0}},
        "order": {"raster_leak": 0.3},
        "trunk": {"words": {"0": {"1": 0.1, "2": 0.2}, "1": {"1": 0.3, "2": right}}},
        "trunk_nearest": {"words": {"0": {"1": 0.1}, "1": {"1": right / 2}}},
        "order_quality": {
            "gain": {"at": [1.0, 2.0], "gini": 0.2, "variation": 0.3} if quality else None,
            "alike": alike if quality else None,
            "tokens": {"useless": 0.0, "area": 0.6} if quality else None,
            "semantic_area": 0.14 if quality else None,
            "semantic_first": 0.7 if quality else None,
            "scores": {"1": 0.1, "2": 0.2} if quality else None,
        },
    }
    about = {"results": {"separate": found}, "protocol": {"judge": "a small network"}}
    out.mkdir(parents=True)
    (out / "evaluation.json").write_text(json.dumps(about))
    return out


@pytest.fixture
def runs(tmp_path: Path) -> dict[tuple[str, int], Path]:
    of_arms: Mapping[str, tuple[float, float, float]] = {
        "raster": (100.0, 8.0, 0.5),
        "random": (120.0, 9.0, 0.4),
        "learned": (90.0, 12.0, 0.8),
    }
    return {
        (arm, seed): written(
            tmp_path / f"{arm}-{seed}", nats + seed, frechet, right, arm != "random"
        )
        for arm, (nats, frechet, right) in of_arms.items()
        for seed in (0, 1, 2)
    }


def gathered(runs: dict[tuple[str, int], Path]) -> dict[str, Any]:
    return gather(runs, dict.fromkeys(("raster", "random", "learned"), COST))


def test_a_gaussian_prices_the_same_error_with_either_noise(runs: Any) -> None:
    found = gathered(runs)["arms"]["learned"]["figures"]
    assert found["nats of a Gaussian"]["seeds"] == [270.0, 273.0, 276.0]
    white = found["nats of a Gaussian, white noise"]["seeds"]
    assert white == pytest.approx([33.75, 34.125, 34.5])


def test_nats_are_compared_at_the_error_that_all_reach(runs: Any) -> None:
    results = gathered(runs)
    assert results["psnr"] == 20.0
    assert results["arms"]["learned"]["figures"]["nats"]["seeds"] == [90.0, 91.0, 92.0]


def test_differences_are_paired_by_seed_and_above_0_is_better(runs: Any) -> None:
    against = gathered(runs)["arms"]["learned"]["against_raster"]
    assert against["nats"]["seeds"] == [10.0, 10.0, 10.0]  # fewer nats
    assert against["Fréchet, unguided"]["mean"] == -4.0  # farther away
    assert against["followed, best guidance"]["mean"] == pytest.approx(0.3)


def test_nats_saved_at_any_error_are_a_share(runs: Any) -> None:
    curve = {"0.5": {"nats": 100.0, "psnr": 20.0}, "0.1": {"nats": 200.0, "psnr": 30.0}}
    half = {noise: {"nats": at["nats"] / 2, "psnr": at["psnr"]} for noise, at in curve.items()}
    assert saved(half, curve) == pytest.approx(0.5)
    assert saved(curve, half) == pytest.approx(-1.0)
    assert saved(curve, {"0.5": {"nats": 9.0, "psnr": 31.0}}) is None
    against = gathered(runs)["arms"]["learned"]["against_raster"]["nats saved at any error"]
    assert against["mean"] == pytest.approx(1 - 90.999 / 100.999, abs=0.01)


def test_the_best_guidance_is_each_measures_own(runs: Any) -> None:
    figures = gathered(runs)["arms"]["raster"]["figures"]
    assert figures["Fréchet, unguided"]["mean"] == 8.0
    assert figures["Fréchet, best guidance"]["mean"] == 7.0
    assert figures["followed, best guidance"]["mean"] == pytest.approx(0.6)


def test_a_trunk_is_read_by_linear_maps_and_by_neighbours(runs: Any) -> None:
    figures = gathered(runs)["arms"]["learned"]["figures"]
    assert figures["trunk"]["mean"] == 0.8 and figures["trunk, nearest"]["mean"] == 0.4


def test_likelihoods_are_of_arms_with_the_same_patches_only(runs: Any) -> None:
    arms = gathered(runs)["arms"]
    assert "log-likelihood" in arms["random"]["figures"]
    assert "log-likelihood" not in arms["learned"]["figures"]


def test_the_claim_follows_the_intervals(runs: Any) -> None:
    words = {row[0]: row[2] for row in claim(gathered(runs)).rows}
    assert words["likelihood at the error that all reach"] == "better"
    assert (
        words["likelihood over all errors that both reach, as a share of raster's nats"] == "better"
    )
    assert words["Fréchet distance"] == "worse"
    assert words["captions followed"] == "better"


def test_nats_are_also_compared_with_those_of_white_noise(runs: Any, tmp_path: Path) -> None:
    even = {
        ("raster_whole", s): written(tmp_path / f"even-{s}", 50.0 + s, 8.0, 0.5, True)
        for s in (0, 1, 2)
    }
    arms = ("raster", "random", "learned", "raster_whole")
    results = gather({**runs, **even}, dict.fromkeys(arms, COST))
    learned = results["arms"]["learned"]["against_raster"]
    assert learned[SAVED]["mean"] > 0 > learned[SAVED_OF_WHOLE]["mean"]
    assert results["arms"]["raster_whole"]["against_raster"][SAVED]["mean"] > 0.4
    words = [row[2] for row in claim(results).rows]
    assert words[1:3] == ["better", "worse"]


def test_one_seed_decides_nothing(runs: Any) -> None:
    one = {run: out for run, out in runs.items() if run[1] == 0}
    assert {row[2] for row in claim(gathered(one)).rows} == {"one seed decides nothing"}


def test_a_measure_that_an_arm_lacks_is_left_out_of_its_row(runs: Any) -> None:
    _, about, *_ = tables(gathered(runs))
    random = next(row for row in about.rows if row[0] == "random")
    assert "lost without positions" not in about.columns  # nobody knows it
    assert random[about.columns.index("semantic first")] is None
    assert random[about.columns.index("gini of EQ")] is None
    assert random[about.columns.index("area of error")] is None
    assert random[about.columns.index("entropy rank")] is not None


def test_what_the_numbers_of_images_do_stands_beside_the_distances(runs: Any) -> None:
    bounds = gathered(runs)["bounds"]
    assert bounds["halves of the real"] == {"Fréchet": 2.0}
    assert bounds["chance"] == {"class": 0.1} and bounds["real"] == {"class": 0.9}


def test_what_is_better_when_it_is_less_is_said_so() -> None:
    assert better("Fréchet, best guidance") == better("nats") == better("useless tokens") == -1
    assert better("followed, unguided") == better("trunk") == better("PSNR") == 1


def test_the_page_shows_every_arm(runs: Any, tmp_path: Path) -> None:
    for out in runs.values():
        folder = out / "pictures" / "separate"
        folder.mkdir(parents=True)
        for name in ("strips", "generated"):
            (folder / f"{name}.png").write_bytes(_png())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "drawn.png").write_bytes(_png())
    draw_paths(tmp_path / "pictures" / "paths.png")
    write_orders_page(tmp_path, gathered(runs), runs)
    page = (tmp_path / "orders.html").read_text()
    assert all(arm in page for arm in ("raster", "random", "learned"))


def _png() -> bytes:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (2, 2)).save(file, "png")
    return file.getvalue()


def laboratory(out: Path, **settings: Any) -> Laboratory:
    experiment = {
        "orderer": TINY,
        "ar": {**SMALL_AR, "condition": "words"},
        "train_orderer": OrdererTraining(steps=5, batch_size=8),
        "train_ar": ARTraining(steps=7, batch_size=8, held=8),
    }
    made = Laboratory(out=out, **{**experiment, **settings})
    data = replace(made.data, train_count=100, test_count=20)
    return replace(made, data=data)


def test_what_stage_1_costs_is_paid_for_by_arms_without_one(tmp_path: Path) -> None:
    lab = laboratory(tmp_path)
    learned, raster, random = (
        costs_of(of_arm(lab, arm, 1, 0, tmp_path)) for arm in ("learned", "raster", "random")
    )
    assert learned.stage_1 > 0 == raster.stage_1
    assert raster.step == random.step
    total = learned.total(7)
    assert steps_within(total, learned, "learned") == 7
    steps = steps_within(total, raster, "raster")
    assert steps > 0
    assert raster.total(steps) <= total < raster.total(steps + 1)


def test_captions_that_are_written_are_paid_for(tmp_path: Path) -> None:
    lab = laboratory(tmp_path)
    writes = replace(lab, train_ar=replace(lab.train_ar, caption_weight=0.1))
    plain, writing = (costs_of(of_arm(each, "raster", 1, 0, tmp_path)) for each in (lab, writes))
    assert writing.step > plain.step and writing.encoding == plain.encoding


def test_balance_is_paid_for_when_it_measures(tmp_path: Path) -> None:
    """Every tenth step: what 20 steps cost more than unbalanced is twice what 10 cost more."""

    def stage_1(steps: int, *, balanced: bool) -> int:
        objectives = Objectives(balanced=balanced)
        training = OrdererTraining(steps=steps, batch_size=8, objectives=objectives)
        lab = laboratory(tmp_path, train_orderer=training)
        return costs_of(of_arm(lab, "learned", 1, 0, tmp_path)).stage_1

    (few, many), (balanced_few, balanced_many) = (
        [stage_1(steps, balanced=balanced) for steps in (10, 20)] for balanced in (False, True)
    )
    assert many == 2 * few
    assert 0 < balanced_few - few < few / 10  # less than one step more
    assert balanced_many - many == 2 * (balanced_few - few)


def test_an_order_whose_components_are_of_too_few_images_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="order principal, need at least 769 cells, got 100 of"):
        check_enough_cells(of_arm(laboratory(tmp_path), "principal", 1, 0, tmp_path))
    check_enough_cells(of_arm(laboratory(tmp_path), "raster", 1, 0, tmp_path))


def test_a_budget_that_leaves_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no step to raster"):
        steps_within(10, Costs(stage_1=0, encoding=5, step=9), "raster")


def test_arms_differ_in_their_order_alone(tmp_path: Path) -> None:
    lab = laboratory(tmp_path)
    raster, hilbert = (of_arm(lab, arm, 3, 1, tmp_path) for arm in ("raster", "hilbert"))
    assert replace(raster, order={}) == replace(hilbert, order={})
    assert raster.order == {"order": "raster"} and raster.seed == 1
    assert of_arm(lab, "random", 3, 1, tmp_path).ar["order"] == "random"
    no_text = of_arm(lab, "no_text", 3, 1, tmp_path).train_orderer.objectives
    assert no_text.contrastive == 0 < no_text.reconstruction


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"arms": ("zigzag",)}, "arms must be among .*, got 'zigzag'"),
        ({"seeds": ()}, "seeds must hold at least one, got none"),
        ({"order": {"order": "raster"}}, "are what the arms differ in"),
        (
            {"ar": {}, "evaluation": Evaluation(context_scales=(3.0,))},
            r"needs ar\.context_drop above 0, got evaluation\.context_scales 3\.0",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        laboratory(tmp_path, **settings)


def test_distances_without_a_judge_that_sees_are_refused(tmp_path: Path) -> None:
    lab = laboratory(tmp_path)
    blind = replace(lab, evaluation=replace(lab.evaluation, judge="retrieval"))
    with pytest.raises(ValueError, match=r"among scenes, classes, words, got retrieval"):
        check(blind)


def test_fewer_probed_images_than_channels_are_refused(tmp_path: Path) -> None:
    lab = laboratory(tmp_path, arms=("noise",))
    asked = replace(lab.evaluation, judge="words", generated=200, probe_scenes=96)
    data = replace(lab.data, test_count=300)
    with pytest.raises(ValueError, match=r"more than the 96 channels .* the order noise has, got"):
        check(replace(lab, evaluation=asked, data=data))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_one_that_the_recipe_reads(path: Path) -> None:
    read: list[Laboratory] = []
    start(lambda laboratory: read.append(laboratory), Laboratory, [f"--config={path}"])
    (found,) = read
    assert found.out == Path("runs/orders") / path.stem
    assert found.arms == tuple(ARMS)
    assert found.orderer_config().token_dim <= 32  # likelihoods are exact


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Scenes along a Hilbert curve, an AR model on them, and its measures."""
    out = tmp_path_factory.mktemp("fixed")
    lab = laboratory(out, precision="fp32")
    evaluation = replace(lab.evaluation, scored=6, probe_scenes=300, generated=4, judge_steps=2)
    evaluation = replace(evaluation, judge_scenes=60, probe_steps=3)
    lab = replace(lab, evaluation=evaluation)
    experiment = of_arm(lab, "hilbert", 2, 0, out)
    for recipe in (fit_order, write_tokens, train_ar):
        recipe.main(experiment)
    tasks = ("reconstruction", "generation", "order")
    asked = replace(experiment.evaluation, tasks=tasks)
    evaluate.main(replace(experiment, evaluation=asked))
    return experiment


def test_a_fixed_order_goes_through_the_same_stages(fixed: Experiment) -> None:
    sequence = load_sequence(fixed.out / "orderer")
    assert isinstance(sequence, FixedOrder) and sequence.config.order == "hilbert"
    ARModel.from_pretrained(fixed.out / "ar").check_orderer(sequence.encoding_hash())
    found = json.loads((fixed.out / "evaluation.json").read_text())
    results = found["results"]["separate"]
    assert set(results["reconstruction"]["psnr"]) == {"1", "2", "4", "8", "16"}
    assert len(results["order_quality"]["gain"]["at"]) == 16
    positions = results["order_quality"]["alike"]["positions"]
    assert positions["told"] == pytest.approx((positions["accuracy"] - 1 / 16) / (15 / 16))
    assert 0 < results["order_quality"]["tokens"]["area"] < 1
    assert found["protocol"]["decoder"]["order"] == "hilbert"


def test_without_tokens_all_orders_leave_the_error_of_the_mean_image(fixed: Experiment) -> None:
    images = fixed.data.open_test(TINY["image_size"]).images
    of_order = load_sequence(fixed.out / "orderer")
    errors = errors_of_prefixes(of_order, of_order.encode(images), images, images)
    values = images.double() / 255
    expected = (values - values.mean(dim=0)).square().mean(dim=(1, 2, 3))
    assert errors.shape == (len(images), 17)
    torch.testing.assert_close(errors[:, 0].double(), expected, atol=1e-6, rtol=1e-4)
    assert bool((errors.mean(dim=0).diff() < 0).all())


def test_arms_draw_side_by_side_what_each_draws_alone(fixed: Experiment, tmp_path: Path) -> None:
    asked = replace(fixed, evaluation=replace(fixed.evaluation, context_scales=(3.0,)))

    def drawn(**by_context: float) -> np.ndarray:
        """By arms whose distance is 2 unguided."""
        found = {
            arm: {"figures": {UNGUIDED: {"mean": 2.0}, GUIDED: {"mean": far}}}
            for arm, far in by_context.items()
        }
        draw_together(dict.fromkeys(by_context, asked), found, tmp_path / "drawn.png")
        return np.asarray(Image.open(tmp_path / "drawn.png"))

    both = drawn(guided=1.0, plain=3.0)
    guided, plain = (drawn(alone=far)[TITLE:, MARGIN:-MARGIN] for far in (1.0, 3.0))
    assert plain.std() > 0 and not np.array_equal(guided, plain)
    assert len(both) == len(plain) + TITLE
    width = plain.shape[1]
    np.testing.assert_array_equal(both[TITLE:, MARGIN : MARGIN + width], guided)
    np.testing.assert_array_equal(both[TITLE:, -MARGIN - width : -MARGIN], plain)


def test_components_are_fitted_on_training_images(fixed: Experiment) -> None:
    sequence = load_sequence(fixed.out / "orderer")
    assert isinstance(sequence, FixedOrder)
    basis = sequence.basis.double()
    torch.testing.assert_close(basis @ basis.T, torch.eye(6).double(), atol=1e-6, rtol=0)
    size = sequence.config.image_size
    for is_same, opened in (
        (True, fixed.data.open_train(size)),
        (False, fixed.data.open_test(size)),
    ):
        other = FixedOrder(sequence.config)
        other.fit(in_memory(opened, size, max_skipped=0.0).images)
        assert torch.allclose(other.basis, sequence.basis, atol=1e-5) == is_same


def test_what_needs_an_orderer_is_refused_of_a_fixed_order(fixed: Experiment) -> None:
    for task in ("retrieval", "probe"):
        asked = replace(fixed, evaluation=replace(fixed.evaluation, tasks=(task,)))
        with pytest.raises(ValueError, match=f"the task {task} needs an orderer, .* hilbert"):
            evaluate.main(asked)


def test_an_ar_model_of_a_fixed_order_has_no_text_tower(fixed: Experiment) -> None:
    with pytest.raises(ValueError, match=r"ar\.condition must be none, class or words, got text"):
        train_ar.main(replace(fixed, ar={**SMALL_AR, "condition": "text"}))


@pytest.mark.long
def test_the_laboratory_runs_whole_and_goes_on(program: Any, tmp_path: Path) -> None:
    arguments = (
        "recipes.compare_orders",
        "--config=recipes/configs/smoke.yaml",
        f"--out={tmp_path}",
        "--arms=[raster, noise, learned]",
        "--seeds=[0]",
        "--orderer.image_size=24",
        "--orderer.patch_size=6",
        "--orderer.token_dim=8",
        "--ar.condition=words",
        "--data.unseen=null",
        "--data.test_count=258",
        "--evaluation.judge=words",
        "--evaluation.generated=130",
        "--evaluation.scored=4",
        "--evaluation.probe_scenes=200",
        "--evaluation.probe_steps=5",
    )
    done = program(*arguments)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "orders.json").read_text())["results"]
    assert list(first["arms"]) == ["raster", "noise", "learned"]
    (tmp_path / "noise-0" / "evaluation.json").unlink()
    done = program(*arguments, "--resume=true")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "orders.json").read_text())["results"] == first
