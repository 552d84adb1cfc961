"""A split as it is kept, with its hash: roles, what hangs together in time, what train rows alone taught."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from nblib.core.errors import BadInput, BadParameter
from nblib.data.files.arrays import load_arrays, save_arrays

SPLIT_FILE = "split.parquet"
STATISTICS_FILE = "statistics.h5"
FITTED = ("unit_ids", "mean", "scale", "classes", "correlation")  # arrays of `TrainStatistics`
SIGNAL_COLUMNS = ("name", "mean", "scale")  # of its table of further signals
RUNS_AND_RANDOM = (
    "Labels come in runs and the split is random: neighbours in time can give the answer away, "
    "whatever the units say. Take `split: blocked`."
)


@dataclass(frozen=True)
class TrainStatistics:
    """Everything fitted to data before a model: on train rows of one fold, and stored beside it.

    unit_ids : kept units (N,); mean, scale : (N,) per-bin counts; classes : (C,) sorted labels;
    correlation : (N, N) Pearson r over train rows (trial x bin), empty (0, 0) for more than
    `train_statistics.MOST_CORRELATED` units; dropped : unit, reason; signals : name, mean, scale of each further signal.
    """

    fold: int
    unit_ids: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    classes: np.ndarray
    correlation: np.ndarray
    dropped: pd.DataFrame
    signals: pd.DataFrame

    def transform(self, counts: np.ndarray, unit_ids: np.ndarray) -> np.ndarray:
        """Counts (B, T, units) to scaled float32 (B, T, N), kept units in the stored order."""
        place = pd.Index(unit_ids).get_indexer(self.unit_ids)
        if (place < 0).any():
            raise BadInput(
                f"unit {self.unit_ids[place < 0][0]} of the training data is not in these counts."
            )
        x = counts[:, :, place].astype(np.float32)
        x -= self.mean.astype(np.float32)
        x /= self.scale.astype(np.float32)
        return x

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Labels (n,) to class codes (n,) int64; BadInput for a label that training never saw."""
        code = np.searchsorted(self.classes, labels)
        code = np.minimum(code, len(self.classes) - 1)
        wrong = self.classes[code] != labels
        if wrong.any():
            raise BadInput(
                f"label {labels[wrong][0]!r} is not among the {len(self.classes)} training classes."
            )
        return code.astype(np.int64)


