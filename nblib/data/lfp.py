"""Field potentials: one channel a region, from NWB or from the lab's MATLAB files.

The electrodes of a region are averaged. Intervals with labels may lie in another file.
"""

from __future__ import annotations

import re
from collections import ChainMap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, MissingInput
from nblib.core.params import SECONDS
from nblib.data.checks import some
from nblib.data.files import require_file
from nblib.data.nwb import electrodes as nwb_electrodes
from nblib.data.nwb import hdf5
from nblib.data.nwb import series as nwb_series
from nblib.data.nwb import tables as nwb_tables
from nblib.data.recording import InMemorySpikes, Recording, Series
from nblib.data.sampled import even_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nblib.core.params import Recipe

INVALID = "invalid_times"
SERIES = "lfp"  # name of the averaged signal in a Recording
MAT_RATE_HZ = 1000.0
HOME_CAGE_S = 300.0
STATES = ("home_cage", "open_field", "tail_suspension")


# The lab's order; other regions follow by name. A file's own order says nothing: HDF5 sorts names.
REGIONS = (
    "PrL_Cx", "Md_Thal", "IL_Cx", "BLA", "Acb_Sh", "Acb_Core", "mSNC", "mDHip", "lSNC", "lDHip",
    "VTA",
)  # fmt: skip


def in_order(regions: Iterable[str]) -> list[str]:
    """Regions, each once, in the order in which every recording has its channels."""
    place = {region: i for i, region in enumerate(REGIONS)}
    return sorted(set(regions), key=lambda r: (place.get(r, len(place)), *_numbered(r)))


def _numbered(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d*)", name)
    return match[1], int(match[2] or 0)


def open_lfp(recipe: Recipe, recording_id: str) -> Recording:
    """Open a recording of field potentials; its signal is `series["lfp"]`, (time, region) [V].

    Raises MissingInput for a file that is not there, BadInput for one that is broken.
    """
    from nblib.data import sources

    if recipe.source == "lfp_mat":
        return _open_mat(recipe, recording_id)
    if recipe.source == "simulate_lfp":
        from nblib.core import store
        from nblib.simulate import lfp

        path = lfp.make(recipe.simulate_lfp, recording_id)
        store.open_artifact(path.parent)
    else:
        path = sources.raw_file(recipe, recording_id)
    return _open_nwb(recipe, recording_id, path, times_file(recipe, recording_id) or path)


def times_file(recipe: Recipe, recording_id: str) -> Path | None:
    """The file that holds the intervals where it is another one; the lab's lies beside LFP_Data."""
    if recipe.times:
        path = recipe.filled(recipe.times, recording_id, "times")
    elif recipe.source == "lfp_mat":
        from nblib.data import sources

        signal = sources.raw_file(recipe, recording_id)
        path = signal.parent.parent / "INT_TIME" / f"{record_of(signal)}_TIME.mat"
    else:
        return None
    require_file(
        path,
        f"it should hold the intervals of recording {recording_id!r}. Set `times` in recipe "
        f"{recipe.recipe!r} if they lie elsewhere",
    )
    return path


def _recording(recipe: Recipe, recording_id: str, path: Path, subject: str, times: Path, tables: dict, series: Series, regions: list[str], electrodes: dict[str, int], notes: list[str]) -> Recording:  # fmt: skip
    return Recording(
        id=recording_id, subject=subject or recording_id, path=path,
        units=pd.DataFrame(index=pd.Index([], name="unit_id")), spike_index=np.zeros(1, np.int64),
        spikes=InMemorySpikes(np.empty(0)), intervals=tables, trials=recipe.intervals,
        label=recipe.label, series={SERIES: series},
        meta={"source": recipe.source, "time_unit": recipe.time_unit, "channels": regions, "electrodes": electrodes, "notes": notes, "trials_file": times},
    )  # fmt: skip


# --- NWB -----------------------------------------------------------------------------------------


