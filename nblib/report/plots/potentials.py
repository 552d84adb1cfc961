"""Figures of field potentials: what was recorded (01), and how states differ (02)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nblib.prepare.spectra import BANDS
from nblib.report.plots import style, texts
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

SHOWN_HZ = 55.0


@style.styled
def lfp_overview(channels: pd.DataFrame, intervals: pd.DataFrame) -> Picture:
    """Strength and missing samples of each channel; the labelled intervals on the time axis.

    channels: region, electrodes, sd, nan_share; intervals: label, start_s, stop_s.
    """
    fig = style.new_figure(1.4 + 0.24 * len(channels) + 1.3)
    grid = fig.add_gridspec(2, 2, height_ratios=(0.24 * len(channels) + 0.8, 1.1))
    row = np.arange(len(channels))
    left = fig.add_subplot(grid[0, 0])
    left.barh(row, channels["sd"], color=style.BLUE)
    left.set_yticks(row, [f"{r} ({n})" for r, n in zip(channels["region"], channels["electrodes"], strict=True)])  # fmt: skip
    left.invert_yaxis()
    style.plain_numbers(left.xaxis)
    left.xaxis.set_major_locator(MaxNLocator(4))
    left.set_xlabel("standard deviation, in the file's unit")
    left.set_title("Channels (electrodes averaged)")
    right = fig.add_subplot(grid[0, 1], sharey=left)
    right.barh(row, channels["nan_share"], color=style.VERMILLION)
    right.set_xlim(0, max(0.01, float(channels["nan_share"].max()) * 1.2))
    right.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    right.tick_params(labelleft=False)
    right.set_xlabel("share of samples")
    right.set_title("Samples that are NaN")
    if not channels["nan_share"].any():
        right.text(0.5, 0.5, "none", ha="center", transform=right.transAxes)
    below = fig.add_subplot(grid[1, :])
    names = list(dict.fromkeys(intervals["label"]))
    for label, start, stop in intervals[["label", "start_s", "stop_s"]].itertuples(index=False):
        colour = style.SERIES[names.index(label) % len(style.SERIES)]
        below.barh(names.index(label), stop - start, left=start, color=colour)
    below.set_yticks(range(len(names)), [n.replace("_", " ") for n in names])
    below.invert_yaxis()
    below.set_xlabel("time (s)")
    below.set_title("Labelled intervals")
    return fig


@style.styled
def lfp_traces(x: np.ndarray, start_s: float, rate_hz: float, channels: list[str]) -> Picture:
    """A few seconds of every channel, each in units of its own spread.

    x (time, channel).
    """
    fig = style.new_figure(0.9 + 0.34 * len(channels))
    ax = fig.add_subplot()
    sd = np.nanstd(x, axis=0)
    time = start_s + np.arange(len(x)) / rate_hz
    for i, name in enumerate(channels):
        trace = (x[:, i] - np.nanmean(x[:, i])) / (6 * sd[i]) if sd[i] > 0 else 0 * x[:, i]
        ax.plot(time, i - trace, lw=0.8, color=style.area_colour(name), rasterized=True)
    ax.set_yticks(range(len(channels)), channels)
    ax.set_ylim(len(channels) - 0.4, -0.8)
    ax.set_xlim(time[0], time[-1])
    ax.set_xlabel("time (s)")
    ax.set_ylabel("region")
    return fig


@style.styled
def state_spectra(spectra: pd.DataFrame) -> Picture:
    """Power of z-scored windows against frequency, a panel a channel, a line a state.

    spectra: label, channel, frequency_hz, power (`spectra.spectra`).
    """
    channels, states = list(dict.fromkeys(spectra["channel"])), sorted(set(spectra["label"]))
    columns = 4
    n_rows = -(-len(channels) // columns)
    fig = style.new_figure(0.8 + 1.45 * n_rows)
    axes = fig.subplots(n_rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax in axes.ravel()[len(channels) :]:
        ax.set_axis_off()
    for ax, channel in zip(axes.ravel(), channels, strict=False):
        own = spectra[(spectra["channel"] == channel) & (spectra["frequency_hz"] >= 1)]
        own = own[own["frequency_hz"] <= SHOWN_HZ]
        for i, state in enumerate(states):
            part = own[own["label"] == state]
            colour = style.SERIES[i % len(style.SERIES)]
            ax.plot(part["frequency_hz"], part["power"], color=colour, lw=1.3, label=state.replace("_", " "))  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
        ax.set_xticks([], minor=True)
        style.plain_numbers(ax.yaxis)
        ax.set_title(texts.short(channel, texts.MOST_TURNED), fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("Hz")
    for ax in axes[:, 0]:
        ax.set_ylabel("power (1/Hz)")
    fig.legend_outside(axes[0, 0].get_legend_handles_labels()[0])
    return fig


@style.styled
def band_power(spectra: pd.DataFrame) -> Picture:
    """How far the power of a band in a state lies from its mean over states, channel by channel."""
    channels, states = list(dict.fromkeys(spectra["channel"])), sorted(set(spectra["label"]))
    frequency = spectra["frequency_hz"]
    bands = {
        f"{name} {low}-{high} Hz": spectra[(frequency >= low) & (frequency < high)]
        for name, (low, high) in BANDS.items()
        if ((frequency >= low) & (frequency < high)).any()
    }
    table = np.full((len(channels), len(states) * len(bands)), np.nan)
    for j, inside in enumerate(bands.values()):
        means = inside.groupby(["channel", "label"])["power"].mean()
        power = np.array([[means[c, s] for s in states] for c in channels])
        change = np.log2(power / power.mean(axis=1, keepdims=True))
        table[:, j * len(states) : (j + 1) * len(states)] = change
    fig = style.new_figure(1.6 + 0.27 * len(channels))
    ax = fig.add_subplot()
    limit = max(0.1, float(np.nanmax(np.abs(table))))
    image = ax.imshow(table, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for j in range(1, len(bands)):
        ax.axvline(j * len(states) - 0.5, color="white", lw=3)
    ax.set_ylabel("region")
    ax.set_yticks(range(len(channels)), channels)
    ax.set_xticks(range(table.shape[1]), [s.replace("_", " ") for s in states] * len(bands), rotation=60, ha="right")  # fmt: skip
    for j, name in enumerate(bands):
        ax.text((j + 0.5) * len(states) - 0.5, -0.7, name.replace(" ", "\n", 1), ha="center", fontsize=9)  # fmt: skip
    fig.colorbar(image, ax=ax, label="log2 of power / mean over states", pad=0.02)
    return fig
