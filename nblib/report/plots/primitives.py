"""What figures are made of: rows with intervals, curves, matrices, spikes, and the axes around them.

A table has one row a value: `value` and, where known, its 95 % interval `ci_low` and `ci_high`, what
guessing scores `chance`, the best possible `oracle` with `oracle_low` and `oracle_high`, and `run`,
the run or runs behind the value, which become marks of the figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from nblib.report.plots import style

if TYPE_CHECKING:
    from nblib.report.plots.style import Picture

CHANCE = {"color": style.INK, "ls": ":", "lw": 1.5}
SPREAD = 0.25  # values of one row stand so far above and below its middle
MEAN = 0.34  # half the height of the bar of a mean
MANY = 12  # points of a line, beyond which they are small
MOST_CELLS = 300  # rows and columns of a matrix in a picture


def intervals(
    ax: Axes,
    table: pd.DataFrame,
    by: str,
    *,
    hue: str = "",
    colours: dict[str, str] | None = None,
    label: str = "95 % interval",
    mean: str = "",
    mean_colour: str = style.BLUE,
) -> list[Any]:
    """A row a name of column `by`, from above in the order of the table: each value with its interval.

    Several values of a row stand one below the other. Chance and the best possible are drawn in each
    row where the table holds them.

    Parameters
    ----------
    hue
        A column: its values stand in the legend, in these `colours`. Without it all are blue, called `label`.
    mean
        What the legend calls the bar of the mean of a row; "" draws none.

    Returns
    -------
    list
        The names of the rows.
    """
    names = list(dict.fromkeys(table[by]))
    rows = np.arange(len(names))
    means = table.groupby(by, sort=False).mean(numeric_only=True)
    if "oracle" in means and means["oracle"].notna().any():
        width = means["oracle_high"] - means["oracle_low"]
        ax.barh(rows, width, 1.0, means["oracle_low"], color=style.GREEN, alpha=0.2, lw=0)
        upright(ax, means["oracle"], label="best possible (oracle)", color=style.GREEN)
    place, n = table.groupby(by).cumcount(), table.groupby(by)[by].transform("size")
    spread = SPREAD * (2 * place / (n - 1).clip(lower=1) - 1).where(n > 1, 0)
    table = table.assign(y=table[by].map(names.index) + spread)
    for name, part in table.groupby(hue, sort=False) if hue else [(label, table)]:
        look = {"color": (colours or {}).get(name, style.BLUE), "label": name or None}
        if "ci_low" in part:
            size = 6 if n.max() == 1 else 4.5
            ax.errorbar(
                part["value"], part["y"], xerr=around(part), fmt="o", ms=size, capsize=3, **look
            )
        else:
            ax.plot(part["value"], part["y"], "o", ms=4.5, mew=0, alpha=0.6, **look)
        mark(ax, part["value"], part["y"], part)
    if "chance" in means:
        upright(ax, means["chance"], label="chance", **CHANCE)
    if mean:
        upright(ax, means["value"], MEAN, label=mean, color=mean_colour, lw=2.2)
    name_rows(ax, names)
    return names


def curves(
    ax: Axes,
    table: pd.DataFrame,
    x: str,
    by: str,
    *,
    looks: dict[Any, tuple[str, str]] | None = None,
    bands: bool = False,
    line: str = "-",
) -> None:
    """A line a name of column `by` against column `x`, each value with its interval, and chance.

    Parameters
    ----------
    looks
        Colour and marker of each name; those of `series` without it.
    bands
        Intervals are bands; else they are bars.
    line
        How points are joined, as matplotlib writes it; "" leaves them alone.
    """
    looks = looks or series(table[by])
    for name, part in table.groupby(by, sort=False):
        part = part.sort_values(x)
        colour, marker = looks[name]
        if bands:
            ax.fill_between(
                part[x], part["ci_low"], part["ci_high"], color=colour, alpha=0.18, lw=0
            )
        error = around(part) if "ci_low" in part and not bands else None
        look = {"ms": 4.5 if len(part) <= MANY else 3, "capsize": 3, "color": colour, "label": name}
        ax.errorbar(part[x], part["value"], error, fmt=line + marker, **look)
        mark(ax, part[x], part["value"], part)
    if "chance" in table:
        for i, chance in enumerate(sorted(set(table["chance"].round(3)))):
            ax.axhline(chance, label=None if i else "chance", **CHANCE)


def matrix(
    ax: Axes,
    values: np.ndarray,
    label: str = "",
    *,
    written: bool = False,
    bar: dict | None = None,
    **look,
) -> None:
    """A matrix (row, column) in colours, the first row above; `label` names their scale.

    written: the numbers stand in the cells. bar: settings of the scale; look: of `imshow`. NaN stays
    grey. Beyond 300 rows a square matrix is drawn as it came from `coarse`, with an `extent`.
    """
    ax.set_facecolor(style.LIGHT)
    image = ax.imshow(values, **look)
    for (row, column), value in np.ndenumerate(values) if written else ():
        if np.isfinite(value):
            dark = np.dot(image.to_rgba(value)[:3], (0.3, 0.59, 0.11)) < 0.5
            look = {"color": "white" if dark else style.INK, "ha": "center", "va": "center"}
            ax.text(column, row, f"{value:.0f}", fontsize=9, **look)
    if label:
        ax.figure.colorbar(image, ax=ax, label=label, **{"pad": 0.02, "shrink": 0.75} | (bar or {}))


def either_side(limit: float, **look) -> dict[str, Any]:
    """How a matrix of values on either side of 0 is coloured, up to `limit`."""
    return {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, **look}


def units_matrix(ax: Axes, values: np.ndarray, names: np.ndarray, label: str, **look) -> None:
    """A matrix of units by units, ordered by area; names: area of each, equal ones together."""
    n = len(names)
    matrix(ax, coarse(values), label, extent=(-0.5, n - 0.5, n - 0.5, -0.5), **look)
    name_areas(ax, names, both=True)
    ax.set_xticks([])


def coarse(values: np.ndarray, most: int = MOST_CELLS) -> np.ndarray:
    """Average blocks of a large square matrix, so that a picture of 2,000 units stays small."""
    step = int(np.ceil(len(values) / most))
    if step <= 1:
        return values
    n = len(values) // step
    blocks = values[: n * step, : n * step].reshape(n, step, n, step)
    return np.nanmean(blocks, axis=(1, 3))


def raster(ax: Axes, time_s: np.ndarray, row: np.ndarray, colours: Sequence[str]) -> None:
    """Spikes as ticks, time [s] against row, the first row above; colours: one a row."""
    colours, n = np.asarray(colours), max(1, len(colours))
    height_pt = 72 * ax.get_position().height * ax.figure.get_figheight()
    size = float(np.clip(height_pt / n, 1.2, 9.0))
    for colour in dict.fromkeys(colours):
        here = colours[row] == colour
        ax.plot(time_s[here], row[here], "|", color=colour, ms=size, mew=0.9, rasterized=True)
    ax.set_ylim(n - 0.5, -0.5)


def swarm(ax: Axes, table: pd.DataFrame, x: str, by: str) -> None:
    """Every value a dot above the names of column `x`, a colour a name of `by`; none hides another."""
    import seaborn  # half a second, which only these figures need

    names = list(dict.fromkeys(table[by]))
    colours = [colour for colour, _ in series(names).values()]
    seaborn.swarmplot(
        table, x=x, y="value", hue=by, hue_order=names, palette=colours, dodge=True, size=3.2,
        ax=ax, warn_thresh=1,
    )  # fmt: skip


def around(table: pd.DataFrame) -> np.ndarray:
    """Lengths (2, row) of each interval below and above its value, as matplotlib takes them."""
    value, low, high = (table[name].to_numpy(float) for name in ("value", "ci_low", "ci_high"))
    return np.maximum(0, [value - low, high - value])


def best_first(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """The table ordered by the mean value of each name in column `by`, the highest first."""
    order = table.groupby(by)["value"].mean().sort_values(ascending=False).index
    return table.set_index(by).loc[order].reset_index()


def series(names: Iterable[Any]) -> dict[Any, tuple[str, str]]:
    """Colour and marker of each name, in the order of the names."""
    n = len(style.SERIES)
    return {
        name: (style.SERIES[i % n], style.MARKERS[i // n % len(style.MARKERS)])
        for i, name in enumerate(dict.fromkeys(names))
    }


def stretches(ax: Axes, row: int, start: Any, stop: Any, half: float = 0.4, **look) -> None:
    """Bars in time [s] in one row, from each start (n,) to its stop (n,)."""
    start, stop = np.asarray(start, float), np.asarray(stop, float)
    bars = np.column_stack([start, stop - start])
    ax.broken_barh(bars, (row - half, 2 * half), **look)


def mark(ax: Axes, x: Iterable[float], y: Iterable[float], table: pd.DataFrame) -> None:
    """Say which runs stand behind points, where the table of the points knows them."""
    for at, up, runs in zip(x, y, table["run"], strict=True) if "run" in table else ():
        ax.figure.figure.mark(ax, at, up, runs)  # the whole figure, from a part of it too


def upright(ax: Axes, values: Sequence[float], half: float = 0.5, **look) -> None:
    """A bar in each row, at its value, from `half` a row above to `half` a row below."""
    rows = np.arange(len(values))
    ax.vlines(values, rows - half, rows + half, zorder=1.5, **look)


def name_rows(ax: Axes, names: Sequence[Any], room: float = 0.5) -> None:
    """Name rows 0..n-1, the first above."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(max(1, len(names)) - 1 + room, -room)


