"""From the runs of a laboratory of orders to figures, paired differences and tables.

Results: {"arms": {arm: {"compute", "figures": {measure: interval}, "against_raster": the same,
"curves": {name: {k: value}}, "rate": {noise: {"nats", "psnr"}}}},
"bounds": {who: {measure: value}} of the first run, "judge", "images", "psnr": dB at which nats are
compared}.
Differences are paired by seed and taken so that above 0 is better.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from recipes.comparison import FRECHET, KERNEL, bounds_of
from recipes.engine.page import Cell, Table
from recipes.guidance import UNGUIDED, by_guidance
from recipes.intervals import cell
from recipes.order_figures import POSITION, figures_of_order
from recipes.paired import (
    Curves,
    Values,
    chosen,
    common_psnr,
    differences,
    figures,
    saved_nats,
)
from recipes.protocol import shared_protocol
from recipes.rating import Curve, nats_at

Results = Mapping[str, Any]
Runs = Mapping[tuple[str, int], Path]

RASTER, LEARNED, NOISE = "raster", "learned", "noise"
WHOLE = "raster_whole"
NATS, LIKELIHOOD = "nats", "log-likelihood"
TOGETHER, WHITE = "nats of a Gaussian", "nats of a Gaussian, white noise"
"""At the error that all reach: without an AR model, and with noise that is the same for all
channels of an order."""
FOLLOWED = "followed"
PRECISION, RECALL = "precision", "recall"
USELESS, AREA = "useless tokens", "area of error"
LOWER_IS_BETTER = (
    NATS,
    TOGETHER,
    FRECHET,
    KERNEL,
    USELESS,
    AREA,
    "gini of EQ",
    "gini of nats",
    "variation of nats",
    "lost without positions",
    "lost one position off",
    POSITION,
    "raster leak",
)
ABOUT = (
    "EQ",
    "gini of EQ",
    "gradients agree",
    "transfer",
    "lost without positions",
    "lost one position off",
    POSITION,
    "gini of nats",
    "variation of nats",
    "semantic area",
    "semantic first",
    USELESS,
    AREA,
    "raster leak",
    "entropy rank",
)
"""What an order is like, beside what is made of it."""
SAME_TOKENS = ("raster", "spiral", "z", "hilbert", "centre_out", "shuffled", "random")
"""Arms whose tokens are the same patches: their likelihoods differ by the order alone."""
SAVED = "nats saved at any error"
"""As a share of raster's: over all errors that both reach."""
SAVED_OF_WHOLE = "nats saved at any error, of raster's in white noise"
CLAIMS: Mapping[str, str] = {
    NATS: "likelihood at the error that all reach",
    SAVED: "likelihood over all errors that both reach, as a share of raster's nats",
    SAVED_OF_WHOLE: "the same, of raster's in noise that is the same for all channels",
    f"{FRECHET}, best guidance": "Fréchet distance",
    f"{FOLLOWED}, best guidance": "captions followed",
    "trunk": "understanding: linear probes of the trunk",
}
"""What the learned order is to do better than raster, by measure."""


def gather(runs: Runs, compute: Mapping[str, Any]) -> dict[str, Any]:
    """Read what was measured of every arm and seed, and compare with raster where it ran."""
    shared_protocol(runs.values())  # an older evaluation lacks what is read here
    measured = {run: json.loads((out / "evaluation.json").read_text()) for run, out in runs.items()}
    found = {run: each["results"]["separate"] for run, each in measured.items()}
    arms = list(dict.fromkeys(arm for arm, _ in runs))
    seeds = list(dict.fromkeys(seed for _, seed in runs))
    curves = {
        (arm, seed): each["rate"]["at_noise"]
        for (arm, seed), each in found.items()
        if arm != NOISE  # whose tokens hold noise of their own
    }
    level = _level(list(curves.values()))
    values = {
        (arm, seed): dict(_figures(arm, each, curves.get((arm, seed)), level))
        for (arm, seed), each in found.items()
    }
    for arm in arms:
        for measure, of_seeds in _chosen([found[arm, seed] for seed in seeds]).items():
            for seed, value in zip(seeds, of_seeds, strict=True):
                values[arm, seed][measure] = value
    first = next(iter(measured.values()))
    return {
        "arms": {
            arm: {
                "compute": compute[arm],
                "figures": figures(values, arm, seeds),
                "against_raster": _against_raster(values, curves, arm, seeds)
                if RASTER in arms and arm != RASTER
                else {},
                "curves": _curves([found[arm, seed] for seed in seeds]),
                "rate": _rate([found[arm, seed]["rate"]["at_noise"] for seed in seeds]),
            }
            for arm in arms
        },
        "bounds": bounds_of(first["results"]["separate"]["generation"]),
        "judge": first["protocol"]["judge"],
        "images": first["results"]["separate"]["generation"]["fidelity"]["images"],
        "psnr": level,
    }