def _open_nwb(recipe: Recipe, recording_id: str, path: Path, times: Path) -> Recording:
    seconds = SECONDS[recipe.time_unit]
    with hdf5.opened(path) as file:
        nwb_tables.check_version(file, path)
        found, broken = nwb_series.find_series(file, path, seconds)
        place = _electrical(file, broken, recipe, path)
        raw = found.get(place) or found.get(place.rsplit("/", 1)[1])
        data = hdf5.child(file, f"{place}/data", path)
        if raw is None:
            held = f"{data.dtype} of shape {data.shape}" if data is not None else "nothing"
            raise BadInput(f"{path}: {place}/data is {held}; expected numbers (time, channel).")
        where = nwb_electrodes.locations(file, path, place, data.shape[1] if data.ndim > 1 else 1)
        subject = hdf5.scalar_text(file, "general/subject/subject_id")
        invalid = {n: p for n, p in nwb_tables.interval_tables(file, path).items() if n == INVALID}
    notes = nwb_series.in_words(broken, path)
    with hdf5.opened(times) as file:
        tables = nwb_tables.LazyTables(times, nwb_tables.interval_tables(file, times), seconds)
    if recipe.intervals:
        tables.require(recipe.intervals)
    tables = ChainMap(nwb_tables.LazyTables(path, invalid, seconds), tables)  # of the signal first
    regions = in_order(where)
    columns = [np.flatnonzero(np.array(where) == region) for region in regions]

    def read(lo: int, hi: int) -> np.ndarray:
        values = np.asarray(raw.read(lo, hi), np.float64).reshape(hi - lo, -1)
        return np.stack([values[:, c].mean(axis=1) for c in columns], axis=1)

    if not subject:
        notes.append("The file names no subject; the recording stands for one of its own.")
    rate, pieces = even_pieces(raw, path)
    series = Series(SERIES, raw.unit, read, raw.n_samples, rate, pieces[0][2], pieces=pieces)
    counts = {region: len(c) for region, c in zip(regions, columns, strict=True)}
    return _recording(
        recipe, recording_id, path, subject, times, tables, series, regions, counts, notes
    )


def _electrical(file: h5py.File, broken: dict[str, BadInput], recipe: Recipe, path: Path) -> str:
    """Place in the file of the ElectricalSeries to read; BadInput when there is not one, or when
    it is among the `broken`."""
    places = [
        place
        for place, item in hdf5.walk(file, ("acquisition", "processing"), path)
        if isinstance(item, h5py.Group) and hdf5.type_name(item) == "ElectricalSeries"
    ]
    fits = [p for p in [*places, *broken] if recipe.series in (p, p.rsplit("/", 1)[1])]
    wanted = list(dict.fromkeys(fits)) if recipe.series else places
    if len(wanted) == 1 and wanted[0] in broken:
        raise broken[wanted[0]]
    if len(wanted) != 1:
        raise BadInput(
            f"{path}: {len(wanted)} electrical series fit series = {recipe.series!r}; there is "
            f"{some(places, 20) or 'none'}. Set `series` in the recipe."
        )
    return wanted[0]


# --- the lab's MATLAB files ----------------------------------------------------------------------


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


def cohort(folder: Path | str, *, skip: list[str] | tuple[str, ...] = (), all_records: bool = False, names: Path | str = "") -> list[str]:  # fmt: skip
    """Records of `Mouse_Training_Data` that have both files, one a mouse (the first by name).

    skip: mice or records to leave out; names: a training_names.txt, whose records and no others are
    taken, in its order. Raises MissingInput for a folder without LFP_Data, BadInput
    for a record without its INT_TIME.
    """
    folder = Path(folder).expanduser()
    signals = sorted((folder / "LFP_Data").glob("*_LFP.mat"))
    if not signals:
        raise MissingInput(f"{folder}: no LFP_Data/*_LFP.mat in it.")
    records = [record_of(p) for p in signals]
    kept = [r for r in records if r not in skip and subject_of(r) not in skip]
    lacking = [r for r in kept if not (folder / "INT_TIME" / f"{r}_TIME.mat").is_file()]
    if lacking:
        raise BadInput(
            f"{folder}: no INT_TIME/{lacking[0]}_TIME.mat ({len(lacking)} records lack one)."
        )
    if names:
        wanted = read_names(names)
        if gone := [r for r in wanted if r not in kept]:
            raise BadInput(
                f"{names}: {gone[0]!r} is not among the {len(kept)} records of {folder}."
            )
        return wanted
    if all_records:
        return kept
    first: dict[str, str] = {}
    for record in kept:
        first.setdefault(subject_of(record), record)
    return list(first.values())


