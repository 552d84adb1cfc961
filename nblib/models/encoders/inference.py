"""Spike trains from what each bin says of its nearest spike, exactly: least energy, log Z, probabilities.

The energy of a train is the sum over bins t of cost[t, d], d the distance to the nearest spike in bins, at
most K, and of what each spike adds. Along a train d rises after a spike, stays at K where the gap is wide,
and falls to the next spike. So one pass over the bins carries, for each spike of the last K bins, the
energy of the trains that still rise from it, for each of the next K bins that of those that fall to a spike
there, and that of the trains that are far from any. Where two ways meet, the lower one goes on (least
energy), or both do, and the spike before is drawn by their weights (log Z, samples). Nothing is searched.

Shapes: L bins, K + 1 distances, W windows. Related: Jewell and Witten 2018, Ann. Appl. Stat. 12:2457, where
the decay is one-sided.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from nblib.core.errors import BadParameter
from nblib.prepare.encoding.distance import SPIKE_BIN, distances

Cost = Callable[[int, int], np.ndarray]  # start, stop -> cost of those bins (stop - start, K + 1)
BLOCK = 512  # bins whose costs lie in memory at once
NO_SPIKE = -1
NEGLIGIBLE = 40.0  # of two energies, the higher by so much adds nothing to the sum
# How two ways that meet go on. None is a type of its own to the compiler, which then leaves sums out.
LEAST, SUM, DRAW = None, False, True


def squared_error(
    predicted: np.ndarray, K: int, *, log: bool = True, weight: np.ndarray | float = 1.0
) -> Cost:
    """Cost of predicted distances (L,) [bins]: squared error of their logarithm, or of themselves.

    weight: of each bin, a number or (L,).
    """
    predicted, profile = in_space(predicted, K, log)
    weight = np.broadcast_to(np.asarray(weight, np.float64), predicted.shape)
    return lambda start, stop: _squares(predicted[start:stop], profile, weight[start:stop])


class Trains:
    """All spike trains of L bins, each with its energy.

    Parameters
    ----------
    cost
        (L, K + 1), or a function that makes it for a range of bins, so that a long stream never lies
        in memory whole; then `length` says L.
    per_spike
        What a spike adds to the energy: a number, or (L,). Infinite: no spike there.
    refractory
        Least distance of two spikes [bins].
    start
        First bin that may hold a spike; bins before it see later spikes only.
    free_end
        The next spike may lie beyond the last bin, and the last bins be near it; else none follows.
        Where trains are summed, those that give all bins the same distances count once.

    Raises
    ------
    BadParameter
        For a refractory time below 1 or above 2 K.
    """

    def __init__(
        self,
        cost: np.ndarray | Cost,
        length: int = 0,
        *,
        per_spike: np.ndarray | float = 0.0,
        refractory: int = 1,
        start: int = 0,
        free_end: bool = False,
    ):
        if isinstance(cost, np.ndarray):
            whole, length = cost.astype(np.float64), len(cost)
            self.cost: Cost = lambda first, stop: whole[first:stop]
        else:
            self.cost = cost
        self.L, self.K = length, self.cost(0, 1).shape[1] - 1
        if not 1 <= refractory <= 2 * self.K:
            raise BadParameter(f"refractory = {refractory}: expected 1 to {2 * self.K} bins.")
        self.refractory, self.free_end = refractory, free_end
        self.per_spike = np.broadcast_to(np.asarray(per_spike, np.float64), length).copy()
        self.per_spike[:start] = np.inf

    def least(self) -> tuple[float, np.ndarray]:
        """Least energy and the train that has it (L,), 0 or 1."""
        _, before, energy, last = self._pass()
        return energy, _trace([before], last)

    def by_count(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Least energy (most + 1,) of trains of exactly 0 to `most` spikes, and the trains
        (most + 1, L); infinite where no train has so many."""
        fewer, before = np.full(self.L, np.inf), []
        energies, trains = np.empty(most + 1), np.zeros((most + 1, self.L), np.uint8)
        for n in range(most + 1):
            # Trains of this pass go on from those whose last spike is the n-th, and end without another.
            up_to, came, energies[n], last = self._pass(fewer=fewer, begins=n == 0)
            if n and np.isfinite(energies[n]):
                trains[n] = _trace(before[::-1], last)
            fewer, before = up_to, [*before, came]
        return energies, trains

    def log_z(self) -> float:
        """Log of the sum over all trains of exp(-energy)."""
        return -self._pass(SUM)[2]

    def probabilities(self) -> tuple[np.ndarray, float]:
        """Probability of a spike in each bin (L,) where p(train) ~ exp(-energy), and log Z."""
        ahead, _, energy, _ = self._pass(SUM)
        behind = self._pass(SUM, backwards=True)[0][::-1]
        blocks = (self.cost(a, min(a + BLOCK, self.L))[:, 0] for a in range(0, self.L, BLOCK))
        both = np.concatenate(list(blocks)) + self.per_spike  # counted in either pass
        closed = np.isinf(both)
        both[closed] = 0
        return np.where(closed, 0.0, np.exp(both - ahead - behind + energy)), -energy

    def samples(self, n: int, seed: int = 0) -> np.ndarray:
        """n trains (n, L) drawn from p(train) ~ exp(-energy), each exactly and by itself."""
        _seed(seed)
        passes = (self._pass(DRAW) for _ in range(n))
        return np.array([_trace([before], last) for _, before, _, last in passes])

    def energy(self, train: np.ndarray) -> float:
        """Energy of a given train (L,)."""
        at, spikes = distances(train, self.K), np.asarray(train) > 0
        spent = np.take_along_axis(self.cost(0, self.L), at[:, None], axis=1)
        return float(spent.sum() + self.per_spike[spikes].sum())

    def _pass(
        self,
        meeting: bool | None = LEAST,
        backwards: bool = False,
        fewer: np.ndarray | None = None,
        begins: bool = True,
    ) -> tuple[np.ndarray, np.ndarray, float, int]:
        """Energy of the best train, or of all together, up to a spike in each bin (L,), the spike before
        it, the energy of whole trains, and their last spike.

        meeting: LEAST, SUM or DRAW. backwards: bins are numbered from the end. fewer (L,): energies that
        trains go on from, by their last spike, where a pass is to add one spike alone. begins: a spike
        may be the first.
        """
        order = -1 if backwards else 1
        energy, before, state = _begin(self.L, self.K, begins, backwards and self.free_end)
        source = energy if fewer is None else fewer
        for first in range(0, self.L, BLOCK):
            stop = min(first + BLOCK, self.L)
            bins = (self.L - stop, self.L - first) if backwards else (first, stop)
            whole = self.cost(*bins), self.per_spike[slice(*bins)]
            cost, per_spike = (np.ascontiguousarray(values[::order]) for values in whole)
            rules = first, self.refractory, meeting
            _advance(cost, per_spike, *rules, source, energy, before, state)
        free_end = self.free_end and not backwards
        return energy, before, *_end(self.L, self.K, meeting, free_end, state)