def drawn_with(guidance: str, name: str) -> str:
    """What a measure of drawn images is called with a guidance, see `recipes.guidance`."""
    return f"{name}, unguided" if guidance == UNGUIDED else f"{name}, g {guidance}"


def _level(curves: Sequence[Curve]) -> float | None:
    """The PSNR at which nats are compared, if they can be."""
    if not curves:
        return None
    least, level = common_psnr(curves)
    return level if least <= level else None


def _against_raster(
    values: Values, curves: Curves, arm: str, seeds: Sequence[int]
) -> dict[str, Any]:
    found = differences(values, arm, RASTER, seeds, better)
    for name, rival in ((SAVED, RASTER), (SAVED_OF_WHOLE, WHOLE)):
        known = arm not in (NOISE, rival) and (rival, seeds[0]) in curves
        share = saved_nats(curves, arm, rival, seeds) if known else None
        found |= {} if share is None else {name: share}
    return found


def _figures(
    arm: str, found: Mapping[str, Any], curve: Curve | None, level: float | None
) -> Iterator[tuple[str, float]]:
    generation, quality = found["generation"], found["order_quality"]
    if level is not None and curve is not None:
        nats = nats_at(level, curve)
        assert nats is not None  # the level is between what all reach
        yield NATS, nats
        yield from _by_gaussian(found["rate"], level)
    if arm in SAME_TOKENS and found["likelihood"]:
        yield LIKELIHOOD, found["likelihood"]["nats"]
    for guidance, drawn in _drawn(generation).items():
        yield from ((drawn_with(guidance, name), value) for name, value in drawn.items())
    headline = _headline(generation)
    yield "followed, rebuilt", generation["rebuilt"][headline]
    yield f"{FRECHET}, rebuilt", generation["fidelity"]["frechet_of_rebuilt"]
    for name in ("psnr", "ssim"):
        if name in found["reconstruction"]:
            yield name.upper(), list(found["reconstruction"][name].values())[-1]
    if quality["scores"]:  # it has prefixes
        yield "raster leak", found["order"]["raster_leak"]
    for name in ("semantic_area", "semantic_first"):
        if quality[name] is not None:
            yield name.replace("_", " "), quality[name]
    if quality["tokens"] is not None:
        yield USELESS, quality["tokens"]["useless"]
        yield AREA, quality["tokens"]["area"]
    if quality["alike"]:
        alike = figures_of_order(quality["alike"])
        yield from ((name, value) for name, value in alike.items() if name in ABOUT)
    for name in ("gini", "variation"):
        if quality["gain"] and quality["gain"][name] is not None:
            yield f"{name} of nats", quality["gain"][name]
    yield "entropy rank", found["rate"]["entropy_rank"]


def _by_gaussian(rate: Mapping[str, Any], level: float) -> Iterator[tuple[str, float]]:
    """What tokens cost by a Gaussian, as far as it is known."""
    if "white" not in rate:
        return
    together = {
        noise: {"nats": each["together"], "psnr": each["psnr"]}
        for noise, each in rate["at_noise"].items()
    }
    for name, curve in ((TOGETHER, together), (WHITE, rate["white"])):
        nats = nats_at(level, curve)
        if nats is not None:
            yield name, nats


