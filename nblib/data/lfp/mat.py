"""The lab's field potentials: `Mouse_Training_Data` with LFP_Data and INT_TIME, MATLAB files."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, MissingInput, some
from nblib.core.params import Recipe
from nblib.data.files import hdf5
from nblib.data.lfp import SERIES, STATES, in_order, times_file
from nblib.data.recording import Recording, Series

USES = ("path", "times")
MAT_RATE_HZ = 1000.0
HOME_CAGE_S = 300.0


def record_of(path: Path) -> str:
    """Record name of a `<record>_LFP.mat` file."""
    return re.sub(r"_LFP$", "", path.stem)


def subject_of(record: str) -> str:
    """The mouse of a record: `MouseCKA1_030515_HCOFTS` is of MouseCKA1."""
    return record.split("_")[0]


def region_of(key: str) -> str | None:
    """Region of an electrode `<region>_<number>`; both sides of the VTA are one. None: no electrode."""
    match = re.fullmatch(r"(.+)_\d+", key)
    if match is None:
        return None
    return re.sub(r"^[LR]_(?=VTA$)", "", match[1])


def cohort(
    folder: Path | str,
    *,
    skip: list[str] | tuple[str, ...] = (),
    all_records: bool = False,
    names: Path | str = "",
) -> list[str]:
    """Records of `Mouse_Training_Data` that have both files, one a mouse (the first by name).

    skip: mice or records to leave out; names: a training_names.txt, whose records and no others are
    taken, in its order. Raises MissingInput for a folder without LFP_Data, BadInput
    for a record without its INT_TIME.
    """
    folder = Path(folder).expanduser()
    records = [record_of(p) for p in sorted((folder / "LFP_Data").glob("*_LFP.mat"))]
    if not records:
        raise MissingInput(f"{folder}: no LFP_Data/*_LFP.mat in it.")
    kept = [r for r in records if r not in skip and subject_of(r) not in skip]
    lacking = [r for r in kept if not (folder / "INT_TIME" / f"{r}_TIME.mat").is_file()]
    if lacking:
        raise BadInput(
            f"{folder}: no INT_TIME/{lacking[0]}_TIME.mat ({len(lacking)} records lack one)."
        )
    if names:
        path = Path(names).expanduser()
        if not path.is_file():
            raise MissingInput(f"{path}: no such file.")
        lines = path.read_text(encoding="utf-8").splitlines()
        wanted = [line.strip() for line in lines if line.strip()]
        if gone := [r for r in wanted if r not in kept]:
            raise BadInput(
                f"{names}: {gone[0]!r} is not among the {len(kept)} records of {folder}."
            )
        return wanted
    if all_records:
        return kept
    return sorted({subject_of(record): record for record in reversed(kept)}.values())


def beside(path: Path, recipe: Recipe, recording_id: str) -> dict[str, Path]:
    """The file of the intervals: the one that the recipe names, or that of the lab's INT_TIME."""
    usual = path.parent.parent / "INT_TIME" / f"{record_of(path)}_TIME.mat"
    return times_file(recipe, recording_id, usual)


def open_recording(
    path: Path, recipe: Recipe, recording_id: str, settings: Any = None
) -> Recording:
    """Open one record; its signal is `series["lfp"]`, (time, region), read when it is asked for.

    Raises MissingInput for a file that is not there, BadInput for one that is broken.
    """
    times = beside(path, recipe, recording_id)["times"]
    names, read_one = _mat(path)
    by_region: dict[str, list[str]] = {}
    for name in names:
        if (region := region_of(name)) is not None:
            by_region.setdefault(region, []).append(name)
    by_region = {region: by_region[region] for region in in_order(by_region)}
    if not by_region:
        raise BadInput(f"{path}: no electrode (<region>_<number>) among {some(names)}.")

    still: list[str] = []  # electrodes that have one value throughout, once the signal is read

    @functools.cache
    def whole() -> np.ndarray:
        """All regions (time, region), read once."""
        regions, first = [], by_region[next(iter(by_region))][0]
        for electrodes in by_region.values():
            parts = {name: read_one(name) for name in electrodes}
            n_samples = len(regions[0] if regions else parts[first])
            if odd := [name for name, part in parts.items() if len(part) != n_samples]:
                raise BadInput(
                    f"{path}: electrode {odd[0]} has {len(parts[odd[0]])} samples, {first} has {n_samples}; they "
                    "must be equal."
                )
            still.extend(name for name, part in parts.items() if (part == part[:1]).all())
            regions.append(np.mean(list(parts.values()), axis=0))
        return np.stack(regions, axis=1)

    n_samples = len(read_one(next(n for n in names if region_of(n) is not None)))
    series = Series(SERIES, "a.u.", lambda lo, hi: whole()[lo:hi], n_samples, MAT_RATE_HZ, 0.0)
    counts = {region: len(e) for region, e in by_region.items()}
    tables = {recipe.intervals: int_time(times)} if recipe.intervals else {}
    return Recording(
        recording_id, subject_of(record_of(path)) or recording_id, path, intervals=tables, trials=recipe.intervals, label=recipe.label,
        series={SERIES: series},
        meta={"time_unit": recipe.time_unit, "channels": list(counts), "electrodes": counts,
              "notes": [], "trials_file": times, "still": lambda: still if len(whole()) else []},
    )  # fmt: skip


def int_time(path: Path) -> pd.DataFrame:
    """Intervals of the three states from INT_TIME, with their own starts and ends [s].

    INT_TIME = [open-field start, its duration, tail-suspension start, its duration]; the home
    cage is 0 to 300 s, or until the open field begins.
    """
    names, read_one = _mat(path)
    if "INT_TIME" not in names:
        raise BadInput(f"{path}: no INT_TIME in it; there is {some(names) or 'nothing'}.")
    times = np.asarray(read_one("INT_TIME"), np.float64).ravel()
    if times.size != 4 or not np.isfinite(times).all() or (times[[1, 3]] <= 0).any():
        raise BadInput(
            f"{path}: INT_TIME = {times.tolist()}; expected [open-field start, duration, "
            "tail-suspension start, duration] in seconds."
        )
    start = np.array([0.0, times[0], times[2]])
    stop = np.array([min(HOME_CAGE_S, times[0]), times[0] + times[1], times[2] + times[3]])
    if (start[1:] < stop[:-1]).any():
        raise BadInput(f"{path}: INT_TIME = {times.tolist()}: its intervals overlap.")
    return pd.DataFrame({"start_time": start, "stop_time": stop, "state": list(STATES)})


def _mat(path: Path) -> tuple[list[str], Callable[[str], np.ndarray]]:
    """Names in a MATLAB file, and what reads one of them as a flat array; any version up to 7.3."""
    from scipy import io

    def read(name: str) -> np.ndarray:
        try:
            held: dict[str, Any] = io.loadmat(path, variable_names=[name])
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise BadInput(f"{path}: {name} cannot be read ({error}).") from None
        return np.asarray(held[name], np.float64).ravel()

    def read_hdf5(name: str) -> np.ndarray:
        with hdf5.opened(path) as file:
            return np.asarray(file[name][()], np.float64).ravel()

    try:
        return [n for n, _, _ in io.whosmat(path)], read
    except NotImplementedError:  # version 7.3 is HDF5
        with hdf5.opened(path) as file:
            return [n for n, item in file.items() if isinstance(item, h5py.Dataset)], read_hdf5
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BadInput(f"{path}: not readable as a MATLAB file ({error}).") from None
