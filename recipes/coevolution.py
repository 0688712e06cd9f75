"""From the runs of a proof of coevolution to figures, paired differences and a verdict.

Results: {"arms": {arm: {"figures": {measure: interval}, "against": {rival: the same}}},
"understanding": {arm: {"layer L, first tokens: K": interval}}, "compute", "verdict": {arm:
{"measures", "sides": {side: word}, "verdict": words, "alone": {control: words}}}, "psnr": dB at
which rates are compared, "stopped": {run: why its stage 3 stopped itself}}. What stands against a
rival are differences, taken so that above 0 is better, and the share of its nats that an arm saves
at equal error, see `recipes.rating.saved`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

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
from recipes.verdict import (
    DECIDING,
    FOLLOWED,
    FRECHET,
    NATS,
    PAIR_FOLLOWED,
    PAIR_FRECHET,
    PAIR_NATS,
    PAIR_WRITTEN,
    PSNR,
    READER,
    RECALL,
    SAVED,
    SAVED_BY_PAIR,
    STOPPED,
    TRUNK,
    UNASKED,
    UNCONTROLLED,
    WRITTEN,
    at_prefix,
    better,
    judged_by_all,
)

Results = Mapping[str, Any]
Runs = Mapping[tuple[str, int], Path]
Found = Mapping[tuple[str, int], tuple[dict[str, Any], dict[str, Any]]]

START, FROZEN, RASTER = "start", "frozen", "raster"
CONTROLS: Mapping[str, tuple[str, ...]] = {"align": (FROZEN, "apart", "shuffled")}
"""Against which an arm must gain: an orderer that stays, one that goes on by itself, and what is
said of other images."""
OF_ANY = (FROZEN, "apart")
"""The controls of the other arms."""
RIVALS = (*OF_ANY, "shuffled", "orderer_only", RASTER)
"""Against which arms are shown; raster's AR model had the operations of all three stages."""
HEADLINES = ("colour_and_shape", "class", "words", "found_at_1")
"""What a judge says first, the first that it says."""


def gather(runs: Runs, compute: Mapping[str, Any]) -> dict[str, Any]:
    """Read what was measured of every arm and seed, and compare with the rivals."""
    found = {run: _measured(run[0], out) for run, out in runs.items()}
    curves = _curves(found)
    compared = [curve for (arm, _), curve in curves[SAVED].items() if arm != RASTER]
    least, level = common_psnr(compared)
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
            rival: _against(values, curves, arm, rival, seeds)
            for rival in RIVALS
            if rival in arms and arm not in (rival, START)
        }
        for arm in arms
        if arm != RASTER
    }
    stopped = {run: why for run, out in runs.items() if (why := _why_stopped(out))}
    return {
        "arms": {
            arm: {"figures": figures(values, arm, seeds), "against": against.get(arm, {})}
            for arm in arms
        },
        "understanding": _understanding(found, arms, seeds),
        "compute": dict(compute),
        "verdict": {
            arm: _verdict(arm, of, {arm for arm, _ in stopped})
            for arm, of in against.items()
            if arm not in (START, FROZEN)
        },
        "psnr": level,
        "stopped": {f"{arm}-{seed}": why for (arm, seed), why in stopped.items()},
    }


def _curves(found: Found) -> Mapping[str, Curves]:
    """What tokens cost a fresh AR model, and the pair's own, by the measure that compares it."""
    return {
        SAVED: {run: fresh["rate"]["at_noise"] for run, (_, fresh) in found.items()},
        SAVED_BY_PAIR: {
            run: pair["rate"]["at_noise"] for run, (pair, _) in found.items() if "rate" in pair
        },
    }


def _why_stopped(out: Path) -> str | None:
    """Why stage 3 of a run stopped itself, if it did."""
    record = read_record(out / "joint" / "orderer") or {}
    return record.get("joint", {}).get("stopped")