def read_names(path: Path | str) -> list[str]:
    """The lab's training_names.txt: one record a line."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingInput(f"{path}: no such file.")
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [n for n in names if n]


def write_names(records: list[str], path: Path | str) -> None:
    """Write training_names.txt as the lab's scripts read it."""
    Path(path).expanduser().write_text("".join(f"{r}\n" for r in records), encoding="utf-8")


def _open_mat(recipe: Recipe, recording_id: str) -> Recording:
    from nblib.data import sources

    path = sources.raw_file(recipe, recording_id)
    times = times_file(recipe, recording_id)
    names, read_one = _mat(path)
    by_region: dict[str, list[str]] = {}
    for name in names:
        if (region := region_of(name)) is not None:
            by_region.setdefault(region, []).append(name)
    by_region = {region: by_region[region] for region in in_order(by_region)}
    if not by_region:
        raise BadInput(f"{path}: no electrode (<region>_<number>) among {some(names)}.")
    kept: dict[str, np.ndarray] = {}

    def whole() -> np.ndarray:
        """All regions (time, region), read once."""
        if "x" not in kept:
            means, lengths = [], {}
            for electrodes in by_region.values():
                parts = [read_one(name) for name in electrodes]
                lengths |= {n: len(p) for n, p in zip(electrodes, parts, strict=True)}
                if len(set(lengths.values())) > 1:
                    odd = next(n for n, m in lengths.items() if m != lengths[next(iter(lengths))])
                    raise BadInput(
                        f"{path}: electrode {odd} has {lengths[odd]} samples, {next(iter(lengths))} "
                        f"has {lengths[next(iter(lengths))]}; they must be equal."
                    )
                means.append(np.mean(parts, axis=0))
            kept["x"] = np.stack(means, axis=1)
        return kept["x"]

    n_samples = len(read_one(names[[region_of(n) is not None for n in names].index(True)]))
    series = Series(SERIES, "a.u.", lambda lo, hi: whole()[lo:hi], n_samples, MAT_RATE_HZ, 0.0)
    counts = {region: len(e) for region, e in by_region.items()}
    tables = {recipe.intervals: int_time(times)} if recipe.intervals else {}
    return _recording(recipe, recording_id, path, subject_of(record_of(path)), times, tables, series, list(by_region), counts, [])  # fmt: skip


def int_time(path: Path) -> pd.DataFrame:
    """Intervals of the three states from INT_TIME, with their own starts and ends [s].

    INT_TIME = [open-field start, its duration, tail-suspension start, its duration]; the home
    cage is 0 to 300 s, or until the open field begins.
    """
    names, read_one = _mat(path)
    if "INT_TIME" not in names:
        raise BadInput(f"{path}: no INT_TIME in it; there is {some(names) or 'nothing'}.")
    told = np.asarray(read_one("INT_TIME"), np.float64).ravel()
    if told.size != 4 or not np.isfinite(told).all() or (told[[1, 3]] <= 0).any():
        raise BadInput(
            f"{path}: INT_TIME = {told.tolist()}; expected [open-field start, duration, "
            "tail-suspension start, duration] in seconds."
        )
    start = np.array([0.0, told[0], told[2]])
    stop = np.array([min(HOME_CAGE_S, told[0]), told[0] + told[1], told[2] + told[3]])
    if (start[1:] < stop[:-1]).any():
        raise BadInput(f"{path}: INT_TIME = {told.tolist()}: its intervals overlap.")
    return pd.DataFrame({"start_time": start, "stop_time": stop, "state": list(STATES)})


def _mat(path: Path) -> tuple[list[str], Callable[[str], np.ndarray]]:
    """Names in a MATLAB file, and what reads one of them as a flat array; any version up to 7.3."""
    from scipy import io

    try:
        names = [n for n, _, _ in io.whosmat(path)]
    except NotImplementedError:  # version 7.3 is HDF5
        with hdf5.opened(path) as file:
            names = [n for n, item in file.items() if isinstance(item, h5py.Dataset)]

        def read_hdf5(name: str) -> np.ndarray:
            with hdf5.opened(path) as file:
                return np.asarray(file[name][()], np.float64).ravel()

        return names, read_hdf5
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BadInput(f"{path}: not readable as a MATLAB file ({error}).") from None

    def read_mat(name: str) -> np.ndarray:
        try:
            found: dict[str, Any] = io.loadmat(path, variable_names=[name])
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise BadInput(f"{path}: {name} cannot be read ({error}).") from None
        return np.asarray(found[name], np.float64).ravel()

    return names, read_mat
