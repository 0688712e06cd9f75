"""From the runs of a laboratory of orders to figures, paired differences, tables and a page.

Results: {"arms": {arm: {"compute", "figures": {measure: interval}, "against_raster": the same,
"curves": {name: {k: value}}, "rate": {noise: {"nats", "psnr"}}}},
"judge", "images", "psnr": dB at which nats are compared}.
Differences are paired by seed and taken so that above 0 is better.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from recipes.comparison import first_runs
from recipes.engine import pictures
from recipes.engine.page import Cell, Section, Table, write_page
from recipes.intervals import cell, interval
from recipes.rating import Curve, nats_at, saved

Results = Mapping[str, Any]
Runs = Mapping[tuple[str, int], Path]

RASTER, LEARNED, NOISE = "raster", "learned", "noise"
NATS, LIKELIHOOD, FRECHET, KERNEL = "nats", "log-likelihood", "Fréchet", "kernel"
LOWER_IS_BETTER = (
    NATS,
    FRECHET,
    KERNEL,
    "useless",
    "area",
    "gini",
    "variation",
    "lost without positions",
    "position told",
)
ABOUT = (
    "EQ",
    "gini",
    "variation",
    "gradients agree",
    "transfer",
    "lost without positions",
    "position told",
    "semantic first",
    "useless",
    "area",
    "entropy rank",
)
"""What an order is like, beside what is made of it."""
SAME_TOKENS = ("raster", "spiral", "z", "hilbert", "centre_out", "shuffled", "random")
"""Arms whose tokens are the same patches: their likelihoods differ by the order alone."""
SAVED = "nats saved at any error"
"""As a share of raster's."""
COMPARED_AT = "0.12"
"""The noise at which the worst rebuilt run sets the error."""
CLAIMS: Mapping[str, str] = {
    NATS: "likelihood at matched error",
    f"{FRECHET}, best guidance": "Fréchet distance",
    "followed, best guidance": "captions followed",
    "trunk": "understanding: linear probes of the trunk",
}
"""What the learned order is to do better than raster, by measure."""


def gather(runs: Runs, compute: Mapping[str, Any]) -> dict[str, Any]:
    """Read what was measured of every arm and seed, and compare with raster where it ran."""
    measured = {run: json.loads((out / "evaluation.json").read_text()) for run, out in runs.items()}
    found = {run: each["results"]["separate"] for run, each in measured.items()}
    level = _level([each["rate"]["at_noise"] for (arm, _), each in found.items() if arm != NOISE])
    values = {(arm, seed): dict(_figures(arm, each, level)) for (arm, seed), each in found.items()}
    arms = list(dict.fromkeys(arm for arm, _ in runs))
    seeds = list(dict.fromkeys(seed for _, seed in runs))
    first = next(iter(measured.values()))
    return {
        "arms": {
            arm: {
                "compute": compute[arm],
                "figures": {
                    measure: interval([values[arm, seed][measure] for seed in seeds])
                    for measure in values[arm, seeds[0]]
                    if all(measure in values[arm, seed] for seed in seeds)
                },
                "against_raster": {
                    **_differences(values, arm, seeds),
                    **(_saved(arm, seeds, found) if arm != NOISE else {}),
                }
                if RASTER in arms
                else {},
                "curves": _curves([found[arm, seed] for seed in seeds]),
                "rate": _rate([found[arm, seed]["rate"]["at_noise"] for seed in seeds]),
            }
            for arm in arms
        },
        "judge": first["protocol"]["judge"],
        "images": next(iter(found.values()))["generation"]["fidelity"]["images"],
        "psnr": level,
    }


def _level(curves: Sequence[Mapping[str, Mapping[str, float]]]) -> float | None:
    """A PSNR that all reach, at which nats are compared; None if there is none."""
    if not curves:
        return None
    level = min(curve[COMPARED_AT]["psnr"] for curve in curves)
    worst = max(min(at["psnr"] for at in curve.values()) for curve in curves)
    return level if worst <= level else None


def _figures(
    arm: str, found: Mapping[str, Any], level: float | None
) -> Iterator[tuple[str, float]]:
    generation, quality = found["generation"], found["order_quality"]
    if level is not None and arm != NOISE:  # whose tokens hold noise of their own
        nats = nats_at(level, found["rate"]["at_noise"])
        assert nats is not None  # the level is between what all reach
        yield NATS, nats
    if arm in SAME_TOKENS and found["likelihood"]:
        yield LIKELIHOOD, found["likelihood"]["nats"]
    scales = {"1": generation, **generation.get("guided", {})}
    headline = next(iter(generation["real"]))
    for name, best, of in (
        (FRECHET, min, lambda each: each["fidelity"]["frechet"]),
        (KERNEL, min, lambda each: each["fidelity"]["kernel"]),
        ("followed", max, lambda each: each[headline]),
    ):
        yield f"{name}, unguided", of(generation)
        yield f"{name}, best guidance", best(map(of, scales.values()))
    yield "followed, rebuilt", generation["rebuilt"][headline]
    yield f"{FRECHET}, rebuilt", generation["fidelity"]["frechet_of_rebuilt"]
    yield "PSNR", list(found["reconstruction"]["psnr"].values())[-1]
    yield "trunk", _best_read(found["trunk"])
    if quality["semantic_first"] is not None:
        yield "semantic first", quality["semantic_first"]
    if quality["tokens"] is not None:
        yield "useless", quality["tokens"]["useless"]
        yield "area", quality["tokens"]["area"]
    if quality["alike"]:
        yield from _alike(quality["alike"])
    for name in ("gini", "variation"):
        if quality["gain"] and quality["gain"][name] is not None:
            yield name, quality["gain"][name]
    yield "entropy rank", found["rate"]["entropy_rank"]


