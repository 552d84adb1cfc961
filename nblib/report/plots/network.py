"""Figures of the graph of units (06): who listens to whom, and whether activity says the same."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nblib.models import graphs
from nblib.report.plots import style
from nblib.report.plots.areas import mark_areas
from nblib.report.plots.roles import coarse
from nblib.report.plots.style import Picture

MOST_DOTS = 20_000  # edges drawn as dots


@style.styled
def graph_overview(matrix: np.ndarray, correlation: np.ndarray, areas: np.ndarray) -> Picture:
    """A graph of units: its adjacency, the flow between areas, degrees, and weight against |r|.

    matrix: (target, source), 0 = no edge; correlation: |r| on train rows, same shape; areas:
    (unit,). Edges of a unit to itself are left out.
    """
    names = np.array([style.area_name(a) for a in areas], dtype=object)
    row = np.concatenate([np.flatnonzero(names == a) for a in style.area_order(names)])
    edges = np.array(matrix, float)
    np.fill_diagonal(edges, 0.0)
    fig = style.new_figure(7.6)
    axes = fig.subplots(2, 2, height_ratios=(1.35, 1))
    _adjacency(axes[0, 0], edges[np.ix_(row, row)], names[row])
    _flow(axes[0, 1], edges[np.ix_(row, row)], names[row])
    _degrees(axes[1, 0], edges)
    _against(axes[1, 1], edges, np.asarray(correlation, float))
    return fig


def _adjacency(ax: Axes, edges: np.ndarray, names: np.ndarray) -> None:
    n = len(edges)
    limit = np.abs(edges).max(initial=0) or 1.0
    signed = bool((edges < 0).any())
    look = {"cmap": "RdBu_r", "vmin": -limit} if signed else {"cmap": "Blues", "vmin": 0}
    extent = (-0.5, n - 0.5, n - 0.5, -0.5)
    image = ax.imshow(coarse(edges), vmax=limit, extent=extent, **look)
    mark_areas(ax, names, both=True)
    ax.set_xticks([])
    ax.set_xlabel("speaks (same order)")
    ax.set_ylabel("listens")
    lone = int(((edges != 0).sum(axis=0) + (edges != 0).sum(axis=1) == 0).sum())
    told = f", {lone} without any" if lone else ""
    ax.set_title(f"{int((edges != 0).sum()):,} edges of {n} units{told}")
    ax.figure.colorbar(image, ax=ax, label="weight", shrink=0.75, pad=0.02)


def _flow(ax: Axes, edges: np.ndarray, names: np.ndarray) -> None:
    flow = graphs.area_flow((edges != 0).astype(float), names)
    shares = 100 * flow.to_numpy()
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=max(shares.max(initial=0), 1e-9))
    texts = [style.area_label(a) for a in flow.index]
    ax.set_xticks(range(len(texts)), texts, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(texts)), texts)
    ax.set_xlabel("speaks")
    ax.set_ylabel("listens")
    ax.set_title("Unit pairs with an edge (%)")
    if len(texts) <= 8:
        for i, j in np.ndindex(shares.shape):
            dark = shares[i, j] > 0.6 * shares.max()
            ax.text(j, i, f"{shares[i, j]:.0f}", ha="center", va="center", fontsize=9,
                    color="white" if dark else style.INK)  # fmt: skip


def _degrees(ax: Axes, edges: np.ndarray) -> None:
    out = (edges != 0).sum(axis=0)
    ax.hist(out, bins=min(30, int(out.max(initial=0)) + 1), color=style.BLUE)
    ax.axvline(out.mean(), color=style.INK, ls=":", lw=1.2, label=f"mean {out.mean():.1f}")
    ax.legend(loc="upper right")
    ax.set_xlabel("units that listen to a unit")
    ax.set_ylabel("units")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title("How many listen")


def _against(ax: Axes, edges: np.ndarray, correlation: np.ndarray) -> None:
    there = np.flatnonzero(edges.ravel())
    if len(there) > MOST_DOTS:
        there = there[:: len(there) // MOST_DOTS + 1]
    r, weight = correlation.ravel()[there], edges.ravel()[there]
    ax.plot(r, weight, "o", ms=2.5, mew=0, alpha=0.4, color=style.BLUE, rasterized=True)
    ends = [0, float(r.max(initial=0.01))]
    ax.plot(ends, ends, ":", color=style.INK, lw=1.2, label="equal")
    ax.set_xlabel("|r| of the two units on train rows")
    ax.set_ylabel("weight of the edge")
    ax.set_title("Edges against correlation")
    ax.legend(loc="upper left")
