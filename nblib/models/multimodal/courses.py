"""Factors that have a course over the trial, as units and behaviour of trials that teach follow them.

A Gaussian model: each unit, signal and variable is a few factors, which are the same in all bins, and noise of
its own; each factor is a sum of smooth bumps of time, whose heights vary together over trials. So units that are
seen at one time tell what others do at another. Source of the idea: Yu et al. 2009, J. Neurophysiol. 102:614.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nblib.models.multimodal import linear
from nblib.prepare.sessions import Session

STEPS = 20  # of expectation and maximisation
BINS = 2.5  # from one bump of time to the next
MOST_FACTORS, UNITS_A_FACTOR = 15, 5
LEAST_NOISE, RIDGE, LEAST_PRIOR = 0.05, 1.0, 1e-6


@dataclass(frozen=True)
class Courses:
    """loading (R, N) of units on factors and their noise (N,); mean (T, N) of z-scored roots of counts; bumps
    (T, B); precision (R * B, R * B) of the heights of all factors before anything is seen."""

    loading: np.ndarray
    noise: np.ndarray
    mean: np.ndarray
    bumps: np.ndarray
    precision: np.ndarray

    def __call__(self, session: Session, seen: np.ndarray) -> np.ndarray:
        """Posterior mean of the factors in each bin of all trials (K, T, R), from the units `seen`."""
        heights, _ = self.heights(session.x[..., seen] - self.mean[:, seen], seen)
        return self.in_bins(heights)

    def heights(
        self, x: np.ndarray, seen: np.ndarray | slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean (K, R * B) and covariance of the heights, from values (K, T, M) of the units `seen`, less
        their mean."""
        loading, bumps = self.loading[:, seen], self.bumps
        reading = loading / self.noise[seen]
        precision = self.precision + np.kron(reading @ loading.T, bumps.T @ bumps)
        covariance = np.linalg.inv(precision)
        said = bumps.T @ (x @ reading.T)  # (K, B, R)
        return said.swapaxes(1, 2).reshape(len(x), -1) @ covariance, covariance

    def in_bins(self, heights: np.ndarray) -> np.ndarray:
        """Factors in each bin (K, T, R), of heights (K, R * B)."""
        by_factor = heights.reshape(len(heights), -1, self.bumps.shape[1])
        return self.bumps @ by_factor.swapaxes(1, 2)


def bumps_of_time(n_bins: int, n: int) -> np.ndarray:
    """Smooth bumps (T, n), evenly from the first bin to the last."""
    at = np.linspace(0, n_bins - 1, n)
    width = at[1] - at[0] or 1.0  # 0 where there is one bin
    return np.exp(-0.5 * ((np.arange(n_bins)[:, None] - at) / width) ** 2)


def fit(session: Session, rows: np.ndarray) -> Courses:
    """The factors of a session's units and behaviour, by expectation and maximisation over the trials `rows`."""
    part = session.at(rows)
    n_trials, n_bins, n_units = part.x.shape
    y = [part.x, part.signals]
    for name, known in session.classes.items():  # each as much as one signal
        member = part.one_hot(name)
        member = (member - member.mean(axis=0)) / (member.std(axis=0) + 1e-6)
        y.append(np.repeat(member[:, None], n_bins, axis=1) / np.sqrt(len(known)))
    y = np.concatenate(y, axis=-1)
    mean = y.mean(axis=0)
    y = y - mean
    flat = y.reshape(-1, y.shape[2])
    n_factors = min(MOST_FACTORS, max(n_units // UNITS_A_FACTOR, 1))
    n_bumps = max(round(n_bins / BINS), 2)
    bumps = bumps_of_time(n_bins, n_bumps)
    bumps /= np.sqrt((bumps**2).sum(axis=1, keepdims=True))
    slow = linear.averaged(y, [2]).reshape(flat.shape)
    values, vectors = np.linalg.eigh(slow.T @ slow / len(slow))
    loading = (vectors[:, -n_factors:] * np.sqrt(values[-n_factors:])).T
    noise = np.maximum(flat.var(axis=0) - (loading**2).sum(axis=0), LEAST_NOISE)
    # Behaviour stands behind the units until all is fitted.
    model = Courses(loading, noise, mean, bumps, precision=np.eye(n_factors * n_bumps))
    for _ in range(STEPS):
        heights, covariance = model.heights(y)
        prior = covariance + heights.T @ heights / n_trials
        precision = np.linalg.inv(prior + LEAST_PRIOR * np.eye(len(prior)))
        told = model.in_bins(heights).reshape(-1, n_factors)
        unsure = covariance.reshape(n_factors, n_bumps, n_factors, n_bumps)
        unsure = np.tensordot(unsure, bumps.T @ bumps, axes=([1, 3], [0, 1]))
        together = told.T @ told + n_trials * unsure + RIDGE * np.eye(n_factors)
        both = told.T @ flat
        loading = np.linalg.solve(together, both)
        noise = (flat**2).mean(axis=0) - (loading * both).sum(axis=0) / len(flat)
        noise = np.maximum(noise, LEAST_NOISE)
        model = Courses(loading, noise, mean, bumps, precision)
    return Courses(loading[:, :n_units], noise[:n_units], mean[:, :n_units], bumps, precision)
