"""From the results of an experiment to a page that people look at."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.engine import pictures
from recipes.engine.page import Cell, Section, Table, write_page
from recipes.watching import SHOWN

Results = Mapping[str, Any]

STEPS = ("orderer", "ar", "joint")
"""Names of the trainings, as their logs are called."""


def summary(results: Results) -> tuple[Table, Table]:
    """The figures that matter, before and after stage 3: shares of 1, and decibels."""
    return _compared("measure", _shares, results), _compared("PSNR in dB", _quality, results)


def _compared(title: str, choose: Callable[[Results], dict[str, Cell]], results: Results) -> Table:
    before, after = (choose(results["joint"][when]) for when in ("before", "after"))
    return Table(
        columns=(title, "stages 1 and 2", "after stage 3"),
        rows=[(name, before[name], after[name]) for name in before],
    )


def _quality(found: Results) -> dict[str, Cell]:
    return {f"from {_tokens(k)}": value for k, value in found["reconstruction"]["psnr"].items()}


def _shares(found: Results) -> dict[str, Cell]:
    retrieval = found["retrieval"]
    lengths = list(retrieval["text_to_image"])
    figures: dict[str, Cell] = {}
    for direction in ("text_to_image", "image_to_text"):
        for k in (lengths[0], lengths[-1]):
            name = f"{direction.replace('_', ' ')}, R@1 from {_tokens(k)}"
            figures[name] = retrieval[direction][k]["r1"]
            if "unseen" in found:
                unseen = found["unseen"]["retrieval"][direction][k]["r1"]
                figures[f"  unseen pairs: {name}"] = unseen
    for name, value in found["generation"].items():
        if isinstance(value, float):
            figures[f"generated: {name.replace('_', ' ')}"] = value
            for bound in ("rebuilt", "real"):
                figures[f"  {bound} images: {name.replace('_', ' ')}"] = found["generation"][bound][
                    name
                ]
    figures["raster leak of the order"] = found["order"]["raster_leak"]
    return figures


def _tokens(k: str) -> str:
    return "1 token" if k == "1" else f"{k} tokens"


def write_report(out: Path, results: Results) -> None:
    """Draw the curves and write OUT/report.html around all pictures."""
    folder = out / "pictures"
    retrieval, quality = results["retrieval"], results["reconstruction"]["psnr"]
    recall = {
        f"{direction.replace('_', ' ')}, R@{k}": {
            int(prefix): at[f"r{k}"] for prefix, at in retrieval[direction].items()
        }
        for direction in ("text_to_image", "image_to_text")
        for k in (1, 5)
    }
    pictures.curves(
        recall, folder / "retrieval.png", x_label="tokens", y_label="recall", log2_x=True
    )
    pictures.curves(
        {"PSNR": {int(k): value for k, value in quality.items()}},
        folder / "psnr.png",
        x_label="tokens",
        y_label="dB",
        log2_x=True,
    )
    logs = {name: _read_log(out / "logs" / f"{name}.jsonl") for name in STEPS}
    pictures.loss_curves(logs, folder / "losses.png")
    pictures.curves(
        watched_by_step(logs["joint"], results["joint"]["watched"]["before"]),
        folder / "watched.png",
        x_label="steps of stage 3",
        y_label="share",
    )
    write_page(out / "report.html", "Sightline", _intro(results), _sections(folder, results))


def _intro(results: Results) -> str:
    protocol, minutes = results["protocol"], sum(results["seconds"].values()) / 60
    return (
        f"An orderer and an AR model, trained and measured in {minutes:.1f} minutes, on "
        f"{protocol['images']} images of the {protocol['split']} split."
    )


def _sections(folder: Path, results: Results) -> list[Section]:
    best = folder / "joint"
    return [
        Section(
            heading="Figures",
            text=f"Judge of the generated images: {results['protocol']['judge']}.",
            tables=summary(results),
        ),
        Section(
            heading="Drawn from captions",
            text=(
                f"Captions of the {results['protocol']['unseen']['split']} split; one sample "
                "each, none chosen."
            ),
            pictures=[
                (folder / "separate" / "generated.png", "after stages 1 and 2"),
                (best / "generated.png", "after stage 3"),
            ],
        ),
        Section(
            heading="One image from its first tokens",
            text="Test images rebuilt from ever longer prefixes of the same tokens.",
            pictures=[(best / "strips.png", "after stage 3")],
        ),
        Section(
            heading="What each prefix knows",
            text="Retrieval among the test images, and error of the rebuilt image.",
            pictures=[
                (folder / "retrieval.png", "recall against prefix length"),
                (folder / "psnr.png", "PSNR against prefix length"),
            ],
        ),
        Section(
            heading="The order",
            text=(
                "Where each token lowers the error. A raster in disguise would walk over the "
                "image; "
                f"the largest rank correlation with one is {results['order']['raster_leak']:.2f}."
            ),
            pictures=[(folder / "separate" / "gains.png", "tokens 1 to K, mean over test images")],
        ),
        Section(
            heading="Watched in stage 3",
            text="Of training pairs set apart: falling rank, deviation, novelty, recall or PSNR "
            "would have stopped it. Share and cosine are of what stage 2 asks of the orderer, "
            "beside stage 1's own gradient.",
            tables=[_watched(results["joint"]["watched"])],
            pictures=[(folder / "watched.png", "rank as a share of its start's")],
        ),
        Section(
            heading="Losses",
            text="Seconds: "
            + ", ".join(f"{name} {value:.0f}" for name, value in results["seconds"].items()),
            pictures=[(folder / "losses.png", "training losses by step")],
        ),
        Section(heading="Protocol", text=json.dumps(results["protocol"], indent=2)),
    ]


def watched_by_step(
    log: Sequence[Mapping[str, Any]], before: Mapping[str, float]
) -> dict[str, dict[int, float]]:
    """What stage 3 watched, by the number of steps done: shares, the rank one of its start's."""
    looks = [line for line in log if "rank" in line]
    shown = [name for name in SHOWN if name != "psnr"]
    curves = {
        name: {line["step"] + 1: line[name] for line in looks if name in line} for name in shown
    }
    curves["rank"] = {step: value / before["rank"] for step, value in curves["rank"].items()}
    return {name: curve for name, curve in curves.items() if curve}


def _watched(found: Results) -> Table:
    rows = [(name, value, found["after"][name]) for name, value in found["before"].items()]
    return Table(columns=("figure", "before", "after"), rows=rows)


def _read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