def in_space(predicted: np.ndarray, K: int, log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Predicted distances and those from 0 to K bins, or the logarithms of both."""
    both = np.asarray(predicted, np.float64), np.r_[SPIKE_BIN, 1.0 : K + 1]
    return (np.log(both[0]), np.log(both[1])) if log else both


@numba.njit(cache=True)
def least_trains(predicted, profile, weight, start, per_spike, refractory):
    """Trains (W, L) of least squared error of windows, as `Trains` gives them with a free end, but all at
    once; predicted (W, L), profile (K + 1,): see `in_space`; weight (L,); start (W,): first bin of each
    that may hold a spike."""
    W, L = predicted.shape
    K, trains = len(profile) - 1, np.zeros((W, L), np.uint8)
    for w in range(W):
        energy, before, state = _begin(L, K, True, False)
        worth = np.full(L, per_spike)
        worth[: start[w]] = np.inf
        cost = _squares(predicted[w], profile, weight)
        _advance(cost, worth, 0, refractory, None, energy, energy, before, state)
        at = _end(L, K, None, True, state)[1]
        while at >= 0:
            trains[w, at] = 1
            at = before[at]
    return trains


def _trace(before: list[np.ndarray], last: int) -> np.ndarray:
    """The train (L,) that ends in a spike at `last`, from the spike before each (L,): of one pass, or of
    those that added the last spike, the last but one, ..."""
    train = np.zeros(len(before[0]), np.uint8)
    while last >= 0:
        train[last], last = 1, before[0][last]
        before = before[1:] or before
    return train


@numba.njit(cache=True)
def _squares(predicted, profile, weight):
    """weight * (profile - predicted)^2, (bins, distances)."""
    cost = np.empty((len(predicted), len(profile)))
    for t in range(len(predicted)):
        for k in range(len(profile)):
            cost[t, k] = weight[t] * (profile[k] - predicted[t]) ** 2
    return cost


@numba.njit(cache=True)
def _seed(seed):
    np.random.seed(seed)  # noqa: NPY002, numba's own


@numba.njit(cache=True)
def _begin(L, K, begins, free_start):
    """Energy (L,) and spike before (L,) that a pass fills, and where it stands before bin 0: energies of
    trains by their last spike (L + K,), the latest first, from bin L - 1 to -K; by their next one (L + K,),
    with the last of each; of those at least K bins from any, with their last; and the earliest last spike."""
    rise, fall, after = np.full(L + K, np.inf), np.full(L + K, np.inf), np.full(L + K, NO_SPIKE)
    far, far_last, earliest = np.full(1, np.inf), np.full(1, NO_SPIKE), np.full(1, L)
    if begins:
        fall[: K - 1], far[0] = 0, 0
    if free_start:
        rise[L : L + K - 1], earliest[0] = 0, 1 - K
    state = rise, fall, after, far, far_last, earliest
    return np.full(L, np.inf), np.full(L, NO_SPIKE), state


@numba.njit(cache=True)
def _meet(a, b, meeting):
    """Energy of two ways together, and whether the second goes on."""
    if meeting is None:
        return min(a, b), b < a
    if abs(a - b) > NEGLIGIBLE or a == b == np.inf:
        return min(a, b), b < a
    both = min(a, b) - np.log1p(np.exp(-abs(a - b)))
    return both, meeting and np.random.random() < np.exp(both - b)  # noqa: NPY002


@numba.njit(cache=True)
def _advance(cost, per_spike, first, refractory, meeting, source, energy, before, state):
    """Go on over the bins whose cost (bins, K + 1) is given, the first of them number `first`."""
    rise, fall, after, far, far_last, earliest = state
    L, K = len(energy), cost.shape[1] - 1
    for t in range(first, first + len(cost)):
        costs, newest = cost[t - first], L - 1 - t  # where a spike in t stands in `rise`
        fall[t + K - 1], after[t + K - 1] = far[0], far_last[0]
        # Those that rise may turn, at their last bin or the one after the middle, to a spike k bins ahead.
        # What would turn before bin 0 or in it gives the bins the distances of those that fall from the start.
        for back in range(1, min(2, t) + 1):
            nearest, last = (refractory + 1 - back) // 2, t - back
            n = max(0, min(K + 1 - back, last - earliest[0] + 1) - nearest)
            rising, ahead = rise[newest + back + nearest :], slice(t + nearest, t + nearest + n)
            falling, came = fall[ahead], after[ahead]
            for k in range(n):
                falling[k], new = _meet(falling[k], rising[k], meeting)
                came[k] = last - nearest - k if new else came[k]
        far[0], new = _meet(far[0], rise[newest + K], meeting)
        far_last[0] = t - K if new else far_last[0]
        far[0] += costs[K]
        falling = fall[t : t + K]
        rising = rise[newest : newest + max(0, min(K, t - earliest[0] + 1))]
        for k in range(1, K):
            falling[k] += costs[k]
        for k in range(1, len(rising)):
            rising[k] += costs[k]
        energy[t], before[t] = fall[t] + costs[0] + per_spike[t - first], after[t]
        rise[newest] = source[t]
        if source[t] < np.inf:
            earliest[0] = min(earliest[0], t)


@numba.njit(cache=True)
def _end(L, K, meeting, free_end, state):
    """Energy of whole trains and their last spike, where a pass stands after bin L - 1."""
    rise, fall, after, far, far_last, _ = state
    energy, last = far[0], far_last[0]
    for k in range(K):
        energy, new = _meet(energy, rise[k], meeting)
        last = L - 1 - k if new else last
    for s in range(L, L + K - 1 if free_end else L):
        energy, new = _meet(energy, fall[s], meeting)
        last = after[s] if new else last
    return energy, last
