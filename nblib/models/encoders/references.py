"""Other ways from what a network says to spike trains: as published, by gradient, and for a score.

Shapes: W windows, L bins, C cells.
"""

from __future__ import annotations

import numba
import numpy as np
from scipy.ndimage import gaussian_filter1d

from nblib.models.encoders import inference
from nblib.prepare.encoding.distance import SPIKE_BIN
from nblib.prepare.encoding.history import LONGEST

PAST = 32  # bins before t0 that a published window holds
END_NODE = 100  # bins after t0, where a spike is taken for certain
BLOCK = 32  # bins that are looked at, or left out, at once
LAST_WEIGHT = 0.3  # of the last bin of a window, falling from 1


def greedy(distance: np.ndarray, since: np.ndarray) -> np.ndarray:
    """The published inference: every bin holds a spike, and those go whose bins are told better without.

    The error is the squared difference of distances, linear and weighted by 1 to 0.3. First in the
    order of distance, largest first, then of gain, until none goes; none comes back. A known spike
    in the past bins and one 100 bins ahead, or just beyond a longer window, stay.

    Parameters
    ----------
    distance
        Predicted distance (W, L) [bins], of `PAST` bins before t0 and those after.
    since
        Bins from the last known spike to t0, (W,).

    Returns
    -------
    ndarray
        Trains (W, L) uint8.
    """
    weight = np.linspace(1, LAST_WEIGHT, distance.shape[1])
    return _greedy(np.asarray(distance, np.float64), weight, np.asarray(since, np.int64), PAST)


@numba.njit(cache=True)
def _gap(distance, weight, left, right):
    """Weighted squared error of the bins between spikes at left and right."""
    error = 0.0
    for t in range(max(left + 1, 0), min(right, len(distance))):
        error += weight[t] * (min(t - left, right - t) - distance[t]) ** 2
    return error


@numba.njit(cache=True)
def _greedy(distances, weight, since, past):
    W, L = distances.shape
    trains, end = np.zeros((W, L), np.uint8), max(past + END_NODE, L)
    for w in range(W):
        d, train = distances[w], trains[w]
        train[past:] = 1
        order, gone = np.argsort(-d[past:]) + past, True
        fixed = past - since[w] if since[w] <= past else -1_000_000
        while gone:
            gone, gains = False, np.zeros(L)
            for c in order:
                left, right = c - 1, c + 1
                while left >= past and not train[left]:
                    left -= 1
                while right < L and not train[right]:
                    right += 1
                left = left if left >= past else fixed
                right = right if right < L else end
                with_it = _gap(d, weight, left, c) + _gap(d, weight, c, right)
                with_it += weight[c] * (SPIKE_BIN - d[c]) ** 2
                gains[c] = with_it - _gap(d, weight, left, right)
                if gains[c] > 0:
                    train[c], gone = 0, True
            order = np.flatnonzero(train)
            order = order[np.argsort(-gains[order])]
    return trains


def by_gradient(distance: np.ndarray, n_spikes: int, steps: int = 200) -> np.ndarray:
    """Trains (W, L) of at most `n_spikes` spikes whose places, evenly spaced at first, follow the gradient
    of the squared error of distances (W, L) [bins]; two in one bin are one. It stays near where it starts."""
    import torch

    seen = torch.as_tensor(distance, dtype=torch.float32)
    L = seen.shape[1]
    place = torch.linspace(PAST, L - 1, n_spikes + 2)[1:-1].repeat(len(seen), 1).requires_grad_()
    optimiser = torch.optim.Adam([place], lr=0.5)
    for _ in range(steps):
        optimiser.zero_grad()
        away = (torch.arange(L)[:, None] - place[:, None]).abs().amin(dim=2)
        (away.clamp(SPIKE_BIN, LONGEST) - seen).square().mean(dim=1).sum().backward()
        optimiser.step()
    trains = np.zeros(distance.shape, np.uint8)
    at = place.detach().round().clamp(PAST, L - 1).long().numpy()
    trains[np.arange(len(at))[:, None], at] = 1
    return trains


def least_energy(
    distance: np.ndarray,
    since: np.ndarray,
    per_spike: float = 0.0,
    *,
    refractory: int = 2,
    log: bool = True,
) -> np.ndarray:
    """Trains (W, L) of least energy of windows, exactly: the error of log distances, as networks are
    trained on them; the arguments of `greedy`."""
    weight = np.linspace(1, LAST_WEIGHT, distance.shape[1])
    start = PAST + np.maximum(0, refractory - since)
    both = inference.in_space(distance, LONGEST, log)
    return inference.least_trains(*both, weight, start, float(per_spike), refractory)


def best_expected(p: np.ndarray, sigma: float, window: int = 0) -> np.ndarray:
    """Trains (C, T) that are expected to be most like the recorded ones, by the cosine of both after a
    Gaussian of `sigma` bins; spike by spike, each where it adds most, as many as are expected.

    p: probability of a spike in each bin (C, T). window: bins of a window, 0 for one whole. What is said of
    a window knows the spikes of the one before, so where in a window spikes stand is told by that window
    alone; how many stand in which, by all.
    """
    width = np.sqrt(2) * sigma
    reach, window = int(4 * width), window or p.shape[1]
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    n_spikes, trains = np.rint(p.sum(axis=1)).astype(np.int64), np.empty(p.shape, np.uint8)
    for cell, n in enumerate(n_spikes):
        told = p[cell].reshape(-1, window).astype(float)
        field = gaussian_filter1d(told, width, mode="constant").ravel()
        trains[cell] = _spike_by_spike(field, kernel / kernel.sum(), n, window)
    return trains


@numba.njit(cache=True)
def _spike_by_spike(field, kernel, n_spikes, window):
    """A train (T,) of so many spikes. Blocks of bins are left out where none can add as much as the best
    so far: none of a block's is likelier than its likeliest, nor further from those that are chosen than its
    furthest."""
    T, reach, size = len(field), len(kernel) // 2, BLOCK
    train, peak = np.zeros(T, np.uint8), kernel[reach]
    near = np.zeros(T)  # likeness of a spike in each bin to those that are chosen
    most, least = np.empty(-(-T // size)), np.zeros(-(-T // size))
    for block in range(len(most)):
        most[block] = field[block * size : (block + 1) * size].max()
    shared, square = 0.0, 0.0
    for _ in range(n_spikes):
        best, at = -np.inf, 0
        bounds = (shared + most) / np.sqrt(square + peak + 2 * least)
        first = np.argmax(bounds)
        for block in range(-1, len(bounds)):
            block = first if block < 0 else block
            if bounds[block] <= best:
                continue
            for t in range(block * size, min((block + 1) * size, T)):
                gain = (shared + field[t]) / np.sqrt(square + peak + 2 * near[t])
                if gain > best and not train[t]:
                    best, at = gain, t
        train[at] = 1
        shared, square = shared + field[at], square + peak + 2 * near[at]
        start = at - at % window
        low, high = max(start, at - reach), min(start + window, at + reach + 1)
        near[low:high] += kernel[low - at + reach : high - at + reach]
        for block in range(low // size, (high - 1) // size + 1):
            least[block] = near[block * size : (block + 1) * size].min()
    return train
