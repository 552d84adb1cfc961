"""Open HDF5 files, find what is in them, and say why something cannot be read.

Every HDF5 file of the package is opened by `reading`, or written as `UNLOCKED`. `nwb.tables` reads
tables, `nwb.series` sampled signals.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nblib.core.errors import BadInput
from nblib.data.files import require_file

# Many file systems of clusters have no locks, and HDF5 makes no file there unless told to do
# without. What the package writes needs none: it has a name of its own until it is complete.
UNLOCKED = {"locking": False}
MOST_PACKED = 2000  # no filter packs better: zlib ends at 1032


class BrokenFile(BadInput):
    """Bytes are damaged, or lengths do not fit: nothing of the file is to be used."""


def reading(path: Path) -> h5py.File:
    """The HDF5 file for reading; OSError as HDF5 says it.

    Where it cannot be locked, it is read without: somebody else holds it, or the file system has
    no locks. A lock is still asked for first, because within a process HDF5 refuses to open a file
    with and without; so a person may have it open in the same notebook, by other means.
    """
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if not re.search(r"\block file|file locking", str(error)):
            raise
    return h5py.File(path, "r", **UNLOCKED)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file for reading; MissingInput when absent, BadInput when truncated or not HDF5."""
    require_file(path)
    try:
        file = reading(path)
    except OSError as error:
        raise BadInput(f"{path}: {_not_opened(path, str(error))}.") from None
    with file:
        try:
            yield file
        except (OSError, RuntimeError, UnicodeDecodeError) as error:  # the last: of a name
            raise _failed(path, "a part of the file", error) from None


def _not_opened(path: Path, text: str) -> str:
    again = "copy or download it again"
    if not os.access(path, os.R_OK):
        return "you may not read this file; ask its owner for the right to"
    if "truncated" in text:
        size = path.stat().st_size
        return f"the file is truncated ({size} bytes are there, more were written); {again}"
    with path.open("rb") as file:
        first = file.read(8)
    if first == b"MATLAB 5":
        return "this is a MATLAB file of a version before 7.3, and no HDF5; save it anew with save(..., '-v7.3')"
    if "signature" in text:
        return f"this is not an HDF5 file, so not an NWB file; {again}"
    return f"HDF5 cannot open the file ({text})"


# Compression filters by their registered number; all but the first come with hdf5plugin.
FILTERS = {
    4: "szip", 307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp",
    32015: "zstd", 32017: "sz", 32018: "fcidecomp", 32024: "sz3", 32026: "blosc2", 32028: "sperr",
}  # fmt: skip


def filter_missing(data: h5py.Dataset) -> str:
    """Which filter a data set needs that is not here, and what installs it; "" when all are."""
    settings = data.id.get_create_plist()
    for i in range(settings.get_nfilters()):
        number, _, _, name = settings.get_filter(i)
        if h5py.h5z.filter_avail(number) or _plugged_in(number):
            continue
        known = FILTERS.get(number, text(name) or "an unnamed filter")
        what = f"is compressed with {known} (HDF5 filter {number}), which is not installed here"
        if number in FILTERS:
            return f"{what}; install it with `pip install hdf5plugin` and start again"
        return f"{what}; install that HDF5 plugin and set HDF5_PLUGIN_PATH to its folder"
    return ""


def _plugged_in(number: int) -> bool:
    """Whether a filter is here once hdf5plugin, where installed, has brought its own."""
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        return False
    return h5py.h5z.filter_avail(number)


def _source_missing(data: h5py.Dataset) -> str:
    """Which file a data set takes its values from that is not there: HDF5 may read zeros then."""
    settings = data.id.get_create_plist()
    names = [text(settings.get_external(i)[0]) for i in range(settings.get_external_count())]
    if data.is_virtual:
        names += [source.file_name for source in data.virtual_sources()]
    folder = Path(data.file.filename).parent
    for name in names:
        if not (folder / name).is_file() and not Path(name).is_file() and name != ".":
            return f"takes its values from the file {name}, which is not there"
    return ""


