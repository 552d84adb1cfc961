"""Figures of cleaning (03): what was removed, how much of it, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nblib.data.recording import QUALITY
from nblib.report.plots import style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

_GONE = style.shade(style.VERMILLION, 0.4)
_QUALITY_TEXT = {
    "isi_violations": "ISI violations (ratio)",
    "amplitude_cutoff": "amplitude cutoff (fraction)",
    "presence_ratio": "presence ratio (fraction)",
}


@style.styled
def removals(table: pd.DataFrame) -> Picture:
    """Bars: the share removed for each reason, with the count beside it.

    table: columns what (spikes, presentations, units), reason, removed, kept; one row a reason.
    """
    if len(table) == 0:
        return style.say("The settings ask for no removal.")
    fig = style.new_figure(1.1 + 0.36 * max(len(table), 2))
    ax = fig.add_subplot()
    kinds = list(dict.fromkeys(table["what"]))
    colours = dict(zip(kinds, (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE), strict=False))
    total = (table["removed"] + table["kept"]).to_numpy(float)
    share = np.divide(
        table["removed"].to_numpy(float), total, np.zeros(len(table)), where=total > 0
    )
    for row, (line, part, whole) in enumerate(zip(table.itertuples(), share, total, strict=True)):
        ax.barh(row, part, color=colours.get(line.what, style.GREY), height=0.7)
        text = f"  {int(line.removed):,} of {int(whole):,} ({part:.1%})"
        ax.text(part, row, text, va="center", fontsize=9)
    ax.set_yticks(range(len(table)), [f"{t.what}: {t.reason}" for t in table.itertuples()])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xlim(0, max(0.02, share.max(initial=0) * 1.6))
    ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= min(1.0, ax.get_xlim()[1])])
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    ax.set_xlabel("share removed")
    ax.set_title("What was removed, and why")
    return fig


@style.styled
def quality(units: pd.DataFrame, limits: dict[str, float]) -> Picture:
    """Distributions of recorded unit quality with the limits in force and the Allen defaults.

    units: one row per unit; limits: isi_violations (upper), amplitude_cutoff (upper) and
    presence_ratio (lower); an infinite limit removes nothing.
    """
    known = [name for name in _QUALITY_TEXT if name in units and np.isfinite(units[name]).any()]
    if not known:
        return style.say("This recording holds no unit quality, so none can be limited.")
    fig = style.new_figure(2.9)
    axes = fig.subplots(1, len(known), squeeze=False)[0]
    for ax, name in zip(axes, known, strict=True):
        _draw_quality(ax, units[name].to_numpy(float), name, limits[name])
    axes[0].set_ylabel("units")
    handles = [
        Patch(color=style.BLUE, label="kept"),
        Patch(color=_GONE, label="removed"),
        Line2D([], [], color=style.INK, ls=":", lw=1.4, label="Allen default limit"),
    ]
    fig.legend_outside(handles, 3)
    return fig


def _draw_quality(ax: Axes, values: np.ndarray, name: str, limit: float) -> None:
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(np.quantile(values, 0.99))
    allen = next(limit for limit in QUALITY[name] if np.isfinite(limit))
    low, high = min(low, allen, 0.0), max(high, allen, 1.0 if name != "amplitude_cutoff" else 0.5)
    edges = np.linspace(low, high, 31)
    counts, _ = np.histogram(np.clip(values, low, high), edges)
    lower = name == "presence_ratio"
    middle = (edges[:-1] + edges[1:]) / 2
    gone = middle < limit if lower else middle > limit
    width = np.diff(edges)
    ax.bar(middle[~gone], counts[~gone], width=width[~gone], color=style.BLUE)
    ax.bar(middle[gone], counts[gone], width=width[gone], color=_GONE)
    ax.axvline(allen, color=style.INK, ls=":", lw=1.4, zorder=3)
    if np.isfinite(limit) and limit != allen:
        ax.axvline(limit, color=style.VERMILLION, lw=1.6)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xlabel(_QUALITY_TEXT[name])
    ax.set_title(f"limit: {limit:g}" if np.isfinite(limit) else "no limit", fontweight="normal")
