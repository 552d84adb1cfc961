"""Recordings that are binned already: an `.npz` or NetCDF 4 file of counts (trial, time, unit).

Names in the file, all but the first two optional:

- `counts` (trial, time, unit): whole numbers from 0 to 65535
- `bin_s` (), (time,), (trial,) or (trial, time): width of a bin [s]
- `start_s` (trial,): when the first bin starts, on the recording's clock [s]; without it the trials
  are laid end to end in the file's order
- `unit` (unit,): unit ids, each once; 0, 1, … without
- `area`, `probe`, `channel`, `x`, `y`, `z` and the quality columns (unit,)
- any other name (trial,): a column of the trials, to decode or to choose by
- any other name (trial, time) or (trial, time, …): a further signal, kept beside the counts
- any other name (time,): where the bins lie, to read; or (), of the session: it is left out

Axes of a NetCDF file that are called trial, time or unit are told by these names, others by their length.
`bin_s` and `start_s` may have an attribute `units`: s or ms.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

import h5netcdf
import h5py
import numpy as np
import xarray as xr
from pydantic import Field
from xarray.backends import H5NetCDFStore

from nblib.core.errors import BadInput, BadParameter, some
from nblib.core.findings import check_array, check_once, told
from nblib.core.params import Params, Recipe
from nblib.data.counts_dataset import UNIT_NUMBERS, UNIT_TEXT
from nblib.data.files import hdf5, require_file
from nblib.data.files.plain import read_arrays

USES = ("path",)
AXES = ("trial", "time", "unit")
MADE = ("stop_s", "exposure_s")
UNIT_COLUMNS = ("unit", *UNIT_TEXT, *UNIT_NUMBERS)
LONG_BIN_S = 5.0  # bins that last so long are odd
LEAST_SPIKES = 20  # two trials or units with fewer spikes may be alike by chance
FAR_APART = 300  # so are trials that begin so many times their length apart
TIME_UNITS = {
    "": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
}  # fmt: skip


class Settings(Params):
    """Where a file departs from the layout."""

    names: dict[str, str] = Field({}, description="name in the layout: name in the file")
    axes: list[str] = Field(list(AXES), description="axes of the counts in the file's order")
    bin_s: float = Field(0.0, ge=0, description="width of a bin; 0 = as the file says [s]")


def read_counts(path: Path, recipe: Recipe, recording_id: str, settings: Settings) -> xr.Dataset:
    """Binned counts, further signals, and what is known of trials and units.

    Raises BadInput, naming file and array, for what is no count, for lengths that do not fit, an id
    that stands twice, a missing bin width and times in an unknown unit; BadParameter for a name that is
    not in the file, and for one that the row number has.
    """
    arrays = _read_npz_or_netcdf(path)
    for name, there in settings.names.items():
        if there not in arrays:
            raise BadParameter(
                f"source_params: names: {name}: {path} has no {there!r}; it holds {some(arrays, 40)}."
            )
        arrays[name] = arrays.pop(there)
    if "counts" not in arrays:
        raise BadInput(
            f"{path}: no array 'counts'; it holds {some(arrays, 40) or 'nothing'}. Say what it is called with "
            "source_params: {names: {counts: NAME}}."
        )
    counts = _checked_counts(path, arrays.pop("counts"), settings.axes)
    n_trials, n_bins, n_units = counts.shape
    size = dict(zip(AXES, counts.shape, strict=True))
    rows, words = np.arange(n_trials), f"{recipe.label} {recipe.where} {recipe.variables}"
    if re.search(r"\btrial\b", words) and not np.array_equal(arrays.get("trial", rows), rows):
        raise BadParameter(
            f"{path} has an array 'trial', but that is the number of the row here. Give the array another name with "
            "source_params: {names: {NAME: trial}}, and use that."
        )
    width = arrays.pop("bin_s", None)
    width = _bin_widths(path, settings.bin_s or _seconds(path, "bin_s", width), (n_trials, n_bins))
    lasts = width.sum(axis=1)
    start = _seconds(path, "start_s", arrays.pop("start_s", None))
    clock = "nominal" if start is None else "recorded"
    held = xr.Variable("trial", np.cumsum(lasts) - lasts) if start is None else start
    start, along = held.values, _may_be(held, ["trial"])
    fits = along and start.shape == (n_trials,) and start.dtype.kind in "iuf"
    if not fits or not np.isfinite(start).all():
        raise BadInput(f"{path}: start_s must hold one finite time for each of {n_trials} trials.")
    columns = {"unit": xr.Variable("unit", np.arange(n_units)), "start_s": held} | arrays
    coords, signals = {}, {}

    def lies_along(held: xr.Variable, *axes: str) -> bool:
        """Whether the first axes of an array are these, by their names and lengths."""
        return _may_be(held, axes) and held.shape[: len(axes)] == tuple(size[a] for a in axes)

    for name, held in columns.items():
        values = held.values
        values = hdf5.decoded(values).astype(str) if values.dtype.kind == "S" else values
        if name in MADE or "/" in name or values.dtype.kind not in "biufUO":
            raise BadInput(
                f"{path}: {name} ({values.dtype}) cannot be taken over: expected numbers or text, under another "
                f"name than {' and '.join(MADE)}, which are made from start_s and bin_s, and without '/'."
            )
        flat = values.ndim == 1
        if name in UNIT_COLUMNS and flat and lies_along(held, "unit"):
            coords[name] = ("unit", values)
        elif name not in UNIT_COLUMNS and flat and lies_along(held, "trial"):
            coords[name] = ("trial", values)
        elif name not in UNIT_COLUMNS and lies_along(held, "trial", "time"):
            signals[name] = ((*AXES[:2], *(f"{name}_{i}" for i in range(values.ndim - 2))), values)
        elif name in UNIT_COLUMNS or not (
            (flat and lies_along(held, "time")) or name in AXES or values.ndim == 0
        ):
            raise BadInput(
                f"{path}: {name} has shape {values.shape}, which does not fit {n_trials} trials, {n_bins} bins and "
                f"{n_units} units."
            )
    check_once(f"{path}: unit", coords["unit"][1])
    coords |= {
        "trial": ("trial", np.arange(n_trials)),
        "time": ("time", np.arange(n_bins)),
        "stop_s": ("trial", start + lasts),
        "exposure_s": (AXES[:2], width),
    }
    binning = {"binning": "per_presentation", "n_bins": n_bins}
    attrs = {
        "recording": recording_id,
        "subject": recording_id,
        "source": str(path),
        "clock": clock,
        "binning": json.dumps(binning),
    }
    if odd := _odd(path, counts, width, start):
        attrs["odd"] = " ".join(odd)
    return xr.Dataset({"counts": (AXES, counts), **signals}, coords, attrs)


def _read_npz_or_netcdf(path: Path) -> dict[str, xr.Variable]:
    """Every array of the file by name, in memory; axes that have no name are called 0, 1, …"""
    if path.suffix == ".npz":
        arrays = read_arrays(path)
        return {n: xr.Variable([str(k) for k in range(v.ndim)], v) for n, v in arrays.items()}
    require_file(path)
    _check_kind(path)
    with hdf5.opened(path) as file, hdf5.read_errors(path, "the file"):
        for name, data in file.items():
            hdf5.check_claim(data, f"{path}: {name}")
        texts = {"phony_dims": "sort", "decode_vlen_strings": True}
        store = H5NetCDFStore(h5netcdf.File(file, "r", **texts))
        held = xr.open_dataset(store, decode_times=False).load()
    named = {str(name): v.to_base_variable() for name, v in held.variables.items()}
    ordered = {n: v for n, v in named.items() if set(v.dims) <= set(AXES)}
    return named | {n: v.transpose(*[a for a in AXES if a in v.dims]) for n, v in ordered.items()}


def _check_kind(path: Path) -> None:
    """BadInput for a file of another kind; MATLAB's may be HDF5, with the axes in the other order."""
    if not os.access(path, os.R_OK):
        return  # opening says so
    with path.open("rb") as file:
        is_matlab = file.read(6) == b"MATLAB"
    if is_matlab or not h5py.is_hdf5(path):
        what = "a MATLAB file" if is_matlab else "neither an .npz nor an HDF5 file"
        raise BadInput(
            f"{path}: this is {what}; counts are read from .npz and NetCDF 4. Write it anew with np.savez('NAME.npz', "
            "counts=…, bin_s=…). scipy.io.loadmat reads MATLAB's arrays; those of version 7.3 come from h5py with "
            "their axes in the other order: take counts[()].T."
        )


