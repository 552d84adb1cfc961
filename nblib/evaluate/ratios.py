"""Scores that are ratios of sums over trials: R2 of signals, bits a spike of counts, each with interval and p.

Trials that follow each other are alike, so intervals are over blocks of them, and p is measured by answers
that are moved along the trials of their session. Shapes: B test trials, T bins, N units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nblib.core.errors import BadInput
from nblib.evaluate import stats
from nblib.evaluate.scores import WORST, Score

R2, BITS = "R2", "bits/spike"
BLOCK = 10  # trials that hang together
NULL = "answers moved along trials"
LEAST = 1e-6  # spikes a bin; a rate of 0 would make a spike impossible


@dataclass(frozen=True)
class Earned:
    """Of one session: each (B, B), what the answer to trial j earns where trial k is the truth; most (B,):
    what the truth of each trial has to give. The score is the sum of the diagonal over the sum of `most`."""

    each: np.ndarray
    most: np.ndarray


def of_signal(truth: np.ndarray, answer: np.ndarray, base: np.ndarray | float) -> Earned:
    """R2 of a signal (B, T): 1 - squared error over that of `base`, a course (T,) or a constant."""
    y, a = truth.astype(np.float64), answer.astype(np.float64)
    most = ((y - base) ** 2).sum(axis=1)
    error = (y**2).sum(axis=1) - 2 * a @ y.T + (a**2).sum(axis=1)[:, None]
    return Earned(most - error, most)


def of_counts(counts: np.ndarray, rate: np.ndarray, null: np.ndarray) -> Earned:
    """Bits a spike of expected counts (B, T, N): log-likelihood over that of `null`, (N,) or (T, N), in bits."""
    n = len(counts)
    rate, null = np.maximum(rate, LEAST), np.broadcast_to(np.maximum(null, LEAST), counts.shape)
    flat = counts.reshape(n, -1).astype(np.float64)
    each = np.log(rate).reshape(n, -1).astype(np.float64) @ flat.T - rate.sum(axis=(1, 2))[:, None]
    of_null = (counts * np.log(null) - null).sum(axis=(1, 2))
    return Earned((each - of_null) / np.log(2), flat.sum(axis=1))


def gain_in_bits(counts: np.ndarray, rate: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Poisson log-likelihood of counts (..., N) under rate (..., N) less that under null (N,), in bits."""
    rate, null = np.maximum(rate, LEAST), np.maximum(null, LEAST)
    return (counts * np.log(rate / null) - (rate - null)) / np.log(2)


def per_unit(counts: np.ndarray, rate: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Bits a spike of each unit (N,), of counts (..., N); NaN for one that is silent."""
    but_units = tuple(range(counts.ndim - 1))
    gain = gain_in_bits(counts, rate, null).sum(axis=but_units)
    spikes = counts.sum(axis=but_units)
    return np.divide(gain, spikes, out=np.full(len(spikes), np.nan), where=spikes > 0)


def deviance_explained(counts: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Poisson D2 of each unit (N,): 1 - deviance over that of the unit's mean; NaN for one that is silent."""
    from sklearn.metrics import d2_tweedie_score

    y, rate = (a.reshape(-1, a.shape[-1]) for a in (counts, np.maximum(rate, LEAST)))
    return np.array(
        [
            d2_tweedie_score(y[:, n], rate[:, n], power=1) if y[:, n].any() else np.nan
            for n in range(y.shape[1])
        ]
    )


def value(parts: Sequence[Earned]) -> float:
    """The score of some sessions together; BadInput where there is nothing to earn."""
    most = sum(part.most.sum() for part in parts)
    if not most > 0:
        raise BadInput(
            "a score needs test trials in which something changes; there is nothing to explain."
        )
    return float(sum(np.trace(part.each) for part in parts) / most)


def blocks(parts: Sequence[Earned]) -> tuple[np.ndarray, np.ndarray]:
    """Sums over blocks of `BLOCK` trials, session after session: earned and most, (blocks,) each."""
    sums: tuple[list, list] = ([], [])
    for part in parts:
        first = np.arange(0, len(part.most), BLOCK)
        for into, values in zip(sums, (np.diag(part.each), part.most), strict=True):
            into.append(np.add.reduceat(values, first))
    return np.concatenate(sums[0]), np.concatenate(sums[1])


def _half_width(gain: np.ndarray, most: np.ndarray, n_bootstrap: int, seed: int) -> float:
    """Half the width of the interval of sum of gain over sum of most, both (blocks,), drawn anew; of one block,
    which tells nothing of others, `WORST`."""
    if len(most) == 1:
        return WORST
    drawn = stats.bootstrap_weights(len(most), n_bootstrap, np.random.default_rng([seed, 0]))
    return float(stats.half_width((drawn @ gain) / np.maximum(drawn @ most, 1e-9), len(most)))


def score(
    parts: Sequence[Earned],
    unit: str,
    *,
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Score:
    """The score of some sessions together, its interval over blocks of trials and its p."""
    earned, most = blocks(parts)
    middle, half = value(parts), _half_width(earned, most, n_bootstrap, seed)
    rng, null = np.random.default_rng([seed, 1]), np.zeros(n_permutations)
    for part in parts:
        k = np.arange(len(part.most))
        moved = np.array([part.each[(k + move) % len(k), k].sum() for move in k])
        null += moved[rng.integers(0, len(k), n_permutations)]
    p = stats.permutation_p(middle, null / most.sum())
    n = sum(len(part.most) for part in parts)
    return Score(middle, middle - half, middle + half, 0.0, p, n, unit, NULL)


def difference(
    a: Sequence[Earned], b: Sequence[Earned], *, n_bootstrap: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """How much more the answers a score than b, to the same trials, and its interval over blocks of them."""
    earned, most = blocks(a)
    half = _half_width(earned - blocks(b)[0], most, n_bootstrap, seed)
    middle = value(a) - value(b)
    return middle, middle - half, middle + half
