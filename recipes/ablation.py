"""From the runs of an ablation to figures with intervals, verdicts, tables and a page.

Figures: {arm: {measure: {k: {"mean", "low", "high", "seeds"}}}}, with k as text, as JSON has it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recipes.engine import pictures
from recipes.engine.page import Cell, Section, Table, write_page
from recipes.intervals import interval, plus_minus

Figures = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]


def gather(runs: Mapping[tuple[str, int], Path]) -> dict[str, Any]:
    """Read the figures of every arm and seed, and give each its mean and interval."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (arm, _), out in runs.items():
        measured = json.loads((out / "evaluation.json").read_text())["results"]["separate"]
        for measure, k, value in _figures(measured, arm):
            at = found.setdefault(arm, {}).setdefault(measure, {})
            at.setdefault(k, []).append(value)
    return {
        arm: {
            measure: {k: interval(values) for k, values in at.items()}
            for measure, at in of_arm.items()
        }
        for arm, of_arm in found.items()
    }


def _figures(measured: Mapping[str, Any], arm: str) -> Iterator[tuple[str, str, float]]:
    for k, value in measured["reconstruction"]["psnr"].items():
        yield "PSNR", k, value
    readers = {"fresh": measured["probe"]}
    if arm != "no_text":  # whose own readout has never seen a caption
        readers = {"own": measured["retrieval"], **readers}
    for reader, found in readers.items():
        for k, value in found.get("accuracy", {}).items():
            yield f"{reader} accuracy", k, value
        if "accuracy" not in found:
            for k, value in found["text_to_image"].items():
                yield f"{reader} R@1", k, value["r1"]
                yield f"{reader} R@5", k, value["r5"]


def tables(figures: Figures) -> list[Table]:
    """A table for each measure, an arm in each row; then what was wanted of ours."""
    measures = list(dict.fromkeys(name for of_arm in figures.values() for name in of_arm))
    return [*(_table(measure, figures) for measure in measures), wanted(figures)]


def _table(measure: str, figures: Figures) -> Table:
    rows = {arm: of_arm[measure] for arm, of_arm in figures.items() if measure in of_arm}
    lengths = list(next(iter(rows.values())))
    return Table(
        columns=(measure, *(f"k = {k}" for k in lengths)),
        rows=[
            (arm, *(plus_minus(at[k], *_unit(measure)) for k in lengths))
            for arm, at in rows.items()
        ],
    )


def _unit(measure: str) -> tuple[float, int]:
    """Decibels as they are, the rest in percent; and the digits behind the point."""
    return (1, 1) if measure == "PSNR" else (100, 1)


def wanted(figures: Figures) -> Table:
    """What the paper's claim needs of ours, and what was found."""
    ours = figures.get("ours", {})
    recall = "accuracy" if "own accuracy" in ours else "R@1"
    rows: list[tuple[Cell, ...]] = []
    if {"last_only", "unordered"} <= figures.keys() and ours:
        rows.extend(_against_own(figures, f"own {recall}"))
    if "no_text" in figures and ours:
        rows.extend(_against_no_text(figures, f"fresh {recall}"))
    if ours:
        rows.extend(_within(figures, recall))
    return Table(columns=("wanted of ours", "found", "met"), rows=rows)


def _early(at: Mapping[str, Any]) -> list[str]:
    """The prefixes of at most an eighth of all tokens."""
    return [k for k in at if 8 * int(k) <= max(map(int, at))]


def _against_own(figures: Figures, measure: str) -> Iterator[tuple[Cell, ...]]:
    ours = figures["ours"][measure]
    for arm in ("last_only", "unordered"):
        ratios = [
            ours[k]["mean"] / max(figures[arm][measure][k]["mean"], 1e-9) for k in _early(ours)
        ]
        found = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        yield f"{measure} at k <= K/8 at least 2 x {arm}'s", found, _yes(min(ratios) >= 2)


def _against_no_text(figures: Figures, measure: str) -> Iterator[tuple[Cell, ...]]:
    ours, other = figures["ours"][measure], figures["no_text"][measure]
    early = _early(ours)
    ratios = [ours[k]["mean"] / max(other[k]["mean"], 1e-9) for k in early]
    found = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    yield f"{measure} at k <= K/8 at least 2 x no_text's", found, _yes(min(ratios) >= 2)
    if ours[early[0]]["low"] is not None:
        apart = [ours[k]["low"] - other[k]["high"] for k in early]
        found = ", ".join(f"{100 * gap:+.1f}" for gap in apart)
        yield f"{measure} at k <= K/8, intervals apart, points", found, _yes(min(apart) > 0)


def _within(figures: Figures, recall: str) -> Iterator[tuple[Cell, ...]]:
    own, fresh = figures["ours"][f"own {recall}"], figures["ours"][f"fresh {recall}"]
    first, last = min(own, key=int), max(own, key=int)
    best = max(of_arm[f"fresh {recall}"][last]["mean"] for of_arm in figures.values())
    short = 100 * (best - own[last]["mean"])
    yield (
        f"own {recall} at K at most 2 points below the best fresh",
        f"{short:.1f}",
        _yes(short <= 2),
    )
    if "no_text" in figures:
        quality = [figures[arm]["PSNR"][last]["mean"] for arm in ("ours", "no_text")]
        lost = quality[1] - quality[0]
        yield "PSNR at K at most 0.5 dB below no_text's", f"{lost:.2f}", _yes(lost <= 0.5)
    gain = 100 * (own[last]["mean"] - own[first]["mean"])
    yield f"own {recall} at K above that at 1, points", f"{gain:+.1f}", _yes(gain > 0)
    gap = max(100 * (fresh[k]["mean"] - own[k]["mean"]) for k in own)
    yield f"own {recall} at most 3 points below fresh, at every k", f"{gap:.1f}", _yes(gap <= 3)


def _yes(met: bool) -> str:
    return "yes" if met else "no"


def write_ablation_page(out: Path, figures: Figures) -> None:
    """Draw a curve for each arm and measure, and write OUT/ablation.html around them."""
    measures = list(dict.fromkeys(name for of_arm in figures.values() for name in of_arm))
    drawn = []
    for measure in measures:
        series = {
            arm: {int(k): value["mean"] for k, value in of_arm[measure].items()}
            for arm, of_arm in figures.items()
            if measure in of_arm
        }
        path = out / "pictures" / f"{measure.lower().replace(' ', '_').replace('@', '')}.png"
        pictures.curves(series, path, x_label="tokens", y_label=measure, log2_x=True)
        drawn.append((path, f"{measure} at each prefix, mean over seeds"))
    *of_measures, verdicts = tables(figures)
    sections = [
        Section(heading="What was wanted", tables=[verdicts]),
        Section(
            heading="Figures",
            text="Mean over seeds and half of its 95% interval (Student's t). Recall and accuracy "
            "in percent, PSNR in dB.",
            tables=of_measures,
        ),
        Section(heading="Curves", pictures=drawn),
    ]
    intro = "Orderers that differ in one thing: how captions and prefixes enter their training."
    write_page(out / "ablation.html", "Text at every prefix", intro, sections)