def _alike(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What small models make of an order, as far as it is known."""
    alike = found["equivariance"]
    values = {
        "EQ": alike["eq"],
        "gradients agree": alike["conflict"]["mean"],
        "transfer": alike["transfer"]["mean"],
        "lost without positions": alike["transfer"]["without_positions"],
        "position told": found["positions"]["accuracy"],
    }
    yield from ((name, value) for name, value in values.items() if value is not None)


def _best_read(trunk: Mapping[str, Mapping[str, Mapping[str, float]]]) -> float:
    """The best layer's score after all tokens, the mean over factors."""
    return mean(
        max(list(at_prefix.values())[-1] for at_prefix in of_layers.values())
        for of_layers in trunk.values()
    )


def _differences(
    values: Mapping[tuple[str, int], Mapping[str, float]], arm: str, seeds: Sequence[int]
) -> dict[str, Any]:
    """By how much an arm is better than raster, paired by seed."""
    measures = [
        measure
        for measure in values[arm, seeds[0]]
        if all(measure in values[of, seed] for of in (arm, RASTER) for seed in seeds)
    ]
    return {
        measure: interval(
            [
                better(measure) * (values[arm, seed][measure] - values[RASTER, seed][measure])
                for seed in seeds
            ]
        )
        for measure in measures
    }


def _saved(arm: str, seeds: Sequence[int], found: Mapping[tuple[str, int], Any]) -> dict[str, Any]:
    """Which share of raster's nats an arm saves at equal error, whatever the error."""
    shares = [
        saved(*(found[of, seed]["rate"]["at_noise"] for of in (arm, RASTER))) for seed in seeds
    ]
    known = [share for share in shares if share is not None]
    return {SAVED: interval(known)} if len(known) == len(shares) else {}


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
    drawn = [measure for measure in measures if measure not in ABOUT]
    found = [
        _table("order", arms, "figures", drawn),
        _table("order", arms, "figures", [name for name in ABOUT if name in measures]),
    ]
    if RASTER in arms:
        rest = {arm: of for arm, of in arms.items() if arm != RASTER}
        found.append(_table("better than raster by", rest, "against_raster", [SAVED, *drawn]))
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


def write_orders_page(out: Path, results: Results, runs: Runs) -> None:
    """Draw a curve for each arm, and write OUT/orders.html around them."""
    figures, about, *others = tables(results)
    numbers = results["images"]
    level = results["psnr"]
    compute = Table(
        columns=("order", "steps", "GFLOP a step", "stage 1", "encoding", "total, TFLOP"),
        rows=[
            (
                arm,
                cost["steps"],
                cost["step"] / 1e9,
                cost["stage_1"] / 1e12,
                cost["encoding"] / 1e12,
                cost["total"] / 1e12,
            )
            for arm, cost in ((arm, of["compute"]) for arm, of in results["arms"].items())
        ],
    )
    seen = out / "pictures"
    sections = [
        Section(
            heading="What is drawn, said and understood",
            text=f"Judge, in whose features distances are taken: {results['judge']}. Distances of "
            f"{numbers['generated']} generated images to {numbers['real']} real ones; the rebuilt "
            "ones are each arm's bound. "
            + ("" if level is None else f"Nats are of noisy tokens that leave {level:.1f} dB. ")
            + "Log-likelihood in nats for each dimension, of arms with the same patches. Half of "
            "the 95% interval over seeds, where there are several.",
            tables=[figures],
        ),
        Section(heading="What the orders are like", tables=[about], pictures=_drawn(out, results)),
        *(Section(heading="Against raster", tables=[table]) for table in others),
        Section(heading="Operations", tables=[compute]),
        Section(
            heading="Drawn from the same captions",
            text="The first seed of every arm, with the strongest guidance; below, the paths.",
            pictures=[(seen / "drawn.png", "drawn by all"), (seen / "paths.png", "paths")],
        ),
        Section(
            heading="Images from their first tokens, and drawn ones",
            text="The first seed; drawn from the same captions and without guidance.",
            pictures=[
                (runs[arm, seed] / "pictures" / "separate" / f"{name}.png", f"{arm}: {name}")
                for arm, seed in first_runs(runs)
                for name in ("strips", "generated")
            ],
        ),
    ]
    intro = "AR models of one size on images in many orders, at equal total operations."
    write_page(out / "orders.html", "Which order is best?", intro, sections)


def _drawn(out: Path, results: Results) -> list[tuple[Path, str]]:
    drawn = []
    names = dict.fromkeys(name for arm in results["arms"].values() for name in arm["curves"])
    for name in names:
        series = {
            arm: {int(k): value for k, value in of_arm["curves"][name].items()}
            for arm, of_arm in results["arms"].items()
            if name in of_arm["curves"]
        }
        path = out / "pictures" / f"{name.replace(' ', '-')}.png"
        pictures.curves(series, path, x_label="tokens", y_label=name)
        drawn.append((path, name))
    path = out / "pictures" / "rate.png"
    rate = {
        arm: {round(at["nats"]): at["psnr"] for at in of_arm["rate"].values()}
        for arm, of_arm in results["arms"].items()
        if arm != NOISE
    }
    pictures.curves(rate, path, x_label="nats", y_label="PSNR in dB", log2_x=True)
    return [*drawn, (path, "PSNR against nats")]
