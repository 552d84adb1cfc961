"""Cursor reaches of macaques (O'Doherty and others 2017): MATLAB 7.3, spikes by channel and unit, no trials.

The first unit of a channel holds its spikes that nobody sorted. The velocity of the cursor is the
gradient of its position.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core.errors import BadInput, BadParameter, some
from nblib.core.findings import check_array, check_once, check_rising, refuse
from nblib.core.params import Params, Recipe
from nblib.data.files import hdf5
from nblib.data.recording import Recording, Series

USES = ("path",)
POSITIONS = {"cursor_pos": "mm", "finger_pos": "cm", "target_pos": "mm"}
VELOCITY = "cursor_velocity"


class Settings(Params):
    """What only these files have."""

    unsorted: bool = Field(True, description="also take the unsorted spikes of a channel as a unit")


def open_recording(path: Path, recipe: Recipe, recording_id: str, settings: Settings) -> Recording:
    """Open one session: units named by channel and number, 0 for unsorted, their `area` that of the
    channel; series cursor_velocity [mm/s], cursor_pos, finger_pos, target_pos.

    Raises BadParameter where the recipe asks for trials, BadInput for a part that is missing, of
    another length than the others or no numbers, channels of one name, and times that fall or stand still.
    """
    if recipe.intervals:
        raise BadParameter(f'{path}: such files have no table of trials; set intervals: "".')
    with hdf5.opened(path) as file:
        if missing := {"t", "spikes", "chan_names", *POSITIONS} - set(file):
            raise BadInput(f"{path}: no {some(sorted(missing))}; the file holds {some(file, 20)}.")
        with hdf5.read_errors(path, "chan_names, a cell of text a channel,"):
            channels = [_text(file[ref]) for ref in file["chan_names"][()].ravel()]
        check_once(f"{path}: chan_names", channels, "channels")
        cells = file["spikes"][()]  # (unit, channel)
        good = cells.ndim == 2 and cells.shape[1] == len(channels)
        check_array(f"{path}: spikes", cells, good, f"(units, {len(channels)}), a cell a channel")
        with hdf5.read_errors(path, "spikes, a cell of times a channel and unit,"):
            trains = {
                (channel, number): _train(file[cells[number, place]])
                for place, channel in enumerate(channels)
                for number in range(0 if settings.unsorted else 1, len(cells))
            }
        values = {}
        for name in ("t", *POSITIONS):
            with hdf5.read_errors(path, name, file[name]):
                values[name] = file[name][()].astype(float)
    time_s = values.pop("t").ravel()
    check_rising(f"{path}: t", time_s, "sample")
    refuse(
        np.diff(time_s) == 0,
        f"{path}: t of sample %rows is that of the next one too; leave one of each.",
    )
    refuse(len(time_s) < 2, f"{path}: t has {len(time_s)} samples; a velocity needs two at least.")
    trains = {unit: train for unit, train in trains.items() if len(train)}
    if not trains:
        raise BadInput(f"{path}: spikes holds no unit with a spike.")
    for name, position in values.items():
        good = position.ndim == 2 and position.shape[1] == len(time_s)
        check_array(
            f"{path}: {name}", position, good, f"(axes, {len(time_s)}), a sample for each t"
        )
        values[name] = position.T
    values[VELOCITY] = np.gradient(values["cursor_pos"], time_s, axis=0)
    units = pd.DataFrame(
        {
            "area": [channel.split(" ")[0] for channel, _ in trains],
            "channel": [channel for channel, _ in trains],
        },
        index=pd.Index([f"{channel} {number}" for channel, number in trains], name="unit_id"),
    )
    return Recording(
        recording_id,
        path.stem.split("_")[0],
        path,
        units,
        np.append(0, np.cumsum([len(train) for train in trains.values()])),
        np.concatenate(list(trains.values())),
        series={name: _series(name, part, time_s) for name, part in values.items()},
        meta={"time_unit": "s", "notes": []},
    )


def _series(name: str, values: np.ndarray, time_s: np.ndarray) -> Series:
    unit = POSITIONS.get(name, "mm/s")
    return Series(name, unit, lambda lo, hi: values[lo:hi], len(values), timestamps=lambda: time_s)


def _text(letters: h5py.Dataset) -> str:
    """Text as MATLAB keeps it, a number a letter."""
    return "".join(map(chr, letters[()].ravel()))


def _train(cell: h5py.Dataset) -> np.ndarray:
    """Spike times [s] of a cell; an empty one holds its shape instead, in whole numbers."""
    if "MATLAB_empty" in cell.attrs or (cell.ndim < 2 and cell.dtype.kind in "iu"):
        return np.empty(0)
    return cell[()].ravel().astype(float)
