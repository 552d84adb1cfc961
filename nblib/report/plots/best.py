"""The best decoder of each recording (90), chosen on validation, beside published numbers."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from nblib.evaluate.scores import SCORE_TEXT
from nblib.report.plots import style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

HOLLOW = "Ds^vP*"
CAPTION_WIDTH = 108  # characters of a line of the caption


@style.styled
def best_per_recording(
    chosen: pd.DataFrame, published: pd.DataFrame, metric: str = "accuracy"
) -> Picture:
    """Test score of the decoder that validation chose for each recording, a mark a fold.

    chosen: as `compare.chosen` gives it; published: rows of `published` of these recordings, drawn
    hollow, since they were chosen and scored in other ways: the caption says how. Of several folds
    or seeds a bar marks the mean; a single run has its 95 % interval.
    """
    if len(chosen) == 0:
        return style.say(
            "No recording has a decoder that validation could choose.\n"
            "Train one with: nblib run 05_train_lstm --with-upstream"
        )
    several = len(set(chosen["group"])) > 1
    names = zip(chosen["recording"], chosen["group"], strict=True)
    chosen = chosen.assign(who=[_who(*pair) if several else pair[0] for pair in names])
    order = chosen.groupby("who")["value"].mean().sort_values(ascending=False).index
    given = _published_kinds(published)
    notes = _notes(chosen, given)
    fig = style.new_figure(1.45 + 0.27 * len(order) + 0.17 * (notes.count("\n") + 1))
    ax = fig.add_subplot()
    for row, name in enumerate(order):
        _row(fig, ax, row, chosen[chosen["who"] == name])
    place = chosen.drop_duplicates("who").set_index("who")["recording"].loc[order].to_numpy()
    for i, (_, part) in enumerate(given):
        for row, recording in enumerate(place):
            values = part.loc[part["recording"] == recording, "value"]
            ax.plot(values, [row] * len(values), HOLLOW[i % len(HOLLOW)], ms=7, mfc="none",
                    mec=style.VERMILLION, mew=1.4)  # fmt: skip
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlim(-0.01, 1.01)
    ax.grid(axis="y", color=style.LIGHT, lw=0.6)
    ax.set_axisbelow(True)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel(f"{SCORE_TEXT[metric]} on test presentations")
    fig.supxlabel(notes, ha="left", x=0.012, fontsize=9)
    _legend(fig, chosen, given)
    return fig


def _who(recording: str, group: str) -> str:
    return group if group.startswith(recording) else f"{recording}, {group}"


def _row(fig: Picture, ax: Axes, row: int, part: pd.DataFrame) -> None:
    mean, chance = part["value"].mean(), part["chance"].mean()
    ax.plot([chance] * 2, [row - 0.5, row + 0.5], color=style.INK, ls=":", lw=1.6, zorder=0)
    if len(part) == 1:
        error = np.abs(part[["ci_low", "ci_high"]].to_numpy().T - part["value"].to_numpy())
        ax.errorbar(part["value"], [row], xerr=error, fmt="o", ms=6, capsize=3, color=style.BLUE, lw=1.4)  # fmt: skip
    else:
        ax.plot(part["value"], [row] * len(part), "o", ms=5, color=style.BLUE, alpha=0.6, mew=0)
        ax.plot([mean] * 2, [row - 0.34, row + 0.34], color=style.BLUE, lw=2.2)
    for value, run in zip(part["value"], part["run"], strict=True):
        fig.mark(ax, value, row, [run])
    name = textwrap.shorten(str(part["decoder"].iloc[0]).replace("_", " "), 26)
    ax.text(1.015, row, f"{mean:.1%}  {name}", va="center", fontsize=9, transform=ax.get_yaxis_transform())  # fmt: skip


def _published_kinds(published: pd.DataFrame) -> list[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Published rows by model, selection and the table they come from."""
    if len(published) == 0:
        return []
    table = published["provenance"].str.rsplit(", row ", n=1).str[0]
    return list(published.assign(table=table).groupby(["model", "selected", "table"], sort=False))


def _notes(chosen: pd.DataFrame, given: list) -> str:
    """What a reader must know beside the marks, in lines of the page's width."""
    lines = ["Filled: the decoder with the highest mean validation accuracy over folds."]
    if len(set(chosen["recording"])) == 1:
        lines.append("One recording: this says nothing of others.")
    if not given:
        lines.append("No published number of these recordings is known here.")
    for (model, selected, table), part in given:
        lines.append(f"Hollow, {model} ({len(part)}): {selected}; {table}.")
    return "\n".join(textwrap.fill(line, CAPTION_WIDTH) for line in lines)


def _legend(fig: Picture, chosen: pd.DataFrame, given: list) -> None:
    folds = "one fold" if len(set(chosen["fold"])) > 1 else "one run, 95 % interval"
    handles = [Line2D([], [], marker="o", ls="", color=style.BLUE, label=folds)]
    if chosen.groupby("who").size().max() > 1:
        handles.append(Line2D([], [], color=style.BLUE, lw=2.2, label="mean"))
    handles.append(Line2D([], [], color=style.INK, ls=":", lw=1.6, label="chance"))
    for i, ((model, _, _), _) in enumerate(given):
        mark = {"marker": HOLLOW[i % len(HOLLOW)], "mfc": "none", "mec": style.VERMILLION}
        handles.append(Line2D([], [], ls="", ms=7, mew=1.4, label=f"published {model}", **mark))
    fig.legend(handles=handles, loc="outside upper left", ncols=4)
