"""The proof of coevolution: matched error, paired differences, and a verdict by rule."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orderer.objectives import Objectives
from recipes.coevolution import gather
from recipes.coevolution_page import tables, write_coevolution_page
from recipes.evaluation_settings import Evaluation
from recipes.prove_coevolution import Coevolution, StepCosts, raster_of
from recipes.rating import nats_at
from recipes.training_record import write_record
from recipes.training_settings import JointTraining, OrdererTraining
from recipes.verdict import (
    FOLLOWED,
    FRECHET,
    NATS,
    PAIR_FOLLOWED,
    PSNR,
    READER,
    SAVED,
    SAVED_BY_PAIR,
    TRUNK,
    WRITTEN,
    at_prefix,
    judged,
)
from recipes.verdict import RECALL as AT_ANY

RECALL = at_prefix(AT_ANY, 1)
COMPUTE = {arm: {"steps": 10, "flops": 10**9} for arm in ("frozen", "joint")}


def found(recall: float, nats: float, right: float, psnr: float = 20.0) -> dict[str, Any]:
    generation = {"class": right, "rebuilt": {"class": 0.9}, "real": {"class": 0.95}}
    curve = {"0.05": (nats + 40, psnr + 2), "0.12": (nats, psnr), "0.5": (nats - 40, psnr - 8)}
    return {
        "retrieval": {"accuracy": {"1": recall, "2": recall + 0.2}},
        "probe": {"accuracy": {"1": recall, "2": recall}},
        "reconstruction": {"psnr": {"1": 15.0, "2": psnr}},
        "trunk": {"words": {"0": {"1": 0.2}, "1": {"1": 0.4, "2": 0.6}}},
        "generation": generation,
        "rate": {
            "at_noise": {s: {"nats": n, "psnr": p} for s, (n, p) in curve.items()},
            "entropy_rank": 30.0,
        },
    }


def write(folder: Path, measured: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps({"results": {"separate": measured}}))


@pytest.fixture
def runs(tmp_path: Path) -> dict[tuple[str, int], Path]:
    """The joint arm is better by what hardly differs between seeds, though seeds differ much."""
    for seed in range(3):
        shift = 0.1 * seed
        write(tmp_path / f"start-{seed}", found(0.4 + shift, 100, 0.5))
        for arm, gain in (("frozen", 0.0), ("apart", 0.0), ("joint", 0.05 + 0.001 * seed)):
            measured = found(0.4 + shift + gain, 100 - 100 * gain, 0.5 + shift + gain)
            write(tmp_path / f"{arm}-{seed}" / "pair", measured)
            write(tmp_path / f"{arm}-{seed}" / "fresh", measured)
    return {
        (arm, seed): tmp_path / f"{arm}-{seed}"
        for arm in ("start", "frozen", "apart", "joint")
        for seed in range(3)
    }


def test_differences_are_paired_by_seed(runs: Any) -> None:
    joint = gather(runs, COMPUTE)["arms"]["joint"]
    assert joint["figures"][RECALL]["low"] < joint["figures"][RECALL]["mean"] - 0.1
    against = joint["against"]["frozen"]
    assert against[RECALL]["mean"] == pytest.approx(0.051)
    assert against[RECALL]["low"] == pytest.approx(0.0485, abs=1e-4)
    assert against[NATS]["mean"] == pytest.approx(5.1)  # fewer nats are better


def test_nats_are_saved_at_equal_error_whatever_the_error_and_the_seed(runs: Any) -> None:
    for seed, share in enumerate((0.1, 0.2, 0.3)):
        curve = {"0.12": {"nats": 100 + seed, "psnr": 20}, "0.5": {"nats": 50 - seed, "psnr": 12}}
        rates = {"frozen": curve, "joint": {}}
        for noise, at in curve.items():
            rates["joint"][noise] = {**at, "nats": (1 - share) * at["nats"]}
        for arm, of_arm in rates.items():
            path = runs[arm, seed] / "fresh" / "evaluation.json"
            found = json.loads(path.read_text())
            found["results"]["separate"]["rate"]["at_noise"] = of_arm
            path.write_text(json.dumps(found))
    against = gather(runs, COMPUTE)["arms"]["joint"]["against"]["frozen"]
    assert against[SAVED]["mean"] == pytest.approx(0.2)


def test_captions_count_where_the_models_write(runs: Any) -> None:
    assert WRITTEN not in gather(runs, COMPUTE)["arms"]["joint"]["figures"]
    for (arm, _), out in runs.items():
        path = (out if arm == "start" else out / "fresh") / "evaluation.json"
        found = json.loads(path.read_text())
        likelihood = {"1": -3.0, "2": -2.0 if arm == "joint" else -2.5}
        found["results"]["separate"]["captioning_by_ar"] = {"log_likelihood": likelihood}
        path.write_text(json.dumps(found))
    joint = gather(runs, COMPUTE)["arms"]["joint"]
    assert joint["figures"][WRITTEN]["mean"] == -2.5
    assert joint["against"]["frozen"][WRITTEN]["mean"] == pytest.approx(0.25)


def test_both_gain_where_every_interval_is_above_0(runs: Any) -> None:
    results = gather(runs, COMPUTE)
    assert results["verdict"]["joint"]["verdict"] == "both gain"
    row = ("joint", "gains", "gains", "both gain", "both gain", "both gain")
    assert tables(results)[-1].rows[-1] == row


def test_without_a_control_there_is_no_verdict(runs: Any) -> None:
    fewer = {run: out for run, out in runs.items() if run[0] != "apart"}
    found = gather(fewer, COMPUTE)["verdict"]["joint"]
    assert found["verdict"] == "no verdict without apart"
    assert found["alone"] == {"frozen": "both gain"}


def test_one_seed_decides_nothing(runs: Any) -> None:
    first = {run: out for run, out in runs.items() if run[1] == 0}
    assert gather(first, COMPUTE)["verdict"]["joint"]["verdict"] == "no gain"


def test_raster_is_shown_beside_what_it_can_do_and_decides_nothing(runs: Any) -> None:
    before = gather(runs, COMPUTE)
    for seed in range(3):
        measured = found(0.4, 150, 0.3 + 0.1 * seed, psnr=2.0 + seed)
        del measured["retrieval"], measured["probe"]
        write(runs["start", seed].parent / f"raster-{seed}", measured)
        runs["raster", seed] = runs["start", seed].parent / f"raster-{seed}"
    after = gather(runs, COMPUTE)
    assert (after["verdict"], after["psnr"]) == (before["verdict"], before["psnr"])
    against = after["arms"]["joint"]["against"]["raster"]
    assert against[FOLLOWED]["mean"] == pytest.approx(0.2 + 0.051)
    assert RECALL not in against and NATS not in against
    raster = after["arms"]["raster"]
    assert raster["against"] == {} and RECALL not in raster["figures"]
    shown = {table.columns[0]: table for table in tables(after)}["figures"]
    rows = dict(zip((row[0] for row in shown.rows), (row[-1] for row in shown.rows), strict=True))
    assert rows[RECALL] is None and rows[FOLLOWED] is not None


def test_raster_has_as_many_patches_as_there_are_tokens(tmp_path: Path) -> None:
    proof = Coevolution(orderer={"image_size": 36, "patch_size": 12, "tokens": 16})
    raster = raster_of(proof, 7, 0, tmp_path).sequence_config()
    assert (raster.tokens, raster.patch_size) == (16, 9)
    odd = Coevolution(orderer={"image_size": 36, "patch_size": 12, "tokens": 6})
    assert raster_of(odd, 7, 0, tmp_path).sequence_config().patch_size == 12


def test_each_control_is_also_asked_alone(runs: Any) -> None:
    for seed in range(3):
        runs["apart", seed] = runs["joint", seed]
    found = gather(runs, COMPUTE)["verdict"]["joint"]
    assert found["verdict"] == "no gain"
    assert found["alone"] == {"frozen": "both gain", "apart": "no gain"}


def test_alignment_must_also_gain_on_that_with_other_captions(runs: Any) -> None:
    for seed in range(3):
        for arm in ("align", "shuffled", "orderer_only"):
            runs[arm, seed] = runs["joint", seed]
    results = gather(runs, COMPUTE)
    alone = results["verdict"]["align"]["alone"]
    assert alone == {"frozen": "both gain", "apart": "both gain", "shuffled": "no gain"}
    assert results["verdict"]["joint"]["verdict"] == "both gain"  # of which it is no control
    assert "orderer_only" in results["arms"]["align"]["against"]  # shown, no control


def test_the_trunk_is_read_by_layer_and_prefix_before_and_after(runs: Any) -> None:
    results = gather(runs, COMPUTE)
    assert list(results["understanding"]) == ["start", "frozen", "apart", "joint"]
    of_joint = results["understanding"]["joint"]
    assert {name: at["mean"] for name, at in of_joint.items()} == {
        at_prefix("layer 1", 1): pytest.approx(0.4),
        at_prefix("layer 1", 2): pytest.approx(0.6),
    }  # layer 0 has read nothing
    assert results["arms"]["joint"]["figures"][TRUNK]["mean"] == pytest.approx(0.5)


SEEDS = [0.0, 0.0, 0.0]
GAINED = {"low": 0.01, "high": 0.02, "seeds": SEEDS}
LOST = {"low": -0.03, "high": -0.01, "seeds": SEEDS}
KEPT = {"low": -0.005, "high": 0.01, "seeds": SEEDS}
UNDECIDED = {"low": -0.1, "high": 0.2, "seeds": SEEDS}
ALL_KEPT = dict.fromkeys((RECALL, at_prefix(READER, 1), FOLLOWED, SAVED, PAIR_FOLLOWED), KEPT)


@pytest.mark.parametrize(
    ("recall", "followed", "verdict"),
    [
        (GAINED, GAINED, "both gain"),
        (GAINED, KEPT, "one gains, the other does not lose"),
        (KEPT, GAINED, "one gains, the other does not lose"),
        (KEPT, KEPT, "no gain"),
        (GAINED, UNDECIDED, "no gain"),
        (GAINED, LOST, "harm"),
        (LOST, UNDECIDED, "harm"),
    ],
)
def test_the_verdict_follows_from_the_intervals(recall: Any, followed: Any, verdict: str) -> None:
    differences = {**ALL_KEPT, RECALL: recall, FOLLOWED: followed}
    assert judged([differences])["verdict"] == verdict


def test_what_is_surely_lost_but_within_the_margin_is_kept() -> None:
    little = {"low": -0.009, "high": -0.001, "seeds": SEEDS}
    assert judged([{**ALL_KEPT, RECALL: little, FOLLOWED: GAINED}])["verdict"] == (
        "one gains, the other does not lose"
    )


def test_a_guard_has_no_margin() -> None:
    little = {"low": -0.009, "high": -0.001, "seeds": SEEDS}
    assert judged([{**ALL_KEPT, WRITTEN: little}])["verdict"] == "harm"


def test_two_seeds_decide_nothing() -> None:
    of_two = {name: {**GAINED, "seeds": [0.01, 0.02]} for name in ALL_KEPT}
    assert judged([of_two])["verdict"] == "no gain"


def test_a_guard_that_was_not_measured_is_named() -> None:
    words = judged([{**ALL_KEPT, TRUNK: KEPT}])["measures"]["the AR model"]
    assert (words[TRUNK], words[WRITTEN]) == ("undecided", "not measured")


def test_the_worst_prefix_decides() -> None:
    gained = {**ALL_KEPT, FOLLOWED: GAINED, at_prefix(AT_ANY, 2): GAINED, RECALL: GAINED}
    assert judged([gained])["verdict"] == "both gain"
    assert judged([{**gained, at_prefix(AT_ANY, 4): LOST}])["verdict"] == "harm"
    assert judged([{**gained, at_prefix(READER, 8): UNDECIDED}])["verdict"] == "no gain"


@pytest.mark.parametrize("guard", [PSNR, FRECHET, WRITTEN, SAVED_BY_PAIR, TRUNK])
def test_a_guard_can_only_speak_against(guard: str) -> None:
    gained = {**ALL_KEPT, FOLLOWED: GAINED}
    without = judged([gained])["verdict"]
    assert without == "one gains, the other does not lose"
    for word in (GAINED, KEPT, UNDECIDED):
        assert judged([{**gained, guard: word}])["verdict"] == without
    assert judged([{**gained, guard: LOST}])["verdict"] == "harm"


def test_a_guard_that_one_control_lacks_speaks_by_the_other() -> None:
    gained = {**ALL_KEPT, FOLLOWED: GAINED}
    assert judged([gained, {**gained, SAVED_BY_PAIR: LOST}])["verdict"] == "harm"


def test_a_measure_that_decides_must_have_been_taken() -> None:
    del (differences := dict(ALL_KEPT))[PAIR_FOLLOWED]
    with pytest.raises(KeyError, match=PAIR_FOLLOWED):
        judged([differences])


def test_of_two_controls_the_stricter_one_decides() -> None:
    gained, undecided = (dict.fromkeys(ALL_KEPT, word) for word in (GAINED, UNDECIDED))
    assert judged([gained])["verdict"] == "both gain"
    assert judged([gained, undecided])["verdict"] == "no gain"


def test_nats_at_an_error_lie_on_the_line_between_two_noises() -> None:
    curve = {"a": {"psnr": 20.0, "nats": 50.0}, "b": {"psnr": 24.0, "nats": 90.0}}
    assert nats_at(21.0, curve) == pytest.approx(60.0)
    assert nats_at(24.0, curve) == 90.0
    assert nats_at(19.9, curve) is None and nats_at(24.1, curve) is None


def test_runs_without_a_common_error_are_refused(runs: Any) -> None:
    folder = runs["joint", 1] / "fresh"
    (folder / "evaluation.json").unlink()
    folder.rmdir()
    write(folder, found(0.4, 100, 0.5, psnr=40.0))
    with pytest.raises(ValueError, match=r"above 32\.00 dB in any noise, another falls to 20\.00"):
        gather(runs, COMPUTE)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"arms": ("align",)}, "arms must hold frozen, got align"),
        ({"arms": ("frozen", "rate")}, "arms must hold align, got frozen, rate"),
        ({"arms": ("frozen", "other")}, "arms must be among .*, got 'other'"),
        ({"evaluation": Evaluation(judge="retrieval")}, "must be apart from every arm"),
        ({"seeds": ()}, "seeds must hold at least one, got none"),
        ({"ar": {"head": "energy"}}, "a rate needs a head among .*, got energy"),
        ({"train_joint": JointTraining(route="full")}, "must be among align, .*, got full"),
        (
            {"train_orderer": OrdererTraining(objectives=Objectives(contrastive=0.0))},
            "the route align needs train_orderer.objectives.contrastive, which is 0",
        ),
        ({"train_joint": JointTraining(ar_learns=False)}, "routes align and shuffled, got frozen"),
    ],
)
def test_wrong_arms_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Coevolution(**changes)


def test_arms_do_the_steps_that_their_operations_pay_for() -> None:
    joint = JointTraining(steps=10, rewarm=4, orderer_every=2)
    spent = StepCosts(learning=30, waiting=10).of(joint)
    assert spent == 4 * 10 + 3 * 30 + 3 * 10
    assert StepCosts(learning=30, waiting=10).steps_within(spent, joint) == 10
    frozen = replace(joint, route="frozen")
    assert StepCosts(learning=10, waiting=10).steps_within(spent, frozen) == 16
    assert StepCosts(learning=60, waiting=10).steps_within(spent, joint) == 6


def test_balance_is_charged_for_the_steps_in_which_it_measures() -> None:
    costs, joint = (
        StepCosts(learning=30, waiting=10, measuring=7),
        JointTraining(steps=35, rewarm=5),
    )
    assert costs.of(joint) == 5 * 10 + 30 * 30 + 3 * 7  # steps 10, 20 and 30


def test_a_run_that_stopped_itself_is_named_and_not_judged(runs: Any, tmp_path: Path) -> None:
    assert gather(runs, COMPUTE)["stopped"] == {}
    record = {"joint": {"stopped": "stage 3 stopped itself at step 7: rank"}}
    write_record(runs["joint", 1] / "joint" / "orderer", record)
    results = gather(runs, COMPUTE)
    assert results["stopped"] == {"joint-1": "stage 3 stopped itself at step 7: rank"}
    found = results["verdict"]["joint"]
    assert found["verdict"] == "stopped itself"
    assert {*found["alone"].values(), *found["sides"].values()} == {"stopped itself"}
    write_coevolution_page(tmp_path, results)
    page = (tmp_path / "coevolution.html").read_text()
    assert "joint-1: stage 3 stopped itself at step 7: rank" in page


def test_an_arm_is_not_judged_by_a_control_that_stopped_itself(runs: Any) -> None:
    for seed in range(3):  # it would say "no gain"
        runs["apart", seed] = runs["joint", seed]
    runs["apart", 1] = runs["apart", 1].parent / "apart-1"
    write_record(runs["apart", 1] / "joint" / "orderer", {"joint": {"stopped": "at step 7"}})
    found = gather(runs, COMPUTE)["verdict"]["joint"]
    assert found["verdict"] == "no verdict without apart"
    assert found["alone"] == {"frozen": "both gain", "apart": "stopped itself"}
    by_frozen = gather({run: out for run, out in runs.items() if run[0] != "apart"}, COMPUTE)
    assert found["sides"] == by_frozen["verdict"]["joint"]["sides"]


def test_without_a_control_that_went_on_nothing_is_said(runs: Any) -> None:
    for arm in ("frozen", "apart"):
        write_record(runs[arm, 1] / "joint" / "orderer", {"joint": {"stopped": "at step 7"}})
    found = gather(runs, COMPUTE)["verdict"]["joint"]
    assert found["verdict"] == "no verdict without frozen and apart"
    assert set(found["sides"].values()) == {"not measured"}


@pytest.mark.long
def test_a_whole_proof_trains_measures_and_judges_and_goes_on(program: Any, tmp_path: Path) -> None:
    arguments = (
        "recipes.prove_coevolution",
        "--config=recipes/configs/smoke.yaml",
        f"--out={tmp_path}",
        "--seeds=[0]",
        "--arms=[frozen, apart, align, raster]",
        "--processes=2",
        "--data.unseen=null",
        "--data.test_count=128",
        "--evaluation.generated=100",  # more than the judge has features
        "--evaluation.scored=8",
        "--evaluation.probe_steps=2",
        "--evaluation.probe_scenes=200",
        "--train_orderer.steps=150",  # or tokens matter to no image, and errors cannot be matched
        "--train_joint.steps=6",
        "--train_ar.caption_weight=0.1",
    )
    done = program(*arguments)
    assert done.returncode == 0, done.stderr
    written = tmp_path / "coevolution.json"
    found = json.loads(written.read_text())["results"]
    assert list(found["arms"]) == ["start", "frozen", "apart", "align", "raster"]
    assert list(found["verdict"]) == ["apart", "align"]
    assert found["compute"]["frozen"]["steps"] > found["compute"]["align"]["steps"] == 6
    assert found["arms"]["align"]["against"].keys() == {"frozen", "apart", "raster"}
    assert found["compute"]["raster"]["flops"] > found["compute"]["frozen"]["flops"]
    # The frozen orderer is the start's: so is a fresh AR model on its tokens.
    frozen, start = (found["arms"][arm]["figures"] for arm in ("frozen", "start"))
    assert frozen[NATS] == start[NATS] and frozen[RECALL] == start[RECALL]
    assert frozen[WRITTEN] == start[WRITTEN] and WRITTEN in found["arms"]["raster"]["figures"]
    assert (tmp_path / "coevolution.html").is_file()

    written.unlink()
    again = program(*arguments, "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads(written.read_text())["results"] == found
