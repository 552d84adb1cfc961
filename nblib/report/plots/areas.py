"""Naming brain areas beside rows that are units ordered by area."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from nblib.report.plots import style


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
        ax.set_yticks(middles, [f"{style.area_label(a)} ({(names == a).sum()})" for a in order])
        ax.tick_params(axis="y", length=0, pad=9)
        for tick, area in zip(ax.get_yticklabels(), order, strict=True):
            tick.set_color(style.shade(style.area_colour(area), -0.3))
        ax.set_ylabel("units, by area")
    for area, low, high in zip(order, edges[:-1] + 0.5, edges[1:] + 0.5, strict=True):
        strip = {"color": style.area_colour(area), "lw": 0, "clip_on": False}
        corner, height = (-0.012, 1 - high / n), (high - low) / n
        ax.add_patch(Rectangle(corner, 0.010, height, transform=ax.transAxes, **strip))