def _may_be(held: xr.Variable, axes: Iterable[str]) -> bool:
    """Whether no axis of an array has the name of another one than it is taken for."""
    pairs = zip(held.dims, axes, strict=False)
    return all(name == axis or name not in AXES for name, axis in pairs)


def _seconds(path: Path, name: str, held: xr.Variable | None) -> xr.Variable | None:
    """Times of the file [s]; BadInput where it says that they are in anything but s or ms."""
    if held is None:
        return None
    unit = str(held.attrs.get("units", ""))
    factor = TIME_UNITS.get(unit.partition(" ")[0].lower())  # "seconds since 2024-01-01"
    if factor is None:
        raise BadInput(f"{path}: {name} is in {unit!r}; expected s or ms.")
    return held * factor if factor != 1.0 and held.dtype.kind in "iuf" else held


def _checked_counts(path: Path, held: xr.Variable, axes: list[str]) -> np.ndarray:
    """Counts (trial, time, unit), uint8 where they fit and uint16 otherwise; refuses what is no count.

    axes: what the axes are, in order, where they have not these names themselves.
    """
    if sorted(axes) != sorted(AXES):
        raise BadParameter(
            f"source_params: axes = {axes}: expected {', '.join(AXES)} in some order."
        )
    axes = list(AXES) if set(held.dims) == set(AXES) else axes
    values = held.values
    good = values.ndim == 3 and values.size > 0 and values.dtype.kind in "biuf"
    check_array(f"{path}: counts", values, good, f"numbers ({', '.join(axes)})")
    if (at := first_no_count(values)) is not None:
        raise BadInput(
            f"{path}: counts hold {values[at]} at {', '.join(axes)} {at}; expected whole numbers from 0 to 65535. "
            "Rates and z-scores cannot be used: take the counts from before."
        )
    if not _may_be(held, axes):
        raise BadInput(
            f"{path}: counts lie along {', '.join(map(str, held.dims))}; say what these are with source_params: "
            "{axes: [...]}, in their order."
        )
    values = values.transpose([axes.index(a) for a in AXES])
    return np.ascontiguousarray(values, np.uint8 if values.max() < 256 else np.uint16)


