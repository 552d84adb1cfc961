"""Figures of one run (05, 06): how it learned, what it confuses, when, its scores, what carries it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

from nblib.evaluate.scores import SCORE_TEXT
from nblib.report.plots import primitives, style

if TYPE_CHECKING:
    from nblib.evaluate.result import Result
    from nblib.evaluate.scores import Score
    from nblib.report.plots.style import Picture

TRIED = {
    "c": "C (larger: weaker regularisation)",
    "gain_sd": "spread of the gain between presentations",
}
MOST_UNITS = 20
MOST_EDGES = 20_000  # drawn as dots
MOST_WRITTEN = 8  # areas whose shares are written
FEW_CLASSES = 12


@style.styled
def learning_curves(history: pd.DataFrame) -> Picture:
    """Loss and validation accuracy by epoch, with the kept epoch marked.

    history: one row an epoch with train_loss, val_loss and val_accuracy. A linear model has no
    epochs: its rows are the values that were tried of a setting (a column of `TRIED`), and the
    validation score is drawn against it. A single fit with nothing to choose is stated.
    """
    if len(history) < 2:
        value = history["val_accuracy"].iloc[-1] if "val_accuracy" in history else np.nan
        known = f"\nValidation accuracy: {value:.1%}." if np.isfinite(value) else ""
        return style.say("One fit with nothing to choose: no curve to draw." + known)
    tried = [column for column in TRIED if column in history]
    x, words = (tried[0], TRIED[tried[0]]) if tried else ("epoch", "epoch")
    name = "C = " if x == "c" else f"{x} "
    kept = history[x].iloc[int(np.nanargmin(history["val_loss"]))]  # the first of equals
    fig = style.new_figure(3.2)
    left, right = fig.subplots(1, 2)
    looks = {"train": (style.BLUE, "o"), "validation": (style.ORANGE, "o")}
    for ax, columns in ((left, ("train_loss", "val_loss")), (right, ("val_accuracy",))):
        table = history.melt(x, columns).dropna(subset="value")
        role = table["variable"].map({"train_loss": "train"}).fillna("validation")
        primitives.curves(ax, table.assign(role=role), x, "role", looks=looks)
        ax.axvline(kept, label=f"kept: {name}{kept:g}", **primitives.CHANCE)
        ax.set_xlabel(words)
        if x == "c":
            ax.set_xscale("log")
            primitives.plain_numbers(ax.xaxis)
        else:
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=not tried))
    left.set_ylim(bottom=0)
    left.set(
        ylabel="cross-entropy (nats)",
        title="No epochs: loss by regularisation" if tried else "Loss",
    )
    left.legend()
    primitives.percent(right.yaxis)
    right.set(ylim=(0, 1.02), ylabel="accuracy", title="Validation accuracy")
    return fig


@style.styled
def confusion(label: np.ndarray, predicted: np.ndarray, label_name: str = "label") -> Picture:
    """Confusion matrix over test presentations: rows are true, each row sums to 100 %.

    label, predicted: (trial,) true and predicted class. Few classes: percentages in the cells.
    """
    label, predicted = np.asarray(label), np.asarray(predicted)
    classes = np.unique(np.concatenate([label, predicted]))
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (np.searchsorted(classes, label), np.searchsorted(classes, predicted)), 1)
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(100 * counts, total, np.full_like(counts, np.nan), where=total > 0)
    few = len(classes) <= FEW_CLASSES
    fig, ax = style.new_panel(4.6 if few else 5.8, 6.0 if few else 6.9)
    # many classes: a square-root scale, so that a single confused presentation can be seen
    norm, ticks = PowerNorm(1.0 if few else 0.5, 0, 100), [0, 25, 50, 75, 100]
    bar = {"shrink": 0.8, "ticks": ticks if few else [*ticks, 1, 5, 10]}
    primitives.matrix(ax, share, "share of the true class (%)", written=few, bar=bar, norm=norm)
    ax.set_xticks(*style.label_ticks(classes, 12))
    ax.set_yticks(*style.label_ticks(classes, 12))
    ax.set(xlabel=f"predicted {label_name}", ylabel=f"true {label_name}")
    ax.set_title(f"Test confusion: {np.mean(label == predicted):.1%} of {len(label)} right")
    return fig


@style.styled
def accuracy_by_time(
    table: pd.DataFrame, score: Score, oracle: dict[str, Score] | None = None
) -> Picture:
    """Test accuracy when only the spikes up to each moment are known, with its interval.

    table: time [s from onset], accuracy, ci_low, ci_high, all fractions; score: the accuracy with
    its chance; oracle: the scores of the true posterior, or None when the truth is not known.
    """
    table = table.rename(columns={"accuracy": "value"}).assign(label="95 % interval")
    last = table.sort_values("time").iloc[-1]
    fig = style.new_figure(3.2)
    fig.result = f"{last['value']:.1%} with all spikes up to {last['time']:.3g} s"
    ax = fig.add_subplot()
    primitives.curves(ax, table, "time", "label")
    ax.axhline(score.chance, label=f"chance ({score.chance:.1%})", **primitives.CHANCE)
    if oracle is not None:
        best = oracle["accuracy"].value
        ax.axhline(best, color=style.GREEN, label=f"best possible ({best:.1%})")
    ax.set(xlabel="spikes known until (s from onset)", ylabel="test accuracy", ylim=(0, 1.02))
    ax.set_xlim(left=min(0.0, 1.1 * table["time"].min()))
    ax.xaxis.set_major_locator(MaxNLocator(6))
    primitives.percent(ax.yaxis)
    primitives.legend_beside(ax)
    return fig


@style.styled
def score_summary(scores: dict[str, Score], oracle: dict[str, Score] | None, title: str) -> Picture:
    """Each score with its 95 % interval, beside chance and, where known, the best possible.

    scores: by name, fractions; oracle: the same scores of the true posterior, or None when the
    truth is not known.
    """
    # with five classes or fewer, top-5 is always right: nothing to show
    names = [name for name in SCORE_TEXT if name in scores and scores[name].chance < 1]
    table = pd.DataFrame([asdict(scores[name]) for name in names])
    table["score"] = [SCORE_TEXT[name] for name in names]
    best = [asdict(oracle[name]) if name in (oracle or {}) else {} for name in names]
    for field, other in {
        "value": "oracle",
        "ci_low": "oracle_low",
        "ci_high": "oracle_high",
    }.items():
        table[other] = [score.get(field, np.nan) for score in best]
    fig, ax = style.new_panel(1.5 + 0.5 * len(names))
    primitives.intervals(ax, table, "score", label="score, 95 % interval")
    words = [f"{value:.1%}" for value in table["value"]]
    primitives.write_beside(ax, words, fontsize=10, fontweight="bold")
    ax.set(xlabel="score on test presentations", title=title, xlim=(-0.01, 1.0))
    primitives.percent(ax.xaxis)
    fig.legend_outside(3)
    return fig


def model_scores(result: Result, metric: str, xlabel: str, null: str, missing: str) -> Picture:
    """Every model's score of one metric with its interval, beside that of the null, which is 0; without a
    score the sentence `missing`."""
    table = result.of_metric(metric)
    if table.empty:
        return style.say(missing)
    fig, ax = style.new_panel(1.6 + 0.4 * len(table))
    colours = dict(zip(table["variant"].unique(), style.SERIES, strict=False))
    primitives.intervals(ax, table.drop(columns="chance"), "model", hue="variant", colours=colours)
    ax.axvline(0, label=null, **primitives.CHANCE)
    ax.set(xlabel=xlabel)
    fig.legend_outside()
    return fig


@style.styled
def importance(
    units: pd.DataFrame | None, bins: pd.DataFrame | None, areas: pd.DataFrame | None = None
) -> Picture:
    """Rise of the log-loss by unit and by bin; accuracy of one area alone and of all others.

    units: unit, area, rise, ci_low, ci_high; bins: time [s], rise, ci_low, ci_high; areas: area,
    kind ("alone", "without", "all"), value, ci_low, ci_high, chance. None leaves a panel out.
    """
    if units is None or bins is None:
        return style.say(
            "Importance was not asked for: set importance to a number of presentations."
        )
    fig = style.new_figure(4.4 if areas is None else 7.6)
    axes = fig.subplots(1 if areas is None else 2, 2, squeeze=False)
    unit_rises(axes[0, 0], units)
    _bins(axes[0, 1], bins)
    if areas is not None:
        _areas(axes[1, 0], areas, "alone", "One area alone")
        _areas(axes[1, 1], areas, "without", "All areas but one")
    return fig


def unit_rises(ax: Axes, units: pd.DataFrame) -> None:
    """The units whose permutation costs most, each with its interval."""
    top = units.sort_values("rise", ascending=False).head(MOST_UNITS)
    areas = top["area"].map(style.area_name)
    colours = {area: style.area_colour(area) for area in areas if area}
    table = top.assign(value=top["rise"], unit=top["unit"].map(str), area=areas)
    primitives.intervals(ax, table, "unit", hue="area", colours=colours)
    ax.axvline(0, color=style.INK, lw=0.8)
    ax.set(xlabel="rise of the log-loss (nats)", ylabel="unit")
    ax.set_title(f"The {len(top)} units that carry most, of {len(units)}")
    if colours:
        ax.legend(loc="lower right")


def _bins(ax: Axes, bins: pd.DataFrame) -> None:
    stop = bins["time"].to_numpy(float)
    width = np.diff(stop, prepend=min(0.0, stop[0]))
    width = np.where(width > 0, width, 1.0)
    error = primitives.around(bins.assign(value=bins["rise"]))
    look = {"color": style.SKY, "ecolor": style.INK, "error_kw": {"lw": 1.2}}
    ax.bar(stop - width / 2, bins["rise"], 0.9 * width, yerr=error, **look)
    ax.axhline(0, color=style.INK, lw=0.8)
    ax.set(xlabel="time of the bin (s from onset)", ylabel="rise of the log-loss (nats)")
    ax.set_title("Which bin carries it")


def _areas(ax: Axes, areas: pd.DataFrame, kind: str, title: str) -> None:
    part, whole = areas[areas["kind"] == kind], areas[areas["kind"] == "all"].iloc[0]
    names = [
        f"{style.area_label(a)} ({n})" for a, n in zip(part["area"], part["n_units"], strict=True)
    ]
    colours = {area: style.area_colour(area) for area in part["area"]}
    rows = part.drop(columns="chance").assign(name=names)
    primitives.intervals(ax, rows, "name", hue="area", colours=colours)
    ax.axvspan(whole["ci_low"], whole["ci_high"], color=style.LIGHT, lw=0, zorder=0)
    lines = [
        ax.axvline(whole["value"], color=style.INK, lw=1.2, label="all units"),
        ax.axvline(whole["chance"], label="chance", **primitives.CHANCE),
    ]
    ax.set_xlim(0, 1)
    primitives.percent(ax.xaxis)
    ax.set(xlabel="accuracy, trained again", title=title)
    ax.legend(handles=lines, loc="best")


@style.styled
def graph_overview(matrix: np.ndarray, correlation: np.ndarray, areas: np.ndarray) -> Picture:
    """A graph of units: its adjacency, the flow between areas, degrees, and weight against `|r|`.

    matrix: (target, source), 0 = no edge; correlation: `|r|` on train rows, same shape; areas:
    (unit,). Edges of a unit to itself are left out.
    """
    row, names = style.by_area(areas)
    edges = np.array(matrix, float)
    np.fill_diagonal(edges, 0.0)
    fig = style.new_figure(7.6)
    axes = fig.subplots(2, 2, height_ratios=(1.35, 1))
    _adjacency(axes[0, 0], edges[np.ix_(row, row)], names)
    _flow(axes[0, 1], edges[np.ix_(row, row)], names)
    _degrees(axes[1, 0], edges)
    _against(axes[1, 1], edges, np.asarray(correlation, float))
    return fig


def _adjacency(ax: Axes, edges: np.ndarray, names: np.ndarray) -> None:
    n, there = len(edges), edges != 0
    limit = np.abs(edges).max(initial=0) or 1.0
    signed = {} if (edges < 0).any() else {"cmap": "Blues", "vmin": 0}
    primitives.units_matrix(ax, edges, names, "weight", **primitives.either_side(limit) | signed)
    ax.set(xlabel="speaks (same order)", ylabel="listens")
    lone = int((~there.any(axis=0) & ~there.any(axis=1)).sum())
    ax.set_title(f"{there.sum():,} edges of {n} units" + (f", {lone} without any" if lone else ""))


def _flow(ax: Axes, edges: np.ndarray, names: np.ndarray) -> None:
    flow = 100 * area_flow((edges != 0).astype(float), names)
    places, labels = range(len(flow)), [style.area_label(area) for area in flow.index]
    look = {"cmap": "Blues", "vmin": 0, "vmax": max(flow.to_numpy().max(initial=0), 1e-9)}
    primitives.matrix(ax, flow.to_numpy(), written=len(flow) <= MOST_WRITTEN, **look)
    ax.set_xticks(places, labels, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(places, labels)
    ax.set(xlabel="speaks", ylabel="listens", title="Unit pairs with an edge (%)")


def area_flow(edges: np.ndarray, areas: np.ndarray) -> pd.DataFrame:
    """Mean of edges (target, source) between two units, by area: rows listen, columns speak."""
    names = list(dict.fromkeys(np.asarray(areas, str)))
    member = (np.array(names)[:, None] == areas).astype(float)  # (area, unit)
    n = member.sum(axis=1)
    pairs = np.outer(n, n) - np.diag(n)  # those of a unit with itself left out
    total = member @ (edges - np.diag(np.diag(edges))) @ member.T
    return pd.DataFrame(total / np.maximum(pairs, 1), index=names, columns=names)


def _degrees(ax: Axes, edges: np.ndarray) -> None:
    degrees = (edges != 0).sum(axis=0)
    ax.hist(degrees, bins=min(30, int(degrees.max(initial=0)) + 1), color=style.BLUE)
    ax.axvline(degrees.mean(), label=f"mean {degrees.mean():.1f}", **primitives.CHANCE)
    ax.legend(loc="upper right")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="units that listen to a unit", ylabel="units", title="How many listen")


def _against(ax: Axes, edges: np.ndarray, correlation: np.ndarray) -> None:
    there = np.flatnonzero(edges.ravel())
    there = there[:: len(there) // MOST_EDGES + 1]
    r, weight = correlation.ravel()[there], edges.ravel()[there]
    ax.plot(r, weight, "o", ms=2.5, mew=0, alpha=0.4, color=style.BLUE, rasterized=True)
    ends = [0, float(r.max(initial=0.01))]
    ax.plot(ends, ends, label="equal", **primitives.CHANCE)
    ax.set(xlabel="|r| of the two units on train rows", ylabel="weight of the edge")
    ax.set_title("Edges against correlation")
    ax.legend(loc="upper left")
