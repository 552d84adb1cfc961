"""Figures of responses (02): what areas, units and channels do when something is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from nblib.data.counts_dataset import areas_of, units_of
from nblib.prepare import responses
from nblib.prepare.continuous import is_continuous
from nblib.prepare.potentials import stored_windows
from nblib.prepare.potentials.spectra import BANDS
from nblib.report.plots import primitives, style, texts
from nblib.report.plots.style import Picture

SHOWN_HZ = (1.0, 55.0)
MOST_AREAS = 12
MOST_UNITS = 12  # whose spike-triggered averages are drawn one by one


def average_response(binned: Any, psth: pd.DataFrame) -> Picture:
    """Mean firing rate by area around the onset (`binning_stage.response`), power spectra by state, or
    spike-triggered averages."""
    if isinstance(binned, stored_windows.Windows):
        return state_spectra(psth)
    if is_continuous(binned):
        return clearest_averages(psth)
    return psth_by_area(psth, psth.attrs["shown_s"])


def label_differences(binned: Any, psth: pd.DataFrame) -> Picture:
    """What tells labels apart: tuning of every unit, or band power of every channel; without labels, the
    spike-triggered average of every unit."""
    if isinstance(binned, stored_windows.Windows):
        return band_power(psth)
    if is_continuous(binned):
        return all_averages(psth)
    tuning, labels = responses.tuning_curves(binned)
    areas = areas_of(units_of(binned))
    return tuning_heatmap(tuning, labels, areas, binned.attrs["label_name"])


@style.styled
def psth_by_area(psth: pd.DataFrame, shown_s: float) -> Picture:
    """Mean firing rate around the onset of a presentation, one line an area, with its error.

    psth: columns area, time_s (bin centre from onset), rate_hz (mean over units), sem_hz (standard
    error over units) and n_units; shown_s: length of a presentation in seconds.
    """
    order = style.area_order(psth["area"])
    rate, error = psth["rate_hz"], psth["sem_hz"].fillna(0)
    table = psth.assign(value=rate, ci_low=rate - error, ci_high=rate + error)
    fig, ax = style.new_panel(3.6)
    ax.axvspan(0, shown_s, color=style.LIGHT, alpha=0.6, lw=0, label="shown")
    for area in order[:MOST_AREAS]:
        part = table[table["area"].map(style.area_name) == area]
        name = f"{style.area_label(area)} ({part['n_units'].iloc[0]} units)"
        looks = {name: (style.area_colour(area), "")}
        primitives.curves(ax, part.assign(name=name), "time_s", "name", looks=looks, bands=True)
    ax.set_ylim(bottom=0)
    ax.set_xlim(psth["time_s"].min(), psth["time_s"].max())
    ax.set(xlabel="time from onset (s)", ylabel="firing rate (Hz)")
    more = len(order) - MOST_AREAS
    left_out = f"; {more} further areas not drawn" if more > 0 else ""
    ax.set_title(f"Mean response, band: standard error over units{left_out}")
    primitives.legend_beside(ax)
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
    preferred = np.lexsort((-z.max(axis=1), z.argmax(axis=1)))
    row, names = style.by_area(np.asarray(areas, object)[preferred])
    fig, ax = style.new_panel(5.2)
    limit = float(max(1.0, np.percentile(np.abs(z), 99.5)))
    look = primitives.either_side(limit, aspect="auto")
    primitives.matrix(ax, z[preferred][row], "mean response (z over labels)", **look)
    ax.set_xticks(*style.label_ticks(labels, 14))
    ax.set_xlabel(label_name)
    primitives.name_areas(ax, names, boxes=True)
    ax.set_title(f"Tuning of {len(names)} units to {len(labels)} labels")
    return fig


def zscore_rows(x: np.ndarray) -> np.ndarray:
    """Each row minus its mean, over its standard deviation; constant rows become 0."""
    spread = x.std(axis=1, keepdims=True)
    return np.divide(x - x.mean(axis=1, keepdims=True), spread, np.zeros_like(x), where=spread > 0)


@style.styled
def unit_response(
    trial: np.ndarray,
    time_s: np.ndarray,
    n_trials: int,
    window: tuple[float, float],
    shown_s: float,
    *,
    title: str,
    colour: str,
) -> Picture:
    """Raster and PSTH of one unit over the presentations of one label.

    trial, time_s: one entry per spike (position of the presentation, seconds from its onset);
    window: start and stop of the view in seconds from onset. Rate in bins of 1/12 of shown_s.
    """
    n = max(n_trials, 1)
    fig = style.new_figure(4.4)
    top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=[1.8, 1])
    for ax in (top, bottom):
        ax.axvspan(0, shown_s, color=style.LIGHT, alpha=0.6, lw=0)
    primitives.raster(top, time_s, trial, [colour] * n)
    top.set_ylabel("presentation")
    top.set_title(title)
    n_bins = max(1, round(12 * (window[1] - window[0]) / shown_s))
    counts, edges = np.histogram(time_s, np.linspace(*window, n_bins + 1))
    rate = counts / n / np.diff(edges)
    bottom.stairs(rate, edges, color=colour, fill=True, alpha=0.8)
    bottom.set_ylim(0, max(1.0, 1.1 * rate.max()))
    bottom.set_xlim(*window)
    bottom.set(xlabel="time from onset (s); grey: shown", ylabel="rate (Hz)")
    return fig


@style.styled
def state_spectra(spectra: pd.DataFrame) -> Picture:
    """Power of z-scored windows against frequency, a panel a channel, a line a state.

    spectra: label, channel, frequency_hz, power (`spectra.spectra`).
    """
    spectra = spectra[spectra["frequency_hz"].between(*SHOWN_HZ)].sort_values(
        "label", kind="stable"
    )
    channels = list(dict.fromkeys(spectra["channel"]))
    table = spectra.assign(value=spectra["power"], label=spectra["label"].str.replace("_", " "))
    looks = {
        label: (colour, "") for label, (colour, _) in primitives.series(table["label"]).items()
    }
    fig = style.new_figure(0.8 + 1.45 * -(-len(channels) // 4))
    outer = {"x": "Hz", "y": "power (1/Hz)", "sharex": True, "sharey": True}
    axes = primitives.panels(fig, len(channels), 4, **outer)
    for ax, channel in zip(axes, channels, strict=True):
        part = table[table["channel"] == channel]
        primitives.curves(ax, part, "frequency_hz", "label", looks=looks)
        primitives.log_places(ax, {hz: str(hz) for hz in (2, 5, 10, 20, 50)})
        ax.set_yscale("log")
        primitives.plain_numbers(ax.yaxis)
        ax.set_title(texts.short(channel, texts.MOST_TURNED), fontsize=9)
    fig.legend_outside()
    return fig


@style.styled
def band_power(spectra: pd.DataFrame) -> Picture:
    """How far the power of a band in a state lies from its mean over states, channel by channel."""
    channels, states = list(dict.fromkeys(spectra["channel"])), sorted(set(spectra["label"]))
    changes, bands = [], []
    for band, (low, high) in BANDS.items():
        inside = spectra[(spectra["frequency_hz"] >= low) & (spectra["frequency_hz"] < high)]
        if len(inside):
            power = inside.pivot_table("power", "channel", "label").loc[channels, states].to_numpy()
            changes.append(np.log2(power / power.mean(axis=1, keepdims=True)))
            bands.append(f"{band}\n{low}-{high} Hz")
    change = np.concatenate(changes, axis=1)  # (channel, band and state)
    fig, ax = style.new_panel(1.6 + 0.27 * len(channels))
    limit = max(0.1, float(np.nanmax(np.abs(change))))
    look = primitives.either_side(limit, aspect="auto", bar={"shrink": 1.0})
    primitives.matrix(ax, change, "log2 of power / mean over states", **look)
    for j, band in enumerate(bands):
        if j:
            ax.axvline(j * len(states) - 0.5, color="white", lw=3)
        ax.text((j + 0.5) * len(states) - 0.5, -0.7, band, ha="center", fontsize=9)
    ax.set_ylabel("region")
    ax.set_yticks(range(len(channels)), channels)
    names = [state.replace("_", " ") for state in states] * len(bands)
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right")
    return fig


@style.styled
def clearest_averages(averages: xr.DataArray) -> Picture:
    """The mean stimulus before a spike of the units that answer most clearly, a line a channel.

    averages (unit, channel, lag_s): in standard errors (`continuous.spike_triggered`).
    """
    strength = abs(averages).max(("channel", "lag_s")).to_numpy()
    units = np.argsort(-strength, kind="stable")[:MOST_UNITS]
    fig = style.new_figure(0.9 + 1.45 * -(-len(units) // 4))
    axes = primitives.panels(fig, len(units), 4, x="ms before", y="stimulus (se)", sharex=True)
    before_ms = -1e3 * averages["lag_s"].to_numpy()
    for ax, unit in zip(axes, units, strict=True):
        for channel, course in enumerate(averages.to_numpy()[unit]):
            look = {"color": style.SERIES[channel % len(style.SERIES)], "lw": 1.2}
            ax.plot(before_ms, course, label=f"channel {channel}", **look)
        ax.axhline(0, color=style.GREY, lw=0.8)
        ax.set_title(f"unit {averages['unit'].to_numpy()[unit]}", fontsize=9)
    fig.legend_outside()
    return fig


@style.styled
def all_averages(averages: xr.DataArray) -> Picture:
    """The mean stimulus before a spike of every unit, in the channel that it answers most clearly.

    averages (unit, channel, lag_s): in standard errors. Units are ordered by when and how they answer.
    """
    values = averages.to_numpy()
    best = np.abs(values).max(axis=2).argmax(axis=1)
    shown = values[np.arange(len(values)), best]
    peak = np.abs(shown).argmax(axis=1)
    sign = np.sign(shown[np.arange(len(shown)), peak])
    fig, ax = style.new_panel(float(np.clip(1.4 + 0.05 * len(shown), 2.4, 5.2)))
    limit = float(max(1.0, np.percentile(np.abs(shown), 99.5)))
    far_ms = 1e3 * float(averages["lag_s"][-1])
    extent = (-far_ms, 0, len(shown) - 0.5, -0.5)
    look = primitives.either_side(limit, aspect="auto", extent=extent)
    order = np.lexsort((peak, sign))
    primitives.matrix(ax, shown[order][:, ::-1], "stimulus (standard errors)", **look)
    ax.set(xlabel="ms before the spike", ylabel=f"{len(shown)} units", yticks=[])
    ax.set_title("Spike-triggered averages, each in its clearest channel")
    return fig