def first_no_count(values: np.ndarray) -> tuple[int, ...] | None:
    """Where the first value stands that is no whole number from 0 to 65535; None where all are."""
    good = (values >= 0) & (values <= 65535)
    if values.dtype.kind == "f":
        good &= values == np.rint(values)
    return None if good.all() else tuple(int(i) for i in np.argwhere(~good)[0])


def _odd(path: Path, counts: np.ndarray, width: np.ndarray, start: np.ndarray) -> list[str]:
    """What is odd in counts, widths and starts, in sentences; BadInput for rates that are whole numbers."""
    step = int(np.gcd.reduce(np.flatnonzero(np.bincount(counts.ravel()))))
    if step > 1 and np.allclose(step * width, 1.0):
        raise BadInput(
            f"{path}: all counts are multiples of {step}, which is 1 / bin_s: these are rates. Take the counts, or "
            "multiply by bin_s."
        )
    apart, lasts = np.median(np.abs(np.diff(start))) if len(start) > 1 else 0.0, width[0].sum()
    rules = {f"All counts are multiples of {step}: were they scaled?": step > 1}
    for what, axis in (("trial", 0), ("unit", 2)):
        flat = np.moveaxis(counts, axis, 0).reshape(counts.shape[axis], -1)
        flat = flat[flat.sum(axis=1, dtype=np.int64) >= LEAST_SPIKES]
        n = len(flat) - len({row.tobytes() for row in flat})
        rules |= {
            f"{n} {what}s have the very counts of another {what}; if they are the same, leave them out: what stands "
            "twice can teach and judge at once.": n > 0
        }
    rules |= {
        f"Bins last up to {width.max():g} s; if bin_s is in milliseconds, divide it by 1000.": width.max()
        >= LONG_BIN_S,
        f"Trials of {lasts:g} s start {apart:g} s apart; if start_s is in milliseconds, divide it by 1000.": apart
        > FAR_APART * lasts,
    }
    return told(rules)


def _bin_widths(
    path: Path, bin_s: float | xr.Variable | None, shape: tuple[int, int]
) -> np.ndarray:
    """Width of every bin (trial, time) [s]."""
    if bin_s is None:
        raise BadInput(
            f"{path}: no bin_s: nothing tells how wide a bin is. Say it with source_params: {{bin_s: 0.02}}."
        )
    held = bin_s if isinstance(bin_s, xr.Variable) else xr.Variable((), bin_s)
    width = held.values.reshape(()) if held.size == 1 else held.values
    lengths = {(): (), ("time",): shape[1:], ("trial",): shape[:1], AXES[:2]: shape}
    along = [a for a, n in lengths.items() if n == width.shape and _may_be(held, a)]
    if len(along) > 1:
        raise BadInput(
            f"{path}: bin_s holds {width.size} numbers, and there are as many trials as bins in a trial: one a "
            "bin, or one a trial? Write it as (trial, time), or as NetCDF, whose axes have names."
        )
    if not along or width.dtype.kind not in "iuf" or not ((width > 0) & (width < np.inf)).all():
        raise BadInput(
            f"{path}: bin_s must be above 0 s, one number, one a bin ({shape[1]} bins), one a trial or one for "
            "each bin of each trial."
        )
    width = width[:, None] if along == [("trial",)] else width
    return np.broadcast_to(width.astype(np.float64), shape).copy()
