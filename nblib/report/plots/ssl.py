"""Figures of 08 and 09: the map of embeddings, their neighbours, and label-budget curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, PercentFormatter

from nblib.report.plots import style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

MOST_DOTS = 4000
MOST_COLUMNS = 4  # of panels
TASK_TEXT = {"one_vs_all": "one state against all others", "multiclass": "which state it is"}


@style.styled
def embedding_map(
    place: np.ndarray, label: np.ndarray, subject: np.ndarray, start_s: np.ndarray
) -> Picture:
    """The same windows three times: coloured by state, by subject and by time in the recording.

    place (W, 2); label (W,) with "" for windows without a state; subject (W,); start_s (W,) [s].
    """
    fig = style.new_figure(3.6)
    axes = fig.subplots(1, 3)
    if len(place) > MOST_DOTS:
        keep = np.linspace(0, len(place) - 1, MOST_DOTS).astype(int)
        place, label, subject, start_s = (v[keep] for v in (place, label, subject, start_s))
    limits = np.quantile(place, [0.005, 0.995], axis=0)
    for ax, values, title in ((axes[0], label, "state"), (axes[1], subject, "subject")):
        names = [n for n in sorted(set(values)) if n]
        for i, name in enumerate(names):
            own = place[values == name]
            colour = style.SERIES[i % len(style.SERIES)]
            ax.plot(
                own[:, 0], own[:, 1], "o", ms=2, mew=0, alpha=0.5, color=colour, rasterized=True
            )
        ax.set_title(f"by {title}" + (f" ({len(names)})" if title == "subject" else ""))
        if title == "state":
            handles = [Line2D([], [], marker="o", ls="", color=style.SERIES[i % len(style.SERIES)], label=n.replace("_", " ")) for i, n in enumerate(names)]  # fmt: skip
            fig.legend_outside(handles, 3, "lower left")
    dots = axes[2].scatter(*place.T, c=start_s, s=4, lw=0, alpha=0.6, cmap="viridis", rasterized=True)  # fmt: skip
    axes[2].set_title("by time")
    fig.colorbar(dots, ax=axes[2], label="time in the recording (s)")
    for ax in axes:
        ax.set_xlim(*limits[:, 0])
        ax.set_ylim(*limits[:, 1])
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel("component 1")
    axes[0].set_ylabel("component 2")
    return fig


@style.styled
def neighbour_purity(neighbours: pd.DataFrame) -> Picture:
    """Share of the nearest windows with the same state and the same subject, a line a recording.

    neighbours: recording, state, state_chance, subject, subject_chance.
    """
    fig = style.new_figure(2.6)
    ax = fig.add_subplot()
    found = []
    for row, (name, text) in enumerate((("state", "same state"), ("subject", "same subject"))):
        side = np.linspace(-0.22, 0.22, len(neighbours))
        ax.plot(neighbours[name], row + side, "o", ms=4.5, mew=0, alpha=0.7, color=style.BLUE, label="one recording" if row == 0 else None)  # fmt: skip
        ax.plot([neighbours[name].mean()] * 2, [row - 0.32, row + 0.32], color=style.VERMILLION, lw=2.2, label="mean" if row == 0 else None)  # fmt: skip
        ax.plot([neighbours[f"{name}_chance"].mean()] * 2, [row - 0.32, row + 0.32], color=style.INK, ls=":", lw=1.6, label="chance" if row == 0 else None)  # fmt: skip
        ax.text(1.01, row, text, va="center", transform=ax.get_yaxis_transform())
        found.append(f"{text} {neighbours[name].mean():.0%} (chance {neighbours[f'{name}_chance'].mean():.0%})")  # fmt: skip
    fig.result = f"Mean: {', '.join(found)}"
    ax.set_yticks([])
    ax.set_ylim(1.5, -0.5)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("share of the ten nearest windows")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.28), ncols=3)
    return fig


@style.styled
def budget_curves(curve: pd.DataFrame, smallest_class: int) -> Picture:
    """Balanced accuracy against labels a class, a panel a task, with 95 % intervals over subjects.

    curve: embedder, task, budget (0 = all), value, ci_low, ci_high, chance; smallest_class: labelled
    training windows of the rarest state, where "all" is drawn.
    """
    tasks = list(dict.fromkeys(curve["task"]))
    fig = style.new_figure(4.6)
    axes = fig.subplots(1, len(tasks), squeeze=False)[0]
    x_of = {b: float(b or smallest_class) for b in dict.fromkeys(curve["budget"])}
    names = list(dict.fromkeys(curve["embedder"]))
    for ax, task in zip(axes, tasks, strict=True):
        part = curve[curve["task"] == task]
        for i, name in enumerate(names):
            own = part[part["embedder"] == name]
            if own.empty:
                continue
            x = own["budget"].map(x_of).to_numpy(float) * (1 + 0.03 * (i - len(names) / 2))
            order = np.argsort(x)
            colour = style.SERIES[i % len(style.SERIES)]
            mark = "osD^vP"[i // len(style.SERIES) % 6]
            error = np.abs(own[["ci_low", "ci_high"]].to_numpy().T - own["value"].to_numpy())
            ax.errorbar(x[order], own["value"].to_numpy()[order], error[:, order], fmt=f"-{mark}", ms=4.5, capsize=2.5, lw=1.4, color=colour, label=name)  # fmt: skip
        ax.axhline(part["chance"].iloc[0], color=style.INK, ls=":", lw=1.4, label="chance")
        _label_axis(ax, x_of)
        ax.set_ylim(0.2 if task == "multiclass" else 0.4, 1.01)
        ax.set_xlabel("labelled windows of a class")
        ax.set_title(TASK_TEXT[task])
    axes[0].set_ylabel("balanced accuracy, mean over subjects")
    most = max(x_of, key=x_of.get)
    best = curve.loc[
        curve[(curve["budget"] == most) & (curve["task"] == tasks[0])]["value"].idxmax()
    ]
    labels = "all labels" if most == 0 else f"{most} labels a class"
    fig.result = (
        f"Highest with {labels}, {TASK_TEXT[tasks[0]]}: {best['embedder']} {best['value']:.1%}"
    )
    fig.legend_outside(max((ax.get_legend_handles_labels()[0] for ax in axes), key=len))
    return fig


@style.styled
def class_curves(classes: pd.DataFrame, smallest_class: int) -> Picture:
    """One state against all others, a panel a state.

    classes: embedder, budget, class, value, ci_low, ci_high, chance.
    """
    if len(classes) == 0:
        return style.say("One state against all others was not asked for (tasks).")
    states = sorted(set(classes["class"]))
    n_rows = -(-len(states) // MOST_COLUMNS)
    fig = style.new_figure(1.1 + 2.5 * n_rows)
    panels = fig.subplots(n_rows, -(-len(states) // n_rows), squeeze=False, sharey=True)
    for ax in panels.ravel()[len(states) :]:
        ax.set_axis_off()
    x_of = {b: float(b or smallest_class) for b in dict.fromkeys(classes["budget"])}
    names = list(dict.fromkeys(classes["embedder"]))
    for ax, state in zip(panels.ravel(), states, strict=False):
        for i, name in enumerate(names):
            own = classes[(classes["class"] == state) & (classes["embedder"] == name)]
            own = own.assign(x=own["budget"].map(x_of)).sort_values("x")
            colour = style.SERIES[i % len(style.SERIES)]
            ax.fill_between(own["x"], own["ci_low"], own["ci_high"], color=colour, alpha=0.12, lw=0)
            ax.plot(own["x"], own["value"], "-o", ms=4, color=colour, label=name)
        ax.axhline(0.5, color=style.INK, ls=":", lw=1.4, label="chance")
        _label_axis(ax, x_of)
        ax.set_title(state.replace("_", " "))
        ax.set_xlabel("labels")
        ax.set_ylim(0.4, 1.01)
    for row in panels:
        row[0].set_ylabel("balanced accuracy")
    fig.legend_outside(panels[0, 0].get_legend_handles_labels()[0])
    return fig


def _label_axis(ax: Axes, x_of: dict[int, float]) -> None:
    """Labels a class in the logarithm, each budget named; accuracy in percent."""
    ax.set_xscale("log")
    ax.set_xticks(list(x_of.values()), ["all" if b == 0 else str(b) for b in x_of])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
