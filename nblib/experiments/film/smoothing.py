"""What time alone adds to answers: a clock that reads no spike, and a hidden Markov model in each segment."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

TEMPERATURES = (0.03, 0.06, 0.1, 0.2, 0.4, 1.0)
MOST = 600.0  # of log-odds
CLOCK_S = 8.0


def clock(y: np.ndarray, at_s: np.ndarray, asked_s: np.ndarray) -> np.ndarray:
    """Probability of 1 that a clock gives, without a spike: of the nearest bins that teach before and
    after, weighted by exp(-distance / 8 s). y, at_s: labels and times of those, rising."""
    place = np.searchsorted(at_s, asked_s)
    total, weights = 0.02 * y.mean(), 0.02
    for near, there in ((place - 1, place > 0), (place, place < len(y))):
        near = np.clip(near, 0, len(y) - 1)
        weight = np.exp(-np.abs(at_s[near] - asked_s) / CLOCK_S) * there
        total, weights = total + weight * y[near], weights + weight
    return total / weights


def transitions(y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Chance to go from label to label in one bin (2, 2); y (B,) 0 or 1 of the bins `at` (B,), rising."""
    follows = np.diff(at) == 1
    counts = np.full((2, 2), 0.5)
    np.add.at(counts, (y[:-1][follows], y[1:][follows]), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def smoothed(
    log_odds: np.ndarray, segment: np.ndarray, change: np.ndarray, prior: float, temperature: float
) -> np.ndarray:
    """Probability of 1 in each bin (B,) given all answers in its segment (Rabiner 1989).

    log_odds (B,), segment (B,) in the order of time; change: of `transitions`. What an answer adds to
    the prior counts `temperature` times, as neighbours repeat what they say; of several, (B, temperature).
    """
    adds = np.multiply.outer(log_odds - logit(prior), temperature)
    (stay_off, on), (off, stay_on) = change
    before, after = np.full_like(adds, logit(prior)), np.zeros_like(adds)  # what either side says
    starts = np.flatnonzero(np.diff(segment, prepend=segment[0] - 1))
    for first, stop in zip(starts, np.append(starts[1:], len(adds)), strict=True):
        for t in range(first + 1, stop):
            odds = np.exp(np.clip(before[t - 1] + adds[t - 1], -MOST, MOST))
            before[t] = np.log((on + stay_on * odds) / (stay_off + off * odds))
        for t in range(stop - 2, first - 1, -1):
            odds = np.exp(np.clip(after[t + 1] + adds[t + 1], -MOST, MOST))
            after[t] = np.log((off + stay_on * odds) / (stay_off + on * odds))
    return expit(before + adds + after)


def best_temperature(
    log_odds: np.ndarray, segment: np.ndarray, change: np.ndarray, prior: float, y: np.ndarray
) -> tuple[float, float]:
    """The temperature with the lowest log-loss on these bins, which should be of validation; that loss."""
    p = smoothed(log_odds, segment, change, prior, TEMPERATURES)  # (B, temperature)
    losses = [log_loss(y, answer) for answer in p.T]
    return TEMPERATURES[int(np.argmin(losses))], min(losses)


def log_loss(y: np.ndarray, p: np.ndarray) -> float:
    """Mean of -log of the probability of the truth [nats]; y (B,) 0 or 1, p (B,) probability of 1."""
    return float(-np.log(np.maximum(np.where(y == 1, p, 1 - p), 1e-12)).mean())
