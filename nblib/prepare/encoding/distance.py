"""Distance from each bin to its nearest spike: the target of Doran and others' spike-distance networks."""

from __future__ import annotations

import numpy as np

SPIKE_BIN = 0.25  # bins: how far a spike lies from the middle of its own bin, on average


def distances(spikes: np.ndarray, K: int, *, future: bool = False, axis: int = -1) -> np.ndarray:
    """Bins to the nearest spike along `axis`, 0 in its own bin, at most K; K everywhere without one.

    spikes: counts a bin, any number above 0 is a spike. future: only spikes at or after a bin count.
    """
    spikes = np.moveaxis(np.asarray(spikes), axis, -1)
    away = np.full(spikes.shape, K, np.int32)
    n = spikes.shape[-1]
    for place in np.ndindex(spikes.shape[:-1]):
        at = np.flatnonzero(spikes[place])
        if len(at):
            after = np.repeat(np.append(at, n + 2 * K), np.diff(at, prepend=-1, append=n - 1))
            ahead = after - np.arange(n)
            if not future:
                before = np.repeat(np.append(-2 * K, at), np.diff(at, prepend=0, append=n))
                ahead = np.minimum(ahead, np.arange(n) - before)
            away[place] = np.minimum(ahead, K)
    return np.moveaxis(away, -1, axis)
