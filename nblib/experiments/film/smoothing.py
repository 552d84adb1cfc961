"""A decoder's answers bin by bin, made one story: a hidden Markov model of two states in each segment."""

from __future__ import annotations

import numpy as np

TEMPERATURES = (0.03, 0.06, 0.1, 0.2, 0.4, 1.0)


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
    the prior counts `temperature` times, as neighbours repeat what they say.
    """
    adds = temperature * (log_odds - np.log(prior / (1 - prior)))
    likelihood = np.exp(np.column_stack([-np.maximum(adds, 0), np.minimum(adds, 0)]))
    answer = np.empty(len(adds))
    for rows in np.split(np.arange(len(adds)), np.flatnonzero(np.diff(segment)) + 1):
        forward, now = [], np.array([1 - prior, prior])
        for seen in likelihood[rows]:
            now = now * seen / (now @ seen)
            forward.append(now)
            now = now @ change
        later = np.ones(2)
        for row, was in zip(rows[::-1], forward[::-1], strict=True):
            answer[row] = was[1] * later[1] / (was @ later)
            later = change @ (likelihood[row] * later)
            later /= later.sum()
    return answer


def best_temperature(
    log_odds: np.ndarray, segment: np.ndarray, change: np.ndarray, prior: float, y: np.ndarray
) -> float:
    """The temperature with the lowest log-loss on these bins, which should be of validation."""
    losses = [
        log_loss(y, smoothed(log_odds, segment, change, prior, temperature))
        for temperature in TEMPERATURES
    ]
    return TEMPERATURES[int(np.argmin(losses))]


def log_loss(y: np.ndarray, p: np.ndarray) -> float:
    """Mean of -log of the probability of the truth [nats]; y (B,) 0 or 1, p (B,) probability of 1."""
    return float(-np.log(np.maximum(np.where(y == 1, p, 1 - p), 1e-12)).mean())
