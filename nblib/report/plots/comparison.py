"""The figure of all runs (90): every decoder beside chance and beside the best possible."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from nblib.evaluate.scores import SCORE_TEXT
from nblib.report.plots import style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

MOST_PANELS = 6


@style.styled
def compare_runs(runs: pd.DataFrame, metric: str = "accuracy") -> Picture:
    """Models sorted by score, each run a dot with its interval; chance line, oracle band.

    runs: one row a run with group (the recipe), recording, model, variant, changed, value, ci_low,
    ci_high, chance, run and, where the truth is known, oracle, oracle_low, oracle_high (fractions);
    `chosen`, when it is there, says which stand out, as validation chose them. One
    panel for each recipe and recording; with more than six, one with a dot for each recording.
    """
    text = SCORE_TEXT[metric]
    if len(runs) == 0:
        return style.say("No run yet. Train one with: nblib run 05_train_lstm --with-upstream")
    runs = runs.assign(
        model=[
            decoder_name(*row)
            for row in runs[["model", "variant", "changed"]].itertuples(index=False)
        ]
    )
    groups = list(runs.groupby(["group", "recording"], sort=True))
    if len(groups) > MOST_PANELS:
        return _cohort(runs, text)
    heights = [0.62 + 0.33 * part["model"].nunique() for _, part in groups]
    fig = style.new_figure(sum(heights) + 0.9)
    axes = fig.subplots(len(groups), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for ax, ((recipe, recording), part) in zip(axes, groups, strict=True):
        _panel(fig, ax, part)
        same = recipe == recording
        ax.set_title(recording if same else f"{recording}  ({recipe})")
    axes[-1].set_xlabel(f"{text} on test presentations, 95 % interval")
    _legend(fig, runs)
    return fig


def decoder_name(model: str, *settings: str) -> str:
    """How a model is named; a run with other settings than the default says which."""
    name, more = model.replace("_", " "), ", ".join(filter(None, settings))
    return f"{name}\n{textwrap.shorten(more, 34)}" if more else name


def _panel(fig: Picture, ax: Axes, part: pd.DataFrame) -> None:
    order = part.groupby("model")["value"].mean().sort_values(ascending=False).index
    if "oracle" in part and part["oracle"].notna().any():
        best = part.dropna(subset=["oracle"]).iloc[0]
        ax.axvspan(best["oracle_low"], best["oracle_high"], color=style.GREEN, alpha=0.2, lw=0)
        ax.axvline(best["oracle"], color=style.GREEN, lw=1.6)
    for chance in part["chance"].round(4).unique():
        ax.axvline(chance, color=style.INK, ls=":", lw=1.6)
    for row, model in enumerate(order):
        some = part[part["model"] == model].sort_values("value")
        offsets = np.linspace(-0.25, 0.25, len(some)) if len(some) > 1 else [0.0]
        error = np.abs(some[["ci_low", "ci_high"]].to_numpy().T - some["value"].to_numpy())
        ax.errorbar(
            some["value"],
            row + np.asarray(offsets),
            xerr=error,
            fmt="o",
            ms=5 if len(some) > 1 else 6.5,
            capsize=3,
            color=_color(some),
            lw=1.6,
        )
        for value, offset, run in zip(some["value"], offsets, some["run"], strict=True):
            fig.mark(ax, value, row + offset, [run])
        _write_mean(ax, row, some["value"].mean())
    _name_rows(ax, order)


def _write_mean(ax: Axes, row: int, mean: float) -> None:
    where = {"va": "center", "transform": ax.get_yaxis_transform()}
    ax.text(1.015, row, f"{mean:.1%}", fontsize=9, **where)


def _name_rows(ax: Axes, names: pd.Index) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-0.01, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _color(part: pd.DataFrame) -> str:
    return style.VERMILLION if "chosen" in part and part["chosen"].all() else style.BLUE


def _cohort(runs: pd.DataFrame, text: str) -> Picture:
    """Many recordings: a dot for each recording and model, the mean over recordings marked."""
    best = runs.groupby(["group", "recording", "model"], as_index=False).agg(
        value=("value", "mean"), behind=("run", list)
    )
    order = best.groupby("model")["value"].mean().sort_values(ascending=False).index
    fig = style.new_figure(1.6 + 0.42 * len(order))
    ax = fig.add_subplot()
    for row, model in enumerate(order):
        own = best[best["model"] == model].sort_values("value")
        values = own["value"].to_numpy()
        spread = 0.28 * np.sin(2.4 * np.arange(len(values)))  # apart, and the same each time
        ax.plot(values, row + spread, "o", ms=4, alpha=0.55, color=style.BLUE, mew=0)
        for value, apart, behind in zip(values, spread, own["behind"], strict=True):
            fig.mark(ax, value, row + apart, behind)
        ax.plot([values.mean()] * 2, [row - 0.36, row + 0.36], color=style.VERMILLION, lw=2.2)
        _write_mean(ax, row, values.mean())
    ax.axvline(runs["chance"].mean(), color=style.INK, ls=":", lw=1.6)
    _name_rows(ax, order)
    ax.set_xlabel(f"{text} on test presentations")
    ax.set_title(f"{best['recording'].nunique()} recordings")
    handles = [
        Line2D([], [], marker="o", ls="", color=style.BLUE, label="one recording"),
        Line2D([], [], color=style.VERMILLION, lw=2.2, label="mean over recordings"),
        Line2D([], [], color=style.INK, ls=":", lw=1.6, label="chance (mean)"),
    ]
    fig.legend_outside(handles)
    return fig


def _legend(fig: Picture, runs: pd.DataFrame) -> None:
    stands_out = Line2D([], [], marker="o", color=style.VERMILLION, label="chosen by validation")
    handles: list = [
        Line2D([], [], marker="o", color=style.BLUE, label="one run"),
        *([stands_out] if "chosen" in runs and runs["chosen"].any() else []),
        Line2D([], [], color=style.INK, ls=":", lw=1.6, label="chance"),
    ]
    if "oracle" in runs and runs["oracle"].notna().any():
        pale = style.shade(style.GREEN, 0.7)
        handles.append(Patch(facecolor=pale, edgecolor=style.GREEN, label="best possible (oracle)"))
    fig.legend_outside(handles)
