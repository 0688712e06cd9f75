"""PNG pictures of numbers: curves, paths, maps.

Letters: S pixels on a side, K tokens.
"""

import io
from collections.abc import Mapping, Sequence
from math import ceil, isfinite, isqrt
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, ScalarFormatter
from PIL import Image

from .files import JSON
from .sheets import INK, Array, save_image

SOFT, LINE = "#5b6570", "#e3e7eb"
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

MAPS_IN_A_ROW = 8
TICKS_APART = 1.2
"""How many times the one before a tick of a logarithmic axis is, at least."""
NOT_LOSSES = {"step", "seconds", "samples_per_second", "gradient_norm"}
"""What a line of a training's log holds beside its losses."""


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


def _save_figure(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    drawn = Image.open(buffer).convert("RGB")
    # A palette more than halves the file. The default method would drop colours that are rare.
    save_image(drawn.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE), path)
