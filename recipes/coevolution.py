"""From the runs of a proof of coevolution to figures, paired differences, a verdict and a page.

Results: {"arms": {arm: {"figures": {measure: interval}, "against": {control: the same}}},
"compute", "verdict": {arm: {"sides": {side: word}, "verdict": words, "alone": {control: words}}},
"psnr": dB at which rates are compared, "stopped": {run: why its stage 3 stopped itself}}. What
stands against a control are differences, taken so that above 0 is better, and the share of its nats
that an arm saves at equal error, see `recipes.rating.saved`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from recipes.engine.page import Cell, Section, Table, write_page
from recipes.intervals import cell
from recipes.paired import (
    COMPARED_AT,
    Curves,
    Values,
    common_psnr,
    differences,
    figures,
    saved_nats,
)
from recipes.rating import nats_at
from recipes.training_record import read_record

Results = Mapping[str, Any]
Runs = Mapping[tuple[str, int], Path]

START, FROZEN, RASTER = "start", "frozen", "raster"
CONTROLS = (FROZEN, "apart")
"""Against which an arm must gain: an orderer that stays, and one that goes on by itself."""
RIVALS = (*CONTROLS, RASTER)
"""Against which arms are shown; raster's AR model had the operations of all three stages."""
WORDS = ("loses", "undecided", "kept", "gains")
"""On a measure, from the worst to the best."""
HEADLINES = ("colour_and_shape", "class", "words", "found_at_1")
"""What a judge says first, the first that it says."""
NATS, FOLLOWED, FRECHET = "fresh AR model: nats", "fresh AR model: captions followed", "Frechet"
SAVED = "fresh AR model: nats saved at any error"
OF_PAIR = "the pair itself: captions followed"
WRITTEN = "fresh AR model: likelihood of captions, nats a word piece"
RECALL, READER = "retrieval, mean over prefixes", "fresh reader, mean over prefixes"
LOWER_IS_BETTER = (NATS, FRECHET)
SIDES: Mapping[str, tuple[str, ...]] = {
    "the orderer": (RECALL, READER),
    "the AR model": (SAVED, FOLLOWED, OF_PAIR),
}
"""By what each side is judged; no measure is a loss that stage 3 made small."""
MARGIN = 0.01
"""Most that a side may lose and still count as kept: shares of 1."""


def gather(runs: Runs, compute: Mapping[str, Any]) -> dict[str, Any]:
    """Read what was measured of every arm and seed, and compare with the controls."""
    found = {run: _measured(run[0], out) for run, out in runs.items()}
    curves = {run: fresh["rate"]["at_noise"] for run, (_, fresh) in found.items()}
    least, level = common_psnr([curve for (arm, _), curve in curves.items() if arm != RASTER])
    if least > level:
        raise ValueError(
            f"rates cannot be compared: one run stays above {least:.2f} dB in any noise, another "
            f"falls to {level:.2f} dB in that of {COMPARED_AT}"
        )
    values = {run: dict(_figures(*models, level)) for run, models in found.items()}
    arms = list(dict.fromkeys(arm for arm, _ in runs))
    seeds = list(dict.fromkeys(seed for _, seed in runs))
    against = {
        arm: {
            control: _against(values, curves, arm, control, seeds)
            for control in RIVALS
            if control in arms and arm not in (control, START)
        }
        for arm in arms
        if arm != RASTER
    }
    return {
        "arms": {
            arm: {"figures": figures(values, arm, seeds), "against": against.get(arm, {})}
            for arm in arms
        },
        "compute": dict(compute),
        "verdict": {
            arm: _judged_by_all({name: of[name] for name in CONTROLS if name in of})
            for arm, of in against.items()
            if arm not in (START, FROZEN)
        },
        "psnr": level,
        "stopped": {
            f"{arm}-{seed}": why for (arm, seed), out in runs.items() if (why := _why_stopped(out))
        },
    }


def _why_stopped(out: Path) -> str | None:
    """Why stage 3 of a run stopped itself, if it did."""
    record = read_record(out / "joint" / "orderer") or {}
    return record.get("joint", {}).get("stopped")


def _stops(results: Results) -> str:
    """The runs that did less than they were given, and why."""
    return "; ".join(f"{run}: {why}" for run, why in results["stopped"].items())


def _against(
    values: Values, curves: Curves, arm: str, control: str, seeds: Sequence[int]
) -> dict[str, Any]:
    found = differences(values, arm, control, seeds, _better)
    share = saved_nats(curves, arm, control, seeds)
    return found if share is None else {**found, SAVED: share}