@contextmanager
def read_errors(path: Path, name: str, data: h5py.Dataset | None = None) -> Iterator[None]:
    """Turn HDF5's errors while reading `name` into one that names file, field and cause."""
    if data is not None and (not isinstance(data, h5py.Dataset) or data.shape is None):
        what = "holds no value" if isinstance(data, h5py.Dataset) else "is a group, not data"
        raise BadInput(f"{path}: {name} {what}.")
    if data is not None and (cause := filter_missing(data) or _source_missing(data)):
        raise BadInput(f"{path}: {name} {cause}.")
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _failed(path, name, error) from None


def _failed(path: Path, name: str, error: Exception) -> BadInput:
    """What an error of HDF5 means; bytes are damaged only where the system could read them."""
    refused = re.search(r"errno = [1-9]\d*, error message = '([^']*)'", str(error))
    if refused:
        return BadInput(f"{path}: {name} cannot be read: {refused[1]}.")
    if isinstance(error, (OSError, RuntimeError)):
        return BrokenFile(f"{path}: {name} cannot be read, its bytes are damaged ({error}).")
    return BadInput(f"{path}: {name} cannot be read ({error}).")


def child(group: h5py.Group, name: str, path: Path, place: str = "") -> h5py.HLObject | None:
    """The object of a group by name, or by names with "/" between; None when there is none.

    `place` is the group's own in the file, to be named. Raises BadInput for a link that leads
    nowhere, BrokenFile where something is that HDF5 cannot open.
    """
    item: Any = group
    for part in name.strip("/").split("/"):
        parent, place = item, f"{place}/{part}".lstrip("/")
        if not isinstance(parent, h5py.Group) or part not in parent:
            return None
        item = parent.get(part)
        if item is None:
            raise _not_reached(path, place, parent.get(part, getlink=True))
    return item


def _not_reached(path: Path, place: str, link: Any) -> BadInput:
    if isinstance(link, h5py.SoftLink):
        return BadInput(f"{path}: {place} is a link to {link.path}, which is not in this file.")
    if not isinstance(link, h5py.ExternalLink):
        return BrokenFile(f"{path}: {place} cannot be opened, its bytes are damaged.")
    what = f"{path}: {place} is a link to {link.path} in the file {link.filename}, which"
    target = path.parent / link.filename
    if not target.is_file():
        return BadInput(f"{what} is not there; put that file at {target}.")
    holds = "holds no such thing" if h5py.is_hdf5(target) else "is not an HDF5 file"
    return BadInput(f"{what} {holds}.")


def walk(file: h5py.File, roots: Iterable[str], path: Path) -> Iterator[tuple[str, Any]]:
    """Every group at and below `roots` with its place, each once, links followed.

    Where one cannot be reached, the BadInput that says so stands in place of the group.
    """
    seen, waiting = set(), list(roots)
    while waiting:
        place = waiting.pop(0)
        try:
            group = child(file, place, path)
        except BadInput as error:
            yield place, error
            continue
        if not isinstance(group, h5py.Group):
            continue
        info = h5py.h5o.get_info(group.id)
        if (info.fileno, info.addr) in seen:
            continue
        seen.add((info.fileno, info.addr))
        yield place, group
        here, linked = [], []
        for name in group:
            if isinstance(name, bytes):  # h5py decodes what is UTF-8 and can look up nothing else
                there = f"{place}/{text(name)}"
                yield there, BadInput(f"{path}: {there} has a name that is not UTF-8.")
                continue
            link = group.get(name, getlink=True)
            (here if isinstance(link, h5py.HardLink) else linked).append(f"{place}/{name}")
        # Links wait: an object goes by the place where it lies, not by one that points at it.
        waiting = here + waiting + linked


def decoded(values: np.ndarray) -> np.ndarray:
    """Bytes as str: UTF-8 where all of them are that, else LATIN-1, so that nothing is lost.

    A text ends at its first NUL, as C and HDF5's own tools read it: what a buffer held before stands behind.
    """
    flat = [v if isinstance(v, bytes) else str(v).encode() for v in np.ravel(values).tolist()]
    flat = [v.split(b"\0")[0] for v in flat]
    try:
        words = [v.decode("utf-8") for v in flat]
    except UnicodeDecodeError:
        words = [v.decode("latin-1") for v in flat]
    return np.array(words, object)


