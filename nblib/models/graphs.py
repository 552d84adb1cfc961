"""Who listens to whom: directed graphs of units, from activity or anatomy, without labels.

A graph is a list of incoming edges for each unit, first the edge from the unit to itself. G graphs
may stand side by side, one a time bin. Shapes: B presentations, T bins, N units, K edges a unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, BadParameter

KINDS = ("full", "correlation", "learned", "anatomy")
# Tensors of one number an edge, presentation, bin and channel that a training step keeps; measured.
KEPT_TENSORS = 6
DENSE_TENSORS = 5  # tensors of one number a pair of units, while a graph is made


@dataclass(frozen=True)
class Graph:
    """Edges by target: source (G, N, K) unit index, weight (G, N, K), present (G, N, K) bool.

    Absent edges fill up the rows of units that have fewer than K.
    """

    source: np.ndarray
    weight: np.ndarray
    present: np.ndarray

    @property
    def n_edges(self) -> int:
        """Edges that are there, those of a unit to itself left out."""
        return int(self.present[:, :, 1:].sum())

    def matrix(self) -> np.ndarray:
        """Mean weight over the G graphs, (N target, N source); 0 = no edge."""
        n_graphs, n, _ = self.source.shape
        dense = np.zeros((n_graphs, n, n))
        where = self.present.nonzero()
        dense[where[0], where[1], self.source[where]] = self.weight[where]
        return dense.mean(axis=0)


def correlation(x: np.ndarray, by_bin: bool = False) -> np.ndarray:
    """`|Pearson r|` between units, (G, N, N) with zeros on the diagonal; x (B, T, N).

    by_bin: one a time bin, from that bin's counts. A unit that never changes is correlated with none.
    """
    x = np.asarray(x, np.float64)
    x = x.swapaxes(0, 1) if by_bin else x.reshape(1, -1, x.shape[-1])  # (G, rows, N)
    x = x - x.mean(axis=1, keepdims=True)
    sd = np.sqrt((x**2).mean(axis=1, keepdims=True))
    x = np.divide(x, sd, out=np.zeros_like(x), where=sd > 0)
    r = np.minimum(np.abs(x.swapaxes(1, 2) @ x) / x.shape[1], 1.0)
    return r * (1 - np.eye(x.shape[2]))


def strongest(weight: np.ndarray, k: int, threshold: float = 0.0) -> Graph:
    """Edges with the k largest weights of each row (k = 0: all), positive and at least the threshold.

    weight (G, N target, N source), such as `correlation` on train rows; its diagonal 0.
    """
    n = weight.shape[1]
    k = min(k or n - 1, n - 1)
    order = np.argsort(-weight, axis=2, kind="stable")[:, :, :k]
    weights = np.take_along_axis(weight, order, axis=2)
    keep = (weights > 0) & (weights >= threshold)
    most = int(keep.sum(axis=2).max(initial=0))
    return _with_self(order[:, :, :most], weights[:, :, :most], keep[:, :, :most])


def full_graph(n: int) -> Graph:
    """An edge from every unit to every unit, all of weight 1."""
    return strongest(1.0 - np.eye(n)[None], 0)


def anatomy_graph(units: pd.DataFrame | None, k: int) -> Graph:
    """Edges of weight 1 from the k nearest units on the same probe, else from those of one area.

    units: one row a unit; `probe` with x, y or z [um] gives distances; where these are missing,
    `area` gives all units of the same area. Raises BadInput for a recording with neither.
    """
    place = _positions(units)
    if place is not None:
        probe, where = place
        distance = np.sqrt(((where[:, None] - where[None]) ** 2).sum(axis=2))
        near = np.where(probe[:, None] == probe[None], 1 / (1 + distance), 0.0)
        np.fill_diagonal(near, 0.0)
        graph = strongest(near[None], k)
        return Graph(graph.source, graph.present.astype(np.float32), graph.present)
    if units is not None and "area" in units and _known(units["area"]).any():
        area, known = units["area"].astype(str).to_numpy(), _known(units["area"])
        same = (area[:, None] == area[None]) & known[:, None] & known[None]
        np.fill_diagonal(same, False)
        return strongest(same[None].astype(float), 0)
    raise BadInput(
        "graph = 'anatomy': this recording names neither the area of its units nor their place on "
        "a probe; choose graph 'correlation', 'learned' or 'full'."
    )


def _known(column: pd.Series) -> np.ndarray:
    return (column.notna() & ~column.astype(str).isin(["", "nan", "None", "unknown"])).to_numpy()


def _positions(units: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Probe (N,) and place (N, 1 to 3) [um] where every unit has them, else None."""
    if units is None or "probe" not in units or not _known(units["probe"]).all():
        return None
    axes = [a for a in "xyz" if a in units and np.isfinite(units[a].to_numpy(float)).all()]
    where = units[axes].to_numpy(float)
    if not axes or not np.ptp(where, axis=0).any():
        return None
    return units["probe"].astype(str).to_numpy(), where


def _with_self(source: np.ndarray, weight: np.ndarray, present: np.ndarray) -> Graph:
    """Put each unit's edge to itself first, with weight 1, so that no unit is left without one."""
    n_graphs, n, _ = source.shape
    itself = np.broadcast_to(np.arange(n)[None, :, None], (n_graphs, n, 1))
    one = np.ones((n_graphs, n, 1))
    return Graph(
        np.concatenate([itself, np.where(present, source, itself)], axis=2).astype(np.int64),
        np.concatenate([one, np.where(present, weight, 0.0)], axis=2).astype(np.float32),
        np.concatenate([one.astype(bool), present], axis=2),
    )


def step_bytes(n_units: int, k: int, width: int, n_samples: int) -> int:
    """About how much memory one training step takes [bytes]; width: numbers an edge and sample."""
    return 4 * KEPT_TENSORS * n_samples * n_units * (k + 1) * width


def learned_bytes(n_units: int, n_graphs: int) -> int:
    """Memory of a trainable adjacency: scores, gradients, two moments, and what ranks them [bytes]."""
    return 4 * 6 * n_graphs * n_units**2


def check_units(n_units: int, n_graphs: int, limit_gb: float) -> None:
    """Refuse so many units that comparing each with each would not fit; BadParameter."""
    needed = DENSE_TENSORS * 8 * n_graphs * n_units**2
    if needed > limit_gb * 1e9:
        raise BadParameter(
            f"a graph of {n_units:,} units compares each with each, which takes about {needed / 1e9:.3g} "
            f"GB, more than memory_gb = {limit_gb:g}; use a decoder of 05, or raise memory_gb in "
            "model_params."
        )


def check_memory(needed: int, limit_gb: float, what: str) -> None:
    """Refuse a graph that would not fit; BadParameter says how much it needs."""
    if needed > limit_gb * 1e9:
        raise BadParameter(
            f"{what} would take about {needed / 1e9:.3g} GB in a training step, more than "
            f"memory_gb = {limit_gb:g}; choose a smaller k (graph 'correlation' or 'learned'), "
            "a smaller batch_size, or raise memory_gb in model_params."
        )