def _measured(arm: str, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was found of a pair of models, and of a fresh AR model on its orderer's tokens."""
    folders = (out, out) if arm in (START, RASTER) else (out / "pair", out / "fresh")
    pair, fresh = (
        json.loads((folder / "evaluation.json").read_text())["results"]["separate"]
        for folder in folders
    )
    return pair, fresh


def _figures(
    pair: Mapping[str, Any], fresh: Mapping[str, Any], level: float
) -> Iterator[tuple[str, float]]:
    if "retrieval" in pair:  # raster has no text
        yield RECALL, _over_prefixes(pair["retrieval"])
        yield READER, _over_prefixes(pair["probe"])
    yield "PSNR, all tokens", list(pair["reconstruction"]["psnr"].values())[-1]
    yield "trunk, linear probes", _mean_of(pair["trunk"])
    nats = nats_at(level, fresh["rate"]["at_noise"])
    if nats is not None:  # the level is between what all but raster reach
        yield NATS, nats
    headline = next(name for name in HEADLINES if name in fresh["generation"])
    yield FOLLOWED, fresh["generation"][headline]
    yield "rebuilt from its own tokens: captions followed", fresh["generation"]["rebuilt"][headline]
    yield OF_PAIR, pair["generation"][headline]
    if "fidelity" in fresh["generation"]:
        yield FRECHET, fresh["generation"]["fidelity"]["frechet"]
    if "captioning_by_ar" in fresh:
        yield WRITTEN, mean(fresh["captioning_by_ar"]["log_likelihood"].values())
    yield "entropy rank of the tokens", fresh["rate"]["entropy_rank"]


def _over_prefixes(found: Mapping[str, Any]) -> float:
    if "accuracy" in found:
        return mean(found["accuracy"].values())
    return mean(at["r1"] for at in found["text_to_image"].values())


def _mean_of(found: Any) -> float:
    """The mean of all numbers in a tree."""
    return mean(map(_mean_of, found.values())) if isinstance(found, Mapping) else found


def _better(measure: str) -> int:
    return -1 if measure in LOWER_IS_BETTER else 1


def judged(against: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The verdict on an arm by rule, from its differences to each control.

    A measure gains if the interval of its difference lies above 0, loses if below, is kept if it
    lies above the margin below 0, and is undecided otherwise; of several controls, the one that
    says least for the arm counts. A side loses if one of its measures does, gains if one does and
    none loses or is undecided, is kept if all are.
    """
    words = {
        side: {
            name: min((_word(differences[name]) for differences in against), key=WORDS.index)
            for name in measures
        }
        for side, measures in SIDES.items()
    }
    sides = {side: _side(list(of_side.values())) for side, of_side in words.items()}
    return {"measures": words, "sides": sides, "verdict": _verdict(list(sides.values()))}


def _judged_by_all(against: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The verdict, and what it would be by each control alone."""
    alone = {control: judged([differences])["verdict"] for control, differences in against.items()}
    return {**judged(list(against.values())), "alone": alone}


def _word(difference: Mapping[str, Any]) -> str:
    if difference["low"] is None:
        return "undecided"
    if difference["low"] > 0:
        return "gains"
    if difference["high"] < 0:
        return "loses"
    return "kept" if difference["low"] >= -MARGIN else "undecided"


def _side(words: Sequence[str]) -> str:
    for word in ("loses", "undecided", "gains"):
        if word in words:
            return word
    return "kept"


def _verdict(sides: Sequence[str]) -> str:
    if "loses" in sides:
        return "harm"
    if all(side == "gains" for side in sides):
        return "both gain"
    if "gains" in sides and "undecided" not in sides:
        return "one gains, the other does not lose"
    return "no gain"


def tables(results: Results) -> list[Table]:
    """The figures, their differences to the frozen arm, and the verdicts."""
    arms = results["arms"]
    return [
        _table("figures", {arm: of_arm["figures"] for arm, of_arm in arms.items()}),
        *(
            _table(
                f"better than {control} by",
                {
                    arm: of_arm["against"][control]
                    for arm, of_arm in arms.items()
                    if control in of_arm["against"]
                },
            )
            for control in RIVALS
            if control in arms
        ),
        Table(
            columns=("arm", *SIDES, "verdict", *(f"by {control} alone" for control in CONTROLS)),
            rows=[
                (
                    arm,
                    *(found["sides"][side] for side in SIDES),
                    found["verdict"],
                    *(found["alone"].get(control) for control in CONTROLS),
                )
                for arm, found in results["verdict"].items()
            ],
        ),
    ]


def _table(title: str, of_arms: Results) -> Table:
    measures = dict.fromkeys(measure for of_arm in of_arms.values() for measure in of_arm)
    rows: list[tuple[Cell, ...]] = [
        (measure, *(cell(of_arm.get(measure)) for of_arm in of_arms.values()))
        for measure in measures
    ]
    return Table(columns=(title, *of_arms), rows=rows)


def write_coevolution_page(out: Path, results: Results) -> None:
    """Write OUT/coevolution.html."""
    *figures, verdicts = tables(results)
    compute = Table(
        columns=("arm", "steps", "TFLOP"),
        rows=[
            (arm, each["steps"], each["flops"] / 1e12) for arm, each in results["compute"].items()
        ],
    )
    sections = [
        Section(
            heading="Verdict",
            text="By rule, from the intervals of differences to the controls, paired by seed.",
            tables=[verdicts],
        ),
        Section(
            heading="Figures",
            text="Mean over seeds and half of its 95% interval (Student's t). Nats are of all "
            f"tokens of an image, in noise that leaves {results['psnr']:.1f} dB; fewer are better.",
            tables=figures,
        ),
        Section(
            heading="Operations of stage 3; raster's are of all three",
            text=_stops(results),
            tables=[compute],
        ),
    ]
    intro = "Stage 3 in several ways, and what a fresh AR model makes of the tokens it leaves."
    write_page(out / "coevolution.html", "Do both models gain?", intro, sections)
