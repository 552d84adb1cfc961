"""Figures of a search for settings (91)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from nblib.report.plots import primitives, style
from nblib.report.plots.style import Picture

MOST_STUDIES = 6
NOT_SETTINGS = {"study", "trial", "state", "value", "last", "epochs", "seconds", "error"}


@style.styled
def search_history(trials: pd.DataFrame, objective: str, direction: str) -> Picture:
    """Every trial of each study in order, and the best so far.

    trials: as `searched.trials`; objective: its name with unit; direction: "maximize" or
    "minimize". Trials given up stand where they were when they were given up.
    """
    studies = list(trials.groupby("study", sort=False))[:MOST_STUDIES]
    best = np.maximum if direction == "maximize" else np.minimum
    fig = style.new_figure(0.9 + 2.3 * len(studies))
    axes = fig.subplots(len(studies), 1, squeeze=False)[:, 0]
    for ax, (name, study) in zip(axes, studies, strict=True):
        whole, stopped = (study[study["state"] == state] for state in ("whole", "given up early"))
        ax.plot(whole["trial"], whole["value"], "o", color=style.BLUE, label="whole trial")
        ax.plot(stopped["trial"], stopped["last"], "x", color=style.GREY, label="given up early")
        so_far = best.accumulate(whole["value"].to_numpy())
        trial = [*whole["trial"], *[study["trial"].max()] * (len(whole) > 0)]
        look = {"where": "post", "color": style.VERMILLION, "label": "best so far"}
        ax.step(trial, [*so_far, *so_far[-1:]], **look)
        for trial in study.loc[study["state"] == "failed", "trial"]:
            ax.axvline(trial, color=style.ORANGE, ls=":", lw=1.2, label="failed")
        ax.set(title=name, ylabel=objective)
        _percent(ax, objective)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[-1].set_xlabel("trial")
    fig.legend_outside()
    return fig


@style.styled
def search_settings(trials: pd.DataFrame, importances: pd.DataFrame, objective: str) -> Picture:
    """The objective against each setting, whole trials only, one colour a study.

    trials, importances: as `searched` makes them; the title of a panel says how much of the spread
    its setting explains (mean over studies), the most important first.
    """
    share = importances.groupby("setting")["share"].mean() if len(importances) else {}
    names = [name for name in trials.columns if name not in NOT_SETTINGS]
    names.sort(key=lambda name: -share.get(name, 0.0))
    whole = trials[trials["state"] == "whole"]
    fig = style.new_figure(0.6 + 2.4 * -(-len(names) // 3))
    axes = primitives.panels(fig, len(names), 3, sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        _setting(ax, whole, name)
        ax.set_title(f"{share[name]:.0%} of the spread" if name in share else "", fontsize=10)
        ax.set_xlabel(name.rpartition(".")[2].replace("_", " "))
    for ax in axes[:, 0]:
        ax.set_ylabel(objective)
        _percent(ax, objective)
    if len(set(whole["study"])) > 1:
        fig.legend_outside(2)
    return fig


def _percent(ax: Axes, objective: str) -> None:
    if "accuracy" in objective:
        primitives.percent(ax.yaxis)


def _setting(ax: Axes, whole: pd.DataFrame, name: str) -> None:
    """Numbers on a line (in the logarithm when they span more than 20-fold); words, and a few whole
    numbers, side by side."""
    values = whole[name]
    numbers = values.map(lambda v: isinstance(v, (int, float)) and not isinstance(v, bool)).all()
    levels = sorted(values.dropna().unique(), key=lambda v: (str(type(v)), v))
    integers = numbers and all(float(level).is_integer() for level in levels)
    as_steps = not numbers or (integers and len(levels) <= 5)
    if as_steps:  # apart, and the same each time
        order = whole.groupby("study").cumcount()
        values = values.map(levels.index) + 0.16 * np.sin(2.4 * order)
    primitives.curves(ax, whole.assign(setting=values), "setting", "study", line="")
    if as_steps:
        ax.set_xticks(range(len(levels)), [str(level) for level in levels])
        ax.set_xlim(-0.5, len(levels) - 0.5)
    elif min(levels) > 0 and (span := max(levels) / min(levels)) > 20:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3) if span < 200 else (1,)))
        ax.xaxis.set_minor_locator(NullLocator())
        primitives.plain_numbers(ax.xaxis)
