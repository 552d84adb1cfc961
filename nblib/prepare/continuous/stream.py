"""A recording without trials laid end to end again: what notebooks behind 04 read, windows by index.

    stream = load(stage.input(SPLIT), stage.input(CLEAN), stage.recipe, stage.recording)
    t0 = stream.windows("train", context_s=0.56, horizon_s=0.08, stride=13)
    stream.counts[t0[:, None] + np.arange(n_ahead)]  # on the device: one gather a batch

Nobody cuts windows out: 60 cells and 15 minutes in bins of 1 ms are 54 MB, their windows terabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core.errors import BadParameter
from nblib.core.params import Recipe, SplitSettings
from nblib.data import counts_dataset, sources
from nblib.prepare import stored_splits
from nblib.prepare.continuous import gap_s, is_continuous


@dataclass(frozen=True)
class Stream:
    """Bins of a recording in the order of time, those of rows that were left out missing.

    Attributes
    ----------
    counts : (bins, units) uint8 or uint16, spikes.
    stimulus : (bins, channel) float32, known at the bin's start.
    number : (bins,) int64, of each bin: it begins `number * bin_s` seconds into the recording. Where it
        jumps, there is a seam.
    spans : a row for each stretch of one role without a seam, in the order of time: role (train, val,
        test), first and stop (positions of bins), before: bins of the gap just before `first` that a
        context may reach into.
    units : one row a unit that fires in train, index its id; area and quality where known.
    row_bins : bins of a row; first, stop and before are multiples of it, and it is one of 8 where it can.
    log_intensity : of positions of bins (n,), the log of the true spikes a bin given all the past, (n, units)
        float32; None where it is not known. It is asked for where it is needed: of all bins it is 4 times
        the counts.
    types : (units,) true kind of each unit; None where it is not known.
    """

    counts: np.ndarray
    stimulus: np.ndarray
    number: np.ndarray
    spans: pd.DataFrame
    units: pd.DataFrame
    bin_s: float
    row_bins: int
    gap_s: float
    split_hash: str
    log_intensity: Callable[[np.ndarray], np.ndarray] | None = None
    types: np.ndarray | None = None

    def windows(
        self, role: str, context_s: float = 0.0, horizon_s: float = 0.0, stride: int = 1
    ) -> np.ndarray:
        """Positions t0 at which windows of a role may begin to look ahead, rising int64.

        The bins from t0 to t0 + horizon, one at least, are of the role; those of the context before t0
        are of it or of the gap before it, never of another role, and no window crosses a seam. stride:
        bins from one to the next in a span. BadParameter for a context and a horizon that are longer
        together than the split keeps free.
        """
        if context_s + horizon_s > self.gap_s + 1e-9:
            raise BadParameter(
                f"context of {context_s:g} s and horizon of {horizon_s:g} s: the split keeps {self.gap_s:g} s free "
                "between roles (gap_s and context_s). Shorten them, or widen the gaps in the recipe."
            )
        context, horizon = (math.ceil(s / self.bin_s - 1e-9) for s in (context_s, horizon_s))
        starts = []
        for span in self.spans[self.spans["role"] == role].itertuples():
            first = span.first + max(0, context - span.before)
            starts.append(np.arange(first, span.stop - max(1, horizon) + 1, stride))
        return np.concatenate([np.empty(0, np.int64), *starts])


def spans_of(trial: np.ndarray, role: np.ndarray, n_bins: int) -> pd.DataFrame:
    """Spans (see `Stream`) of rows of n bins, by their number (row,) and role (row,)."""
    cut = (np.diff(trial) != 1) | (role[1:] != role[:-1])
    first = np.concatenate([[0], np.flatnonzero(cut) + 1])
    stop = np.append(first[1:], len(trial))
    follows = np.append(False, trial[first[1:]] - trial[first[1:] - 1] == 1)
    gap_before = follows & np.append(False, role[first[:-1]] == "gap")
    before = np.where(gap_before, np.append(0, (stop - first)[:-1]), 0)
    columns = {"first": first * n_bins, "stop": stop * n_bins, "before": before * n_bins}
    spans = pd.DataFrame({"role": role[first], **columns})
    return spans[spans["role"] != "gap"].reset_index(drop=True)


def load(split: Path, counts: Path, recipe: Recipe, recording: str, fold: int = 0) -> Stream:
    """The counts of 03 laid end to end, as the split of 04 deals them in one fold.

    split, counts: folders of 04 and 03. Raises BadParameter for a recording with trials, or a fold that
    is not there.
    """
    binned = counts_dataset.load(counts)
    if not is_continuous(binned):
        raise BadParameter(
            f"recipe {recipe.recipe!r}: its binning is {recipe.binning!r}; a recording without trials is needed "
            "(binning: continuous)."
        )
    roles, fitted = stored_splits.load_fold(split, fold)
    binned = binned.sel(unit=fitted.unit_ids)
    trial, n = binned.trial.values, binned.sizes["time"]
    role = stored_splits.roles_of(roles, fold, trial)
    number = (trial[:, None] * n + np.arange(n)).ravel()
    who = sources.own_settings(recipe), recording, binned.unit.values
    truth, kinds = (sources.offered(recipe.source, f) for f in ("log_intensity", "unit_types"))
    known = truth is not None and recipe.bin_s == sources.offered(recipe.source, "BIN_S")
    return Stream(
        counts=binned.counts.values.reshape(len(number), -1),
        stimulus=binned.stimulus.values.reshape(len(number), -1),
        number=number, spans=spans_of(trial, role, n), units=counts_dataset.units_of(binned),
        bin_s=recipe.bin_s, row_bins=n, gap_s=gap_s(recipe.settings(SplitSettings)),
        split_hash=stored_splits.split_hash(roles),
        log_intensity=(lambda at: truth(*who, number[at])) if known else None,
        types=kinds(*who) if kinds else None,
    )  # fmt: skip
