"""Figures of responses (02): what areas and units do when something is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from nblib.plots import style
from nblib.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd


@style.styled
def psth_by_area(psth: pd.DataFrame, shown_s: float) -> Picture:
    """Mean firing rate around the onset of a presentation, one line an area, with its error.

    psth: columns area, time_s (bin centre from onset), rate_hz (mean over units), sem_hz (standard
    error over units) and n_units; shown_s: length of a presentation in seconds.
    """
    order = style.area_order(psth["area"])
    fig = style.new_figure(3.6)
    ax = fig.add_subplot()
    ax.axvspan(0, shown_s, color=style.LIGHT, alpha=0.6, lw=0, label="shown")
    for area in order[:12]:
        part = psth[psth["area"].map(style.area_name) == area]
        colour = style.area_colour(area)
        mean, error = part["rate_hz"].to_numpy(), np.nan_to_num(part["sem_hz"].to_numpy())
        time = part["time_s"].to_numpy()
        ax.fill_between(time, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
        n_units = int(part["n_units"].iloc[0])
        ax.plot(time, mean, color=colour, label=f"{style.area_label(area)} ({n_units} units)")
    ax.set_ylim(bottom=0)
    ax.set_xlim(psth["time_s"].min(), psth["time_s"].max())
    ax.set_xlabel("time from onset (s)")
    ax.set_ylabel("firing rate (Hz)")
    more = f"; {len(order) - 12} further areas not drawn" if len(order) > 12 else ""
    ax.set_title(f"Mean response, band: standard error over units{more}")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


@style.styled
def tuning_heatmap(
    tuning: np.ndarray, labels: np.ndarray, areas: np.ndarray, label_name: str = "label"
) -> Picture:
    """Mean response of every unit to every label, as z-scores over labels.

    tuning: (unit, label) mean rate in Hz; labels (label,); areas (unit,). Units are ordered by
    area and inside it by the label they prefer, so that tuned units make a diagonal.
    """
    z = zscore_rows(np.asarray(tuning, float))
    names = np.array([style.area_name(a) for a in areas], dtype=object)
    row = np.concatenate(
        [_by_preference(z, np.flatnonzero(names == a)) for a in style.area_order(names)]
    )
    fig = style.new_figure(5.2)
    ax = fig.add_subplot()
    limit = float(max(1.0, np.percentile(np.abs(z), 99.5)))
    image = ax.imshow(z[row], aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set_xticks(*style.label_ticks(labels, 14))
    ax.set_xlabel(label_name)
    mark_areas(ax, names[row])
    ax.set_title(f"Tuning of {len(names)} units to {len(labels)} labels")
    fig.colorbar(image, ax=ax, label="mean response (z over labels)", shrink=0.7, pad=0.02)
    return fig


def zscore_rows(x: np.ndarray) -> np.ndarray:
    """Each row minus its mean, over its standard deviation; constant rows become 0."""
    spread = x.std(axis=1, keepdims=True)
    return np.divide(x - x.mean(axis=1, keepdims=True), spread, np.zeros_like(x), where=spread > 0)


def _by_preference(z: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort((-z[rows].max(axis=1), z[rows].argmax(axis=1)))]


def mark_areas(ax: Axes, names: np.ndarray, both: bool = False) -> None:
    """Name the areas beside an image whose rows (and columns) are units ordered by area."""
    order = list(dict.fromkeys(names))
    edges = np.r_[0, np.cumsum([(names == a).sum() for a in order])] - 0.5
    middles = (edges[:-1] + edges[1:]) / 2
    colours = [style.shade(style.area_colour(a), -0.25) for a in order]
    for edge in edges[1:-1]:
        ax.axhline(edge, color=style.INK, lw=0.7)
        if both:
            ax.axvline(edge, color=style.INK, lw=0.7)
    shown = _apart(edges, 0.035 * len(names))
    if order == [""]:
        ax.set_ylabel("units")
        ax.set_yticks([])
    else:
        ax.set_yticks(middles[shown], [style.area_label(order[i]) for i in shown])
        ax.tick_params(axis="y", length=0, pad=9)
        for tick, i in zip(ax.get_yticklabels(), shown, strict=True):
            tick.set_color(colours[i])
        ax.set_ylabel("units, by area")
    for i in range(len(order)):  # a strip of colour at the left edge
        ax.add_patch(
            _strip(ax, edges[i] + 0.5, edges[i + 1] + 0.5, len(names), style.area_colour(order[i]))
        )


def _strip(ax: Axes, lo: float, hi: float, n: int, colour: str) -> Rectangle:
    return Rectangle(
        (-0.012, 1 - hi / n),
        0.010,
        (hi - lo) / n,
        color=colour,
        lw=0,
        transform=ax.transAxes,
        clip_on=False,
    )


def _apart(edges: np.ndarray, least: float) -> np.ndarray:
    """Which areas are tall enough, or far enough from the last name, to be named."""
    middles = (edges[:-1] + edges[1:]) / 2
    shown: list[int] = []
    for i, middle in enumerate(middles):
        if not shown or middle - middles[shown[-1]] >= least:
            shown.append(i)
    return np.array(shown, int)


@style.styled
def unit_response(
    trial: np.ndarray,
    time_s: np.ndarray,
    n_trials: int,
    window: tuple[float, float],
    shown_s: float,
    *,
    title: str,
    colour: str = style.BLUE,
    bin_s: float = 0.02,
) -> Picture:
    """Raster and PSTH of one unit over the presentations of one label.

    trial, time_s: one entry per spike (position of the presentation, seconds from its onset);
    window: start and stop of the view in seconds from onset.
    """
    fig = style.new_figure(4.4)
    top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=[1.8, 1])
    for ax in (top, bottom):
        ax.axvspan(0, shown_s, color=style.LIGHT, alpha=0.6, lw=0)
    size = float(np.clip(160 / max(n_trials, 1), 1.5, 9.0))
    top.plot(time_s, trial, "|", color=colour, ms=size, mew=1.3, rasterized=True)
    top.set_ylim(n_trials - 0.5, -0.5)
    top.set_ylabel("presentation")
    top.set_title(title)
    n_bins = max(1, round((window[1] - window[0]) / bin_s))
    counts, edges = np.histogram(time_s, np.linspace(*window, n_bins + 1))
    rate = counts / max(n_trials, 1) / np.diff(edges)
    bottom.stairs(rate, edges, color=colour, fill=True, alpha=0.8)
    bottom.set_ylim(0, max(1.0, 1.1 * rate.max()))
    bottom.set_xlim(*window)
    bottom.set_ylabel("rate (Hz)")
    bottom.set_xlabel("time from onset (s); grey: shown")
    return fig
