"""Figures of a search for settings (91)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

from nblib.report.plots import style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MOST_STUDIES = 6
OWN = {"study", "trial", "state", "value", "last", "epochs", "seconds", "error"}


@style.styled
def search_history(trials: pd.DataFrame, objective: str, direction: str) -> Picture:
    """Every trial of each study in order, and the best so far.

    trials: as `searched.trials`; objective: its name with unit; direction: "maximize" or
    "minimize". Trials given up stand where they were when they were given up.
    """
    studies = list(trials.groupby("study", sort=False))[:MOST_STUDIES]
    fig = style.new_figure(0.9 + 2.3 * len(studies))
    axes = fig.subplots(len(studies), 1, squeeze=False)[:, 0]
    best = np.maximum if direction == "maximize" else np.minimum
    for ax, (name, own) in zip(axes, studies, strict=True):
        whole, given_up = own[own["state"] == "whole"], own[own["state"] == "given up early"]
        ax.plot(given_up["trial"], given_up["last"], "x", color=style.GREY, ms=6)
        ax.plot(whole["trial"], whole["value"], "o", color=style.BLUE, ms=6)
        if len(whole):
            so_far = best.accumulate(whole["value"].to_numpy())
            last = own["trial"].max()
            ax.step([*whole["trial"], last], [*so_far, so_far[-1]], where="post", color=style.VERMILLION)  # fmt: skip
        for trial in own.loc[own["state"] == "failed", "trial"]:
            ax.axvline(trial, color=style.ORANGE, ls=":", lw=1.2)
        ax.set_title(name)
        ax.set_ylabel(objective)
        _percent(ax, objective)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[-1].set_xlabel("trial")
    handles = [
        Line2D([], [], marker="o", ls="", color=style.BLUE, label="whole trial"),
        Line2D([], [], marker="x", ls="", color=style.GREY, label="given up early"),
        Line2D([], [], color=style.VERMILLION, label="best so far"),
    ]
    if (trials["state"] == "failed").any():
        handles.append(Line2D([], [], color=style.ORANGE, ls=":", label="failed"))
    fig.legend_outside(handles)
    return fig


@style.styled
def search_settings(trials: pd.DataFrame, importances: pd.DataFrame, objective: str) -> Picture:
    """The objective against each setting, whole trials only, one colour a study.

    trials, importances: as `searched` makes them; the title of a panel says how much of the spread
    its setting explains (mean over studies), the most important first.
    """
    names = [c for c in trials.columns if c not in OWN]
    share = importances.groupby("setting")["share"].mean() if len(importances) else {}
    names.sort(key=lambda name: -share.get(name, 0.0))
    whole = trials[trials["state"] == "whole"]
    n_columns = min(3, len(names))
    n_rows = -(-len(names) // n_columns)
    fig = style.new_figure(0.6 + 2.4 * n_rows)
    axes = fig.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for ax, name in zip(axes.flat, names, strict=False):
        _panel(ax, whole, name)
        told = f"{share[name]:.0%} of the spread" if name in share else ""
        ax.set_title(told, fontsize=10)
        ax.set_xlabel(name.rpartition(".")[2].replace("_", " "))
    for row in axes:
        row[0].set_ylabel(objective)
        _percent(row[0], objective)
    several = whole["study"].unique()
    if len(several) > 1:
        handles = [
            Line2D([], [], marker="o", ls="", color=style.SERIES[i % len(style.SERIES)], label=study)
            for i, study in enumerate(several)
        ]  # fmt: skip
        fig.legend_outside(handles, 2)
    return fig


def _percent(ax: Axes, objective: str) -> None:
    if "accuracy" in objective:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _panel(ax: Axes, whole: pd.DataFrame, name: str) -> None:
    """Numbers on a line (in the logarithm when they span more than 20-fold); words, and a few whole
    numbers, side by side."""
    values = whole[name]
    numbers = values.map(lambda v: isinstance(v, (int, float)) and not isinstance(v, bool)).all()
    levels = sorted(values.dropna().unique(), key=lambda v: (str(type(v)), v))
    whole_numbers = numbers and all(float(level).is_integer() for level in levels)
    as_steps = not numbers or (whole_numbers and len(levels) <= 5)
    for i, (_, own) in enumerate(whole.groupby("study", sort=False)):
        x = own[name].map(levels.index) if as_steps else own[name]
        if as_steps:  # apart, and the same each time
            x = x + 0.16 * np.sin(2.4 * np.arange(len(x)))
        ax.plot(x, own["value"], "o", ms=5, alpha=0.75, color=style.SERIES[i % len(style.SERIES)])
    if as_steps:
        ax.set_xticks(range(len(levels)), [str(level) for level in levels])
        ax.set_xlim(-0.5, len(levels) - 0.5)
    elif min(levels) > 0 and max(levels) / min(levels) > 20:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        style.plain_numbers(ax.xaxis)
        ax.xaxis.set_minor_locator(NullLocator())
