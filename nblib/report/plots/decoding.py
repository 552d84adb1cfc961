"""Figures of one run (05): how it learned, what it confuses, when, and how good that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nblib.evaluate.scores import SCORE_TEXT
from nblib.report.plots import style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd


@style.styled
def learning_curves(history: pd.DataFrame) -> Picture:
    """Loss and validation accuracy by epoch, with the kept epoch marked.

    history: one row an epoch with train_loss, val_loss and val_accuracy. A linear model has no
    epochs: its rows are the strengths of regularisation that were tried (column c), and the
    validation score is drawn against them. A single fit with nothing to choose is stated.
    """
    if len(history) < 2:
        value = history["val_accuracy"].iloc[-1] if "val_accuracy" in history else np.nan
        told = f"\nValidation accuracy: {value:.1%}." if np.isfinite(value) else ""
        return style.say("One fit with nothing to choose: no curve to draw." + told)
    linear = "c" in history
    x, name = ("c", "C = ") if linear else ("epoch", "epoch ")
    kept = history[x].iloc[_kept(history)]
    history = history.sort_values(x)
    fig = style.new_figure(3.2)
    left, right = fig.subplots(1, 2)
    losses = (("train_loss", "train", style.BLUE), ("val_loss", "validation", style.ORANGE))
    _lines(left, history, x, losses)
    left.set_ylim(bottom=0)
    left.set_ylabel("cross-entropy (nats)")
    left.set_title("No epochs: loss by regularisation" if linear else "Loss")
    _lines(right, history, x, (("val_accuracy", "validation", style.ORANGE),))
    _percent(right)
    right.set_title("Validation accuracy")
    for ax in (left, right):
        ax.axvline(kept, color=style.INK, ls=":", lw=1.3, label=f"kept: {name}{kept:g}")
        if linear:
            ax.set_xscale("log")
            style.plain_numbers(ax.xaxis)
            ax.set_xlabel("C (larger: weaker regularisation)")
        else:
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    left.legend()
    return fig


def _lines(ax: Axes, history: pd.DataFrame, x: str, columns) -> None:
    for column, text, colour in columns:
        part = history.dropna(subset=[column])
        ax.plot(part[x], part[column], "-o", ms=3, color=colour, label=text)


def _percent(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("accuracy")


def _kept(history: pd.DataFrame) -> int:
    """Row whose weights were kept: the lowest validation loss, the first of equals."""
    return int(np.nanargmin(history["val_loss"].to_numpy(float)))


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
    few = len(classes) <= 12
    fig = style.new_figure(4.6 if few else 5.8, 6.0 if few else 6.9)
    ax = fig.add_subplot()
    ax.set_facecolor(style.LIGHT)  # a class without test presentations
    # many classes: a square-root scale, so that a single confused presentation can be seen
    image = ax.imshow(share, cmap="cividis", norm=PowerNorm(1.0 if few else 0.5, 0, 100))
    if few:
        for (row, column), value in np.ndenumerate(share):
            if np.isfinite(value):
                colour = "black" if value > 55 else "white"
                ax.text(
                    column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=9
                )
    ax.set_xticks(*style.label_ticks(classes, 12))
    ax.set_yticks(*style.label_ticks(classes, 12))
    ax.set_xlabel(f"predicted {label_name}")
    ax.set_ylabel(f"true {label_name}")
    right = np.trace(counts) / max(counts.sum(), 1)
    ax.set_title(f"Test confusion: {right:.1%} of {len(label)} right")
    fig.colorbar(
        image,
        ax=ax,
        label="share of the true class (%)",
        shrink=0.8,
        pad=0.02,
        ticks=[0, 25, 50, 75, 100] if few else [0, 1, 5, 10, 25, 50, 75, 100],
    )
    return fig


@style.styled
def accuracy_by_time(
    table: pd.DataFrame, score: Any, oracle: dict[str, Any] | None = None
) -> Picture:
    """Test accuracy when only the spikes up to each moment are known, with its interval.

    table: time [s from onset], accuracy, ci_low, ci_high, all fractions; score: the accuracy with
    its chance; oracle: the scores of the true posterior, or None when the truth is not known.
    """
    fig = style.new_figure(3.2)
    ax = fig.add_subplot()
    error = np.abs(table[["ci_low", "ci_high"]].to_numpy().T - table["accuracy"].to_numpy())
    ax.errorbar(
        table["time"], table["accuracy"], error, fmt="-o", ms=5, capsize=3, color=style.BLUE,
        label="95 % interval",
    )  # fmt: skip
    last = table.sort_values("time").iloc[-1]
    fig.result = f"{last['accuracy']:.1%} with all spikes up to {last['time']:.3g} s"
    chance = field(score, "chance")
    ax.axhline(chance, color=style.INK, ls=":", lw=1.4, label=f"chance ({chance:.1%})")
    if oracle is not None:
        best = field(oracle["accuracy"], "value")
        ax.axhline(best, color=style.GREEN, lw=1.6, label=f"best possible ({best:.1%})")
    ax.set_ylim(0, 1.02)
    ax.set_xlim(left=min(0.0, 1.1 * table["time"].min()))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.set_xlabel("spikes known until (s from onset)")
    ax.set_ylabel("test accuracy")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def field(score: Any, name: str) -> float:
    """A number of a score, which may be a `metrics.Score` or its plain form in metrics.json."""
    return score[name] if isinstance(score, dict) else getattr(score, name)


@style.styled
def score_summary(scores: dict[str, Any], oracle: dict[str, Any] | None, title: str) -> Picture:
    """Each score with its 95 % interval, beside chance and, where known, the best possible.

    scores: name -> value, ci_low, ci_high, chance (fractions); oracle: the same scores of the true
    posterior, or None when the truth is not known.
    """
    # with five classes or fewer, top-5 is always right: nothing to show
    names = [n for n in SCORE_TEXT if n in scores and field(scores[n], "chance") < 1]
    best = oracle or {}
    fig = style.new_figure(1.5 + 0.5 * len(names))
    ax = fig.add_subplot()
    for row, name in enumerate(names):
        score, first = scores[name], row == 0
        if name in best:
            low, high = field(best[name], "ci_low"), field(best[name], "ci_high")
            ax.fill_between([low, high], row - 0.3, row + 0.3, color=style.GREEN, alpha=0.25, lw=0)
            ax.plot([field(best[name], "value")] * 2, [row - 0.3, row + 0.3], color=style.GREEN, lw=2,
                    label="best possible (oracle), 95 % interval" if first else None)  # fmt: skip
        draw_interval(ax, row, score, style.BLUE, "score, 95 % interval" if first else None)
        ax.plot([field(score, "chance")] * 2, [row - 0.3, row + 0.3], color=style.INK, ls=":", lw=2,
                label="chance" if first else None)  # fmt: skip
        ax.text(
            1.03, row, f"{field(score, 'value'):.1%}", va="center", fontsize=10, fontweight="bold"
        )
    ax.set_yticks(range(len(names)), [SCORE_TEXT[n] for n in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-0.01, 1.0)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("score on test presentations")
    ax.set_title(title)
    fig.legend(loc="outside lower center", ncols=3)
    return fig


def draw_interval(ax: Axes, row: float, score: Any, colour: str, label: str | None) -> None:
    """A dot with its interval on a horizontal scale."""
    value, low, high = (field(score, name) for name in ("value", "ci_low", "ci_high"))
    error = [[max(0.0, value - low)], [max(0.0, high - value)]]
    ax.errorbar(value, row, xerr=error, fmt="o", ms=7, capsize=4, color=colour, label=label, lw=2)
