"""`Recording`: what one session holds, on one clock, in SI units, read lazily."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.core.params import LabelRules
from nblib.data.trials import labelling, usable
from nblib.data.trials.columns import LEFT_OUT
from nblib.data.trials.time_intervals import check_intervals, covers, open_ended

if TYPE_CHECKING:
    from nblib.data.files.hdf5 import FileSpikes

BLOCK_S = 60.0  # a sampled signal is looked at in pieces of so many seconds
ROUNDED_S = 1e-3  # observed times are rounded by so much at most: to milliseconds, or 32 bits


# The Allen Institute's own limits: a unit is good when all that are recorded hold.
QUALITY = {
    "isi_violations": (-np.inf, 0.5),
    "amplitude_cutoff": (-np.inf, 0.1),
    "presence_ratio": (0.95, np.inf),
}


@dataclass(frozen=True)
class Series:
    """A sampled signal `(time, channel)`; either `rate_hz` or `timestamps` tells the time.

    pieces : of a clock with gaps, the stretches between them: first sample, one past the last, start
        [s]; empty for one that is even throughout.
    """

    name: str
    unit: str
    read: Callable[[int, int], np.ndarray]
    n_samples: int
    rate_hz: float | None = None
    start_s: float = 0.0
    timestamps: Callable[[], np.ndarray] | None = None
    pieces: tuple[tuple[int, int, float], ...] = ()

    @property
    def even(self) -> tuple[tuple[int, int, float], ...]:
        """The stretches of even clock, one where there is no gap."""
        return self.pieces or ((0, self.n_samples, self.start_s),)

    @property
    def stop_s(self) -> float:
        """End of the last sample of a signal that has a rate."""
        lo, hi, start = self.even[-1]
        return start + (hi - lo) / self.rate_hz

    def times(self) -> np.ndarray:
        """When each sample was taken, float64 (n,) [s]."""
        if self.timestamps is None:
            return self.start_s + np.arange(self.n_samples) / self.rate_hz
        return np.asarray(self.timestamps(), np.float64)

    def blocks(self, first: int, stop: int) -> Iterator[np.ndarray]:
        """Samples first to stop as float64 (n, channel), a minute at a time."""
        step = max(1, round(BLOCK_S * self.rate_hz))
        for lo in range(first, stop, step):
            yield np.asarray(self.read(lo, min(lo + step, stop)), np.float64)


@dataclass(frozen=True)
class Recording:
    """One recording session.

    Attributes
    ----------
    units : DataFrame, index `unit_id`; where known: area, probe, channel, x, y, z [um],
        isi_violations, amplitude_cutoff, presence_ratio, firing_rate [Hz].
    spike_index : int64 (n_units + 1,); unit i owns spikes `spike_index[i]:spike_index[i+1]`.
    spikes : float64 seconds, unit after unit: an array, or what reads slices of a file.
    intervals : tables with start_time, stop_time [s] and named columns; invalid : which of them hold
        invalid times, where they are there.
    series : sampled signals by name, read lazily.
    trials, label : the interval table that holds the trials, and its column to decode (or an
        expression of columns), "" without; rules : which trials count, and what is missing.
    stimulus : of a recording without trials, the series that is binned with the spikes; "" where none is
        chosen.
    observed : each unit's intervals (k, 2) [s] in which its spikes were looked for; None where
        nothing is said of it, of all units or of one: then always.
    """

    id: str
    subject: str
    path: Path | None
    units: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(index=pd.Index([], name="unit_id"))
    )
    spike_index: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    spikes: np.ndarray | FileSpikes = field(default_factory=lambda: np.empty(0))
    intervals: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    trials: str = ""
    label: str = ""
    series: dict[str, Series] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    observed: list[np.ndarray | None] | None = None
    rules: LabelRules = field(default_factory=LabelRules)
    invalid: tuple[str, ...] = ("invalid_times",)
    stimulus: str = ""

    def __post_init__(self):
        if len(self.spike_index) != len(self.units) + 1:
            raise BadInput(
                f"{self.where}: {len(self.units)} units but a spike index of "
                f"{len(self.spike_index)} entries; expected one more than there are units."
            )

    @property
    def where(self) -> str:
        """Its file, or else its name, for messages."""
        return str(self.path or self.id)

    @property
    def n_units(self) -> int:
        return len(self.units)

    @property
    def n_spikes(self) -> int:
        return int(self.spike_index[-1])

    @property
    def lfp(self) -> Series | None:
        """The averaged field potential of a recording of potentials; beside units it is a series as any other."""
        return None if self.n_units else self.series.get("lfp")

    @property
    def trial_place(self) -> str:
        """Where the trials stand, for messages."""
        return f"{self.meta.get('trials_file', self.where)}: {self.trials}"

    @cached_property
    def labelled(self) -> labelling.Trials:
        """The trials that count, with their labels, and those left out (see `labelling.select`)."""
        if not self.trials:
            raise BadInput(
                f"{self.where}: the recipe names no trials (intervals is empty), and this "
                f"needs them; there is {', '.join(self.intervals) or 'no interval table'}. Set "
                "`intervals` and `label` in the recipe."
            )
        return labelling.select(
            self.intervals[self.trials], self.label, self.rules, self.trial_place
        )

    @property
    def trial_table(self) -> pd.DataFrame:
        """The trials that have a label: columns as in the file, and `label`; index: row in the file.

        Raises BadInput where there are none.
        """
        return self.labelled.table

    @property
    def is_film(self) -> bool:
        """Whether its trials are the frames of a film, and their columns its annotations."""
        return self.trials in self.intervals and "annotations" in self.intervals[self.trials].attrs

    @property
    def timed_trials(self) -> pd.DataFrame:
        """Those with a finite start and a stop that is not before it."""
        bad = usable.unusable(self.trial_table, usable.SPAN, self.trial_place)
        bad.pop("no length", None)
        return self.trial_table[
            ~np.any([*bad.values(), np.zeros(len(self.trial_table), bool)], axis=0)
        ]

    @property
    def invalid_times(self) -> np.ndarray:
        """Invalid intervals as float64 (n, 2) [s], without end (inf) where the file gives none;
        empty when the file names none. BadInput, with the rows, for one without a start or reversed."""
        parts = [np.empty((0, 2))]
        for name in self.invalid:
            table = self.intervals.get(name)
            if table is not None and len(table):
                if "stop_time" in table.attrs.get(LEFT_OUT, {}):
                    raise BadInput(
                        f"{self.where}: {name} has no column 'stop_time', so how long its times last is not "
                        f"known; its columns are {some(table.columns.drop('stop_time'), 40)}. Add one, or name other "
                        "tables in `invalid_times` of the recipe ([] = none)."
                    )
                parts.append(open_ended(table[["start_time", "stop_time"]].to_numpy(float)))
                check_intervals(self.where, name, parts[-1])
        return np.concatenate(parts)

    def observed_in(self, start_s: np.ndarray, stop_s: np.ndarray) -> np.ndarray:
        """Whether each unit was observed throughout [start, stop): bool (n, n_units)."""
        seen = np.ones((len(start_s), self.n_units), bool)
        known: dict[bytes, np.ndarray] = {}  # many units share their intervals
        for unit, intervals in enumerate(self.observed or []):
            if intervals is not None:
                key = intervals.tobytes()
                if key not in known:
                    known[key] = covers(start_s, stop_s, intervals, ROUNDED_S)
                seen[:, unit] = known[key]
        return seen

    def spike_times(self, i: int) -> np.ndarray:
        """Spike times of the i-th unit, float64 seconds."""
        return self.spikes[self.spike_index[i] : self.spike_index[i + 1]]

    def trains(self) -> Iterator[np.ndarray]:
        """Spike times of one unit after the other; where the file can be mapped, nothing is read
        before it is looked at."""
        spikes = getattr(self.spikes, "mapped", self.spikes)
        return (spikes[lo:hi] for lo, hi in itertools.pairwise(self.spike_index))

    def spike_span(self) -> tuple[float, float]:
        """First and last spike of all units [s]; BadInput without any."""
        ends = [(train[0], train[-1]) for train in self.trains() if len(train)]
        if not ends:
            raise BadInput(f"{self.where}: no unit has a spike; nothing to bin.")
        return float(min(first for first, _ in ends)), float(max(last for _, last in ends))

    def pieces(self, max_spikes: int) -> list[tuple[int, int]]:
        """Runs of units with at most so many spikes, one unit at least: (first, stop)."""
        index = np.asarray(self.spike_index, np.int64)
        pieces, lo = [], 0
        while lo < self.n_units:
            hi = int(np.searchsorted(index, index[lo] + max_spikes, side="right")) - 1
            pieces.append((lo, min(max(hi, lo + 1), self.n_units)))
            lo = pieces[-1][1]
        return pieces

    def chunks(
        self, max_spikes: int = 4_000_000
    ) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Walk over the units in pieces of bounded size.

        Yields (first unit, stop unit, spike times [s], index (units + 1,) into those times).
        A single unit with more spikes than `max_spikes` comes as one piece.
        """
        index = np.asarray(self.spike_index, np.int64)
        for lo, hi in self.pieces(max_spikes):
            times = self.spikes[index[lo] : index[hi]]
            yield lo, hi, times, index[lo : hi + 1] - index[lo]


def good_units(units: pd.DataFrame) -> np.ndarray | None:
    """Which units meet every recorded quality limit of the Allen Institute; None without any."""
    known = [q for q in QUALITY if q in units and units[q].dtype.kind in "biuf"]
    within = [units[name].between(*QUALITY[name]) for name in known]
    return np.all(within, axis=0) if known else None