def check_claim(item: h5py.HLObject, name: str) -> None:
    """Refuse a data set that says it is far larger than what is stored of it can be."""
    stored = item.id.get_storage_size() if isinstance(item, h5py.Dataset) else 0
    if isinstance(item, h5py.Dataset) and item.nbytes > MOST_PACKED * max(stored, 1000):
        raise BadInput(
            f"{name} says it holds {item.nbytes} bytes, but {stored} are stored; it is damaged."
        )


def text(value: Any) -> str:
    """An HDF5 string, bytes or scalar as str; of an array the first."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    if isinstance(value, str):  # h5py hides bytes that are no UTF-8 behind surrogates
        value = value.encode("utf-8", "surrogateescape")
    return decoded(np.array([value], object))[0] if isinstance(value, bytes) else str(value)


def scalar_text(file: h5py.Group, name: str) -> str:
    """A string data set of the file, "" when it is not there; BadInput when it cannot be read."""
    path = Path(file.file.filename)
    item = child(file, name, path)
    if not isinstance(item, h5py.Dataset) or item.size != 1:
        return ""
    with read_errors(path, name, item):
        return text(item[()])


def type_name(item: h5py.HLObject) -> str:
    return text(item.attrs.get("neurodata_type", ""))


def number(item: h5py.Dataset, name: str, where: str, default: float | None = None) -> float:
    """An attribute that is one number, also in an array of one, as MATLAB writes it.

    `where` names file and place. Raises BadInput when it is no number, or lacking without default.
    """
    if name not in item.attrs and default is not None:
        return default
    value = np.ravel(item.attrs[name]) if name in item.attrs else np.empty(0)
    if value.size != 1 or value.dtype.kind not in "biuf" or not np.isfinite(value[0]):
        what = f"is {value.tolist()}" if value.size else "is not there"
        raise BadInput(f"{where}: the attribute {name!r} {what}; one number is needed.")
    return float(value[0])


def is_flat(data: h5py.Dataset) -> bool:
    """Whether a data set is one row or, as MATLAB writes it, one column of values."""
    return data.shape is not None and data.size in (0, max(data.shape, default=-1))


def piece(data: h5py.Dataset, lo: int, hi: int) -> np.ndarray:
    """Values `lo` to `hi` of a flat data set of any shape."""
    axis = int(np.argmax(data.shape))
    return data[(0,) * axis + (slice(lo, hi),)].reshape(-1)


class FileSpikes:
    """Spike times of an NWB file; its slices are float64 seconds.

    A contiguous, uncompressed data set is read past HDF5 straight from its bytes.
    """

    def __init__(self, path: Path, place: str, data: h5py.Dataset, seconds: float):
        self.path, self.place, self.seconds = path, place, seconds
        self.dtype, self.n = data.dtype, data.size
        plain = data.id.get_create_plist()
        at_once = plain.get_layout() == h5py.h5d.CONTIGUOUS and plain.get_external_count() == 0
        # The group may be a link into another file: then the offset is one of that file.
        same_file = Path(data.file.filename).resolve() == path.resolve()
        self.offset = data.id.get_offset() if at_once and same_file else None
        self.handle: Any = None

    def __getitem__(self, part: slice) -> np.ndarray:
        """Some spike times; BadInput when the bytes cannot be read."""
        lo, hi, _ = part.indices(self.n)
        with read_errors(self.path, f"{self.place}[{lo}:{hi}]"):
            values = self._stored(lo, hi)
        values = values.astype(np.float64, copy=False)
        if self.seconds != 1.0:
            values *= self.seconds
        return values

    def _stored(self, lo: int, hi: int) -> np.ndarray:
        if self.offset is None:
            self.handle = self.handle or reading(self.path)
            return piece(self.handle[self.place], lo, hi)
        place = self.offset + lo * self.dtype.itemsize
        values = np.fromfile(self.path, self.dtype, hi - lo, offset=place)
        if len(values) < hi - lo:
            raise OSError("the file ends before the data do")
        return values

    @property
    def mapped(self) -> np.memmap | FileSpikes:
        """All spike times as a memory map; themselves when bytes in the file are not float64 seconds."""
        ready = self.dtype == np.dtype("<f8") and self.seconds == 1.0 and self.n > 0
        if self.offset is None or not ready:
            return self
        return np.memmap(self.path, np.float64, "r", self.offset, (self.n,))
