"""Naming brain areas beside rows that are units ordered by area."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from nblib.plots import style

LEAST_APART = 0.04  # of the axis: names closer than this would touch


def mark_areas(ax: Axes, names: np.ndarray, *, boxes: bool = False, both: bool = False) -> None:
    """Name the areas at the left of rows 0..n-1, from top to bottom, with a strip of their colour.

    names: area of each row, equal ones together. boxes: a line between areas; both: the same on
    the horizontal axis. An area too thin for its name keeps its colour only.
    """
    n = len(names)
    order = list(dict.fromkeys(names))
    edges = np.r_[0, np.cumsum([(names == a).sum() for a in order])] - 0.5
    if boxes or both:
        for edge in edges[1:-1]:
            ax.axhline(edge, color=style.INK, lw=0.7)
            if both:
                ax.axvline(edge, color=style.INK, lw=0.7)
    if order == [""]:
        ax.set_ylabel(f"{n} units")
        ax.set_yticks([])
    else:
        middles = (edges[:-1] + edges[1:]) / 2
        shown = _apart(middles, LEAST_APART * n)
        texts = [f"{style.area_label(order[i])} ({(names == order[i]).sum()})" for i in shown]
        ax.set_yticks(middles[shown], texts)
        ax.tick_params(axis="y", length=0, pad=9)
        for tick, i in zip(ax.get_yticklabels(), shown, strict=True):
            tick.set_color(style.shade(style.area_colour(order[i]), -0.3))
        ax.set_ylabel("units, by area")
    for area, low, high in zip(order, edges[:-1] + 0.5, edges[1:] + 0.5, strict=True):
        ax.add_patch(
            Rectangle(
                (-0.012, 1 - high / n),
                0.010,
                (high - low) / n,
                color=style.area_colour(area),
                lw=0,
                transform=ax.transAxes,
                clip_on=False,
            )
        )


def _apart(middles: np.ndarray, least: float) -> list[int]:
    """Which names fit: each far enough from the last one that was taken."""
    shown: list[int] = []
    for i, middle in enumerate(middles):
        if not shown or middle - middles[shown[-1]] >= least:
            shown.append(i)
    return shown
