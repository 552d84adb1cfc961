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

    Raises BadParameter where the recipe asks for trials, BadInput for a part that is missing or of
    another length than the others.
    """
    if recipe.intervals:
        raise BadParameter(f'{path}: such files have no table of trials; set intervals: "".')
    with hdf5.opened(path) as file:
        if missing := {"t", "spikes", "chan_names", *POSITIONS} - set(file):
            raise BadInput(f"{path}: no {some(sorted(missing))}; the file holds {some(file, 20)}.")
        time_s = file["t"][()].ravel().astype(float)
        channels = [_text(file[ref]) for ref in file["chan_names"][()].ravel()]
        cells = file["spikes"][()]  # (unit, channel)
        if cells.shape[1] != len(channels):
            raise BadInput(
                f"{path}: spikes has {cells.shape[1]} channels, chan_names {len(channels)}."
            )
        trains = {
            (channel, number): _train(file[cells[number, place]])
            for place, channel in enumerate(channels)
            for number in range(0 if settings.unsorted else 1, len(cells))
        }
        values = {name: file[name][()].T.astype(float) for name in POSITIONS}
    trains = {unit: train for unit, train in trains.items() if len(train)}
    if not trains:
        raise BadInput(f"{path}: spikes holds no unit with a spike.")
    for name, position in values.items():
        if len(position) != len(time_s):
            raise BadInput(f"{path}: {name} has {len(position)} samples, t has {len(time_s)}.")
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
    """Spike times [s] of a cell; an empty one holds its shape instead."""
    if "MATLAB_empty" in cell.attrs or cell.ndim < 2:
        return np.empty(0)
    return cell[()].ravel().astype(float)
