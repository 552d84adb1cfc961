"""What carries the answer (05, 06): units, bins and areas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from nblib.report.plots import style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

MOST_UNITS = 20


@style.styled
def importance(
    units: pd.DataFrame | None,
    bins: pd.DataFrame | None,
    areas: pd.DataFrame | None = None,
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
    rows = 1 if areas is None else 2
    axes = fig.subplots(rows, 2, squeeze=False)
    _units(axes[0, 0], units)
    _bins(axes[0, 1], bins)
    if areas is not None:
        _areas(axes[1, 0], areas, "alone", "One area alone")
        _areas(axes[1, 1], areas, "without", "All areas but one")
    return fig


def _units(ax: Axes, units: pd.DataFrame) -> None:
    top = units.sort_values("rise", ascending=False).head(MOST_UNITS).reset_index(drop=True)
    names = [style.area_name(a) for a in top["area"]]
    seen = set()
    for i, row in top.iterrows():
        colour = style.area_colour(names[i]) if names[i] else style.BLUE
        label = style.area_label(names[i]) if names[i] and names[i] not in seen else None
        seen.add(names[i])
        ax.plot([row["ci_low"], row["ci_high"]], [i, i], color=colour, lw=1.6)
        ax.plot(row["rise"], i, "o", ms=4.5, color=colour, label=label)
    ax.axvline(0, color=style.INK, lw=0.8)
    ax.set_yticks(range(len(top)), [str(u) for u in top["unit"]])
    ax.set_ylim(len(top) - 0.5, -0.5)
    ax.set_ylabel("unit")
    ax.set_xlabel("rise of the log-loss (nats)")
    ax.set_title(f"The {len(top)} units that carry most, of {len(units)}")
    if seen - {""}:
        ax.legend(loc="lower right")


def _bins(ax: Axes, bins: pd.DataFrame) -> None:
    stop = bins["time"].to_numpy(float)
    width = np.diff(np.concatenate([[min(0.0, stop[0])], stop]))
    width = np.where(width > 0, width, 1.0)
    middle = stop - width / 2
    error = np.stack([bins["rise"] - bins["ci_low"], bins["ci_high"] - bins["rise"]])
    ax.bar(middle, bins["rise"], 0.9 * width, color=style.SKY)
    ax.errorbar(middle, bins["rise"], np.maximum(error, 0), fmt="none", ecolor=style.INK, lw=1.2)
    ax.axhline(0, color=style.INK, lw=0.8)
    ax.set_xlabel("time of the bin (s from onset)")
    ax.set_ylabel("rise of the log-loss (nats)")
    ax.set_title("Which bin carries it")


def _areas(ax: Axes, areas: pd.DataFrame, kind: str, title: str) -> None:
    part = areas[areas["kind"] == kind].reset_index(drop=True)
    whole = areas[areas["kind"] == "all"].iloc[0]
    for i, row in part.iterrows():
        colour = style.area_colour(row["area"])
        ax.plot([row["ci_low"], row["ci_high"]], [i, i], color=colour, lw=1.6)
        ax.plot(row["value"], i, "o", ms=5, color=colour)
    ax.axvspan(whole["ci_low"], whole["ci_high"], color=style.LIGHT, lw=0, zorder=0)
    ax.axvline(whole["value"], color=style.INK, lw=1.2, label="all units")
    ax.axvline(whole["chance"], color=style.INK, ls=":", lw=1.2, label="chance")
    names = [f"{style.area_label(r['area'])} ({r['n_units']})" for _, r in part.iterrows()]
    ax.set_yticks(range(len(part)), names)
    ax.set_ylim(len(part) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel("accuracy, trained again")
    ax.set_title(title)
    ax.legend(loc="best")