def label_block(labels: np.ndarray) -> int:
    """How many presentations in a row have labels that depend on each other; 1 = random order.

    labels (n,) in the order of time. They come in runs when equal labels lie close together (1 to
    10 apart) more often than in each of 1,000 random orders. The block ends at the first distance
    at which equal labels are as frequent as anywhere, within two standard errors.
    """
    labels = np.unique(labels, return_inverse=True)[1]
    n, count = len(labels), np.bincount(labels)
    if n < 3 or len(count) == 1:
        return 1
    anywhere = (count * (count - 1)).sum() / (n * (n - 1))
    lags = np.arange(1, min(10, n - 1) + 1)

    def closeness(rows: np.ndarray) -> np.ndarray:
        same = np.stack([(rows[:, lag:] == rows[:, :-lag]).mean(axis=1) for lag in lags], axis=1)
        return (np.cumsum(same - anywhere, axis=1) / np.sqrt(lags)).max(axis=1)

    observed, rng = closeness(labels[None])[0], np.random.default_rng([0, 6])
    for _ in range(20):  # the first 50 orders mostly suffice
        if (closeness(rng.permuted(np.tile(labels, (50, 1)), axis=1)) >= observed).any():
            return 1
    for lag in range(2, n // 4 + 1):
        error = np.sqrt(anywhere * (1 - anywhere) / (n - lag))
        if (labels[lag:] == labels[:-lag]).mean() < anywhere + 2 * error:
            return lag
    return max(2, n // 4)


def time_blocks(split: pd.DataFrame) -> tuple[int, pd.Series]:
    """What hangs together when presentations judge: block length, and trial -> number of its group.

    The length is that of `label_block`: 1 where labels come in random order, and then a group
    holds the presentations that overlap in time. Where labels come in runs, groups that follow each
    other are joined into blocks of at least that length.
    """
    part = split[split["fold"] == split["fold"].min()].sort_values("start_s", kind="stable")
    length = label_block(part["label"].to_numpy())
    in_group = int(part["group"].value_counts().median())  # of a film, whole segments
    return length, part.set_index("trial")["group"] // -(-length // in_group)


def split_hash(split: pd.DataFrame) -> str:
    """12 hex digits of who has which role; equal hashes mean comparable scores.

    The split of a film is one for all patients and labels: there it is of what was dealt.
    """
    names = ["recording", "trial", "fold", "role"]
    if "dealt" in split:
        names = ["trial", "fold", "dealt"]
    rows = split.sort_values(["recording", "fold", "trial"])[names]
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()[:12]


def rates_by_role(binned: xr.Dataset, split: pd.DataFrame) -> pd.DataFrame:
    """Mean rate [Hz] of each unit in the first fold: a row a unit, a column a role that there is."""
    first, trials = split[split["fold"] == split["fold"].min()], pd.Index(binned.trial.values)
    spikes = binned.counts.values.sum(axis=1, dtype=np.int64)  # (trial, unit)
    exposure_s = binned.exposure_s.values.sum(axis=1)
    rates = {}
    for role in ("train", "val", "test"):
        rows = trials.get_indexer(first.loc[first["role"] == role, "trial"])
        rates[role] = spikes[rows].sum(axis=0) / exposure_s[rows].sum()
    return pd.DataFrame(rates, index=binned.unit.values)


def save(folder: Path, split: pd.DataFrame, statistics: list[TrainStatistics]) -> None:
    """Write `split.parquet` and `statistics.h5` (one group a fold)."""
    split.to_parquet(folder / SPLIT_FILE, index=False)
    arrays = {}
    for fitted in statistics:
        arrays |= {f"fold{fitted.fold}/{name}": getattr(fitted, name) for name in FITTED}
        tables = {"dropped": fitted.dropped, "signal": fitted.signals}
        if fitted.signals.empty:
            del tables["signal"]
        for what, table in tables.items():
            arrays |= {f"fold{fitted.fold}/{what}_{n}": column for n, column in table.items()}
    save_arrays(folder / STATISTICS_FILE, arrays, split_hash=split_hash(split))


def load(folder: Path) -> tuple[pd.DataFrame, list[TrainStatistics]]:
    """Read a split artifact: the role table and the statistics of each fold."""
    split = pd.read_parquet(folder / SPLIT_FILE)
    arrays, statistics = load_arrays(folder / STATISTICS_FILE), []
    for fold in sorted(split.fold.unique().tolist()):
        fitted = {name: arrays[f"fold{fold}/{name}"] for name in FITTED}
        dropped = {name: arrays[f"fold{fold}/dropped_{name}"] for name in ("unit", "reason")}
        signals = {name: arrays.get(f"fold{fold}/signal_{name}", []) for name in SIGNAL_COLUMNS}
        tables = {"dropped": pd.DataFrame(dropped), "signals": pd.DataFrame(signals)}
        statistics.append(TrainStatistics(fold=fold, **tables, **fitted))
    return split, statistics


def load_fold(folder: Path, fold: int) -> tuple[pd.DataFrame, TrainStatistics]:
    """The role table of a split artifact, and what was fitted on the train rows of one fold.

    Raises BadParameter for a fold that is not there.
    """
    split, statistics = load(folder)
    if fold not in range(len(statistics)):
        raise BadParameter(
            f"fold = {fold}: the split of {split['recording'].iloc[0]!r} has {len(statistics)} fold(s), "
            "numbered from 0."
        )
    return split, statistics[fold]


def roles_of(split: pd.DataFrame, fold: int, trials: np.ndarray) -> np.ndarray:
    """Role of some trials in one fold, text (n,)."""
    return split[split["fold"] == fold].set_index("trial")["role"].loc[trials].to_numpy(str)
