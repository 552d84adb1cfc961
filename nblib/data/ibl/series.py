"""Sampled signals of an ALF folder: wheel, cameras, pupil and licks, and whatever else has times."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from nblib.core.errors import NblibError
from nblib.core.findings import check_array, check_rising, refuse
from nblib.data.files.plain import number_columns, read_array, read_npy, read_table
from nblib.data.ibl import alf
from nblib.data.recording import Series
from nblib.data.trials.columns import numbers

LATE = 10  # frames that a camera may lack at its start, or have more of than of their times
CAMERAS = ("left", "right", "body")
PUPIL = "pupilDiameter_smooth"


def find_series(place: Path, used: list[Path]) -> tuple[dict[str, Series], dict[str, NblibError]]:
    """wheel [rad], NAME_motion_energy and NAME_pupil of each camera, licks; files read are added to `used`.
    Beside them whatever else has times, read once it is asked for, by the name of its file:
    `object.attribute`, of a table `object.attribute.column`.

    Also, by name, why one cannot be read, should it be needed.
    """
    signals = [("wheel", "rad", "wheel.timestamps", "wheel.position", "")]
    for camera in CAMERAS:
        times, energy = f"{camera}Camera.times", f"{camera}Camera.ROIMotionEnergy"
        signals.append((f"{camera}_motion_energy", "", times, energy, ""))
        signals.append((f"{camera}_pupil", "px", times, f"{camera}Camera.features", PUPIL))
    signals.append(("licks", "", "licks.times", "licks.times", ""))
    series, broken = {}, {}
    for name, unit, *parts in signals:
        try:
            files, clock, values = _samples(place, *parts)
        except NblibError as error:
            broken[name] = error
            continue
        if files:
            used += dict.fromkeys(files)
            times = partial(_times, files[0], clock)
            series[name] = Series(name, unit, partial(_part, values), len(values), timestamps=times)
    known = {of_values for *_, of_values, column in signals if not column}
    for name in alf.names(place):
        clocks = [f"{name.split('.')[0]}.{attribute}" for attribute in ("times", "timestamps")]
        if name in known.union(clocks):
            continue
        try:
            at = alf.find(place, clocks[0]) or alf.find(place, clocks[1])
            if at is None:
                continue
            file, clock = alf.require(place, name), read_array(at)
            columns = [""] if file.suffix == ".npy" else number_columns(file)
        except NblibError as error:
            broken[name] = error
            continue
        for column in columns:
            values = cache(partial(_values, file, column, at, len(clock)))
            full = f"{name}.{column}" if column else name
            when = partial(_times, at, clock)
            series[full] = Series(full, "", partial(_later, values), len(clock), timestamps=when)
    return series, broken


def _values(file: Path, column: str, at: Path, n: int) -> np.ndarray:
    """Samples (n, channel) of a file whose n times are in the file `at` (see `_beside`); BadInput for what are no
    numbers."""
    data = np.asarray(read_table(file, (column,))[column] if column else read_npy(file))
    good = data.dtype.kind in "iuf" and data.ndim > 0 and data.size > 0
    check_array(str(file), data, good, "a row of numbers for each sample")
    return _beside(file, data.reshape(len(data), -1).astype(float), at, n)


def _beside(file: Path, values: np.ndarray, at: Path, n: int) -> np.ndarray:
    """Samples (n, channel) of a file that belong to the n times of the file `at`; BadInput where they do not.

    A camera may have a few frames less than times: the first were taken and not kept, so they are NaN; or a few
    more, which have no time. Source: `SessionLoader` of https://github.com/int-brain-lab/ibllib.
    """
    more = n - len(values)
    most = LATE if at.name.partition(".")[0].endswith("Camera") else 0
    refuse(abs(more) > most, f"{file}: {len(values)} samples, but {at.name} has {n} times.")
    return np.pad(values[:n], ((max(more, 0), 0), (0, 0)), constant_values=np.nan)


def _samples(
    place: Path, of_times: str, of_values: str, column: str
) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Files of times and of values, both (n,) and (n, 1); no file where one is not there."""
    at, file = alf.find(place, of_times), alf.find(place, of_values)
    refuse(
        at is None and file is not None,
        f"{file}: no file {of_times} beside it, so when its samples were taken is not known.",
    )
    if file is None:
        return [], np.empty(0), np.empty((0, 1))
    clock = read_array(at)
    if column:
        data = numbers(read_table(file, (column,))[column], f"{file}: column {column!r}")
    else:
        data = read_array(file)
    values = _beside(file, np.asarray(data, float)[:, None], at, len(clock))
    return [at, file], clock, values


def _times(file: Path, clock: np.ndarray) -> np.ndarray:
    """Times of samples [s], once they are asked for; BadInput where they do not increase."""
    check_rising(str(file), clock, "sample")
    return clock


def _part(values: np.ndarray, lo: int, hi: int) -> np.ndarray:
    return values[lo:hi]


def _later(values: Callable[[], np.ndarray], lo: int, hi: int) -> np.ndarray:
    return values()[lo:hi]
