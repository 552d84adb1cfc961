"""Which bin each spike falls in, ties with an edge too: exact, about as fast as the spikes can be read.

Edges are float64 thresholds in seconds, laid flat: all edges of the first trial, then of the next.
`nblib.prepare.binning` makes them from integers, so that `t >= threshold` is the integer comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nblib.core.errors import BadInput
from nblib.data.recording import Recording

# Spikes read and counted at a time: long enough to keep Python out of the way, and few of a short recording.
PIECE_SPIKES, LEAST_SPIKES, LEAST_PIECES = 1_000_000, 25_000, 32
CELLS_PER_EDGE = 2
MOST_STEPS = 8  # edges within one cell; beyond, a binary search is faster


class Places:
    """`searchsorted(edges, t, side="right")` by a table, for times between first and last edge.

    Time is cut into equal cells. The table knows how many edges lie in earlier cells; the few in
    a time's own cell are compared one by one. Cells of edges and of times come from one formula
    that never falls as time rises, so rounding cannot change the answer.
    """

    def __init__(self, edges: np.ndarray):
        self.edges = np.append(edges, np.inf)
        n_cells = CELLS_PER_EDGE * len(edges)
        span = edges[-1] - edges[0]
        self.start, self.rate = edges[0], n_cells / span if span > 0 else 0.0
        cell = self._cell(edges)
        self.steps = int(np.bincount(cell).max())
        self.earlier = np.searchsorted(cell, np.arange(n_cells + 1))

    def _cell(self, times: np.ndarray) -> np.ndarray:
        return ((times - self.start) * self.rate).astype(np.int32)

    def __call__(self, times: np.ndarray) -> np.ndarray:
        if self.steps > MOST_STEPS:
            return np.searchsorted(self.edges[:-1], times, side="right")
        place = self.earlier.take(self._cell(times), mode="clip")
        for _ in range(self.steps):
            place += self.edges.take(place, mode="clip") <= times
        return place


def first_at_or_after(edges_ns: np.ndarray) -> np.ndarray:
    """The smallest float64 second that rounds to at least each edge, so floats can be compared
    as they are: `t >= threshold` exactly when `rint(t * 1e9) >= edge`."""
    guess = (edges_ns - 0.5) / 1e9
    for _ in range(4):  # the division is off by an ulp or two at most
        low = np.rint(guess * 1e9) < edges_ns
        guess = np.where(low, np.nextafter(guess, np.inf), guess)
    for _ in range(4):
        below = np.nextafter(guess, -np.inf)
        guess = np.where(np.rint(below * 1e9) >= edges_ns, below, guess)
    return guess


def count_flat(
    recording: Recording, edges: np.ndarray, threads: int
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Count each unit's spikes from every edge to the next.

    edges : thresholds [s] (trial, bins + 1), trials in order of their start. Returns uint8 counts
    (unit, trial, bins + 1), whose last column means nothing, and the counts (trial, bins) of the
    rare units with more than 255 spikes in a bin. Streams over units. Raises BadInput for spike
    times that are not sorted.
    """
    n_trials, n_edges = edges.shape
    flat = edges.ravel()
    index = np.asarray(recording.spike_index, np.int64)
    out = np.zeros((recording.n_units, n_trials, n_edges), np.uint8)
    wide: dict[int, np.ndarray] = {}
    spans = _spans(flat, n_edges) if (np.diff(flat) >= 0).all() else None
    places = [Places(flat[first:stop]) for first, stop in spans or []]

    def work(piece: tuple[int, int]) -> None:
        lo, hi = piece
        times = recording.spikes[index[lo] : index[hi]]
        bounds = index[lo : hi + 1] - index[lo]
        if spans is None:  # trials overlap: a spike may count in several
            dense = range(lo, hi)
        else:
            rows = out[lo:hi].reshape(-1)
            dense = _count_rising(times, bounds, flat, spans, places, rows, recording, lo)
        for unit in dense:
            train = times[bounds[unit - lo] : bounds[unit - lo + 1]]
            counts = np.diff(
                train.searchsorted(edges), axis=1
            )  # ranks of the edges among the spikes
            if counts.size and counts.max() > 255:
                wide[unit] = counts
            else:
                out[unit, :, :-1] = counts

    piece = max(LEAST_SPIKES, recording.n_spikes // LEAST_PIECES)
    in_threads(work, recording.pieces(min(piece, PIECE_SPIKES)), threads)
    return out, wide


def in_threads(work: Callable, pieces: list, threads: int) -> None:
    """Do `work` on every piece; NumPy lets go of the interpreter in its long loops."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(work, pieces))


def _spans(flat: np.ndarray, n_edges: int, far_s: float = 2.0) -> list[tuple[int, int]]:
    """Runs of trials not further apart than `far_s`: (first, stop) positions in `flat`.

    Spikes in the long stretches between them are never looked at.
    """
    starts, stops = flat[n_edges::n_edges], flat[n_edges - 1 : -1 : n_edges]
    breaks = np.flatnonzero(starts - stops > far_s) + 1
    bounds = np.concatenate([[0], breaks * n_edges, [len(flat)]])
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


def _count_rising(times, bounds, flat, spans, places, rows, recording, first_unit) -> set[int]:
    """Trials do not overlap, so a spike has one place. Several units at once: as their spikes are
    sorted, equal places stand side by side and are counted by where they change.

    rows : uint8, the flat places of all these units. Returns units that need more than uint8.
    """
    n_flat, n_units = len(flat), len(bounds) - 1
    corners = np.array([flat[i] for first, stop in spans for i in (first, stop - 1)])
    at_corner = np.empty((n_units, len(corners)), np.int64)
    for u in range(n_units):
        at_corner[u] = times[bounds[u] : bounds[u + 1]].searchsorted(corners) + bounds[u]
    wide: set[int] = set()
    for k, (first, _) in enumerate(spans):
        lo, hi = at_corner[:, 2 * k], at_corner[:, 2 * k + 1]
        inside = np.concatenate([times[a:b] for a, b in zip(lo.tolist(), hi.tolist(), strict=True)])
        if len(inside) == 0:
            continue
        place = places[k](inside)
        place += np.repeat(np.arange(n_units) * n_flat + (first - 1), hi - lo)
        change = np.flatnonzero(place[1:] != place[:-1])
        starts = np.concatenate([[0], change + 1])
        here = place[starts]
        if (here[1:] < here[:-1]).any():
            unit = here[1:][here[1:] < here[:-1]][0] // n_flat + first_unit
            raise BadInput(
                f"{recording.where}: spike times of unit "
                f"{recording.units.index[unit]} are not sorted; sort them in the file."
            )
        counts = np.diff(np.append(starts, len(place)))
        wide |= {int(u) + first_unit for u in here[counts > 255] // n_flat}
        rows[here] = counts.astype(np.uint8)  # the same type on both sides: no slow cast
    return wide
