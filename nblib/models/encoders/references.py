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
LAST_WEIGHT = 0.3  # of the last bin of a window, falling from 1


def greedy(distance: np.ndarray, since: np.ndarray, past: int = PAST) -> np.ndarray:
    """The published inference: every bin holds a spike, and those go whose bins are told better without.

    The error is the squared difference of distances, linear and weighted by 1 to 0.3. First in the
    order of distance, largest first, then of gain, until none goes; none comes back. A known spike
    in the past bins and one 100 bins ahead stay.

    Parameters
    ----------
    distance
        Predicted distance (W, L) [bins], of `past` bins before t0 and those after.
    since
        Bins from the last known spike to t0, (W,).

    Returns
    -------
    ndarray
        Trains (W, L) uint8.
    """
    weight = np.linspace(1, LAST_WEIGHT, distance.shape[1])
    return _greedy(np.asarray(distance, np.float64), weight, np.asarray(since, np.int64), past)


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
    trains = np.zeros((W, L), np.uint8)
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
                right = right if right < L else past + END_NODE
                with_it = _gap(d, weight, left, c) + _gap(d, weight, c, right)
                with_it += weight[c] * (SPIKE_BIN - d[c]) ** 2
                gains[c] = with_it - _gap(d, weight, left, right)
                if gains[c] > 0:
                    train[c], gone = 0, True
            order = np.flatnonzero(train)
            order = order[np.argsort(-gains[order])]
    return trains


def by_gradient(
    distance: np.ndarray, n_spikes: int, past: int = PAST, steps: int = 200
) -> np.ndarray:
    """Trains (W, L) of at most `n_spikes` spikes whose places, evenly spaced at first, follow the gradient
    of the squared error of distances (W, L) [bins]; two in one bin are one. It stays near where it starts."""
    import torch

    seen = torch.as_tensor(distance, dtype=torch.float32)
    L = seen.shape[1]
    place = torch.linspace(past, L - 1, n_spikes + 2)[1:-1].repeat(len(seen), 1).requires_grad_()
    optimiser = torch.optim.Adam([place], lr=0.5)
    for _ in range(steps):
        optimiser.zero_grad()
        away = (torch.arange(L)[:, None] - place[:, None]).abs().amin(dim=2)
        (away.clamp(SPIKE_BIN, LONGEST) - seen).square().mean(dim=1).sum().backward()
        optimiser.step()
    trains = np.zeros(distance.shape, np.uint8)
    at = place.detach().round().clamp(past, L - 1).long().numpy()
    trains[np.arange(len(at))[:, None], at] = 1
    return trains


def least_energy(distance: np.ndarray, since: np.ndarray, per_spike: float = 0.0, *, past: int = PAST, refractory: int = 2, log: bool = True) -> np.ndarray:  # fmt: skip
    """Trains (W, L) of least energy of windows, exactly: the error of log distances, as networks are
    trained on them; the arguments of `greedy`."""
    weight = np.linspace(1, LAST_WEIGHT, distance.shape[1])
    trains = np.empty(distance.shape, np.uint8)
    for w, (seen, last) in enumerate(zip(distance, since, strict=True)):
        cost = inference.squared_error(seen, LONGEST, log=log, weight=weight)
        rules = {"start": past + max(0, refractory - last), "free_end": True}
        window = inference.Trains(
            cost, len(seen), per_spike=per_spike, refractory=refractory, **rules
        )
        trains[w] = window.least()[1]
    return trains


def best_expected(p: np.ndarray, sigma: float, n_spikes: int | None = None) -> np.ndarray:
    """The train (T,) that is expected to be most like the recorded one, by the cosine of both after a
    Gaussian of `sigma` bins; spike by spike, each where it adds most.

    p: probability of a spike in each bin (T,); n_spikes: None = as many as are expected.
    """
    width = np.sqrt(2) * sigma
    reach = int(4 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    kernel /= kernel.sum()
    field = gaussian_filter1d(np.asarray(p, float), width, mode="constant")
    near = np.zeros(len(p) + 2 * reach)  # likeness of a spike in each bin to those that are chosen
    train, own = np.zeros(len(p), np.uint8), kernel[reach]
    shared = square = 0.0
    for _ in range(int(np.rint(p.sum())) if n_spikes is None else n_spikes):
        seen = near[reach : reach + len(p)]
        gain = (shared + field) / np.sqrt(square + own + 2 * seen)
        gain[train > 0] = -np.inf
        t = int(gain.argmax())
        shared, square = shared + field[t], square + own + 2 * seen[t]
        train[t] = 1
        near[t : t + len(kernel)] += kernel
    return train
