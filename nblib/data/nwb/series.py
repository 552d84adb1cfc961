"""Sampled signals of an NWB file, each read when it is asked for."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from nblib.core.errors import BadInput
from nblib.core.findings import check_array, check_length, refuse
from nblib.data.files import hdf5
from nblib.data.recording import Series

ROOTS = ("acquisition", "processing", "stimulus/presentation")


def find_series(
    file: h5py.File, path: Path, seconds: float
) -> tuple[dict[str, Series], dict[str, BadInput]]:
    """Every numeric TimeSeries by name (by path where two share a name), unread; and, by path,
    the error to raise for one that cannot be read, should it be needed."""
    series: dict[str, Series] = {}
    broken: dict[str, BadInput] = {}
    for place, group in hdf5.walk(file, ROOTS, path):
        try:
            if isinstance(group, BadInput):
                raise group
            if (one := _series(group, place, path, seconds)) is not None:
                series[place] = one
        except BadInput as error:
            if place.rpartition("/")[0] not in broken:  # a series that lacks a part is told once
                broken[place] = error
    names = [s.name for s in series.values()]
    short = {p: (p if names.count(s.name) > 1 else s.name) for p, s in series.items()}
    return {short[p]: s for p, s in series.items()}, broken


def complaints(broken: dict[str, BadInput], path: Path) -> list[str]:
    """A sentence for each series that is left out."""
    return [f"Left out: {str(error).removeprefix(f'{path}: ')}" for error in broken.values()]


def _series(group: h5py.Group, place: str, path: Path, seconds: float) -> Series | None:
    """One TimeSeries; None for another group, and for text and the like."""
    timed = "timestamps" in group
    is_series = timed or "starting_time" in group or hdf5.type_name(group).endswith("Series")
    data = hdf5.child(group, "data", path, place) if is_series else None
    if not isinstance(data, h5py.Dataset):
        return None
    with hdf5.read_errors(path, f"{place}/data", data):
        if not data.ndim or data.dtype.kind not in "biuf":
            return None
    check_array(f"{path}: {place}/data", data, data.ndim <= 2, "samples of one number or a row")
    refuse(
        hdf5.type_name(group) == "IndexSeries",
        f"{path}: {place} is an IndexSeries: its data are numbers of images, no values that were shown. Write such, as "
        "the mean luminance of each image, as a TimeSeries.",
    )
    clock = hdf5.child(group, "timestamps" if timed else "starting_time", path, place)
    if not isinstance(clock, h5py.Dataset):
        raise BadInput(f"{path}: {place} has neither timestamps nor a starting_time.")
    if timed:
        check_length(f"{path}: {place}/timestamps", clock.size, len(data), "samples")
    scale = hdf5.number(data, "conversion", f"{path}: {place}/data", 1.0)
    scale = scale * _channel_conversion(group, place, path, data)
    shift = hdf5.number(data, "offset", f"{path}: {place}/data", 0.0)
    as_it_is = np.all(scale == 1.0) and shift == 0.0

    def read(lo: int, hi: int) -> np.ndarray:
        with hdf5.opened(path) as file, hdf5.read_errors(path, f"{place}/data[{lo}:{hi}]"):
            values = file[place]["data"][lo:hi]
        return values if as_it_is else values * scale + shift

    def timestamps() -> np.ndarray:
        with hdf5.opened(path) as file:
            times = file[place]["timestamps"]
            with hdf5.read_errors(path, f"{place}/timestamps", times):
                return times[()].astype(np.float64).ravel() * seconds

    return Series(
        name=place.rsplit("/", 1)[1],
        unit=hdf5.text(data.attrs.get("unit", "")),
        read=read,
        n_samples=data.shape[0],
        rate_hz=None if timed else _rate(clock, place, path),
        start_s=0.0 if timed else _first(clock, place, path) * seconds,
        timestamps=timestamps if timed else None,
    )


def _channel_conversion(
    group: h5py.Group, place: str, path: Path, data: h5py.Dataset
) -> np.ndarray | float:
    """What each channel (channel,) is multiplied with, beside the conversion of all; 1 where not told."""
    gains = hdf5.child(group, "channel_conversion", path, place)
    if gains is None:
        return 1.0
    where = f"{path}: {place}/channel_conversion"
    with hdf5.read_errors(path, f"{place}/channel_conversion", gains):
        values = gains[()].ravel()
    n_channels = data.shape[1] if data.ndim > 1 else 1
    check_length(where, len(values), n_channels, "channels")
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise BadInput(f"{where} = {values[:5].tolist()}; expected a finite number a channel.")
    return values.astype(np.float64)


def _first(clock: h5py.Dataset, place: str, path: Path) -> float:
    """The starting time as it stands."""
    with hdf5.read_errors(path, f"{place}/starting_time", clock):
        values = np.ravel(clock[()])
    if values.size != 1 or values.dtype.kind not in "iuf":
        raise BadInput(f"{path}: {place}/starting_time is {values.tolist()}; one number is needed.")
    return float(values[0])


def _rate(clock: h5py.Dataset, place: str, path: Path) -> float:
    rate = hdf5.number(clock, "rate", f"{path}: {place}/starting_time")
    if not 0 < rate < np.inf:
        raise BadInput(f"{path}: {place}/starting_time gives a rate of {rate:g} Hz.")
    return rate
