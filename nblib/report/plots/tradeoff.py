"""What a score costs (90): against bins, against units, and against the time of the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from nblib.evaluate.scores import SCORE_TEXT
from nblib.report.plots import style
from nblib.report.plots.comparison import decoder_name
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

SIZES = {"n_bins": "bins a presentation", "n_units": "units"}
MARKERS = "osD^v"
MORE_SIZES = (
    "Every decoder was run with one number of bins and units. For another one:\n"
    "nblib run 05_train_lstm --with-upstream -p n_bins 10"
)


@style.styled
def score_against(runs: pd.DataFrame, metric: str = "accuracy") -> Picture:
    """Score against bins and units, for decoders run on several, and against the time of a fit.

    runs: as in `compare_runs`, with n_bins, n_units and fit_s [s]. Above, a line joins the runs of
    one decoder on one recording that differ in that number alone (mean over folds and seeds, 95 %
    intervals). Below, a point is a decoder on a recording, its fits averaged over folds and seeds.
    """
    if len(runs) == 0:
        return style.say("No run yet. Train one with: nblib run 05_train_lstm --with-upstream")
    found = {size: _lines(runs, size) for size in SIZES}
    found = {size: lines for size, lines in found.items() if lines}
    n_decoders = runs.groupby(["model", "variant", "changed"]).ngroups
    below = max(2.6, 0.9 + 0.19 * n_decoders)
    above = 3.6 if found else 0.7
    fig = style.new_figure(above + below)
    top, bottom = fig.subfigures(2, 1, height_ratios=[above, below])
    if found:
        axes = top.subplots(1, len(found), squeeze=False, sharey=True)[0]
        for ax, (size, lines) in zip(axes, found.items(), strict=True):
            _size_panel(fig, ax, size, lines)
            _chance(ax, runs)
            ax.legend(loc="upper left", bbox_to_anchor=(0, -0.22), fontsize=9)
        axes[0].set_ylabel(f"{SCORE_TEXT[metric]}, test")
    else:
        style.note(top.add_subplot(), MORE_SIZES)
    _cost_panel(fig, bottom.add_subplot(), runs)
    bottom.axes[0].set_ylabel(f"{SCORE_TEXT[metric]}, test")
    return fig


def _size_panel(fig: Picture, ax: Axes, size: str, lines: list) -> None:
    for i, (name, part) in enumerate(lines):
        error = np.abs(part[["ci_low", "ci_high"]].to_numpy().T - part["value"].to_numpy())
        colour = style.SERIES[i % len(style.SERIES)]
        ax.errorbar(part.index, part["value"], error, fmt="-o", ms=4.5, capsize=3, color=colour, label=name)  # fmt: skip
        for row in part.itertuples():
            fig.mark(ax, row.Index, row.value, row.run)
    ax.set_xscale("log")
    ticks = sorted({x for _, part in lines for x in part.index})
    ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(SIZES[size])
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _chance(ax: Axes, runs: pd.DataFrame) -> None:
    """A line for each recipe's chance level, named once in the legend."""
    levels = sorted(set(runs.groupby("group")["chance"].mean().round(3)))
    for i, chance in enumerate(levels):
        label = "chance" if i == 0 else None
        ax.axhline(chance, color=style.INK, ls=":", lw=1.6, label=label)


def _lines(runs: pd.DataFrame, size: str) -> list[tuple[str, pd.DataFrame]]:
    """Runs that differ in `size` alone, as (name, rows by size), those with two sizes or more."""
    settings = {"n_bins": r"n_bins=\d+", "n_units": r"(?:n_units|units_seed)=\d+"}[size]
    rest = runs["changed"].str.replace(rf"(?:^|, ){settings}", "", regex=True).str.lstrip(", ")
    lines = []
    for who, part in runs.assign(rest=rest).groupby(
        ["group", "recording", "model", "variant", "rest"]
    ):
        averaged = dict.fromkeys(("value", "ci_low", "ci_high"), "mean")
        mean = part.groupby(size).agg(averaged | {"run": list})
        if len(mean) > 1:
            lines.append((who[:2], decoder_name(*who[2:]).replace("\n", " "), mean))
    several = len({where for where, _, _ in lines}) > 1
    return [
        (f"{name}, {' '.join(where)}" if several else name, mean) for where, name, mean in lines
    ]


def _cost_panel(fig: Picture, ax: Axes, runs: pd.DataFrame) -> None:
    """A point a decoder and recording; the legend names the decoders, best first."""
    named = [decoder_name(*r).replace("\n", " ") for r in runs[["model", "variant", "changed"]].itertuples(index=False)]  # fmt: skip
    each = runs.assign(decoder=named).groupby(["decoder", "group", "recording"], as_index=False)
    each = each.agg(value=("value", "mean"), fit_s=("fit_s", "mean"), run=("run", list))
    each = each[each["fit_s"].notna()]
    order = each.groupby("decoder")["value"].mean().sort_values(ascending=False).index
    for i, name in enumerate(order):
        part = each[each["decoder"] == name]
        colour = style.SERIES[i % len(style.SERIES)]
        marker = MARKERS[i // len(style.SERIES) % len(MARKERS)]
        alpha = 1.0 if len(part) == 1 else 0.65
        ax.plot(part["fit_s"], part["value"], marker, ms=6, color=colour, alpha=alpha, label=name)
        for row in part.itertuples():
            fig.mark(ax, row.fit_s, row.value, row.run)
    _chance(ax, runs)
    ax.set_xscale("log")
    style.plain_numbers(ax.xaxis)
    ax.set_xlabel("time of one fit (s)")
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
