"""Distance from each bin to its nearest spike: the target of Doran and others' spike-distance networks."""

from __future__ import annotations

import numba
import numpy as np

SPIKE_BIN = 0.25  # bins: how far a spike lies from the middle of its own bin, on average


def distances(spikes: np.ndarray, K: int, *, axis: int = -1) -> np.ndarray:
    """Bins to the nearest spike along `axis`, 0 in its own bin, at most K; K everywhere without one.

    spikes: counts a bin, any number above 0 is a spike.
    """
    spikes = np.ascontiguousarray(np.moveaxis(np.asarray(spikes) > 0, axis, -1))
    away = _two_passes(spikes.reshape(-1, spikes.shape[-1]), K)
    return np.moveaxis(away.reshape(spikes.shape), -1, axis)


@numba.njit(cache=True)
def _two_passes(spikes, K):
    rows, n = spikes.shape
    away = np.empty((rows, n), np.int32)
    for row in range(rows):
        ahead = back = K
        for t in range(n - 1, -1, -1):
            ahead = 0 if spikes[row, t] else min(ahead + 1, K)
            away[row, t] = ahead
        for t in range(n):
            back = 0 if spikes[row, t] else min(back + 1, K)
            away[row, t] = min(away[row, t], back)
    return away
