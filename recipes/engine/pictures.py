"""PNG pictures from arrays and numbers: what a training made, and how it went.

Letters: N images, S pixels on a side, K tokens. Images are uint8, red, green, blue.
"""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from math import ceil, isfinite, isqrt
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .files import JSON, replace_file

Array: TypeAlias = Tensor | NDArray[Any]
"""On the CPU."""

INK, SOFT, LINE = "#222831", "#5b6570", "#e3e7eb"
COLOURS = ("#1f5f99", "#d1603d", "#3f8f6b", "#8461a8", "#b98b1d", "#5b6570")
DASHES = ("-", "--", ":")
"""Of the first lines, of the next ones, which have the same colours, and of the rest."""
LOWER_TO_HIGHER = LinearSegmentedColormap.from_list("gain", ["#b5482a", "#ffffff", "#17548c"])
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
    "savefig.dpi": 150,
}

FONT_FILE = files("matplotlib") / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
MARGIN, GAP = 20, 10
"""Pixels around a sheet of images, and between them."""
STRIP_SIDE, GRID_SIDE = 128, 192
"""About the pixels on a side of one enlarged image."""
TEXT, TEXT_LINE = 16, 21
"""Pixels of a letter's size, and from one line to the next."""
CAPTION_LINES = 8
CAPTION_LETTERS = 800
"""A caption that needs more lines ends in an ellipsis; more letters are not even measured."""

MAPS_IN_A_ROW = 8
TICKS_APART = 1.2
"""How many times the one before a tick of a logarithmic axis is, at least."""
NOT_LOSSES = {"step", "seconds", "samples_per_second", "gradient_norm"}
"""What a line of a training's log holds beside its losses."""


def prefix_strips(originals: Array | None, rebuilt: Mapping[int, Array], path: Path) -> None:
    """Draw each image as its prefixes rebuild it, from the shortest on, one image a row.

    Args:
        originals: [N, 3, S, S], the last column; None leaves it out.
        rebuilt: prefix length to images [N, 3, S, S].
        path: of the PNG file.

    Raises:
        ValueError: if there is no prefix, or images are not uint8, square and of one shape.
    """
    if not rebuilt:
        raise ValueError("rebuilt must hold at least 1 prefix, got 0")
    first, *others = sorted(rebuilt)
    columns = {f"{first} token{'s' * (first > 1)}": _checked_images(rebuilt[first])}
    columns |= {str(length): _checked_images(rebuilt[length]) for length in others}
    if originals is not None:
        columns["original"] = _checked_images(originals)
    _draw_strips(columns, path)


def strips(columns: Mapping[str, Array], path: Path) -> None:
    """Draw images [N, 3, S, S] column by column under their titles, one image a row.

    Raises:
        ValueError: if there is no column, or images are not uint8, square and of one shape.
    """
    if not columns:
        raise ValueError("strips must have at least 1 column, got 0")
    _draw_strips({title: _checked_images(each) for title, each in columns.items()}, path)


def captioned_grid(images: Array, captions: Sequence[str], path: Path, columns: int = 4) -> None:
    """Draw images [N, 3, S, S] row by row, each above its caption.

    Raises:
        ValueError: if the counts differ, columns is below 1, or images are not uint8 and square.
    """
    pictures = [_enlarged(image, GRID_SIDE) for image in _checked_images(images)]
    if len(captions) != len(pictures):
        raise ValueError(f"each image needs a caption, got {len(captions)} for {len(pictures)}")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    texts = [_wrapped(caption, pictures[0].width) for caption in captions]
    starts = range(0, len(pictures), columns)
    rows = [(pictures[at : at + columns], texts[at : at + columns]) for at in starts]
    _draw_grid(rows, path)


