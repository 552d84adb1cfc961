"""Sampled signals of an ALF folder: wheel, cameras, pupil and licks, and whatever else has times."""

from __future__ import annotations

import math
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
    named = [("wheel", "rad", "wheel.timestamps", "wheel.position", "")]
    for camera in CAMERAS:
        times, energy = f"{camera}Camera.times", f"{camera}Camera.ROIMotionEnergy"
        named.append((f"{camera}_motion_energy", "", times, energy, ""))
        named.append((f"{camera}_pupil", "px", times, f"{camera}Camera.features", PUPIL))
    named.append(("licks", "", "licks.times", "licks.times", ""))
    series, broken = {}, {}
    for name, unit, of_times, of_values, column in named:
        try:
            at, file = alf.find(place, of_times), alf.find(place, of_values)
            if file is None:
                continue
            refuse(
                at is None,
                f"{file}: no file {of_times} beside it, so when its samples were taken is not known.",
            )
            one = _series(name, unit, file, column, at, read_array(at))
            values = one.read(0, 1)  # reads the file now
            check_array(str(file), values, values.shape[1] == 1, "one number a sample")
        except NblibError as error:
            broken[name] = error
            continue
        used += dict.fromkeys((at, file))
        series[name] = one
    known = {of_values for *_, of_values, column in named if not column}
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
            full = f"{name}.{column}" if column else name
            series[full] = _series(full, "", file, column, at, clock)
    return series, broken


def _series(name: str, unit: str, file: Path, column: str, at: Path, clock: np.ndarray) -> Series:
    """A series of a file, or of a column of a table, whose times are `clock`, in the file `at`; read once it is
    asked for."""
    values = cache(partial(_values, file, column, at, len(clock)))

    def times() -> np.ndarray:
        check_rising(str(at), clock, "sample")
        return clock

    return Series(name, unit, lambda lo, hi: values()[lo:hi], len(clock), timestamps=times)


def _values(file: Path, column: str, at: Path, n: int) -> np.ndarray:
    """Samples (n, channel) of a file whose n times are in the file `at`; BadInput for what are no numbers, and for
    many more or less of them.

    A camera may have a few frames less than times: the first were taken and not kept, so they are NaN; or a few
    more, which have no time. Source: `SessionLoader` of https://github.com/int-brain-lab/ibllib.
    """
    if column:
        data = numbers(read_table(file, (column,))[column], f"{file}: column {column!r}")
    else:
        data = read_npy(file)
        data = data.ravel() if data.size in data.shape else data
    numeric = data.ndim > 0 and data.dtype.kind in "iuf"
    check_array(str(file), data, numeric, "a row of numbers for each sample")
    more = n - len(data)
    most = LATE if at.name.partition(".")[0].endswith("Camera") else 0
    refuse(abs(more) > most, f"{file}: {len(data)} samples, but {at.name} has {n} times.")
    values = data[:n].astype(float)
    values = values.reshape(len(values), math.prod(data.shape[1:]))
    return np.pad(values, ((max(more, 0), 0), (0, 0)), constant_values=np.nan)
