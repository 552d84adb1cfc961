"""The figure of the graph of units (06): who listens to whom, and whether activity says the same."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nblib.models import graphs
from nblib.report.plots import primitives, style
from nblib.report.plots.style import Picture

MOST_DOTS = 20_000  # edges drawn as dots
MOST_WRITTEN = 8  # areas whose shares are written


@style.styled
def graph_overview(matrix: np.ndarray, correlation: np.ndarray, areas: np.ndarray) -> Picture:
    """A graph of units: its adjacency, the flow between areas, degrees, and weight against `|r|`.

    matrix: (target, source), 0 = no edge; correlation: `|r|` on train rows, same shape; areas:
    (unit,). Edges of a unit to itself are left out.
    """
    row, names = style.by_area(areas)
    edges = np.array(matrix, float)
    np.fill_diagonal(edges, 0.0)
    fig = style.new_figure(7.6)
    axes = fig.subplots(2, 2, height_ratios=(1.35, 1))
    _adjacency(axes[0, 0], edges[np.ix_(row, row)], names)
    _flow(axes[0, 1], edges[np.ix_(row, row)], names)
    _degrees(axes[1, 0], edges)
    _against(axes[1, 1], edges, np.asarray(correlation, float))
    return fig


def _adjacency(ax: Axes, edges: np.ndarray, names: np.ndarray) -> None:
    n, there = len(edges), edges != 0
    limit = np.abs(edges).max(initial=0) or 1.0
    signed = {} if (edges < 0).any() else {"cmap": "Blues", "vmin": 0}
    primitives.units_matrix(ax, edges, names, "weight", **primitives.either_side(limit) | signed)
    ax.set(xlabel="speaks (same order)", ylabel="listens")
    lone = int((~there.any(axis=0) & ~there.any(axis=1)).sum())
    ax.set_title(f"{there.sum():,} edges of {n} units" + (f", {lone} without any" if lone else ""))


def _flow(ax: Axes, edges: np.ndarray, names: np.ndarray) -> None:
    flow = 100 * graphs.area_flow((edges != 0).astype(float), names)
    places, labels = range(len(flow)), [style.area_label(area) for area in flow.index]
    look = {"cmap": "Blues", "vmin": 0, "vmax": max(flow.to_numpy().max(initial=0), 1e-9)}
    primitives.matrix(ax, flow.to_numpy(), written=len(flow) <= MOST_WRITTEN, **look)
    ax.set_xticks(places, labels, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(places, labels)
    ax.set(xlabel="speaks", ylabel="listens", title="Unit pairs with an edge (%)")


def _degrees(ax: Axes, edges: np.ndarray) -> None:
    degrees = (edges != 0).sum(axis=0)
    ax.hist(degrees, bins=min(30, int(degrees.max(initial=0)) + 1), color=style.BLUE)
    ax.axvline(degrees.mean(), label=f"mean {degrees.mean():.1f}", **primitives.CHANCE)
    ax.legend(loc="upper right")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="units that listen to a unit", ylabel="units", title="How many listen")


def _against(ax: Axes, edges: np.ndarray, correlation: np.ndarray) -> None:
    there = np.flatnonzero(edges.ravel())
    there = there[:: len(there) // MOST_DOTS + 1]
    r, weight = correlation.ravel()[there], edges.ravel()[there]
    ax.plot(r, weight, "o", ms=2.5, mew=0, alpha=0.4, color=style.BLUE, rasterized=True)
    ends = [0, float(r.max(initial=0.01))]
    ax.plot(ends, ends, label="equal", **primitives.CHANCE)
    ax.set(xlabel="|r| of the two units on train rows", ylabel="weight of the edge")
    ax.set_title("Edges against correlation")
    ax.legend(loc="upper left")
