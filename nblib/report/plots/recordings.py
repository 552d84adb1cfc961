"""Figures of a recording as it is (01): what was recorded, when, and how well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nblib.data import stimulus
from nblib.data.counts_dataset import areas_of
from nblib.data.recording import good_units
from nblib.data.trials.labelling import is_one_of
from nblib.data.trials.time_intervals import merged
from nblib.prepare import responses
from nblib.report.plots import primitives, style, texts
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    from nblib.data.checks import SessionReport
    from nblib.data.recording import Recording

MOST_AREAS = 14
ONE_BAR_S = 1.0  # intervals that lie closer are drawn as one bar
TRACE_S = 6.0


def recording_overview(session: Recording, report: SessionReport) -> Picture:
    """The session at a glance: units, presentations and rate, or the stimulus where there are no
    presentations; or channels and intervals."""
    tables = report.tables
    if session.lfp is not None:
        return lfp_overview(tables["channels"], tables["intervals"])
    labels = responses.labels_of(session) if session.trials else None
    invalid = tables["invalid"][["start_time", "stop_time"]].to_numpy()
    sound = [n for n in tables["intervals"]["table"] if n not in session.invalid]
    shown = {name: session.intervals[name] for name in sound}
    if session.stimulus:
        known = stimulus.known(*stimulus.read(session))
        shown[session.stimulus] = pd.DataFrame(known, columns=["start_time", "stop_time"])
    return session_overview(
        session.units, labels, tables["rate"], shown, invalid, trials=session.trials or session.stimulus,
        label_name=session.label, grey=session.rules.blank, unit_rates=tables["unit_rates"]["rate_hz"],
    )  # fmt: skip


def recording_close_up(session: Recording) -> Picture:
    """A few seconds from the middle: spikes of all units, or the potential of every channel."""
    if session.lfp is not None:
        series = session.lfp
        first, stop, start = max(series.even, key=lambda piece: piece[1] - piece[0])
        n = min(stop - first, round(TRACE_S * series.rate_hz))
        low = first + (stop - first - n) // 2
        start += (low - first) / series.rate_hz
        return lfp_traces(
            series.read(low, low + n), start, series.rate_hz, session.meta["channels"]
        )
    window = responses.example_window(session)
    spike_s, unit = responses.spikes_between(session, *window)
    trials = session.trial_table if session.trials else None
    shown = stimulus.read(session) if session.stimulus else None
    return raster(spike_s, unit, areas_of(session.units), trials, window, shown)


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
    unit_rates: pd.Series | None = None,
) -> Picture:
    """Units per area and quality, presentations per label, firing rate and blocks over time.

    Parameters
    ----------
    units
        One row a unit, with area and quality where known.
    labels
        Of every presentation (trial,); None without trials.
    rate
        time_s and rate_hz, the mean over units.
    intervals, invalid
        Tables with start_time and stop_time [s]; (n, 2) [s].
    trials, label_name, grey
        Name of the trial table, or of the stimulus, and of its label; the label of a grey screen, "" where
        there is none.
    unit_rates
        Of every unit [Hz], drawn where there are no labels.
    """
    areas = areas_of(units)
    n_areas = min(len(set(areas)), MOST_AREAS + 1)
    names = list(intervals)
    heights = [max(1.9, 0.21 * n_areas + 0.8), 1.5, max(0.9, 0.26 * len(names) + 0.5)]
    fig = style.new_figure(sum(heights) + 0.6)
    grid = fig.add_gridspec(3, 2, height_ratios=heights)
    left = fig.add_subplot(grid[0, 0])
    _units_by_area(left, areas, good_units(units))
    if labels is not None:
        _label_counts(fig.add_subplot(grid[0, 1]), labels, label_name, grey)
    elif unit_rates is not None:
        right = fig.add_subplot(grid[0, 1])
        right.bar(range(len(units)), np.sort(unit_rates)[::-1], color=style.BLUE, width=0.8)
        right.set(xlabel="units", ylabel="rate (Hz)", title="Rate of each unit")
    top = fig.add_subplot(grid[1, :])
    top.plot(rate["time_s"], rate["rate_hz"], color=style.BLUE, lw=1.2)
    top.set_ylim(0, max(1e-3, 1.15 * float(np.nanmax(rate["rate_hz"]))))
    top.set(ylabel="rate (Hz)", title="Firing rate, mean over units")
    bottom = fig.add_subplot(grid[2, :], sharex=top)
    blue = "the trials" if labels is not None else "the stimulus"
    _timeline(bottom, {name: intervals[name] for name in names}, trials, blue)
    for start, stop in np.asarray(invalid, float):
        for ax in (top, bottom):
            shade = ax.axvspan(start, stop, color=style.VERMILLION, alpha=0.25, lw=0)
    if len(invalid):
        top.legend([shade], ["invalid"], loc="lower right")
    top.tick_params(labelbottom=False)
    return fig


def _units_by_area(ax: Axes, areas: np.ndarray, good: np.ndarray | None) -> None:
    """Horizontal bars: units per area, those within the Allen limits in full colour."""
    order, others = style.area_order(areas), ""
    if len(order) > MOST_AREAS:  # the smallest areas share one bar
        large = sorted(order, key=lambda area: -(areas == area).sum())[:MOST_AREAS]
        others = f"{len(order) - MOST_AREAS} others"
        areas = np.array([area if area in large else others for area in areas], dtype=object)
        order = [area for area in order if area in large] + [others]
    for row, area in enumerate(order):
        here = areas == area
        n, n_good = here.sum(), (here if good is None else here & good).sum()
        colour = style.GREY if area == others else style.area_colour(area)
        ax.barh(row, n_good, color=colour)
        ax.barh(row, n - n_good, left=n_good, color=style.shade(colour, 0.65))
        ax.text(n, row, f" {n}", va="center", fontsize=9)
    primitives.name_rows(ax, [style.area_label(area) for area in order])
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xlabel("units" if good is None else "units (pale: outside Allen limits)")
    ax.set_title(f"{len(areas)} units" + ("" if good is None else f", {good.sum()} within limits"))


def _label_counts(ax: Axes, labels: np.ndarray, label_name: str, grey: str) -> None:
    """Bars: presentations per label; that of a grey screen stands apart."""
    values, counts = np.unique(np.asarray(labels), return_counts=True)
    blank = np.array([is_one_of(value, [grey]) for value in values.tolist()], bool)
    colours = np.where(blank, style.GREY, style.BLUE)
    ax.bar(np.arange(len(values)), counts, color=colours, width=0.8 if len(values) < 40 else 1.0)
    ax.set_xticks(*style.label_ticks(values, 8))
    if blank.any() and len(values) > 8:
        ax.plot([], [], "s", color=style.GREY, label="grey screen")
        ax.legend(loc="lower right", framealpha=0.85, frameon=True, edgecolor="none")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set(xlabel=label_name, ylabel="presentations")
    ax.set_title(f"{counts.sum()} presentations, {len(values)} labels")


def _timeline(ax: Axes, intervals: dict[str, pd.DataFrame], trials: str, blue: str) -> None:
    """One row per interval table: when its rows were; that of the `trials` in blue, which are called so."""
    first = {name: table["start_time"].min() for name, table in intervals.items()}
    names = sorted(intervals, key=lambda name: (name != trials, first[name]))
    for row, name in enumerate(names):
        times = intervals[name][["start_time", "stop_time"]].dropna().to_numpy(float)
        start, stop = merged(times + np.array([0, ONE_BAR_S])).T
        look = {
            "color": style.BLUE if name == trials else style.GREY,
            "rasterized": len(start) > 500,
        }
        primitives.stretches(ax, row, start, stop - ONE_BAR_S, 0.36, **look)
    named = [name.removesuffix("_presentations").removesuffix("_table") for name in names]
    primitives.name_rows(ax, [name.replace("_", " ") for name in named], 0.6)
    ax.set_xlabel("time in the session (s)")
    without = ", none of them trials" if names else ": there is none"
    which = f" (blue: {blue})" if trials else without
    ax.set_title(f"When each table's intervals lie{which}")


@style.styled
def raster(
    spike_s: np.ndarray,
    unit: np.ndarray,
    areas: np.ndarray,
    trials: pd.DataFrame | None,
    window: tuple[float, float],
    shown: tuple[np.ndarray, np.ndarray] | None = None,
) -> Picture:
    """Every spike in a stretch of time, units ordered by area, with the labels shown above.

    spike_s, unit: one entry per spike (seconds, position of the unit); areas: one per unit;
    trials: start_time, stop_time and label; window: start and stop in seconds; shown: times (n,) and
    values (n, channel) of a stimulus, drawn below.
    """
    units, names = style.by_area(areas)
    fig = style.new_figure(float(np.clip(1.6 + 0.04 * len(names), 3.0, 5.5)))
    grid = fig.add_gridspec(2, 1, height_ratios=[3, 1]) if shown else fig.add_gridspec(1, 1)
    ax = fig.add_subplot(grid[0])
    row = np.argsort(units)[np.asarray(unit, int)]
    primitives.raster(ax, np.asarray(spike_s), row, [style.area_colour(name) for name in names])
    ax.set_xlim(*window)
    last = ax if shown is None else fig.add_subplot(grid[1], sharex=ax)
    if shown:
        _held_values(last, *shown)
    last.set_xlabel("time in the session (s)")
    primitives.name_areas(ax, names)
    if trials is not None:
        _mark_trials(ax, trials, window)
    return fig


def _held_values(ax: Axes, times: np.ndarray, values: np.ndarray) -> None:
    """A stimulus (n, channel) whose values hold, a line a channel, in the stretch of time that is shown."""
    low, high = np.searchsorted(times, ax.get_xlim())
    near = slice(max(0, low - 1), high + 1)
    values = values[near] - np.nanmin(values[near])
    height = 0.7 / max(float(np.nanmax(values)), 1e-9)
    for channel, (colour, _) in primitives.series(range(values.shape[1])).items():
        ax.step(
            times[near], channel - height * values[:, channel], color=colour, lw=1, where="post"
        )
    primitives.name_rows(ax, range(values.shape[1]), 0.9)
    ax.set_ylabel("channel")


def _mark_trials(ax: Axes, trials: pd.DataFrame, window: tuple[float, float]) -> None:
    """Shade every other presentation, and write above as many labels as there is room for."""
    inside = (trials["stop_time"] > window[0]) & (trials["start_time"] < window[1])
    shown = trials[inside].sort_values("start_time")
    names = [texts.short(style.label_text(label), texts.MOST_TURNED) for label in shown["label"]]
    start, stop = shown["start_time"].to_numpy(), shown["stop_time"].to_numpy()
    for i in range(0, len(shown), 2):
        ax.axvspan(start[i], stop[i], color=style.LIGHT, alpha=0.6, lw=0, zorder=0)
    middle = (np.maximum(start, window[0]) + np.minimum(stop, window[1])) / 2
    beside = max((len(text.get_text()) for text in ax.get_yticklabels()), default=0)
    second_in = (style.WIDTH_IN - 0.8 - beside * texts.LETTER_IN) / (window[1] - window[0])
    sizes = np.array([len(name) * texts.LETTER_IN + 0.12 for name in names])
    for i in texts.apart(middle * second_in, sizes):
        where = {"ha": "center", "va": "bottom", "transform": ax.get_xaxis_transform()}
        ax.text(middle[i], 1.01, names[i], fontsize=9, **where)


@style.styled
def lfp_overview(channels: pd.DataFrame, intervals: pd.DataFrame) -> Picture:
    """Strength and missing samples of each channel; the labelled intervals on the time axis.

    channels: region, electrodes, sd, nan_share; intervals: label, start_s, stop_s.
    """
    height, row = 0.24 * len(channels), np.arange(len(channels))
    fig = style.new_figure(height + 2.7)
    grid = fig.add_gridspec(2, 2, height_ratios=(height + 0.8, 1.1))
    left = fig.add_subplot(grid[0, 0])
    left.barh(row, channels["sd"], color=style.BLUE)
    pairs = zip(channels["region"], channels["electrodes"], strict=True)
    primitives.name_rows(left, [f"{region} ({n})" for region, n in pairs])
    left.xaxis.set_major_locator(MaxNLocator(4))
    left.xaxis.set_major_formatter("{x:g}")
    left.set(
        xlabel="standard deviation, in the file's unit", title="Channels (electrodes averaged)"
    )
    right = fig.add_subplot(grid[0, 1], sharey=left)
    right.barh(row, channels["nan_share"], color=style.VERMILLION)
    right.set_xlim(0, max(0.01, float(channels["nan_share"].max()) * 1.2))
    primitives.percent(right.xaxis, 1)
    right.tick_params(labelleft=False)
    right.set(xlabel="share of samples", title="Samples that are NaN")
    if not channels["nan_share"].any():
        right.text(0.5, 0.5, "none", ha="center", transform=right.transAxes)
    below = fig.add_subplot(grid[1, :])
    looks = primitives.series(intervals["label"])
    for row, (label, part) in enumerate(intervals.groupby("label", sort=False)):
        primitives.stretches(below, row, part["start_s"], part["stop_s"], color=looks[label][0])
    primitives.name_rows(below, [label.replace("_", " ") for label in looks])
    below.set(xlabel="time (s)", title="Labelled intervals")
    return fig


@style.styled
def lfp_traces(x: np.ndarray, start_s: float, rate_hz: float, channels: list[str]) -> Picture:
    """A few seconds of every channel, each in units of its own spread.

    x (time, channel).
    """
    fig, ax = style.new_panel(0.9 + 0.34 * len(channels))
    sd = np.nanstd(x, axis=0)
    time = start_s + np.arange(len(x)) / rate_hz
    for i, name in enumerate(channels):
        trace = (x[:, i] - np.nanmean(x[:, i])) / (6 * sd[i]) if sd[i] > 0 else 0 * x[:, i]
        ax.plot(time, i - trace, lw=0.8, color=style.area_colour(name), rasterized=True)
    primitives.name_rows(ax, channels, 0.7)
    ax.set_xlim(time[0], time[-1])
    ax.set(xlabel="time (s)", ylabel="region")
    return fig
