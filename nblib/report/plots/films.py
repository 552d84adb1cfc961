"""What was on screen, decoded (11): scores beside a clock, the leak curve, a stretch of the film."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes

from nblib.experiments.film.decoding import CHOSEN, CLOCK, NO_DECODER
from nblib.experiments.film.forecast import BITS
from nblib.report import published
from nblib.report.plots import one_run, primitives, style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    from nblib.evaluate.result import Result

PUBLISHED = "SUMMER"  # the recording that its published numbers go by
SHOWN_BINS = 1500
AXES = {
    "kappa": ("κ on test bins, 95 % interval", "chance"),
    BITS: (
        "bits a spike over the mean of train bins, 95 % interval over segments",
        "mean of train bins",
    ),
}


@style.styled
def scores(result: Result, metric: str) -> Picture:
    """Every decoder's kappa, or every forecast's bits a spike, with its interval."""
    missing = "No forecast was asked for. Make one with: -p horizons_s [0.08, 2, 10]"
    return one_run.model_scores(result, metric, *AXES[metric], missing)


@style.styled
def leak_curve(leak: pd.DataFrame) -> Picture:
    """The score against the time kept free between bins that teach and bins that judge."""
    if leak.empty:
        return style.say("No leak curve was asked for. Draw one with: -p leak [0, 4, 8, 16, 32]")
    fig, ax = style.new_panel(3.8)
    leak = leak[leak["model"] != CHOSEN].assign(chance=0.0)
    primitives.curves(ax, leak, "buffer_s", "model", bands=True)
    paper = published.beside([PUBLISHED])
    paper = paper[(paper["metric"] == "kappa") & paper["variant"].str.startswith("label=Summer,")]
    if len(paper):
        at = paper["variant"].str.rpartition("=")[2].astype(float)
        ax.plot(at, paper["value"], "x", color=style.GREY, label="published: LSTM, Summer")
    ax.set(xlabel="buffer [s]; 0: bins dealt at random", ylabel="κ on test bins")
    fig.legend_outside()
    return fig


@style.styled
def stretch(predictions: pd.DataFrame, width_s: float) -> Picture:
    """A stretch of test bins: when the label was on, and how sure each decoder was of it."""
    part = predictions.sort_values("trial").iloc[:SHOWN_BINS].set_index("trial")
    every_bin = range(part.index[0], part.index[-1] + 1)
    part = part.reindex(every_bin)  # those that do not judge stay empty
    decoders = [name for name in part if name not in (*NO_DECODER, CLOCK, CHOSEN)]
    fig, ax = style.new_panel(3.0)
    at = part.index * width_s
    ax.fill_between(at, 0, part["label"], color=style.LIGHT, step="mid", lw=0, label="on screen")
    for name, colour in zip(decoders, style.SERIES, strict=False):
        ax.plot(at, part[name], color=colour, lw=1, label=name)
    ax.set(xlabel="film from its first bin on [s]", ylabel="probability", ylim=(0, 1.02))
    fig.legend_outside()
    return fig


@style.styled
def carriers(tables: dict[str, pd.DataFrame]) -> Picture:
    """When spikes tell the label, which units carry most, and each region alone and left out."""
    panels = [(draw, tables[name]) for name, draw in PANELS.items() if len(tables[name])]
    if not panels:
        return style.say("Not asked for. Ask with: -p lags_s [-1, 0, 1], or -p importance true")
    fig = style.new_figure(4.2 * len(panels))
    for ax, (draw, table) in zip(
        fig.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
    ):
        draw(ax, table)
    return fig


def _lags(ax: Axes, lags: pd.DataFrame) -> None:
    primitives.curves(ax, lags.assign(name="0.4 s of counts"), "lag_s", "name", bands=True)
    ax.axvspan(*lags[["peak_low", "peak_high"]].iloc[0], color=style.LIGHT, lw=0, zorder=0)
    ax.axvline(lags["peak_s"].iloc[0], color=style.INK, lw=1.2, label="peak, with its interval")
    ax.axhline(0.5, label="chance", **primitives.CHANCE)
    ax.set(
        xlabel="time after the label [s]", ylabel="AUROC on test bins", title="When spikes tell it"
    )
    primitives.legend_beside(ax)


def _regions(ax: Axes, regions: pd.DataFrame) -> None:
    names = regions["area"].map(style.area_label) + " (" + regions["n_units"].astype(str) + ")"
    table = regions.assign(name=names.where(regions["kind"] != "all", "all units"))
    colours = {"all": style.INK, "alone": style.BLUE, "without": style.ORANGE}
    primitives.intervals(ax, table, "name", hue="kind", colours=colours)
    ax.axvline(0, label="chance", **primitives.CHANCE)
    ax.set(xlabel="κ on test bins, fitted anew", title="Each region alone, and all but it")
    primitives.legend_beside(ax)


PANELS = {"lags": _lags, "units": one_run.unit_rises, "regions": _regions}
