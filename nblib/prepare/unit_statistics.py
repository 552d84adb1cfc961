"""What counts of some trials say of each unit: mean, spread, limits, and correlation with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nblib.core.params import SplitSettings

VALUES_AT_ONCE = 2**23


def of_units(counts: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and largest count of each unit (N,) over all bins of some trials.

    counts (trial, T, N); place: positions along trial.
    """
    n_units = counts.shape[2]
    total, squares, peak = np.zeros(n_units), np.zeros(n_units), np.zeros(n_units)
    for x in _pieces(counts, place):
        total += x.sum(0)
        squares += (x**2).sum(0)
        peak = np.maximum(peak, x.max(0))
    n = len(place) * counts.shape[1]
    mean = total / n
    return mean, np.sqrt(np.maximum(squares - n * mean**2, 0) / max(n - 1, 1)), peak


def faults(
    mean: np.ndarray, std: np.ndarray, peak: np.ndarray, settings: SplitSettings
) -> np.ndarray:
    """Why each unit (N,) is left out, "" for those that stay; arguments as `of_units` gives them."""
    constant = std <= 1e-12
    z_peak = np.divide(peak - mean, std, out=np.zeros(len(mean)), where=~constant)
    reason = np.full(len(mean), "", dtype=object)
    for name, fails in (
        ("silent in train", peak == 0),
        ("zero variance in train", constant),
        (f"z-score above {settings.highest_value:g} in train", z_peak > settings.highest_value),
        (
            f"z-score never above {settings.lowest_value:g} in train",
            z_peak <= settings.lowest_value,
        ),
    ):
        reason[fails & (reason == "")] = name
    return reason


def correlation(
    counts: np.ndarray, place: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> np.ndarray:
    """Pearson r of units over all bins of some trials, (N, N)."""
    products = np.zeros((len(mean), len(mean)))
    for x in _pieces(counts, place):
        z = (x - mean) / std
        products += z.T @ z
    r = np.clip(products / max(len(place) * counts.shape[1] - 1, 1), -1, 1)
    np.fill_diagonal(r, 1.0)
    return r


def _pieces(counts: np.ndarray, place: np.ndarray):
    """Yield bins of some trials, (rows, N) float64, a few trials at a time: memory stays flat."""
    step = max(1, VALUES_AT_ONCE // max(1, counts.shape[1] * counts.shape[2]))
    for first in range(0, len(place), step):
        yield counts[place[first : first + step]].reshape(-1, counts.shape[2]).astype(np.float64)
