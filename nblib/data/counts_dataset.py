"""Binned counts: how they lie in an `xarray.Dataset`, on disk, and what they know of their units.

The layout is in the data dictionary; `binning` makes one from spike times.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import h5netcdf
import numpy as np
import pandas as pd
import xarray as xr
from xarray.backends import H5NetCDFStore

from nblib.core.errors import BadInput
from nblib.core.params import Recipe
from nblib.data.files import hdf5

FILE = "binned.nc"
NO_LABEL = 99  # in an annotation of a film: undefined, never a class
UNIT_TEXT = ("area", "probe")
UNIT_NUMBERS = (
    "channel", "x", "y", "z", "isi_violations", "amplitude_cutoff", "presence_ratio", "firing_rate",
)  # fmt: skip


def to_ns(seconds: np.ndarray) -> np.ndarray:
    """Seconds (float64) to the nearest int64 nanosecond; without end (inf) to the farthest."""
    return np.rint(np.clip(np.asarray(seconds, np.float64), -9.2e9, 9.2e9) * 1e9).astype(np.int64)


def build(counts, trial, label, edges_ns, units: pd.DataFrame, *, attrs, block=None) -> xr.Dataset:
    """Put counts and what is known of them into the Binned layout; refuses a count overflow."""
    if counts.dtype not in (np.uint8, np.uint16):
        raise BadInput(f"counts of type {counts.dtype}; expected uint8 or uint16.")
    coords = {
        "trial": ("trial", np.asarray(trial, np.int64)),
        "unit": ("unit", units.index.to_numpy()),
        "time": ("time", np.arange(counts.shape[1])),
        "label": ("trial", np.asarray(label)),
        "start_s": ("trial", edges_ns[:, 0] / 1e9),
        "stop_s": ("trial", edges_ns[:, -1] / 1e9),
        "exposure_s": (("trial", "time"), np.diff(edges_ns, axis=1) / 1e9),
    }
    if block is not None:
        coords["block"] = ("trial", block)
    for name in UNIT_TEXT:
        if name in units:
            coords[name] = ("unit", units[name].fillna("").astype(str).to_numpy(dtype=str))
    for name in UNIT_NUMBERS:
        if name in units:
            coords[name] = ("unit", numbers_or_text(units[name]))
    return xr.Dataset({"counts": (("trial", "time", "unit"), counts)}, coords=coords, attrs=attrs)


def numbers_or_text(values: pd.Series) -> np.ndarray:
    """A column as float; one that holds text (channel A-017, position ?) as text, as it is only shown."""
    if any(isinstance(v, str) for v in values):
        return values.fillna("").astype(str).to_numpy(dtype=str)
    return values.to_numpy(float)


def edges_of(binned: xr.Dataset) -> np.ndarray:
    """The integer edges that a Dataset's counts were taken with: int64 ns (trial, bins + 1)."""
    width = to_ns(binned.exposure_s.values)
    start = to_ns(binned.start_s.values)[:, None]
    return np.concatenate([start, start + np.cumsum(width, axis=1)], axis=1)


def bin_stops(binned: xr.Dataset, recipe: Recipe) -> np.ndarray:
    """End of each bin (T,), seconds from the onset; the mean where presentations differ in length."""
    edges = edges_of(binned)
    # Time that 03 took off a presentation as invalid did not make its bins end earlier.
    whole = edges[:, -1] >= to_ns(binned.stop_s.values) - edges.shape[1]
    edges = edges[whole] if whole.any() else edges
    return first_edge(recipe) + (edges[:, 1:] - edges[:, :1]).mean(axis=0) / 1e9


def first_edge(recipe: Recipe) -> float:
    """Begin of the first bin, seconds from the onset."""
    first = {"event_window": recipe.window_start_s, "edges": min(recipe.edges_s, default=0.0)}
    return first.get(recipe.binning, 0.0)


def units_of(binned: xr.Dataset) -> pd.DataFrame:
    """What the counts know of their units: one row a unit, with area and quality where known."""
    known = [name for name, c in binned.coords.items() if c.dims == ("unit",) and name != "unit"]
    index = pd.Index(binned["unit"].to_numpy(), name="unit_id")
    return pd.DataFrame({name: binned[name].to_numpy() for name in known}, index=index)


def signals_of(binned: xr.Dataset) -> list[str]:
    """Names of the further signals beside the counts: numbers (trial, time)."""
    number = {n: v for n, v in binned.data_vars.items() if v.dtype.kind in "biuf"}
    return [str(name) for name, v in number.items() if v.dims == ("trial", "time")]


def areas_of(units: pd.DataFrame) -> np.ndarray:
    """Area of each unit as text (unit,); '' where the recording does not say."""
    if "area" not in units:
        return np.full(len(units), "", dtype="<U1")
    return units["area"].fillna("").to_numpy(dtype=str)


def save(binned: xr.Dataset, folder: Path) -> None:
    """Write `binned.nc` (NetCDF4): zlib and fletcher32, so a flipped byte cannot pass."""
    n_trials, n_bins, n_units = binned.counts.shape
    rows = max(1, min(n_trials, 1_000_000 // max(1, n_bins * n_units)))
    # Level 1: counts are mostly zeros, higher levels cost time and gain little.
    packed = {"zlib": True, "complevel": 1, "shuffle": False, "fletcher32": True}
    encoding = {name: packed for name in signals_of(binned)}
    encoding["counts"] = packed | {"chunksizes": (rows, n_bins, n_units)}
    if "stimulus" in binned:  # values that hold for many bins
        encoding["stimulus"] = packed | {"chunksizes": (rows, *binned["stimulus"].shape[1:])}
    # As to_netcdf would, which cannot be told how to open the file.
    place = H5NetCDFStore.open(str(folder / FILE), mode="w", driver_kwds=hdf5.UNLOCKED)
    with contextlib.closing(place):
        binned.dump_to_store(place, encoding=encoding)


def load(folder: Path) -> xr.Dataset:
    """Read a Binned artifact into memory; BadInput when it is not readable."""
    try:
        with hdf5.reading(folder / FILE) as file:
            store = H5NetCDFStore(h5netcdf.File(file, "r", decode_vlen_strings=True))
            binned = xr.open_dataset(store, decode_times=False).load()
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"{folder / FILE}: not readable as binned counts ({error}).") from error
    return binned