def _verdict(arm: str, against: Mapping[str, Any], stopped: set[str]) -> dict[str, Any]:
    """The verdict on an arm; none without its controls, nor where one did less than was given."""
    wanted = [name for name in CONTROLS.get(arm, OF_ANY) if name != arm]
    controls = [name for name in wanted if name in against]
    if arm in stopped:
        of_all = {"alone": dict.fromkeys(controls, STOPPED), "verdict": STOPPED}
        return {"measures": {}, **of_all, "sides": dict.fromkeys(DECIDING, STOPPED)}
    sound = {name: against[name] for name in controls if name not in stopped}
    if not sound:
        sides = dict.fromkeys(DECIDING, UNASKED)
        found: dict[str, Any] = {"measures": {}, "sides": sides, "alone": {}}
    else:
        found = judged_by_all(sound)
    found["alone"] |= dict.fromkeys([name for name in controls if name in stopped], STOPPED)
    if lacking := [name for name in wanted if name not in sound]:
        return {**found, "verdict": UNCONTROLLED + " and ".join(lacking)}
    return found


def _against(
    values: Values, curves: Mapping[str, Curves], arm: str, rival: str, seeds: Sequence[int]
) -> dict[str, Any]:
    found = differences(values, arm, rival, seeds, better)
    for measure, of_runs in curves.items():
        if all((of, seed) in of_runs for of in (arm, rival) for seed in seeds):
            share = saved_nats(of_runs, arm, rival, seeds)
            found |= {} if share is None else {measure: share}
    return found


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
    for name, task in ((RECALL, "retrieval"), (READER, "probe")):
        if task in pair:  # raster has no text
            for k, value in _at_prefixes(pair[task]).items():
                yield at_prefix(name, k), value
    yield PSNR, list(pair["reconstruction"]["psnr"].values())[-1]
    yield TRUNK, mean(_of_trunk(pair).values())
    yield from _of_model(fresh, level, NATS, FOLLOWED, FRECHET, WRITTEN)
    headline = next(name for name in HEADLINES if name in fresh["generation"])
    yield "rebuilt from its own tokens: captions followed", fresh["generation"]["rebuilt"][headline]
    yield from _of_model(pair, level, PAIR_NATS, PAIR_FOLLOWED, PAIR_FRECHET, PAIR_WRITTEN)
    yield "entropy rank of the tokens", fresh["rate"]["entropy_rank"]


def _of_model(
    found: Mapping[str, Any], level: float, nats: str, followed: str, frechet: str, written: str
) -> Iterator[tuple[str, float]]:
    """What an AR model comes to, by the names that it has here."""
    rate, generation = found.get("rate"), found["generation"]
    at_level = nats_at(level, rate["at_noise"]) if rate else None
    if at_level is not None:  # the level is between what all but raster reach
        yield nats, at_level
    yield followed, generation[next(name for name in HEADLINES if name in generation)]
    if "fidelity" in generation:
        yield frechet, generation["fidelity"]["frechet"]
    if "captioning_by_ar" in found:
        yield written, mean(found["captioning_by_ar"]["log_likelihood"].values())


def _at_prefixes(found: Mapping[str, Any]) -> dict[str, float]:
    """Text to image R@1, or accuracy where captions are classes, by the number of tokens."""
    if "accuracy" in found:
        return dict(found["accuracy"])
    return {k: at["r1"] for k, at in found["text_to_image"].items()}


def _of_trunk(pair: Mapping[str, Any]) -> dict[str, float]:
    """How well a trunk's states are read, the mean over factors, by layer and prefix.

    Not those of layer 0: they are a linear map of the last token, and tell nothing of the model.
    """
    cells: dict[str, list[float]] = {}
    for layers in pair["trunk"].values():
        for layer, at in layers.items():
            for k, value in at.items():
                if int(layer) > 0:
                    cells.setdefault(at_prefix(f"layer {layer}", k), []).append(value)
    return {name: mean(values) for name, values in cells.items()}


def _understanding(
    found: Found, arms: Sequence[str], seeds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """How well the trunk of each arm is read, by layer and prefix: the start's is before."""
    read = {run: _of_trunk(pair) for run, (pair, _) in found.items()}
    return {arm: figures(read, arm, seeds) for arm in arms}
