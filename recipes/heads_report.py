"""From the runs of a comparison of heads to figures, a table, a verdict and a page.

Results: {"arms": {arm: {"compute", "figures": {measure: interval}, "curves": {name: {k: value}}}},
"bounds": {who: {measure: value}}, "judge": who judges}. Measures of generated images end in the
guidance that they were generated with: "Fréchet, g 1.5".
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from recipes.comparison import FRECHET, KERNEL, bounds_of, curves_of, first_runs
from recipes.engine import pictures
from recipes.engine.charts import Bars
from recipes.engine.page import Cell, Section, Table, write_page
from recipes.guidance import by_guidance
from recipes.intervals import cell, interval, number

Results = Mapping[str, Any]
Runs = Mapping[tuple[str, int], Path]

LIKELIHOOD = "log-likelihood"
LOWER_IS_BETTER = (FRECHET, KERNEL)
CONTROL = "regression"
REFERENCES = ("flow", "flow_uniform")
LEAST_RATIO = 1.5
"""Of Fréchet distances, from which on one has clearly lost."""


def gather(runs: Runs, compute: Mapping[str, Any]) -> dict[str, Any]:
    """Read what was measured of every arm and seed."""
    measured = {run: json.loads((out / "evaluation.json").read_text()) for run, out in runs.items()}
    of_runs = {run: each["results"]["separate"] for run, each in measured.items()}
    first = next(iter(measured.values()))
    bounds = bounds_of(next(iter(of_runs.values()))["generation"])
    return {
        "arms": {
            arm: {
                "compute": compute[arm],
                **_of_arm([found for (of, _), found in of_runs.items() if of == arm]),
            }
            for arm in dict.fromkeys(arm for arm, _ in runs)
        },
        "bounds": bounds,
        "judge": first["protocol"]["judge"],
        "images": next(iter(of_runs.values()))["generation"]["fidelity"]["images"],
    }


def _of_arm(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[float]] = {}
    for found in runs:
        for measure, value in _figures(found):
            values.setdefault(measure, []).append(value)
    curves: dict[str, list[Sequence[float]]] = {}
    for found in runs:
        if found["likelihood"]:
            curves.setdefault(LIKELIHOOD, []).append(found["likelihood"]["at"])
        curves.setdefault("deviation", []).append(found["generation"]["deviations"])
    return {
        "figures": {measure: interval(each) for measure, each in values.items()},
        "curves": {
            name: {str(k): mean(at) for k, at in enumerate(zip(*each, strict=True), start=1)}
            for name, each in curves.items()
        },
    }


def _figures(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if found["likelihood"]:
        yield LIKELIHOOD, found["likelihood"]["nats"]
    generation = found["generation"]
    for guidance, drawn in by_guidance(generation).items():
        yield f"{FRECHET}, g {guidance}", drawn["fidelity"]["frechet"]
        yield f"{KERNEL}, g {guidance}", drawn["fidelity"]["kernel"]
        for name in generation["real"]:  # what the judge says
            yield f"{name}, g {guidance}", drawn[name]


def tables(results: Results) -> list[Table]:
    """The heads, then what was wanted of the control."""
    return [heads(results), verdict(results)] if _has_control(results) else [heads(results)]


def heads(results: Results) -> Table:
    """A row for each arm, and below them the bounds."""
    arms = results["arms"]
    measures = list(dict.fromkeys(name for arm in arms.values() for name in arm["figures"]))
    rows: list[tuple[Cell, ...]] = [
        (
            arm,
            of_arm["compute"]["steps"],
            of_arm["compute"]["flops"]["step"] / 1e9,
            *(cell(of_arm["figures"].get(measure)) for measure in measures),
        )
        for arm, of_arm in arms.items()
    ]
    for who, of_bound in results["bounds"].items():
        values = (of_bound.get(measure.split(", ")[0]) for measure in measures)
        rows.append((who, None, None, *(None if each is None else number(each) for each in values)))
    return Table(columns=("head", "steps", "GFLOP a step", *measures), rows=rows)


def verdict(results: Results) -> Table:
    """By how much the control loses against each reference, by each measure."""
    control = results["arms"][CONTROL]["figures"]
    rows = []
    for arm in REFERENCES:
        reference = results["arms"].get(arm, {}).get("figures", {})
        for measure in reference:
            lost, found = _lost(measure, control[measure], reference[measure])
            rows.append((measure, arm, found, "yes" if lost else "no"))
    return Table(columns=(CONTROL, "against", "found", "loses"), rows=rows)


def _lost(
    measure: str, control: Mapping[str, Any], reference: Mapping[str, Any]
) -> tuple[bool, str]:
    """Whether the control is worse with every seed, and by how much in the mean."""
    pairs = list(zip(control["seeds"], reference["seeds"], strict=True))
    if measure.startswith(FRECHET):
        ratio = control["mean"] / reference["mean"]
        return all(c > LEAST_RATIO * r for c, r in pairs), f"{ratio:.2f} times"
    gap = control["mean"] - reference["mean"]
    if measure.startswith(LOWER_IS_BETTER):
        return all(c > r for c, r in pairs), f"{gap:+.3f}"
    return all(c < r for c, r in pairs), f"{gap:+.3f}"


def _has_control(results: Results) -> bool:
    return CONTROL in results["arms"] and not results["arms"].keys().isdisjoint(REFERENCES)


def write_heads_page(out: Path, results: Results, runs: Runs) -> None:
    """Draw a curve for each arm, and write OUT/heads.html around them."""
    page, *verdicts = tables(results)
    numbers = results["images"]
    sections = [
        Section(
            heading="Heads",
            text="Judge of captions, in whose features distances are taken: "
            f"{results['judge']}.\n\n"
            f"Distances of {numbers['generated']} generated images to {numbers['real']} real "
            "ones. Log-likelihood in nats for each dimension of test tokens, higher is better; the "
            "energy head has none. Where there are several seeds, half of the 95% interval.",
            tables=[page],
            parts=[_bars(results, measure) for measure in _measures(results, FRECHET)],
        ),
        *(
            Section(
                heading="By how much squared error loses",
                text="A loss counts if it is one with every seed; of Fréchet distances, if it is "
                f"{LEAST_RATIO} times as far.",
                tables=verdicts,
            )
            for _ in verdicts[:1]
        ),
        Section(heading="At each position", pictures=_drawn(out, results)),
        Section(
            heading="Drawn from captions",
            text="The same captions and noise for all, without guidance; the first seed.",
            pictures=[
                (runs[arm, seed] / "pictures" / "separate" / "generated.png", arm)
                for arm, seed in first_runs(runs)
            ],
        ),
    ]
    intro = "AR models that differ in their heads, on one orderer's tokens, at equal operations."
    write_page(out / "heads.html", "Right against wrong", intro, sections)


def _measures(results: Results, kind: str) -> list[str]:
    figures = next(iter(results["arms"].values()))["figures"]
    return [measure for measure in figures if measure.startswith(kind)]


def _bars(results: Results, measure: str) -> Bars:
    arms = results["arms"].items()
    return Bars(title=measure, counts=[(arm, of["figures"][measure]["mean"]) for arm, of in arms])


def _drawn(out: Path, results: Results) -> list[tuple[Path, str]]:
    labels = {
        LIKELIHOOD: "log-likelihood of test tokens, nats for each dimension",
        "deviation": "deviation of generated tokens without guidance, in those of the data",
    }
    drawn = []
    for name, label in labels.items():
        if series := curves_of(results["arms"], name):
            path = out / "pictures" / f"{name}.png"
            pictures.curves(series, path, x_label="position", y_label=name)
            drawn.append((path, label))
    return drawn
