"""Read a pickled pandas DataFrame of numbers without running a line of it.

A pickle is a program that calls what it names. The unpickler here admits `NAMES` and no other, and each
stands for a piece of this module that checks what it is given and keeps it: no code of pandas runs, and
arrays come from bytes whose type, shape and length fit. Written by pandas 1.0 to 2.x, protocol 2 to 5.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from nblib.core.errors import BadInput, MissingInput

PLAIN = (int, float, str, bool, type(None))
CODES = re.compile(r"[iuf][1248]|b1|O8?|S\d{1,4}|U\d{1,4}")  # types that counts and ids may have
MOST_COLUMNS = 1_000_000
Blocks = list[tuple[np.ndarray, np.ndarray]]


class _Refused(Exception):
    """The pickle is not a plain table of counts."""


def _demand(condition: bool, what: str) -> None:
    if not condition:
        raise _Refused(what)


class _Type:
    """For `numpy.dtype`."""

    def __init__(self, code: str, *_: Any):
        _demand(bool(CODES.fullmatch(code)), "an array of a type that counts do not have")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        # (version, byte order, subtype, names, fields, ...): fields could hide pointers in bytes.
        _demand(state[2:5] == (None, None, None), "a structured array type")
        self.dtype = self.dtype.newbyteorder(state[1])

    def array(self, data: Any, shape: tuple[int, ...], order: str) -> np.ndarray:
        """An array made from its bytes, or from a list of plain objects."""
        if self.dtype.kind != "O":
            return np.frombuffer(data, self.dtype).reshape(shape, order=order)
        plain = isinstance(data, list) and all(type(value) in PLAIN for value in data)
        _demand(plain, "an array of objects")
        flat = np.empty(len(data), object)
        flat[:] = data
        return flat.reshape(shape, order=order)


class _Array:
    """For `numpy._reconstruct`: what is in the array follows as its state."""

    def __init__(self, kind: str, *_: Any):
        _demand(kind == "ndarray", "an array of another class")

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        self.values = kind.array(data, shape, "F" if fortran else "C")


class _Manager:
    """For pandas' `BlockManager`: axes, and blocks as (column positions, array (k, row))."""

    def __init__(self, blocks: tuple, axes: list):
        self.axes = axes
        self.blocks = [_block(values, place) for values, place, *_ in blocks]

    def __setstate__(self, state: tuple) -> None:
        # Before pandas 1.3: (axes, arrays, items, {"0.14.1": {"axes": ..., "blocks": ...}}).
        parts = state[3]["0.14.1"]
        self.__init__([(b["values"], b["mgr_locs"]) for b in parts["blocks"]], parts["axes"])


class _Frame:
    """For `pandas.DataFrame`."""

    def __setstate__(self, state: dict) -> None:
        self.manager = state["_mgr"] if "_mgr" in state else state["_data"]  # before pandas 1.1


def _values(made: Any) -> np.ndarray:
    values = made.values if isinstance(made, _Array) else made
    _demand(isinstance(values, np.ndarray), "a column that is not plain numbers")
    return values


def _block(values: Any, place: Any) -> tuple[np.ndarray, np.ndarray]:
    """The columns that a block holds, and their values (k, row)."""
    values = np.atleast_2d(_values(values))
    place = place if isinstance(place, range) else _values(place).ravel()
    _demand(len(place) == len(values) and values.ndim == 2, "columns of unequal length")
    return np.asarray(place, np.int64), values


NAMES = {
    "pandas.core.frame": "DataFrame",
    "pandas.core.internals.managers": "BlockManager",
    "pandas._libs.internals": "_unpickle_block",
    "pandas.core.indexes.base": "_new_Index Index",
    "pandas.core.indexes.range": "RangeIndex",
    "pandas.core.indexes.numeric": "Int64Index UInt64Index Float64Index",  # before pandas 2
    "numpy": "ndarray dtype",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "builtins": "slice",
    "__builtin__": "slice",
    "_codecs": "encode",
}


class _Unpickler(pickle.Unpickler):
    """Has for each admitted name an attribute of that name; on a method, a pickle can set nothing."""

    DataFrame, BlockManager, dtype, _reconstruct = _Frame, _Manager, _Type, _Array
    Index = Int64Index = UInt64Index = Float64Index = "Index"
    RangeIndex, ndarray = "RangeIndex", "ndarray"

    def find_class(self, module: str, name: str) -> Any:
        if name not in NAMES.get(module, "").split():
            raise _Refused(
                f"it names {module[:60]}.{name[:60]}, which a table of counts does not need"
            )
        return getattr(self, name)

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to something outside the file")

    def _unpickle_block(self, *block: Any) -> tuple:
        return block

    def _new_Index(self, kind: str, fields: dict) -> range | list:
        """What stands along an axis of the table."""
        if kind == "RangeIndex":
            return range(fields.get("start", 0), fields.get("stop", 0), fields.get("step", 1))
        _demand(kind == "Index", "an odd index")
        return _values(fields["data"]).ravel().tolist()

    def _frombuffer(self, data: Any, kind: _Type, shape: Any, order: str, axes: Any = None) -> Any:
        _demand(axes is None, "an array in another memory order")
        return kind.array(data, shape, order)

    def scalar(self, kind: _Type, data: bytes) -> Any:
        return kind.array(data, (), "C").item()

    def encode(self, text: str, codec: str) -> bytes:
        """The bytes of an array, which older protocols write as text."""
        _demand(codec in ("latin1", "latin-1"), "an array without bytes")
        return text.encode(codec)

    def slice(self, start: int, stop: int, step: int | None) -> range:
        return range(start, stop, step or 1)


# What a malformed pickle makes the unpickler raise, besides our own refusal.
_MALFORMED = (
    pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError,
    MemoryError, OverflowError, RecursionError,
)  # fmt: skip


def read_table(path: Path) -> tuple[list, Blocks]:
    """Column names of a pickled DataFrame, and its blocks: (column positions, array (k, row)).

    Runs no code of the pickle. Raises BadInput when it is anything but a plain table of numbers.
    """
    try:
        with path.open("rb") as file:
            frame = _Unpickler(file).load()
        _demand(isinstance(frame, _Frame), "it is not a table")
        columns, blocks = frame.manager.axes[0], frame.manager.blocks
        _demand(len(columns) < MOST_COLUMNS and all(map(_is_name, columns)), "odd column names")
        _demand(len({len(v.T) for _, v in blocks}) == 1, "columns of unequal length")
        places = np.sort(np.concatenate([place for place, _ in blocks]))
        _demand(np.array_equal(places, np.arange(len(columns))), "columns without values")
        return list(columns), blocks
    except FileNotFoundError:
        raise MissingInput(f"{path}: no such file; check `path` in the recipe.") from None
    except _Refused as error:
        raise BadInput(
            f"{path}: refused, and nothing in it was run: {error}. Expected a pandas DataFrame of spike counts."
        ) from None
    except _MALFORMED as error:
        raise BadInput(
            f"{path}: not a readable pickle of a table ({type(error).__name__})."
        ) from None


def _is_name(name: Any) -> bool:
    """Whether a column may be called so; of numbers too long to be written, Python says nothing."""
    return type(name) in (float, str) or (type(name) is int and abs(name) < 2**63)