def curves(
    series: Mapping[str, Mapping[int, float]],
    path: Path,
    *,
    x_label: str,
    y_label: str,
    log2_x: bool = False,
) -> None:
    """Draw one line for each name, through its points x: y.

    Raises:
        ValueError: if a line has no points, a y is not finite, or an x below 1 meets `log2_x`.
    """
    _check_series(series, log2_x)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8))
        axes = figure.subplots()
        for index, (name, points) in enumerate(series.items()):
            x, y = zip(*sorted(points.items()), strict=True)
            colour = COLOURS[index % len(COLOURS)]
            dash = DASHES[index // len(COLOURS) % len(DASHES)]
            (line,) = axes.plot(x, y, color=colour, marker="o", markersize=4, linewidth=1.8)
            line.set(linestyle=dash, label=name)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _set_x_ticks(axes, sorted({x for points in series.values() for x in points}), log2_x)
        figure.legend(loc="outside upper center", ncols=min(3, len(series)))
        _save_figure(figure, path)


def followed_order(
    readable: Mapping[str, Mapping[str, Sequence[float]]],
    named: Mapping[str, Mapping[str, int]],
    path: Path,
) -> None:
    """Draw, for each caption policy, where captions name a factor and where tokens hold it.

    Args:
        readable: policy to factor to the prefix length from which it is readable, one a seed.
        named: policy to factor to the number of the caption that names it first.
        path: of the PNG.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.8))
        panels = figure.subplots(1, len(readable), sharey=True, squeeze=False)[0]
        factors = list(next(iter(named.values())))
        for axes, (policy, of_policy) in zip(panels, readable.items(), strict=True):
            for index, factor in enumerate(factors):
                x, y = named[policy][factor], sorted(of_policy[factor])
                colour = COLOURS[index % len(COLOURS)]
                axes.plot([x] * len(y), y, color=colour, marker="o", markersize=5, alpha=0.6)
                middle = y[len(y) // 2]
                axes.annotate(factor, (x, middle), (6, 4), textcoords="offset points", color=colour)
            axes.set_title(policy.replace("_", " "))
            axes.set_xlabel("caption that first names it")
            axes.set_yscale("log", base=2)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.set_xlim(0.5, 6)
        panels[0].set_ylabel("tokens from which it is readable")
        _save_figure(figure, path)


def paths(orders: Mapping[str, Array], path: Path) -> None:
    """Draw paths over a square grid, each [N] the cells in their order, counted row by row.

    Raises:
        ValueError: if a path does not visit every cell of a square once.
    """
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(1.5 * len(orders), 1.8))
        panels = figure.subplots(1, len(orders), squeeze=False)[0]
        for axes, (name, order) in zip(panels, orders.items(), strict=True):
            cells = np.asarray(order)
            side = isqrt(len(cells))
            if sorted(cells) != list(range(side * side)):
                raise ValueError(f"the path {name} must visit every cell of a square once")
            rows, columns = np.divmod(cells, side)
            axes.plot(columns, rows, color=LINE, linewidth=1.2, zorder=1)
            axes.scatter(columns, rows, c=np.arange(len(cells)), cmap="viridis", s=14, zorder=2)
            axes.set_title(name.replace("_", " "))
            axes.set_aspect("equal")
            axes.invert_yaxis()
            axes.set_axis_off()
        _save_figure(figure, path)


def loss_curves(logs: Mapping[str, Sequence[Mapping[str, JSON]]], path: Path) -> None:
    """Draw every loss of every stage against the step: pale as logged, dark as a running mean.

    Args:
        logs: stage to the lines of its log; one row of panels for each. A null leaves a gap.
        path: of the PNG file.

    Raises:
        ValueError: if there is no stage, or a stage has logged no loss.
    """
    if not logs:
        raise ValueError("logs must hold at least 1 stage, got 0")
    terms = {stage: _loss_names(stage, lines) for stage, lines in logs.items()}
    columns = max(map(len, terms.values()))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(2.3 * columns, 4.0), 2.2 * len(logs) + 0.3))
        panels = figure.subplots(len(logs), columns, squeeze=False)
        for row, (stage, lines) in zip(panels, logs.items(), strict=True):
            for axes, term in zip(row, terms[stage], strict=False):
                _draw_loss(axes, stage, term, lines)
            for axes in row[len(terms[stage]) :]:
                axes.set_axis_off()
        figure.supxlabel("step", fontsize=9)
        _save_figure(figure, path)


def gain_maps(maps: Array, path: Path) -> None:
    """Draw where each token improves the image, token by token, each on a scale of its own.

    Args:
        maps: [K, S, S], by how much token k lowers the squared error of a pixel, mean over images.
        path: of the PNG file.

    Raises:
        ValueError: if the shape is another, or a value is not finite.
    """
    gains = _checked_gains(maps)
    columns = min(len(gains), MAPS_IN_A_ROW)
    rows = ceil(len(gains) / columns)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(max(1.15 * columns, 3.2), 1.38 * rows + 0.7))
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes in panels.flat[len(gains) :]:
            axes.set_axis_off()
        for index, (axes, gain) in enumerate(zip(panels.flat, gains, strict=False)):
            _draw_gain(axes, index + 1, gain)
        _draw_gain_legend(figure, panels)
        _save_figure(figure, path)


def heat_map(values: Array, path: Path, *, x_label: str, y_label: str, legend: str) -> None:
    """Draw a matrix of values in 0..1, rows and columns numbered from 1.

    Raises:
        ValueError: if it is no matrix, or a value is not finite.
    """
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"a heat map needs a matrix of numbers, got shape {matrix.shape}")
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(5.2, 4.2))
        axes = figure.subplots()
        extent = (0.5, matrix.shape[1] + 0.5, matrix.shape[0] + 0.5, 0.5)
        shown = axes.imshow(matrix, vmin=0, vmax=1, cmap="Blues", extent=extent, aspect="auto")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(shown, label=legend)
        _save_figure(figure, path)


def _draw_strips(columns: Mapping[str, UInt8[np.ndarray, "N 3 S S"]], path: Path) -> None:
    shapes = {images.shape for images in columns.values()}
    if len(shapes) > 1:
        raise ValueError(f"the columns of a strip must have one shape, got {sorted(shapes)}")
    pictures = {
        title: [_enlarged(image, STRIP_SIDE) for image in images]
        for title, images in columns.items()
    }
    rows = len(next(iter(pictures.values())))
    side = next(iter(pictures.values()))[0].width
    step, top = side + GAP, MARGIN + TEXT_LINE + GAP // 2
    width, height = len(columns) * step - GAP + 2 * MARGIN, rows * step - GAP + top + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (title, enlarged) in enumerate(pictures.items()):
        left = MARGIN + column * step
        draw.text((left + side / 2, MARGIN), title, fill=INK, font=_font(), anchor="ma")
        for row, picture in enumerate(enlarged):
            sheet.paste(picture, (left, top + row * step))
    _save_image(sheet, path)


def _draw_grid(
    rows: Sequence[tuple[Sequence[Image.Image], Sequence[Sequence[str]]]], path: Path
) -> None:
    """Draw rows of pictures over their captions, a caption being lines of text."""
    side, step = rows[0][0][0].width, rows[0][0][0].width + 2 * GAP
    heights = [side + GAP + max(map(len, texts)) * TEXT_LINE + 2 * GAP for _, texts in rows]
    width = len(rows[0][0]) * step - 2 * GAP + 2 * MARGIN
    sheet = Image.new("RGB", (width, sum(heights) - 2 * GAP + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (pictures, texts) in enumerate(rows):
        top = MARGIN + sum(heights[:number])
        for column, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
            left = MARGIN + column * step
            sheet.paste(picture, (left, top))
            for line, text in enumerate(lines):
                place = (left, top + side + GAP + line * TEXT_LINE)
                draw.text(place, text, fill=INK, font=_font())
    _save_image(sheet, path)


def _enlarged(image: UInt8[np.ndarray, "3 S S"], side: int) -> Image.Image:
    """Repeat every pixel a whole number of times, so that the image has about `side` of them."""
    size = image.shape[-1] * max(1, round(side / image.shape[-1]))
    return Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.Resampling.NEAREST)


def _wrapped(caption: str, width: int) -> list[str]:
    """Break a caption into lines of at most `width` pixels, between words where it can."""
    printable = "".join(c if c.isprintable() else " " for c in caption[:CAPTION_LETTERS])
    rest, lines = " ".join(printable.split()), list[str]()
    while rest and len(lines) < CAPTION_LINES:
        fits = _letters_that_fit(rest, width)
        space = rest.rfind(" ", 0, fits + 1) if fits < len(rest) else -1
        cut = space if space > 0 else fits
        lines.append(rest[:cut])
        rest = rest[cut:].lstrip()
    if rest:
        line = lines[-1]
        lines[-1] = line[: _letters_that_fit(line, width - int(_font().getlength("…")) - 1)] + "…"
    return lines


def _letters_that_fit(text: str, width: int) -> int:
    """How many of the first letters are at most `width` pixels long together, at least 1."""
    count = 1
    while count < len(text) and _font().getlength(text[: count + 1]) <= width:
        count += 1
    return count


def _set_x_ticks(axes: Any, values: Sequence[int], log2_x: bool) -> None:
    if not log2_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    axes.set_xscale("log", base=2)
    apart: list[int] = []  # so that no number stands over the next
    for value in values:
        if not apart or value >= TICKS_APART * apart[-1]:
            apart.append(value)
    axes.xaxis.set_major_locator(FixedLocator(apart))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_loss(axes: Any, stage: str, term: str, lines: Sequence[Mapping[str, JSON]]) -> None:
    lines = [line for line in lines if term in line]  # validation comes now and then
    steps = [line["step"] for line in lines]
    losses = np.array([line.get(term) for line in lines], dtype=float)  # None becomes nan
    means = _running_mean(losses)
    colour = COLOURS[0]
    axes.plot(steps, losses, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(steps, means, color=colour, linewidth=1.6)
    axes.set_title(f"{stage} · {term.replace('_', ' ')}", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.margins(x=0.02)
    if np.nanmin(losses) > 0 and np.nanmax(means) > 10 * np.nanmin(means):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())


def _running_mean(values: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """The mean over a tenth of the values around each one, those that are nan left out."""
    window = np.ones(len(values) // 10 | 1)  # an odd number of them, so that nothing shifts
    known = np.isfinite(values)
    sums = np.convolve(np.where(known, values, 0), window, "same")
    counts = np.convolve(known, window, "same")
    return np.where(counts > 0.5, sums / np.maximum(counts, 1), np.nan)


def _draw_gain(axes: Any, token: int, gain: Float[np.ndarray, "S S"]) -> None:
    largest = np.abs(gain).max() or 1.0
    axes.imshow(gain, cmap=LOWER_TO_HIGHER, vmin=-largest, vmax=largest, interpolation="nearest")
    axes.set_title(token, pad=3)
    mean = f"{gain.mean():+.2g}".replace("-", "−")  # noqa: RUF001, a minus sign is meant
    axes.set_xlabel(mean, color=SOFT, fontsize=7, labelpad=2)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=LINE)


def _draw_gain_legend(figure: Any, panels: Any) -> None:
    bar = figure.colorbar(
        ScalarMappable(cmap=LOWER_TO_HIGHER), ax=panels, location="bottom", aspect=40, shrink=0.6
    )
    bar.set_ticks([0, 0.5, 1], labels=["error rises", "no change", "error falls"])
    bar.ax.tick_params(length=0)
    bar.outline.set_edgecolor(LINE)


def _checked_images(images: Array) -> UInt8[np.ndarray, "N 3 S S"]:
    array = np.asarray(images)
    if array.dtype != np.uint8:
        raise ValueError(f"images must be uint8, got {array.dtype}")
    is_square = array.ndim == 4 and array.shape[1] == 3 and array.shape[2] == array.shape[3]
    if not is_square or not array.size:
        raise ValueError(f"images must have the shape [N, 3, S, S], got {list(array.shape)}")
    return array


def _checked_gains(maps: Array) -> Float[np.ndarray, "K S S"]:
    array = np.asarray(maps, dtype=float)
    if array.ndim != 3 or array.shape[1] != array.shape[2] or not array.size:
        raise ValueError(f"gain maps must have the shape [K, S, S], got {list(array.shape)}")
    if not np.isfinite(array).all():
        token = int(np.argmax(~np.isfinite(array).all(axis=(1, 2)))) + 1
        raise ValueError(f"gain maps must be finite, that of token {token} is not")
    return array


def _check_series(series: Mapping[str, Mapping[int, float]], log2_x: bool) -> None:
    if not series:
        raise ValueError("series must hold at least 1 line, got 0")
    for name, points in series.items():
        if not points:
            raise ValueError(f"the line {name!r} has no points")
        for x, y in points.items():
            if not isfinite(y):
                raise ValueError(f"the line {name!r} must be finite, at {x} it is {y}")
            if log2_x and x < 1:
                raise ValueError(f"the line {name!r} must start at 1 or later, got {x}")


def _loss_names(stage: str, lines: Sequence[Mapping[str, JSON]]) -> list[str]:
    """The losses in the order they were first logged; one that was never finite is left out."""
    names = dict.fromkeys(
        name for line in lines for name, value in line.items() if value is not None
    )
    losses = [name for name in names if name not in NOT_LOSSES and "error_at" not in name]
    if not losses:
        raise ValueError(f"the log of stage {stage!r} holds no loss, lines: {len(lines)}")
    return losses


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT_FILE), TEXT)


def _save_figure(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    drawn = Image.open(buffer).convert("RGB")
    # A palette more than halves the file. The default method would drop colours that are rare.
    _save_image(drawn.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE), path)


def _save_image(image: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    replace_file(path, buffer.getvalue())