def write_beside(ax: Axes, words: Iterable[str], **look) -> None:
    """A text at the right of each row."""
    for row, text in enumerate(words):
        look = {"va": "center", "fontsize": 9, "transform": ax.get_yaxis_transform(), **look}
        ax.text(1.015, row, text, **look)


def name_areas(ax: Axes, names: np.ndarray, *, boxes: bool = False, both: bool = False) -> None:
    """Name the areas at the left of rows 0..n-1, from top to bottom, with a strip of their colour.

    names: area of each row, equal ones together. boxes: a line between areas; both: the same on
    the horizontal axis. An area too thin for its name keeps its colour only.
    """
    n = len(names)
    order = list(dict.fromkeys(names))
    counts = [int((names == area).sum()) for area in order]
    edges = np.r_[0, np.cumsum(counts)]
    for edge in edges[1:-1] - 0.5 if boxes or both else ():
        ax.axhline(edge, color=style.INK, lw=0.7)
        if both:
            ax.axvline(edge, color=style.INK, lw=0.7)
    if order == [""]:
        ax.set_ylabel(f"{n} units")
        ax.set_yticks([])
    else:
        named = [f"{style.area_label(a)} ({k})" for a, k in zip(order, counts, strict=True)]
        ax.set_yticks((edges[:-1] + edges[1:] - 1) / 2, named)
        ax.tick_params(axis="y", length=0, pad=9)
        for tick, area in zip(ax.get_yticklabels(), order, strict=True):
            tick.set_color(style.shade(style.area_colour(area), -0.3))
        ax.set_ylabel("units, by area")
    for area, low, high in zip(order, edges[:-1], edges[1:], strict=True):
        look = {"color": style.area_colour(area), "lw": 0, "clip_on": False}
        strip = Rectangle((-0.012, 1 - high / n), 0.010, (high - low) / n, **look)
        ax.add_patch(strip).set_transform(ax.transAxes)


def percent(axis: Axis, decimals: int | None = 0) -> None:
    """Write the fractions of an axis in percent."""
    axis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))


def plain_numbers(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis as 0.1, 1, 10: powers of ten would be formulas."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def log_places(ax: Axes, names: dict[float, str]) -> None:
    """A logarithmic horizontal axis that names these places alone."""
    ax.set_xscale("log")
    ax.set_xticks(list(names), list(names.values()))
    ax.set_xticks([], minor=True)


def legend_beside(ax: Axes) -> None:
    """The legend of a panel, at its right."""
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def panels(fig: Picture, n: int, columns: int, *, x: str = "", y: str = "", **shared) -> list[Axes]:
    """n panels in rows of at most so many, from left to right; the places left over stay empty.

    x, y: names of the axes, which stand below the last row and beside the first panel of each.
    """
    axes = fig.subplots(-(-n // columns), min(n, columns), squeeze=False, **shared)
    for ax in axes[-1]:
        ax.set_xlabel(x)
    for ax in axes[:, 0]:
        ax.set_ylabel(y)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    return list(axes.flat[:n])
