"""Sessions of the International Brain Laboratory, from their ALF files; numpy and pandas read them.

A recipe's `path` is the folder of a session, or its `alf` folder. Probes are laid together; the unit id
is `probe/cluster`. Everything is on one clock, in seconds, as these files are.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core.errors import BadInput, MissingInput, some
from nblib.core.findings import Span, refuse
from nblib.core.params import Params, Recipe
from nblib.data.checks.clock import LEAST_ISI, TO_SECONDS, check_unit
from nblib.data.files.hashes import file_hash
from nblib.data.files.plain import by_unit, read_array, read_table
from nblib.data.ibl import alf
from nblib.data.ibl.probes import (
    ABOUT_UNITS,
    SORTER,
    UNITS,
    about_units,
    check_spikes,
    find_probes,
    good_units,
)
from nblib.data.ibl.series import find_series
from nblib.data.nwb import series as nwb_series
from nblib.data.recording import Recording
from nblib.data.trials.columns import numbers, require

USES = ("path",)
TRIALS = "trials"  # the interval table that is made here
JITTER_S = 0.1  # spikes that are out of order by less are put in order
# Columns of trials that may hold certain values alone; NaN where a trial has none.
POSSIBLE = {
    "choice": (lambda values: values.isin([-1, 0, 1]), "one of -1, 0, 1"),
    "probabilityLeft": (lambda values: values.between(0, 1), "0 to 1"),
}


class Settings(Params):
    """What only these sessions have."""

    sorter: str = Field(
        "", description=f"folder of the spike sorter; empty = {SORTER}, or the only one"
    )
    quality_min: float = Field(
        0.0, ge=0, le=1, description="least share of quality checks that a unit passed (label)"
    )


def _alf(path: Path) -> Path:
    return path if path.name == "alf" else path / "alf"


def files(folder: Path) -> list[Path]:
    """Every file of a session that may be read: ALF files of its folder, its probes and their revisions."""
    place = _alf(folder)
    # A probe's folder may be a link; `**` would not go there, and its spikes could change unseen.
    every = (p for depth in range(1, 5) for p in place.glob("/".join(depth * "*")))
    there = sorted(p for p in every if p.is_file() and alf.NAME.fullmatch(p.name))
    if not there:
        raise MissingInput(f"{place}: no ALF file in it; `path` must be the folder of a session.")
    return there


def open_recording(path: Path, recipe: Recipe, recording_id: str, settings: Settings) -> Recording:
    """Open a session: units of all probes, its trials, wheel, cameras, pupil and licks where there are any.

    Raises MissingInput, BadInput with the file, for what is not there or does not fit together.
    """
    place, units, spikes, counts, notes, used = _alf(path), [], [], [], [], []
    copies: dict[str, Path] = {}  # files of spike times by what they hold
    spans: list[Span] = []  # of each probe's spikes
    for probe, folder in find_probes(place, settings.sorter).items():
        times, owner, channel = (read_array(alf.require(folder, name)) for name in UNITS)
        check_spikes(folder, times, owner, len(channel))
        table = about_units(folder, probe, channel)
        ids = good_units(folder, table, settings.quality_min)
        by = "" if folder.name in (SORTER, probe) else f", sorted by {folder.name}"
        notes.append(
            f"{probe}: {len(ids)} of {len(table)} units (quality_min = {settings.quality_min:g}){by}."
        )
        if not len(ids):
            continue
        file = alf.require(folder, UNITS[0])
        if len(times):
            other = copies.setdefault(file_hash(file), file)
            twice = f"{file}: the same spikes as {other}; take one of the two folders away."
            refuse(other != file, twice)
        if len(times) > LEAST_ISI:
            spans.append(Span(f"spikes of {probe}", times.min(), times.max()))
            for pair in itertools.permutations((spans[0], spans[-1])):
                check_unit(str(file), *pair, f"{TO_SECONDS.capitalize()}, or take a folder away.")
        # Where times fall by more, 01 says what that is.
        if len(times) == len(owner) and 0 < _falls_s(times) < JITTER_S:
            order = np.argsort(times, kind="stable")
            times, owner = times[order], owner[order]
        times, index = by_unit(times, owner, ids, file)
        units.append(table.iloc[ids])
        spikes.append(times)
        counts.append(np.diff(index))
        used += [p for name in (*UNITS, *ABOUT_UNITS) if (p := alf.find(folder, name))]
    if not units:
        raise BadInput(f"{place}: no unit is left; {' '.join(notes)}")
    trials = _trials(place, used)
    series, broken = find_series(place, used)
    notes += nwb_series.complaints(broken, path)
    revisions = [f"{p.name} of revision {alf.revision(p)}" for p in used if alf.revision(p)]
    notes += [f"Read {some(revisions, 20)}."] if revisions else []
    return Recording(
        id=recording_id,
        subject=_subject(path) or recording_id,
        path=path,
        units=pd.concat(units),
        spikes=np.concatenate(spikes),
        spike_index=np.append(0, np.cumsum(np.concatenate(counts))),
        intervals={TRIALS: trials},
        series=series,
        trials=recipe.intervals,
        label=recipe.label,
        meta={"notes": notes, "broken_series": broken},
    )


def _falls_s(times: np.ndarray) -> float:
    """How far times lie behind an earlier one at most [s]."""
    return float((np.maximum.accumulate(times) - times).max(initial=0.0))


def _subject(path: Path) -> str:
    """The folder after `Subjects`; "" where there is none."""
    parts = path.resolve().parts
    return parts[parts.index("Subjects") + 1] if "Subjects" in parts[:-1] else ""


def _trials(place: Path, used: list[Path]) -> pd.DataFrame:
    """The table of trials, with start_time and stop_time; its file is added to `used`."""
    file = alf.find(place, "trials.table")
    if file is None:
        why = ""
        if alf.find(place, "trials.intervals"):
            why = "; its trials are one file a column, as before 2022: load them once with ONE, which writes the table"
        elif elsewhere := sorted(place.glob("*/*trials.table.*")):  # of one task of several
            why = f"; {elsewhere[0]} is one: link what lies there into {place}"
        raise MissingInput(f"{place}: no trials.table{why}.")
    used.append(file)
    spans = ("intervals_0", "intervals_1")
    table = read_table(file, spans, as_text=True)
    if table.empty:
        raise BadInput(f"{file}: no row in it, so there is no trial.")
    for column in {*spans, *POSSIBLE} & set(table):
        written = require(table, column, str(file)).astype(str)  # 0.2 stays 0.2 in 32 bits
        table[column] = numbers(written, f"{file}: column {column!r}")
    for column in POSSIBLE.keys() & set(table):
        possible, words = POSSIBLE[column]
        values = table[column]
        refuse(
            values.notna() & ~possible(values),
            f"{file}: {column} = %value in row %rows; expected {words}.",
            value=values,
        )
    return table.rename(columns={"intervals_0": "start_time", "intervals_1": "stop_time"})