def _chosen(of_seeds: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """By measure what each seed has with the guidance, or after the layer, that others choose."""
    drawn = [_drawn(each["generation"]) for each in of_seeds]
    found = {
        f"{name}, best guidance": chosen(
            [{guidance: of[name] for guidance, of in each.items()} for each in drawn], better(name)
        )
        for name in (FRECHET, KERNEL, FOLLOWED)
    }
    read = {"trunk": "trunk", "trunk, nearest": "trunk_nearest"}
    return found | {
        name: chosen([_by_layer(each[part]) for each in of_seeds], 1) for name, part in read.items()
    }


def _drawn(generation: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What is said of images drawn with each guidance."""
    headline = _headline(generation)
    return {
        guidance: {
            FRECHET: each["fidelity"]["frechet"],
            KERNEL: each["fidelity"]["kernel"],
            PRECISION: each["fidelity"]["precision"],
            RECALL: each["fidelity"]["recall"],
            FOLLOWED: each[headline],
        }
        for guidance, each in by_guidance(generation).items()
    }


def _headline(generation: Mapping[str, Any]) -> str:
    """What the judge says first."""
    return next(iter(generation["real"]))


def _by_layer(trunk: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Each layer's score after all tokens, the mean over factors."""
    layers = next(iter(trunk.values()))
    return {
        layer: mean(list(of_layers[layer].values())[-1] for of_layers in trunk.values())
        for layer in layers
    }


def _rate(curves: Sequence[Curve]) -> dict[str, dict[str, float]]:
    """The mean over seeds of nats and PSNR at each noise."""
    return {
        noise: {name: mean(curve[noise][name] for curve in curves) for name in ("nats", "psnr")}
        for noise in curves[0]
    }


def better(measure: str) -> int:
    """1 where more is better, else -1."""
    return -1 if measure.split(",")[0] in LOWER_IS_BETTER else 1


def _curves(of_seeds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    curves: dict[str, list[Mapping[str, float]]] = {}
    for found in of_seeds:
        quality = found["order_quality"]
        if quality["scores"]:  # it has prefixes
            curves.setdefault("PSNR", []).append(found["reconstruction"]["psnr"])
            curves.setdefault("read by a linear map", []).append(quality["scores"])
        if quality["gain"]:
            at = {str(k): nats for k, nats in enumerate(quality["gain"]["at"], start=1)}
            curves.setdefault("nats over a Gaussian", []).append(at)
        spread = {str(k): s for k, s in enumerate(found["generation"]["deviations"], start=1)}
        curves.setdefault("deviation", []).append(spread)
    return {
        name: {k: mean(each[k] for each in found) for k in found[0]}
        for name, found in curves.items()
        if found[0]
    }


def tables(results: Results) -> list[Table]:
    """What is drawn and said, what orders are like, what they cost, and the claim."""
    arms = results["arms"]
    measures = list(dict.fromkeys(name for arm in arms.values() for name in arm["figures"]))
    at_one_guidance = [name for name in measures if ", g " in name]  # which the best stands for
    drawn = [name for name in measures if name not in (*ABOUT, *at_one_guidance)]
    found = [
        _table("order", arms, "figures", drawn),
        _table("order", arms, "figures", [name for name in ABOUT if name in measures]),
    ]
    if RASTER in arms:
        rest = {arm: of for arm, of in arms.items() if arm != RASTER}
        saved = [SAVED, *([SAVED_OF_WHOLE] if WHOLE in arms else [])]
        found.append(_table("better than raster by", rest, "against_raster", [*saved, *drawn]))
    if RASTER in arms and LEARNED in arms:
        found.append(claim(results))
    return found


def _table(title: str, arms: Results, part: str, measures: Sequence[str]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (arm, *(cell(of_arm[part].get(measure)) for measure in measures))
        for arm, of_arm in arms.items()
    ]
    return Table(columns=(title, *measures), rows=rows)


def claim(results: Results) -> Table:
    """Whether the learned order does better than raster, by rule: the interval decides."""
    against = results["arms"][LEARNED]["against_raster"]
    rows: list[tuple[Cell, ...]] = [
        (name, cell(against.get(measure)), _word(against.get(measure)))
        for measure, name in CLAIMS.items()
        if measure != SAVED_OF_WHOLE or WHOLE in results["arms"]
    ]
    return Table(columns=("learned against raster", "better by", "verdict"), rows=rows)


def _word(difference: Mapping[str, Any] | None) -> str:
    if difference is None:
        return "not comparable"
    if difference["low"] is None:
        return "one seed decides nothing"
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "undecided"
