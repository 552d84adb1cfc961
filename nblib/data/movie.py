"""Human single units during a film, in the layout of SUMMER (DANDI 001616), on the clock of the film.

Each spike takes its place in film time (`film_frames`); those in pauses belong to no frame, so they are
dropped and counted. All patients then have one clock, the same frames and the same bins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core.errors import BadInput, BadParameter, some, there_is
from nblib.core.findings import check_finite, check_once, counted, refuse
from nblib.core.params import SECONDS, Params, Recipe
from nblib.data import nwb
from nblib.data.counts_dataset import NO_LABEL
from nblib.data.files import hdf5
from nblib.data.film_frames import frame_of, frames_of_spans, on_film, picture_of, shown_frames
from nblib.data.nwb import tables as nwb_tables
from nblib.data.recording import Recording
from nblib.data.trials.columns import numbers, require
from nblib.data.trials.time_intervals import says_of_validity

USES = ("path", "time_unit", "times")
FRAMES = "frames"  # the interval table that is made here
LIKE = 20.0  # spikes and watch log differ less in length, or their units differ
WATCH_LOG, BINS = "cleaned_watchlogs", "movie_binning_info"
ANNOTATIONS = "movie_annotations_indicator_functions"
GROUPS = {"AH": "H", "MH": "H", "PH": "H", "APH": "PHC", "MPH": "PHC", "PPH": "PHC"}


class Settings(Params):
    """What only films have."""

    frame_rate_hz: float = Field(25.0, gt=0, description="frames of the film a second [Hz]")
    window: list[int] = Field(
        [], max_length=2, description="first frame and one past the last; empty = as the file says"
    )
    clock: Literal["film", "recording"] = Field(
        "film", description="recording: no watch log; frames by the recording's own clock"
    )
    pool: dict[str, list[str]] = Field({}, description="name -> recordings laid together under it")


def beside(path: Path, recipe: Recipe, recording_id: str) -> dict[str, Path]:
    """The CSV of annotations, where the recipe names one."""
    return {"times": recipe.file(recording_id, "times")} if recipe.times else {}


def open_recording(path: Path, recipe: Recipe, recording_id: str, settings: Settings) -> Recording:
    """Open one patient, times in seconds of film; annotations are columns of the table of frames.

    Units have `area` (the group of their `region`), and `n_in_pauses` and `n_outside`, their spikes
    that fell into no frame of the window. Raises BadInput for times that are no frames' or in another
    unit than the recipe says, BadParameter for a label that is no annotation.
    """
    rate, unit = settings.frame_rate_hz, recipe.time_unit
    whole = nwb.open_nwb(path, intervals="", label="", time_unit=unit, recording_id=recording_id)
    tables = film_tables(path)
    spike_s = whole.spikes[0 : whole.n_spikes]
    refuse(not len(spike_s), f"{path}: units/spike_times holds no spike.")
    check_finite(f"{path}: units/spike_times", spike_s, "spike")
    if settings.clock == "recording":
        first, last = spike_s.min().clip(0), spike_s.max()
        film_s = clock_s = np.arange(np.ceil(first * rate), np.floor(last * rate) + 1) / rate
    elif WATCH_LOG in tables:
        film_s, clock_s = (
            numbers(
                require(tables[WATCH_LOG], name, f"{path}: {WATCH_LOG}"),
                f"{path}: {WATCH_LOG}/{name}",
            )
            for name in ("pts", "neural_recording_time")
        )
        clock_s = clock_s * SECONDS[unit]
    else:
        raise BadInput(
            f"{path}: no table {WATCH_LOG!r}; it is no film in the layout of SUMMER. Where frames are to go by "
            "the recording's own clock: source_params: {clock: recording}."
        )
    shown = shown_frames(film_s, clock_s, rate, f"{path}: {WATCH_LOG}")
    window = settings.window[:1] + settings.window[-1:]  # one frame alone is no window
    window = window or [shown["frame"].iloc[0], shown["frame"].iloc[-1] + 1]
    if BINS in tables and not settings.window:
        window = window_of(tables[BINS], rate, f"{path}: {BINS}")
    labels = (
        annotations(tables[ANNOTATIONS], f"{path}: {ANNOTATIONS}") if ANNOTATIONS in tables else {}
    )
    if recipe.times:
        csv = beside(path, recipe, recording_id)["times"]
        more = frames_of_spans(csv, window, rate)
        if both := sorted(set(labels) & set(more)):
            raise BadInput(f"{csv}: {path} has an annotation {both[0]!r} too; rename this one.")
        labels |= more
    check_label(recipe.label, labels, str(path))
    shows = shown["frame"].iloc[[0, -1]]
    shown = shown[slice(*np.searchsorted(shown["frame"], window))]  # rows of the whole, not copied
    spans = np.ptp(spike_s), np.ptp(clock_s)
    of_spikes, of_log = (f"{t.min():.6g} to {t.max():.6g} s" for t in (spike_s, clock_s))
    del tables, film_s, clock_s
    if shown.empty:
        raise BadInput(
            f"{path}: {WATCH_LOG} shows frames {' to '.join(map(str, shows))}, none of {window[0]} to "
            f"{window[1] - 1}; film times must be in seconds, and `window` two frames that rise."
        )
    if not spans[1] / LIKE < spans[0] < spans[1] * LIKE:
        raise BadInput(
            f"{path}: its spikes cover {spans[0]:.4g} s, the watch log {spans[1]:.4g} s; both must be in "
            "time_unit. Check the unit of units/spike_times."
        )
    ends, n_paused = [0], []
    for train in np.split(spike_s, whole.spike_index[1:-1]):  # each unit's take their place in it
        film_s, inside, in_pause = on_film(train, shown, rate)
        ends.append(ends[-1] + np.count_nonzero(inside))
        spike_s[ends[-2] : ends[-1]] = film_s[inside]
        n_paused.append(np.count_nonzero(in_pause))
    if not ends[-1]:
        raise BadInput(
            f"{path}: no spike falls into a frame of the film. The spikes lie at {of_spikes}, the watch log at "
            f"{of_log}; both must be of one clock, and `window` frames that were shown."
        )
    n_outside = np.diff(whole.spike_index) - np.diff(ends) - n_paused
    units = whole.units.assign(n_in_pauses=n_paused, n_outside=n_outside)
    if "area" in units:
        units = units.assign(region=units["area"], area=units["area"].replace(GROUPS))
    first = shown["frame"].iloc[0]
    note = (
        f"The film paused {shown['after_pause'][1:].sum()} times; {ends[-1]:,} spikes fall into its "
        f"{len(shown):,} frames, {sum(n_paused):,} into pauses and {n_outside.sum():,} before or after. Frames count "
        f"from 0, files of pictures from 1: the first one here, frame {first}, is {picture_of(first)}."
    )
    notes = [*whole.meta["notes"], note]
    if unused := [n for n in whole.intervals if n in whole.invalid or says_of_validity(n)]:
        notes.append(
            f"{some(unused)}: by the name, times to leave out or to keep; a film's frames do not use them."
        )
    return replace(
        whole, units=units, spikes=spike_s[: ends[-1]], spike_index=np.array(ends), trials=FRAMES,
        intervals={FRAMES: frame_table(shown, labels, rate, str(path))}, label=recipe.label, series={},
        meta=whole.meta | {"notes": notes, "time_unit": "s"}, observed=None,
    )  # fmt: skip


def frame_table(
    shown: pd.DataFrame, labels: dict[str, np.ndarray], rate_hz: float, where: str
) -> pd.DataFrame:
    """One row a frame: its film time [s], number, exposure_s, after_pause, and a column an annotation,
    NaN where it is undefined. BadInput for an annotation that ends before the frames do, or whose name
    is taken."""
    frame = shown["frame"].to_numpy(copy=True)
    columns = {
        "start_time": frame / rate_hz,
        "stop_time": (frame + 1) / rate_hz,
        "frame": frame,
        "exposure_s": (shown["stop"] - shown["start"]).to_numpy() / 1e9,
        "after_pause": shown["after_pause"].to_numpy(copy=True),
    }
    for name, values in labels.items():
        if name in [*columns, "label"]:
            raise BadInput(
                f"{where}: {name!r} is something else of a frame; rename the annotation."
            )
        if len(values) <= frame[-1]:
            raise BadInput(
                f"{where}: annotation {name!r} has {len(values)} frames, the film goes on to {frame[-1]}."
            )
        values = values[frame]
        undefined = values == NO_LABEL
        columns[name] = np.where(undefined, np.nan, values) if undefined.any() else values
    table = pd.DataFrame(columns, copy=False)
    table.attrs["annotations"] = list(labels)
    return table


def check_label(label: str, labels: Iterable[str], where: str) -> None:
    """BadParameter, with the nearest names, for a label that is no annotation of the film."""
    if label not in labels:
        known = there_is(sorted(labels), label, 60)
        raise BadParameter(f"{where}: no annotation {label!r}; {known}")


def pool(patients: list[Recording], recording_id: str) -> Recording:
    """Patients who saw one film, laid together as one recording: units `PATIENT-ID`.

    A frame's exposure is the mean over patients; it comes after a pause where one of them paused.
    Raises BadInput where they have other frames.
    """
    first, tables = patients[0], [patient.intervals[FRAMES] for patient in patients]
    for other, table in zip(patients, tables, strict=True):
        if not np.array_equal(table["frame"], tables[0]["frame"]):
            raise BadInput(
                f"{recording_id}: {first.id} has {len(tables[0])} frames, {other.id} has {len(table)}, "
                "which are not the same; give both the same `window`."
            )
        for name in tables[0].attrs["annotations"]:
            if name not in table or not table[name].equals(tables[0][name]):
                raise BadInput(
                    f"{recording_id}: annotation {name!r} of {first.id} is another in {other.id}."
                )
    frames = tables[0].assign(
        exposure_s=np.mean([table["exposure_s"] for table in tables], axis=0),
        after_pause=np.any([table["after_pause"] for table in tables], axis=0),
    )
    units = [p.units.set_index(p.id + "-" + p.units.index.astype(str)) for p in patients]
    units = [table.assign(probe=p.id) for table, p in zip(units, patients, strict=True)]
    n_spikes = np.concatenate([np.diff(p.spike_index) for p in patients])
    spikes = np.concatenate([p.spikes for p in patients])
    notes = [f"{p.id}: {note}" for p in patients for note in p.meta["notes"]]
    return replace(
        first, id=recording_id, subject=recording_id, path=None, intervals={FRAMES: frames},
        units=pd.concat(units).rename_axis("unit_id"), spikes=spikes,
        spike_index=np.append(0, np.cumsum(n_spikes)), meta=first.meta | {"notes": notes},
    )  # fmt: skip


def film_tables(path: Path) -> dict[str, pd.DataFrame]:
    """The tables of a film by name, wherever they lie, ragged columns as arrays; BadInput for two of a name."""
    tables = {}
    with hdf5.opened(path) as file:
        for place, item in hdf5.walk(file, sorted(file), path):
            name = place.rpartition("/")[2]
            if (
                name in (WATCH_LOG, BINS, ANNOTATIONS)
                and isinstance(item, h5py.Group)
                and "id" in item
            ):
                if name in tables:
                    raise BadInput(f"{path}: two tables {name!r}, one at {place}; take one out.")
                tables[name] = nwb_tables.read_table(
                    item, path, place, skip=("frames",), ragged=nwb_tables.ARRAYS
                )
    return tables


def window_of(bins: pd.DataFrame, rate_hz: float, where: str) -> list[int]:
    """First frame and one past the last that the finest bins of a file cover."""
    lengths = numbers(require(bins, "bin_length", where), f"{where}/bin_length")
    edges = require(bins, "edges", where).iloc[int(np.nanargmin(lengths))]
    n = np.size(edges)
    refuse(n < 2, f"{where}: the finest bins have {counted(n, 'edge')}; at least 2 are needed.")
    return frame_of(np.asarray(edges)[[0, -1]], rate_hz, f"{where}/edges").tolist()


def annotations(table: pd.DataFrame, where: str) -> dict[str, np.ndarray]:
    """Annotations (frame,) by name, int8; 99 where one is undefined.

    Raises BadInput for two of a name, and for what is no whole number of a byte.
    """
    names = require(table, "label_name", where).astype(str).tolist()
    check_once(f"{where}: label_name", names, "annotations")
    labels = {}
    for name, values in zip(names, require(table, "indicator_function", where), strict=True):
        values = numbers(pd.Series(np.atleast_1d(values)), f"{where}: annotation {name!r}")
        values = np.nan_to_num(values, nan=NO_LABEL)
        labels[name] = values.astype(np.int8)
        refuse(
            labels[name] != values,
            f"{where}: annotation {name!r} holds %value in frame %rows; whole numbers are needed, {NO_LABEL} where it "
            "is undefined.",
            value=values,
        )
    return labels
