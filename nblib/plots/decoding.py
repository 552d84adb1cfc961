"""Figures of one run (05): how it learned, what it confuses, when, and how good that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nblib.plots import style
from nblib.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

SCORE_TEXT = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
}


@style.styled
def learning_curves(history: pd.DataFrame) -> Picture:
    """Loss and validation accuracy by epoch, with the kept epoch marked.

    history: one row an epoch with train_loss, val_loss and val_accuracy. A model that is fitted in
    closed form or by a solver has no epochs: its validation score is drawn against the strength
    of regularisation that was tried (column C), or stated when there was nothing to choose.
    """
    if "C" in history and history["C"].notna().sum() > 1:
        return _regularisation(history)
    if "epoch" not in history or history["epoch"].nunique() < 2:
        fig = style.new_figure(1.5)
        value = history["val_accuracy"].iloc[-1] if "val_accuracy" in history else np.nan
        told = f"\nValidation accuracy: {value:.1%}." if np.isfinite(value) else ""
        style.note(fig.add_subplot(), "One fit, nothing learned epoch by epoch: no curve to draw." + told)
        return fig
    fig = style.new_figure(3.2)
    left, right = fig.subplots(1, 2)
    best = _best(history)
    for column, text, colour in (
        ("train_loss", "train", style.BLUE),
        ("val_loss", "validation", style.ORANGE),
    ):
        if column in history and history[column].notna().any():
            part = history.dropna(subset=[column])
            left.plot(part["epoch"], part[column], "-o", ms=3, color=colour, label=text)
    left.set_ylim(bottom=0)
    left.set_ylabel("cross-entropy (nats)")
    left.set_title("Loss")
    part = history.dropna(subset=["val_accuracy"])
    right.plot(part["epoch"], part["val_accuracy"], "-o", ms=3, color=style.ORANGE)
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    right.set_ylim(0, 1.02)
    right.set_ylabel("accuracy")
    right.set_title("Validation accuracy")
    for ax in (left, right):
        if best is not None:
            ax.axvline(best, color=style.INK, ls=":", lw=1.3, label=f"kept: epoch {best:g}")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    left.legend()
    return fig


def _best(history: pd.DataFrame) -> float | None:
    """The epoch whose weights were kept: marked in `kept`, else the lowest validation loss."""
    if "kept" in history and history["kept"].any():
        return float(history.loc[history["kept"].astype(bool), "epoch"].iloc[0])
    if "val_loss" in history and history["val_loss"].notna().any():
        return float(history.loc[history["val_loss"].idxmin(), "epoch"])
    return None


def _regularisation(history: pd.DataFrame) -> Picture:
    """Validation score against the inverse strength of regularisation."""
    fig = style.new_figure(3.0)
    ax = fig.add_subplot()
    part = history.sort_values("C")
    ax.plot(part["C"], part["val_accuracy"], "-o", color=style.ORANGE, label="validation")
    if "train_accuracy" in part and part["train_accuracy"].notna().any():
        ax.plot(part["C"], part["train_accuracy"], "-o", color=style.BLUE, label="train")
    kept = (
        part.loc[part["kept"].astype(bool), "C"] if "kept" in part else part.loc[[part["val_accuracy"].idxmax()], "C"]
    )
    if len(kept):
        ax.axvline(kept.iloc[0], color=style.INK, ls=":", lw=1.3, label=f"kept: C = {kept.iloc[0]:g}")
    ax.set_xscale("log")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("C (larger = weaker regularisation)")
    ax.set_ylabel("accuracy")
    ax.set_title("No epochs: validation score against regularisation")
    ax.legend()
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
                ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=9)
    ax.set_xticks(*style.label_ticks(classes, 12))
    ax.set_yticks(*style.label_ticks(classes, 12))
    ax.set_xlabel(f"predicted {label_name}")
    ax.set_ylabel(f"true {label_name}")
    right = np.trace(counts) / max(counts.sum(), 1)
    ax.set_title(f"Test confusion: {right:.1%} of {len(label)} right")
    fig.colorbar(
        image, ax=ax, label="share of the true class (%)", shrink=0.8, pad=0.02,
        ticks=[0, 25, 50, 75, 100] if few else [0, 1, 5, 10, 25, 50, 75, 100],
    )
    return fig


@style.styled
def accuracy_by_time(
    table: pd.DataFrame, chance: float, whole: float, oracle: float | None = None
) -> Picture:
    """Test accuracy from each time bin of a presentation alone, with its interval.

    table: time [s, bin centre from onset], accuracy, ci_low, ci_high, all fractions; chance,
    whole (all bins together) and oracle (best possible, where known) are drawn as levels.
    """
    fig = style.new_figure(3.2)
    ax = fig.add_subplot()
    error = np.abs(table[["ci_low", "ci_high"]].to_numpy().T - table["accuracy"].to_numpy())
    ax.errorbar(
        table["time"], table["accuracy"], error, fmt="-o", ms=5, capsize=3, color=style.BLUE,
        label="one bin alone, 95 % interval",
    )
    ax.axhline(whole, color=style.BLUE, ls="--", lw=1.4, label=f"all bins ({whole:.1%})")
    ax.axhline(chance, color=style.INK, ls=":", lw=1.4, label=f"chance ({chance:.1%})")
    if oracle is not None:
        ax.axhline(oracle, color=style.GREEN, ls="-.", lw=1.4, label=f"best possible ({oracle:.1%})")
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.set_xlabel("bin centre, time from onset (s)")
    ax.set_ylabel("test accuracy")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


@style.styled
def score_summary(
    scores: dict[str, dict[str, Any]], oracle: dict[str, Any] | None, title: str
) -> Picture:
    """Each score with its 95 % interval, beside chance and, where known, the best possible.

    scores: name -> value, ci_low, ci_high, chance (fractions); oracle: the same for the accuracy
    of the true posterior, or None when the truth is not known.
    """
    names = [n for n in SCORE_TEXT if n in scores]
    fig = style.new_figure(1.5 + 0.5 * len(names))
    ax = fig.add_subplot()
    for row, name in enumerate(names):
        score = scores[name]
        draw_interval(ax, row, score, style.BLUE, "score, 95 % interval" if row == 0 else None)
        ax.plot(
            [score["chance"]] * 2, [row - 0.3, row + 0.3], color=style.INK, ls=":", lw=2,
            label="chance" if row == 0 else None,
        )
        ax.text(1.03, row, f"{score['value']:.1%}", va="center", fontsize=10, fontweight="bold")
    if oracle is not None and "accuracy" in names:
        row = names.index("accuracy")
        low, high = oracle["ci_low"], oracle["ci_high"]
        ax.fill_between([low, high], row - 0.3, row + 0.3, color=style.GREEN, alpha=0.25, lw=0)
        ax.plot([oracle["value"]] * 2, [row - 0.3, row + 0.3], color=style.GREEN, lw=2,
                label="best possible (oracle), 95 % interval")
    ax.set_yticks(range(len(names)), [SCORE_TEXT[n] for n in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-0.01, 1.0)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("score on test presentations")
    ax.set_title(title)
    fig.legend(loc="outside lower center", ncols=3)
    return fig


def draw_interval(ax: Axes, row: float, score: dict[str, Any], colour: str, label: str | None) -> None:
    """A dot with its interval on a horizontal scale."""
    value = score["value"]
    error = [[max(0.0, value - score["ci_low"])], [max(0.0, score["ci_high"] - value)]]
    ax.errorbar(value, row, xerr=error, fmt="o", ms=7, capsize=4, color=colour, label=label, lw=2)
