"""Several sessions, decoded, encoded and imputed (12): scores beside the best possible, gains, the training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from nblib.report.plots import primitives, style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    from nblib.evaluate.result import Result


@style.styled
def scores(result: Result, *metrics: str) -> Picture:
    """Each metric of every model at every task that has it, with intervals, and the best possible."""
    tables = {metric: table for metric in metrics if len(table := result.of_metric(metric))}
    if not tables:
        return style.say(f"No task has {' or '.join(metrics)}: the recipe names none of that kind.")
    lengths = [len(table) for table in tables.values()]
    fig = style.new_figure(1.2 * len(tables) + 0.16 * sum(lengths))
    models = pd.concat(tables.values())["model"].unique()
    colours = dict(zip(models, style.SERIES, strict=False))
    axes = fig.subplots(len(tables), squeeze=False, height_ratios=lengths)[:, 0]
    for ax, (metric, table) in zip(axes, tables.items(), strict=True):
        rows = table.drop(columns="chance")
        primitives.intervals(ax, rows, "variant", hue="model", colours=colours)
        ax.axvline(0, **primitives.CHANCE)
        ax.set(xlabel=f"{metric}, 95 % interval over blocks of trials")
    fig.legend_outside()
    return fig


@style.styled
def history(table: pd.DataFrame) -> Picture:
    """Loss of train and validation trials by epoch."""
    fig, ax = style.new_panel(2.6)
    for name, colour in zip(("train_loss", "val_loss"), style.SERIES, strict=False):
        ax.plot(table["epoch"], table[name], color=colour, label=name.replace("_loss", ""))
    ax.set(xlabel="epoch", ylabel="loss [nats a number]")
    fig.legend_outside()
    return fig


@style.styled
def transfer(table: pd.DataFrame) -> Picture:
    """How far each model comes from chance to the best possible, by the trials of a new session."""
    from nblib.experiments.multimodal.transfer import shares, told_apart  # load torch

    if table.empty or table["share"].isna().all():
        return style.say(
            "No recording is `new`, or what is possible there is not known (see `transfer` above)."
        )
    fig, ax = style.new_panel(3.2)
    primitives.curves(ax, shares(told_apart(table)), "trials", "model")
    ax.axhline(1, **primitives.CHANCE)
    ax.set(
        xlabel="trials of the new session",
        ylabel="share of the way from chance\nto the best possible",
    )
    fig.legend_outside()
    return fig


@style.styled
def areas(table: pd.DataFrame) -> Picture:
    """Bits a spike of the units of each area (row), told from those of each other (column), by the network."""
    if table.empty:
        return style.say("Not asked for: by_area is off.")
    of_network = table[table["model"] == table["model"].iloc[-1]]
    values = of_network.pivot_table("value", index="told", columns="from")
    fig, ax = style.new_panel(1.2 + 0.5 * len(values))
    look = primitives.either_side(float(values.abs().max(axis=None)))
    primitives.matrix(ax, values.to_numpy(), "bits a spike beyond the PSTH", **look)
    primitives.name_rows(ax, values.index)
    ax.set_xticks(range(values.shape[1]), values.columns)
    ax.set(xlabel="told from units of", ylabel="units of")
    return fig
