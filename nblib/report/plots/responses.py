"""Figures of responses (02): what areas and units do when something is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nblib.report.plots import style
from nblib.report.plots.areas import mark_areas
from nblib.report.plots.style import Picture

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
    mark_areas(ax, names[row], boxes=True)
    ax.set_title(f"Tuning of {len(names)} units to {len(labels)} labels")
    fig.colorbar(image, ax=ax, label="mean response (z over labels)", shrink=0.7, pad=0.02)
    return fig


def zscore_rows(x: np.ndarray) -> np.ndarray:
    """Each row minus its mean, over its standard deviation; constant rows become 0."""
    spread = x.std(axis=1, keepdims=True)
    return np.divide(x - x.mean(axis=1, keepdims=True), spread, np.zeros_like(x), where=spread > 0)


def _by_preference(z: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort((-z[rows].max(axis=1), z[rows].argmax(axis=1)))]


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
) -> Picture:
    """Raster and PSTH of one unit over the presentations of one label.

    trial, time_s: one entry per spike (position of the presentation, seconds from its onset);
    window: start and stop of the view in seconds from onset. Rate in bins of 1/12 of shown_s.
    """
    fig = style.new_figure(4.4)
    top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=[1.8, 1])
    for ax in (top, bottom):
        ax.axvspan(0, shown_s, color=style.LIGHT, alpha=0.6, lw=0)
    size = float(np.clip(160 / max(n_trials, 1), 1.5, 9.0))
    top.plot(time_s, trial, "|", color=colour, ms=size, mew=1.3, rasterized=True)
    top.set_ylim(max(n_trials, 1) - 0.5, -0.5)
    top.set_ylabel("presentation")
    top.set_title(title)
    n_bins = max(1, round(12 * (window[1] - window[0]) / shown_s))
    counts, edges = np.histogram(time_s, np.linspace(*window, n_bins + 1))
    rate = counts / max(n_trials, 1) / np.diff(edges)
    bottom.stairs(rate, edges, color=colour, fill=True, alpha=0.8)
    bottom.set_ylim(0, max(1.0, 1.1 * rate.max()))
    bottom.set_xlim(*window)
    bottom.set_ylabel("rate (Hz)")
    bottom.set_xlabel("time from onset (s); grey: shown")
    return fig
