"""Figures of a recording without trials (01, 02, 04): rates, stimulus, spike-triggered averages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from nblib.data import stimulus
from nblib.prepare import responses
from nblib.report.plots import primitives, style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    from nblib.data.recording import Recording

MOST_UNITS = 12  # whose averages are drawn one by one


@style.styled
def overview(session: Recording, unit_rates: pd.DataFrame, rate: pd.DataFrame) -> Picture:
    """The rate of each unit, the mean rate over time, and when the stimulus is known.

    unit_rates: rate_hz, a row a unit; rate: time_s and rate_hz.
    """
    times, values = stimulus.read(session)
    fig = style.new_figure(5.2)
    first, middle, last = fig.subplots(3, 1, height_ratios=[1.5, 1.2, 0.9])
    each = np.sort(unit_rates["rate_hz"].to_numpy())[::-1]
    first.bar(np.arange(len(each)), each, color=style.BLUE, width=0.8)
    first.set(xlabel="units, the most active first", ylabel="rate (Hz)")
    first.set_title(f"{len(each)} units")
    middle.plot(rate["time_s"], rate["rate_hz"], color=style.BLUE, lw=1.2)
    middle.set_ylim(bottom=0)
    middle.set(ylabel="rate (Hz)", title="Firing rate, mean over units")
    middle.tick_params(labelbottom=False)
    last.sharex(middle)
    start, stop = stimulus.known(times, values).T
    primitives.stretches(last, 0, start, stop, color=style.GREEN)
    primitives.name_rows(last, [f"{values.shape[1]} channel(s)"])
    last.set_xlabel("time in the session (s)")
    usual = 1e3 * np.median(np.diff(times))
    last.set_title(f"Stimulus: {session.stimulus}, a value each {usual:.3g} ms")
    return fig


@style.styled
def close_up(session: Recording) -> Picture:
    """Every spike in a stretch of time, a row a unit, and the stimulus below."""
    window = responses.example_window(session)
    spike_s, unit = responses.spikes_between(session, *window)
    n = session.n_units
    fig = style.new_figure(float(np.clip(2.6 + 0.04 * n, 3.6, 6.0)))
    top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    primitives.raster(top, spike_s, unit, [style.BLUE] * n)
    top.set_ylabel(f"{n} units")
    top.set_yticks([])
    times, values = stimulus.read(session)
    low, high = np.searchsorted(times, window)
    _stimulus(bottom, times[max(0, low - 1) : high + 1], values[max(0, low - 1) : high + 1])
    bottom.set_xlim(*window)
    bottom.set(xlabel="time in the session (s)", ylabel="stimulus")
    return fig


def _stimulus(ax: Axes, times: np.ndarray, values: np.ndarray) -> None:
    """Held values (n, channel), a line a channel, one above the other."""
    low, span = values.min(), max(float(np.ptp(values)), 1e-9)
    for channel in range(values.shape[1]):
        look = {"color": style.SERIES[channel % len(style.SERIES)], "lw": 1.0}
        ax.step(times, channel - 0.7 * (values[:, channel] - low) / span, where="post", **look)
    primitives.name_rows(ax, [f"channel {c}" for c in range(values.shape[1])], 0.9)


@style.styled
def clearest_averages(averages: xr.DataArray) -> Picture:
    """The mean stimulus before a spike of the units that answer most clearly, a line a channel.

    averages (unit, channel, lag_s): in standard errors (`continuous.spike_triggered`).
    """
    strength = abs(averages).max(("channel", "lag_s")).to_numpy()
    units = np.argsort(-strength, kind="stable")[:MOST_UNITS]
    fig = style.new_figure(0.9 + 1.45 * -(-len(units) // 4))
    axes = primitives.panels(fig, len(units), 4, sharex=True)
    before_ms = -1e3 * averages["lag_s"].to_numpy()
    for ax, unit in zip(axes.flat, units, strict=False):
        for channel, course in enumerate(averages.to_numpy()[unit]):
            look = {"color": style.SERIES[channel % len(style.SERIES)], "lw": 1.2}
            ax.plot(before_ms, course, label=f"channel {channel}", **look)
        ax.axhline(0, color=style.GREY, lw=0.8)
        ax.set_title(f"unit {averages['unit'].to_numpy()[unit]}", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("ms before")
    for ax in axes[:, 0]:
        ax.set_ylabel("stimulus (se)")
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


@style.styled
def rates_by_role(rates: pd.DataFrame) -> Picture:
    """The rate of each unit in the validation and test parts against its rate in train.

    rates: a row a unit, in Hz: train, val, test (`splits.rates_by_role`).
    """
    fig, ax = style.new_panel(3.6)
    for role, name, colour in (("val", "validation", style.ORANGE), ("test", "test", style.GREEN)):
        ax.plot(
            rates["train"], rates[role], "o", ms=4.5, mew=0, alpha=0.7, color=colour, label=name
        )
    ends = [0, 1.05 * float(rates.to_numpy().max())]
    ax.plot(ends, ends, label="as in train", **primitives.CHANCE)
    ax.set(
        xlabel="rate in train (Hz)",
        ylabel="rate there (Hz)",
        title="Does a unit fire alike in every role?",
    )
    primitives.legend_beside(ax)
    return fig
