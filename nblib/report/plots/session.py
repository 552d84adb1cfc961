"""Figures of a recording as it is (01): what was recorded, when, and how well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nblib.data.recording import good_units
from nblib.data.trials.intervals import merged
from nblib.data.trials.labelling import is_one_of
from nblib.report.plots import style, texts
from nblib.report.plots.areas import mark_areas
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

MOST_AREAS = 14
ONE_BAR_S = 1.0  # intervals that lie closer are drawn as one bar


@style.styled
def session_overview(
    units: pd.DataFrame,
    labels: np.ndarray | None,
    rate: pd.DataFrame,
    intervals: dict[str, pd.DataFrame],
    invalid: np.ndarray,
    *,
    trials: str,
    label_name: str,
    grey: str = "",
) -> Picture:
    """Units per area and quality, presentations per label, firing rate and blocks over time.

    units: one row per unit (area and quality columns where known); labels (trial,), None
    without trials; rate: columns time_s and rate_hz, the mean over units; intervals: tables with start_time and
    stop_time [s]; invalid: (n, 2) [s]; trials: name of the trial table; grey: the label of a
    grey screen, "" where there is none.
    """
    n_areas = min(len(style.area_order(_areas(units))), MOST_AREAS + 1)
    n_tables = len([n for n in intervals if n != "invalid_times"])
    heights = [max(1.9, 0.21 * n_areas + 0.8), 1.5, max(0.9, 0.26 * n_tables + 0.5)]
    fig = style.new_figure(sum(heights) + 0.6)
    grid = fig.add_gridspec(3, 2, height_ratios=heights)
    draw_units_by_area(fig.add_subplot(grid[0, 0] if labels is not None else grid[0, :]), units)
    if labels is not None:
        draw_label_counts(fig.add_subplot(grid[0, 1]), labels, label_name, grey)
    top = fig.add_subplot(grid[1, :])
    draw_rate(top, rate, invalid)
    bottom = fig.add_subplot(grid[2, :], sharex=top)
    draw_timeline(bottom, intervals, invalid, trials)
    top.tick_params(labelbottom=False)
    return fig


def _areas(units: pd.DataFrame) -> np.ndarray:
    """Area of each unit as text, '' where unknown."""
    if "area" not in units:
        return np.full(len(units), "", dtype=object)
    return np.array([style.area_name(a) for a in units["area"]], dtype=object)


def draw_units_by_area(ax: Axes, units: pd.DataFrame) -> None:
    """Horizontal bars: units per area, those within the Allen limits in full colour."""
    areas = _areas(units)
    order = style.area_order(areas)
    if len(order) > MOST_AREAS:  # the smallest areas share one bar
        large = sorted(order, key=lambda a: -(areas == a).sum())[:MOST_AREAS]
        other = f"{len(order) - MOST_AREAS} others"
        areas = np.array([a if a in large else other for a in areas], dtype=object)
        order = [a for a in order if a in large] + [other]
    good = good_units(units)
    for row, area in enumerate(order):
        here = areas == area
        n_good = int(here.sum() if good is None else (here & good).sum())
        colour = style.area_colour("" if area.endswith(" others") else area)
        ax.barh(row, n_good, color=colour)
        ax.barh(row, here.sum() - n_good, left=n_good, color=style.shade(colour, 0.65))
        ax.text(here.sum(), row, f" {here.sum()}", va="center", fontsize=9)
    ax.set_yticks(range(len(order)), [style.area_label(a) for a in order])
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xlabel("units (pale: outside Allen limits)" if good is not None else "units")
    ax.set_title(
        f"{len(units)} units" + (f", {good.sum()} within limits" if good is not None else "")
    )


def draw_label_counts(ax: Axes, labels: np.ndarray, label_name: str, grey: str) -> None:
    """Bars: presentations per label; that of a grey screen, `grey`, stands apart."""
    values, counts = np.unique(np.asarray(labels), return_counts=True)
    blank = np.array([is_one_of(v, [grey]) for v in values.tolist()], bool)
    colours = np.where(blank, style.GREY, style.BLUE)
    ax.bar(np.arange(len(values)), counts, color=colours, width=0.8 if len(values) < 40 else 1.0)
    ax.set_xticks(*style.label_ticks(values, 8))
    if blank.any() and len(values) > 8:
        ax.plot([], [], "s", color=style.GREY, label="grey screen")
        ax.legend(loc="lower right", framealpha=0.85, frameon=True, edgecolor="none")
    ax.set_xlabel(label_name)
    ax.set_ylabel("presentations")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_title(f"{counts.sum()} presentations, {len(values)} labels")


def draw_rate(ax: Axes, rate: pd.DataFrame, invalid: np.ndarray) -> None:
    """Firing rate over the session, mean over units."""
    ax.plot(rate["time_s"], rate["rate_hz"], color=style.BLUE, lw=1.2)
    style.shade_intervals(ax, invalid, "invalid")
    ax.set_ylim(0, max(1e-3, 1.15 * float(np.nanmax(rate["rate_hz"]))))
    ax.set_ylabel("rate (Hz)")
    ax.set_title("Firing rate, mean over units")
    if len(invalid):
        ax.legend(loc="lower right")


def draw_timeline(
    ax: Axes, intervals: dict[str, pd.DataFrame], invalid: np.ndarray, trials: str
) -> None:
    """One row per interval table: when its rows were; the trial table in full colour."""
    names = [n for n in intervals if n != "invalid_times"]
    names.sort(key=lambda n: (n != trials, intervals[n]["start_time"].min()))
    for row, name in enumerate(names):
        times = intervals[name][["start_time", "stop_time"]].dropna().to_numpy(float)
        blocks = merged(times + np.array([0, ONE_BAR_S]))
        bars = np.column_stack([blocks[:, 0], blocks[:, 1] - ONE_BAR_S - blocks[:, 0]])
        colour = style.BLUE if name == trials else style.GREY
        ax.broken_barh(bars, (row - 0.36, 0.72), color=colour, rasterized=len(bars) > 500)
    style.shade_intervals(ax, invalid, "invalid")
    short = [n.removesuffix("_presentations").removesuffix("_table") for n in names]
    ax.set_yticks(range(len(names)), [n.replace("_", " ") for n in short])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("time in the session (s)")
    which = (
        " (blue: the trials)" if trials else ", none of them trials" if names else ": there is none"
    )
    ax.set_title(f"When each table's intervals lie{which}")


@style.styled
def raster(
    spike_s: np.ndarray,
    unit: np.ndarray,
    areas: np.ndarray,
    trials: pd.DataFrame | None,
    window: tuple[float, float],
) -> Picture:
    """Every spike in a stretch of time, units ordered by area, with the labels shown above.

    spike_s, unit: one entry per spike (seconds, position of the unit); areas: one per unit;
    trials: start_time, stop_time and label; window: start and stop in seconds.
    """
    names = np.array([style.area_name(a) for a in areas], dtype=object)
    order = style.area_order(names)
    place = np.concatenate([np.flatnonzero(names == a) for a in order])
    row = np.empty(len(names), int)
    row[place] = np.arange(len(names))
    unit = np.asarray(unit, int)
    fig = style.new_figure(float(np.clip(1.6 + 0.04 * len(names), 3.0, 5.5)))
    ax = fig.add_subplot()
    size = float(np.clip(260 / max(len(names), 1), 1.2, 9.0))
    for area in order:
        here = names[unit] == area
        look = {"color": style.area_colour(area), "ms": size, "mew": 0.8, "rasterized": True}
        ax.plot(np.asarray(spike_s)[here], row[unit[here]], "|", **look)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(*window)
    ax.set_xlabel("time in the session (s)")
    mark_areas(ax, names[place])
    if trials is not None:
        _mark_trials(ax, trials, window)
    return fig


def _mark_trials(ax: Axes, trials: pd.DataFrame, window: tuple[float, float]) -> None:
    """Shade every other presentation, and write above as many labels as there is room for."""
    shown = trials[
        (trials["stop_time"] > window[0]) & (trials["start_time"] < window[1])
    ].sort_values("start_time")
    names = [texts.short(style.label_text(label), texts.MOST_TURNED) for label in shown["label"]]
    start, stop = shown["start_time"].to_numpy(), shown["stop_time"].to_numpy()
    middle = (np.maximum(start, window[0]) + np.minimum(stop, window[1])) / 2
    beside = max((len(text.get_text()) for text in ax.get_yticklabels()), default=0)
    second_in = (style.WIDTH_IN - 0.8 - beside * texts.LETTER_IN) / (window[1] - window[0])
    sizes = np.array([len(name) * texts.LETTER_IN + 0.12 for name in names])
    for i in range(0, len(shown), 2):
        ax.axvspan(start[i], stop[i], color=style.LIGHT, alpha=0.6, lw=0, zorder=0)
    for i in texts.apart(middle * second_in, sizes):
        where = {"ha": "center", "va": "bottom", "transform": ax.get_xaxis_transform()}
        ax.text(middle[i], 1.01, names[i], fontsize=9, **where)
