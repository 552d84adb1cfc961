"""What train rows alone taught of units, signals and labels, before any model: fitted fold by fold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from nblib.core.errors import BadInput
from nblib.core.params import SplitSettings
from nblib.data.counts_dataset import signals_of
from nblib.prepare.stored_splits import SIGNAL_COLUMNS, TrainStatistics

MOST_CORRELATED = 2000  # units; the correlations of more are left out
VALUES_AT_ONCE = 2**23


def train_rows(binned: xr.Dataset, split: pd.DataFrame, fold: int) -> np.ndarray:
    """Positions along `trial` of the train rows of one fold, in time order."""
    rows = split[(split.fold == fold) & (split.role == "train")].sort_values(
        "start_s", kind="stable"
    )
    place = pd.Index(binned.trial.values).get_indexer(rows.trial)
    if len(place) == 0 or (place < 0).any():
        raise BadInput(f"the split's fold {fold} has no train trial among these counts.")
    return place


def unit_moments(
    counts: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def unit_faults(
    mean: np.ndarray, std: np.ndarray, peak: np.ndarray, settings: SplitSettings
) -> np.ndarray:
    """Why each unit (N,) is left out, "" for those that stay; arguments as `unit_moments` gives them."""
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


def unit_correlation(
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


def fit_statistics(
    binned: xr.Dataset, split: pd.DataFrame, fold: int, settings: SplitSettings
) -> TrainStatistics:
    """Fit unit choice, scaler, label codes and unit correlation on the train rows of one fold.

    A row is one bin of one trial. Silent and zero-variance units go, and units whose train
    z-score exceeds `highest_value` or never exceeds `lowest_value` (the lab's limits), and those
    that fire less than `least_rate_hz`.
    """
    place = train_rows(binned, split, fold)
    counts = binned.counts.values
    mean, std, peak = unit_moments(counts, place)
    reason = unit_faults(mean, std, peak, settings)
    slow = mean / binned.exposure_s.values[place].mean() < settings.least_rate_hz
    reason[slow & (reason == "")] = f"fires less than {settings.least_rate_hz:g} Hz in train"
    keep = reason == ""
    if not keep.any():
        raise BadInput(
            f"recording {binned.attrs['recording']!r}, fold {fold}: no unit passes the limits on train rows."
        )
    units = binned.unit.values
    scale = std[keep]
    correlation = np.zeros((0, 0))
    if keep.sum() <= MOST_CORRELATED:
        correlation = unit_correlation(counts[:, :, keep], place, mean[keep], scale)
    zscore = settings.scaler == "zscore"
    return TrainStatistics(
        fold=fold,
        unit_ids=units[keep],
        mean=mean[keep] if zscore else np.zeros(keep.sum()),
        scale=scale if zscore else np.ones(keep.sum()),
        classes=np.unique(binned.label.values[place]),
        correlation=correlation.astype(np.float32),
        dropped=pd.DataFrame({"unit": units[~keep], "reason": reason[~keep].astype(str)}),
        signals=signal_statistics(binned, place),
    )


def signal_statistics(binned: xr.Dataset, place: np.ndarray) -> pd.DataFrame:
    """Mean and standard deviation of each further signal in the trials at positions `place` (n,): a row a
    signal, with name, mean, scale.

    NaN for one that is unknown in all of them; a scale of 1 for one that never changes there.
    """
    rows = []
    for name in signals_of(binned):
        values = binned[name].values[place].astype(np.float64)
        known = values[np.isfinite(values)]
        none = known.size == 0
        rows.append((name, np.nan, np.nan) if none else (name, known.mean(), known.std() or 1.0))
    return pd.DataFrame(rows, columns=SIGNAL_COLUMNS)


def fit_folds(
    binned: xr.Dataset, split: pd.DataFrame, settings: SplitSettings
) -> list[TrainStatistics]:
    """What is fitted on train rows, fold by fold (see `fit_statistics`)."""
    return [
        fit_statistics(binned, split, int(fold), settings) for fold in sorted(split.fold.unique())
    ]
