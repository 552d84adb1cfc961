"""Curves over the number of labels (07, 09): what a decoder reaches with how many presentations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nblib.report.plots import primitives, style
from nblib.report.plots.style import Picture

MOST_COLUMNS = 4  # of panels
TASK_TEXT = {"one_vs_all": "one state against all others", "multiclass": "which state it is"}


@style.styled
def few_shot_curves(curve: pd.DataFrame, oracle: Any | None = None) -> Picture:
    """Test accuracy of each decoder against presentations a class, with 95 % intervals.

    curve: model, k (0 = all), per_class, value, ci_low, ci_high, chance; oracle: score of the best
    possible decoder, or None. `runs`, where given, are those behind a point.
    """
    if len(curve) == 0:
        return style.say("No learning curve yet. Draw one with: nblib run 07 --with-upstream")
    fig, ax = style.new_panel(4.6)
    curve = curve.rename(columns={"runs": "run"}).assign(chance=curve["chance"].iloc[0])
    curve["model"] = curve["model"].str.replace("_", " ")
    primitives.curves(ax, curve, "per_class", "model", bands=True)
    if oracle is not None and oracle.value == oracle.value:
        ax.axhline(oracle.value, color=style.INK, ls="-.", lw=1.2, label="best possible (oracle)")
    best = curve.loc[curve.loc[curve["per_class"] == curve["per_class"].max(), "value"].idxmax()]
    fig.result = f"Best with {_shots(best['k'])}: {best['model']} {best['value']:.1%}"
    places = curve.drop_duplicates("k").sort_values("per_class")
    primitives.log_places(ax, dict(zip(places["per_class"], places["k"].map(_shots), strict=True)))
    primitives.percent(ax.yaxis)
    ax.set_ylim(0, 1.02)
    ax.set(xlabel="training presentations of each class", ylabel="accuracy on test presentations")
    primitives.legend_beside(ax)
    return fig


def _shots(k: int) -> str:
    return "all" if k == 0 else str(k)


@style.styled
def draws_spread(draws: pd.DataFrame) -> Picture:
    """Each draw a dot, so that one sees how much a single small draw is worth.

    draws: model, k (0 = all), accuracy.
    """
    fig, ax = style.new_panel(3.4)
    table = draws.sort_values("k", key=lambda k: k.replace(0, np.inf), kind="stable")
    model, k = draws["model"].str.replace("_", " "), draws["k"].map(_shots)
    table = table.assign(value=draws["accuracy"], model=model, k=k)
    primitives.swarm(ax, table, "k", "model")
    primitives.percent(ax.yaxis)
    ax.set(xlabel="training presentations of each class", ylabel="accuracy, one dot a draw")
    primitives.legend_beside(ax)
    return fig


@style.styled
def budget_curves(curve: pd.DataFrame, smallest_class: int) -> Picture:
    """Balanced accuracy against labels a class, a panel a task, with 95 % intervals over subjects.

    curve: embedder, task, budget (0 = all), value, ci_low, ci_high, chance; smallest_class: labelled
    training windows of the rarest state, where "all" is drawn.
    """
    tasks = list(dict.fromkeys(curve["task"]))
    fig = style.new_figure(4.6)
    score = "balanced accuracy, mean over subjects"
    axes = primitives.panels(fig, len(tasks), len(tasks), x="labelled windows of a class", y=score)
    for ax, task in zip(axes, tasks, strict=True):
        _budgets(ax, curve, "task", task, smallest_class)
        ax.set_ylim(0.2 if task == "multiclass" else 0.4, 1.01)
        ax.set_title(TASK_TEXT[task])
    labels = curve["budget"].replace(0, smallest_class)
    most = curve[(curve["task"] == tasks[0]) & (labels == labels.max())]
    best = most.loc[most["value"].idxmax()]
    n = "all labels" if best["budget"] == 0 else f"{best['budget']} labels a class"
    fig.result = f"Highest with {n}, {TASK_TEXT[tasks[0]]}: {best['embedder']} {best['value']:.1%}"
    fig.legend_outside()
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
    columns = -(-len(states) // n_rows)
    axes = primitives.panels(fig, len(states), columns, y="balanced accuracy", sharey=True)
    for ax, state in zip(axes, states, strict=True):
        _budgets(ax, classes, "class", state, smallest_class, bands=True)
        ax.set(ylim=(0.4, 1.01), xlabel="labels", title=state.replace("_", " "))
    fig.legend_outside()
    return fig


def _budgets(
    ax: Axes, curve: pd.DataFrame, by: str, name: str, smallest_class: int, bands: bool = False
) -> None:
    """A line an embedder, of the rows whose column `by` is `name`; each budget named, in the logarithm.

    Bars of intervals stand side by side, bands do not need to.
    """
    looks = primitives.series(curve["embedder"])
    labels = {budget: float(budget or smallest_class) for budget in dict.fromkeys(curve["budget"])}
    part = curve[curve[by] == name]
    aside = part["embedder"].map(list(looks).index) - len(looks) / 2
    table = part.assign(x=part["budget"].map(labels) * (1 + (0 if bands else 0.03) * aside))
    primitives.curves(ax, table, "x", "embedder", looks=looks, bands=bands)
    primitives.log_places(ax, {x: _shots(budget) for budget, x in labels.items()})
    primitives.percent(ax.yaxis)
