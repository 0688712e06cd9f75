"""From the runs of a probe of losslessness to figures, a table, curves and a page.

Results: {"lengths": {K: {code: {"bits", "most", "share": interval, "characters": interval, "psnr":
interval, "by_length": {length: interval}}}}, "pixels": the same without bits, "dims": {K: K * D},
"protocol": how strings were read}. A code is "continuous" or a number of levels, as text.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.comparison import first_runs
from recipes.engine import pictures
from recipes.engine.page import Cell, Section, Table, write_page
from recipes.intervals import interval, plus_minus
from recipes.reading import CONTINUOUS

Results = Mapping[str, Any]
Runs = Mapping[tuple[int, int], Path]

MEASURED = ("share", "characters", "psnr")
PIXELS = "pixels"
ABOUT = """\
Each image holds 4 to 8 random letters and digits. Orderers of several lengths K are trained to \
rebuild such images; then a small network learns to name the characters from frozen tokens of \
other images, always with the same budget.

Codes are found after the training, by k-means on each token and then on what is left over: they \
are the same tokens, told in so many bits, and the network learns on the codes. An orderer that \
learns with its codes may put more into them. What no reader of so many bits can exceed follows \
from rate and distortion for equally likely characters."""


def gather(runs: Runs, pixels: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Read what was read in every run, and give each length its means and intervals."""
    measured = {run: json.loads((out / "evaluation.json").read_text()) for run, out in runs.items()}
    lengths = list(dict.fromkeys(length for length, _ in runs))
    of_lengths = {
        length: [each for (of, _), each in measured.items() if of == length] for length in lengths
    }
    first = next(iter(measured.values()))
    width = first["config"]["orderer"]["token_dim"]
    return {
        "lengths": {
            str(length): _of_codes([each["results"]["separate"]["strings"] for each in runs])
            for length, runs in of_lengths.items()
        },
        PIXELS: _over_seeds(list(pixels.values())),
        "dims": {str(length): length * width for length in lengths},
        "protocol": {
            "split": first["protocol"]["split"],
            "images": first["protocol"]["images"],
            "codes": first["config"]["evaluation"]["strings"]["codes"],
            **first["protocol"]["strings"],
        },
    }


def _of_codes(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        code: {
            "bits": runs[0][code]["bits"],
            "most": runs[0][code]["most"],
            **_over_seeds([found[code] for found in runs]),
        }
        for code in runs[0]
    }


def _over_seeds(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        **{name: interval([each[name] for each in found]) for name in MEASURED if name in found[0]},
        "by_length": {
            length: interval([each["by_length"][length] for each in found])
            for length in found[0]["by_length"]
        },
    }


def table(results: Results) -> Table:
    """A row for each length and code, and below them the ceiling."""
    rows: list[tuple[Cell, ...]] = [
        (
            int(length),
            results["dims"][length],
            _named(code, results),
            None if found["bits"] is None else round(found["bits"]),
            plus_minus(found["share"], 100, 1),
            plus_minus(found["characters"], digits=2),
            None if found["most"] is None else f"{100 * found['most']:.1f}",
            plus_minus(found["psnr"], digits=1),
        )
        for length, of_length in results["lengths"].items()
        for code, found in of_length.items()
    ]
    of_pixels = results[PIXELS]
    share, characters = (
        plus_minus(of_pixels["share"], 100, 1),
        plus_minus(of_pixels["characters"], digits=2),
    )
    rows.append((None, None, PIXELS, None, share, characters, None, None))
    columns = ("K", "K x D", "read from", "bits", "characters read, %", "of an image")
    return Table(columns=(*columns, "most by the bits, %", "PSNR"), rows=rows)


def by_length(results: Results) -> Table:
    """What is read of strings of each length, from tokens as they are and from pixels."""
    rows = {f"K = {k}": found[CONTINUOUS] for k, found in results["lengths"].items()}
    rows[PIXELS] = results[PIXELS]
    lengths = list(results[PIXELS]["by_length"])
    return Table(
        columns=("characters read, %", *(f"of {length}" for length in lengths)),
        rows=[
            (name, *(plus_minus(found["by_length"][length], 100, 1) for length in lengths))
            for name, found in rows.items()
        ],
    )


def _named(code: str, results: Results) -> str:
    if code == CONTINUOUS:
        return code
    return f"{code} x {results['protocol']['codes']} codes"


def write_losslessness_page(out: Path, results: Results, runs: Runs) -> None:
    """Draw the curves, and write OUT/losslessness.html around them."""
    protocol = results["protocol"]
    folder = out / "pictures"
    pictures.curves(
        by_dims(results),
        folder / "recovered.png",
        x_label="K x D, numbers that an image is told in",
        y_label="characters read, %",
        log2_x=True,
    )
    pictures.curves(
        by_bits(results),
        folder / "bits.png",
        x_label=f"bits of the codes (the strings: {protocol['bits']:.0f} in the mean)",
        y_label="characters read, %",
        log2_x=True,
    )
    sections = [
        Section(
            heading="Characters read",
            text=f"{protocol['images']} strings of the split {protocol['split']}, "
            f"{protocol['characters']:.2f} characters or {protocol['bits']:.1f} bits in the mean. "
            "Where there are several seeds, half of the 95% interval.",
            pictures=[
                (folder / "recovered.png", "By how many numbers an image is told in"),
                (folder / "bits.png", "By how many bits it is told in, and the most that they can"),
            ],
            tables=[table(results), by_length(results)],
        ),
        Section(
            heading="Rebuilt",
            text="The first seed; the orderer's decoder has seen no code in its training.",
            pictures=[
                (runs[length, seed] / "pictures" / "separate" / "strings.png", f"K = {length}")
                for length, seed in first_runs(runs)
            ],
        ),
    ]
    write_page(out / "losslessness.html", "What tokens hold of random strings", ABOUT, sections)


def by_dims(results: Results) -> dict[str, dict[int, float]]:
    """A curve for each code over K * D, and the ceiling."""
    dims = results["dims"]
    series: dict[str, dict[int, float]] = {
        f"{PIXELS}: the ceiling": {at: _percent(results[PIXELS]) for at in dims.values()}
    }
    for length, of_length in results["lengths"].items():
        for code, found in of_length.items():
            series.setdefault(_named(code, results), {})[dims[length]] = _percent(found)
    return series


def by_bits(results: Results) -> dict[str, dict[int, float]]:
    """A curve for each length over the bits of its codes, and the most that the bits allow."""
    series: dict[str, dict[int, float]] = {"the most by the bits": {}}
    for length, of_length in results["lengths"].items():
        for found in of_length.values():
            if found["bits"] is not None:
                bits = round(found["bits"])
                series.setdefault(f"K = {length}", {})[bits] = _percent(found)
                series["the most by the bits"][bits] = 100 * found["most"]
    return series


def _percent(found: Mapping[str, Any]) -> float:
    return 100 * found["share"]["mean"]
