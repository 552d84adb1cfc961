"""Spike trains from what each bin says of its nearest spike, exactly: least energy, log Z, probabilities.

The energy of a train is the sum over bins t of cost[t, d], d the distance to the nearest spike in bins, at
most K, and of what each spike adds. Between neighbouring spikes the distances are two ramps (and K between
them where the gap is wide), so it is a semi-Markov chain: a gap costs a sum along a diagonal from its left
spike and one from its right. One pass finds the best train, or sums over all of them; nothing is searched.

Shapes: L bins, K + 1 distances. Related: Jewell and Witten 2018, Ann. Appl. Stat. 12:2457, where the decay
is one-sided.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from nblib.core.errors import BadParameter
from nblib.prepare.encoding.distance import SPIKE_BIN, distances

Cost = Callable[[int, int], np.ndarray]  # start, stop -> cost of those bins (stop - start, K + 1)
BLOCK = 4096  # bins whose tables lie in memory at once


def squared_error(
    predicted: np.ndarray, K: int, *, log: bool = True, weight: np.ndarray | float = 1.0
) -> Cost:
    """Cost of predicted distances (L,) [bins]: squared error of their logarithm, or of themselves.

    weight: of each bin, a number or (L,).
    """
    profile = np.r_[SPIKE_BIN, 1 : K + 1]
    if log:
        profile, predicted = np.log(profile), np.log(predicted)
    seen = np.asarray(predicted, np.float64)
    weight = np.broadcast_to(np.asarray(weight, np.float64), seen.shape)
    return lambda start, stop: _squares(seen[start:stop], profile, weight[start:stop])


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
        The next spike beyond the last bin is free, and the last bins may be near it; else none
        follows. For least energies of at most K bins.

    Raises
    ------
    BadParameter
        For a refractory time below 1 or above 2 K + 1, and a free end of more than K bins.
    """

    def __init__(
        self, cost: np.ndarray | Cost, length: int = 0, *, per_spike: np.ndarray | float = 0.0,
        refractory: int = 1, start: int = 0, free_end: bool = False,
    ):  # fmt: skip
        if isinstance(cost, np.ndarray):
            whole, length = cost.astype(np.float64), len(cost)
            self.cost: Cost = lambda first, stop: whole[first:stop]
        else:
            self.cost = cost
        self.L, self.K = length, self.cost(0, 1).shape[1] - 1
        if not 1 <= refractory <= 2 * self.K + 1:
            raise BadParameter(f"refractory = {refractory}: expected 1 to {2 * self.K + 1} bins.")
        if free_end and length > self.K:
            raise BadParameter(f"free_end: {length} bins are more than K = {self.K}.")
        self.refractory, self.free_end = refractory, free_end
        self.per_spike = np.broadcast_to(np.asarray(per_spike, np.float64), length).copy()
        self.per_spike[:start] = np.inf

    def _pass(self, soft: bool, before: np.ndarray | None = None, begins: bool = True) -> Pass:
        """The best train, or (soft) all of them, up to each bin.

        before (L,): energies of trains with one spike less, by their last; None: any number of spikes.
        begins: a spike may be the first.
        """
        done = Pass(self.L)
        source = done.energy if before is None else before
        rule = self.refractory, soft, begins
        for first in range(0, self.L, BLOCK):
            low, stop = max(0, first - 2 * self.K - 1), min(first + BLOCK, self.L)
            cost = self.cost(low, min(stop + self.K, self.L))
            right, left = _ramps(cost, min(self.K, len(cost)))
            bins = low, first, stop
            own = cost[:, 0].copy()
            own[: self.L - low] += self.per_spike[low : low + len(own)]
            arrays = source, done.energy, done.came, done.after, done.wide, done.last, done.empty
            _forward(*bins, right, left, own, cost[:, -1].copy(), *arrays, *rule)
        after, none = done.after, done.empty[-1]
        after[: -self.K] += none - done.empty[self.K + 1 :]
        if self.free_end:
            nearer, beyond = _beyond(cost, right)
            after, none = np.minimum(after, nearer), min(none, beyond)
        done.ends = np.r_[done.energy + after, none]
        return done

    def least(self) -> tuple[float, np.ndarray]:
        """Least energy and the train that has it (L,), 0 or 1."""
        done = self._pass(soft=False)
        return float(done.ends.min()), self._trace([done], done.ends)

    def by_count(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Least energy (most + 1,) of trains of exactly 0 to `most` spikes, and the trains
        (most + 1, L); infinite where no train has so many."""
        before, passes = np.full(self.L, np.inf), []
        for n in range(1, most + 1):
            passes.append(self._pass(soft=False, before=before, begins=n == 1))
            before = passes[-1].energy
        trains = [self._trace(passes[:n], done.ends[:-1]) for n, done in enumerate(passes, 1)]
        energy = [passes[0].ends[-1], *(done.ends[:-1].min() for done in passes)]
        return np.array(energy), np.array([np.zeros_like(trains[0]), *trains])

    def _trace(self, passes: list[Pass], ends: np.ndarray) -> np.ndarray:
        """The train (L,) that the least of `ends` stands for; passes: one, or of 1, 2, ... spikes."""
        train, at = np.zeros(self.L, np.uint8), ends.argmin()
        while 0 <= at < self.L and np.isfinite(ends.min()):
            train[at], at = 1, passes[-1].came[at]
            passes = passes[:-1] or passes
        return train

    def log_z(self) -> float:
        """Log of the sum over all trains of exp(-energy)."""
        return float(-_soft(self._pass(soft=True).ends))

    def probabilities(self) -> tuple[np.ndarray, float]:
        """Probability of a spike in each bin (L,) where p(train) ~ exp(-energy), and log Z."""
        ahead = self._pass(soft=True)
        log_z = -_soft(ahead.ends)
        mirrored = Trains(
            lambda first, stop: self.cost(self.L - stop, self.L - first)[::-1].copy(), self.L,
            per_spike=self.per_spike[::-1], refractory=self.refractory,
        )  # fmt: skip
        behind = mirrored._pass(soft=True).energy[::-1]
        blocks = (self.cost(a, min(a + BLOCK, self.L))[:, 0] for a in range(0, self.L, BLOCK))
        own = np.concatenate(list(blocks)) + self.per_spike
        own, closed = np.where(np.isfinite(own), own, 0.0), np.isinf(own)
        return np.where(closed, 0.0, np.exp(own - ahead.energy - behind - log_z)), float(log_z)

    def samples(self, n: int, seed: int = 0) -> np.ndarray:
        """n trains (n, L) drawn from p(train) ~ exp(-energy), each exactly and by itself."""
        done, rng = self._pass(soft=True), np.random.default_rng(seed)
        cost, trains = self.cost(0, self.L), np.zeros((n, self.L), np.uint8)
        right, left = _ramps(cost, min(self.K, self.L))
        far = np.r_[0, np.cumsum(cost[:, -1])]
        i = np.arange(self.L)
        # At j = L stands the end, whose bins all belong to the spike before.
        at = np.full(n, self.L)
        for j in range(self.L, -1, -1):
            here = at == j
            if not here.any():
                continue
            gap = j - i[:j] - 1
            b = np.minimum(gap // 2, self.K) if j < self.L else 0 * gap
            a = np.minimum(gap - b, self.K)
            energy = done.energy[:j] + right[i[:j], a] + far[j - b] - far[i[:j] + 1 + a]
            first = far[max(0, j - self.K)] if j < self.L else far[j]
            if j < self.L:
                energy[gap + 1 < self.refractory] = np.inf
                energy = energy + left[j, b]
                first = first + left[j, min(j, self.K)]
            energy = np.append(energy, first)
            share = np.exp(energy.min() - energy).cumsum()
            at[here] = share.searchsorted(rng.random(here.sum()) * share[-1], side="right")
            at[here] = np.where(at[here] == j, -1, at[here])
            chosen = np.flatnonzero(here)[at[here] >= 0]
            trains[chosen, at[chosen]] = 1
        return trains

    def energy(self, train: np.ndarray) -> float:
        """Energy of a given train (L,)."""
        at, spikes = distances(train, self.K), np.asarray(train) > 0
        spent = np.take_along_axis(self.cost(0, self.L), at[:, None], axis=1)
        return float(spent.sum() + self.per_spike[spikes].sum())


class Pass:
    """What `Trains._pass` found: energy (L,) of what ends in a spike at each bin, the spike before it (-1:
    none), and what the bins after it cost where it is the last. Of bins before each of L + 1 edges: energy
    where the last spike lies more than K bins back, that spike, and energy without any. ends (L + 1,):
    energies of whole trains by their last spike, then that of no spike."""

    ends: np.ndarray

    def __init__(self, L: int):
        self.energy, self.came, self.after = (
            np.full(L, np.inf),
            np.full(L, -1, np.int32),
            np.zeros(L),
        )
        self.wide, self.last = np.full(L + 1, np.inf), np.full(L + 1, -1, np.int32)
        self.empty = np.zeros(L + 1)


def _soft(values: np.ndarray) -> float:
    """-log sum exp(-values)."""
    return values.min() - np.log(np.exp(values.min() - values).sum())


@numba.njit(cache=True)
def _squares(seen, profile, weight):
    """weight * (profile - seen)^2, (bins, distances)."""
    cost = np.empty((len(seen), len(profile)))
    for t in range(len(seen)):
        for k in range(len(profile)):
            cost[t, k] = weight[t] * (profile[k] - seen[t]) ** 2
    return cost


@numba.njit(cache=True)
def _ramps(cost, reach):
    """right[i, a]: cost of the a bins after a spike at i; left[j, b]: of the b bins before one at j."""
    n = len(cost)
    right, left = np.zeros((n, reach + 1)), np.zeros((n, reach + 1))
    for i in range(n):
        for k in range(1, min(reach, n - 1 - i) + 1):
            right[i, k] = right[i, k - 1] + cost[i + k, k]
        for k in range(1, min(reach, i) + 1):
            left[i, k] = left[i, k - 1] + cost[i - k, k]
    return right, left


@numba.njit(cache=True)
def _add(a, b):
    """-log(exp(-a) + exp(-b))."""
    if a > b:
        a, b = b, a
    return a if b == np.inf else a - np.log1p(np.exp(a - b))


@numba.njit(cache=True)
def _forward(
    low, first, stop, right, left, own, far, source, energy, came, after, wide, last, empty,
    refractory, soft, begins,
):  # fmt: skip
    """Bins first to stop of a pass (see `Pass`); row 0 of right, left, own and far is bin `low`."""
    L, K = len(energy), right.shape[1] - 1
    values = np.empty(2 * K + 2)
    for t in range(first, stop + (stop == L)):
        row = t - low
        if t > 0:
            wide[t], empty[t], last[t] = (
                wide[t - 1] + far[row - 1],
                empty[t - 1] + far[row - 1],
                last[t - 1],
            )
        i = t - K - 1
        if i >= 0:
            new = source[i] + right[i - low, K]
            if new < wide[t]:
                last[t] = i
            wide[t] = _add(wide[t], new) if soft else min(wide[t], new)
        if t == L:
            break
        ramp = left[row, min(t, K)]
        best, where, n = np.inf, -1, 0
        for gap in range(refractory, min(t, 2 * K) + 1):
            b = (gap - 1) >> 1
            value = source[t - gap] + right[row - gap, gap - 1 - b] + left[row, b]
            if soft:
                values[n] = value
                n += 1
            if value < best:
                best, where = value, t - gap
        if t >= K:
            values[n] = wide[t - K] + ramp
            if values[n] < best:
                best, where = values[n], last[t - K]
            n += 1
        if begins:
            values[n] = empty[max(t - K, 0)] + ramp
            if values[n] < best:
                best, where = values[n], -1
            n += 1
        if soft and best < np.inf:
            total = 0.0
            for k in range(n):
                total += np.exp(best - values[k])
            best -= np.log(total)
        energy[t], came[t], after[t] = best + own[row], where, right[row, min(K, L - 1 - t)]


@numba.njit(cache=True)
def _beyond(cost, right):
    """Least cost of the bins after a last spike at each bin (L,), and of all bins without a spike, where
    the next spike lies beyond the last bin."""
    L, K = cost.shape[0], cost.shape[1] - 1
    least, none = np.full(L, np.inf), np.inf
    seen = np.zeros(L + 1)
    for q in range(1, K + 1):  # the spike lies q bins beyond the last
        for m in range(L):
            seen[m + 1] = seen[m] + cost[L - 1 - m, min(q + m, K)]
        none = min(none, seen[L])
        for n in range(
            q, L
        ):  # bins after the spike inside; the last of them are nearer to the other
            inside = ((n + q - 1) >> 1) - q + 1
            if inside > 0:
                least[L - 1 - n] = min(
                    least[L - 1 - n], right[L - 1 - n, n - inside] + seen[inside]
                )
    return least, none
