"""Read a pickled pandas DataFrame of numbers without running a line of it.

A pickle is a program. This one is run by an unpickler that admits the names in `ADMITTED` and no
other, and gives for each a stand-in of our own that only keeps what it was told: no code of
pandas or numpy runs while it is read. The arrays are then built from bytes whose type, shape and
length were checked. Written by pandas 1.0 to 2.x, pickle protocol 2 to 5.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from nblib.core.errors import BadInput, MissingInput

PLAIN = (int, float, str, bool, type(None))
MOST_COLUMNS = 1_000_000


class _Refused(Exception):
    """The pickle is not a plain table of counts."""


def _demand(condition: bool, what: str) -> None:
    if not condition:
        raise _Refused(what)


class _StandIn:
    """Stands for a class or function of pandas or numpy. Not callable, takes no state."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _Refused(f"{type(self).__name__} takes no state")


class _Marker(_StandIn):
    """A class that is only ever named, as an argument."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class _Call(_StandIn):
    """A function: `make(*args)` builds one of the stand-ins below."""

    __slots__ = ("_make",)

    def __init__(self, make: Any):
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)


class _Dtype(_StandIn):
    __slots__ = ("code", "endian")

    def __init__(self, code: Any, *_: Any):
        _demand(isinstance(code, str) and re.fullmatch(r"[iuf][1248]|b1|O8?|S\d{1,4}|U\d{1,4}", code) is not None,
                "an array of a type that counts do not have")  # fmt: skip
        self.code, self.endian = code, "|"

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subtype, names, fields, ...): fields could hide pointers in bytes.
        plain = isinstance(state, tuple) and len(state) >= 5 and state[2:5] == (None, None, None)
        _demand(plain and state[1] in ("<", ">", "=", "|"), "a structured array type")
        self.endian = state[1]

    @property
    def is_object(self) -> bool:
        return self.code[0] == "O"

    def numpy(self) -> np.dtype:
        return np.dtype(self.endian + self.code)


class _Array(_StandIn):
    __slots__ = ("data", "dtype", "order", "shape")

    def __init__(self, subtype: Any = None, *_: Any):
        _demand(
            isinstance(subtype, _Marker) and subtype.name == "ndarray", "an array of another class"
        )
        self.shape: Any = None

    @classmethod
    def from_buffer(cls, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
        _demand(axes is None and order in ("C", "F"), "an array in another memory order")
        array = cls(_Marker("ndarray"))
        array.__setstate__((1, shape, dtype, order == "F", data))
        return array

    def __setstate__(self, state: Any) -> None:
        _demand(isinstance(state, tuple) and len(state) == 5, "an array without its five fields")
        _, self.shape, self.dtype, fortran, self.data = state
        self.order = "F" if fortran else "C"
        sizes = isinstance(self.shape, tuple) and all(
            type(n) is int and 0 <= n < 2**40 for n in self.shape
        )
        _demand(
            sizes and len(self.shape) <= 2 and isinstance(self.dtype, _Dtype),
            "an array of odd shape",
        )

    def numpy(self) -> np.ndarray:
        """The array, built from its own bytes or plain items only."""
        _demand(self.shape is not None, "an array without data")
        size = int(np.prod(self.shape, dtype=object))
        if self.dtype.is_object:
            fits = isinstance(self.data, list) and len(self.data) == size
            _demand(fits and all(type(v) in PLAIN for v in self.data), "an array of objects")
            flat = np.empty(size, object)
            flat[:] = self.data
        else:
            dtype = self.dtype.numpy()
            fits = (
                isinstance(self.data, (bytes, bytearray))
                and len(self.data) == size * dtype.itemsize
            )
            _demand(fits, "an array whose bytes do not fit its shape")
            flat = np.frombuffer(self.data, dtype)
        return flat.reshape(self.shape, order=self.order)


def _scalar(dtype: Any, data: Any) -> Any:
    _demand(
        isinstance(dtype, _Dtype) and not dtype.is_object and isinstance(data, bytes),
        "an odd scalar",
    )
    _demand(len(data) == dtype.numpy().itemsize, "a scalar whose bytes do not fit its type")
    return np.frombuffer(data, dtype.numpy())[0].item()


def _encode(value: Any, codec: Any) -> bytes:
    _demand(type(value) is str and codec in ("latin1", "latin-1"), "text in an odd encoding")
    return value.encode("latin-1")


class _Slice(_StandIn):
    __slots__ = ("range",)

    def __init__(self, *args: Any):
        _demand(len(args) == 3 and type(args[0]) is type(args[1]) is int, "an odd slice")
        _demand(args[2] is None or (type(args[2]) is int and args[2] > 0), "an odd slice")
        _demand(0 <= args[0] <= args[1] < 2**40, "an odd slice")
        self.range = range(args[0], args[1], args[2] or 1)


class _Block(_StandIn):
    __slots__ = ("place", "values")

    def __init__(self, values: Any, place: Any, *_: Any):
        self.values, self.place = values, place


class _Index(_StandIn):
    __slots__ = ("fields", "kind")

    def __init__(self, kind: Any, fields: Any):
        _demand(isinstance(kind, _Marker) and isinstance(fields, dict), "an odd index")
        self.kind, self.fields = kind.name, fields

    def values(self) -> list:
        if self.kind == "RangeIndex":
            bounds = [self.fields.get(k) for k in ("start", "stop", "step")]
            _demand(
                all(type(b) is int and 0 <= b < MOST_COLUMNS for b in bounds) and bounds[2] > 0,
                "an odd index",
            )
            return list(range(*bounds))
        data = self.fields.get("data")
        _demand(isinstance(data, _Array), "an index without data")
        return data.numpy().reshape(-1).tolist()


class _Manager(_StandIn):
    __slots__ = ("axes", "blocks")

    def __init__(self, blocks: Any = (), axes: Any = ()):
        self.blocks, self.axes = blocks, axes

    def __setstate__(self, state: Any) -> None:
        # Before pandas 1.3: (axes, arrays, items, {"0.14.1": {"axes": ..., "blocks": ...}}).
        known = isinstance(state, tuple) and len(state) >= 4 and isinstance(state[3], dict)
        _demand(known and isinstance(state[3].get("0.14.1"), dict), "a table of another pandas")
        told = state[3]["0.14.1"]
        self.axes = told.get("axes")
        self.blocks = [_Block(b.get("values"), b.get("mgr_locs")) for b in told.get("blocks", ())]


class _Frame(_StandIn):
    __slots__ = ("manager",)

    def __setstate__(self, state: Any) -> None:
        _demand(isinstance(state, dict), "a table without its parts")
        self.manager = state.get("_mgr", state.get("_data"))  # `_data` before pandas 1.1


ADMITTED: dict[tuple[str, str], Any] = {
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.internals.managers", "BlockManager"): _Manager,
    ("pandas._libs.internals", "_unpickle_block"): _Call(_Block),
    ("pandas.core.indexes.base", "_new_Index"): _Call(_Index),
    ("pandas.core.indexes.base", "Index"): _Marker("Index"),
    ("pandas.core.indexes.range", "RangeIndex"): _Marker("RangeIndex"),
    ("pandas.core.indexes.numeric", "Int64Index"): _Marker("Index"),
    ("pandas.core.indexes.numeric", "UInt64Index"): _Marker("Index"),
    ("pandas.core.indexes.numeric", "Float64Index"): _Marker("Index"),
    ("numpy", "ndarray"): _Marker("ndarray"),
    ("numpy", "dtype"): _Call(_Dtype),
    ("numpy.core.multiarray", "_reconstruct"): _Call(_Array),
    ("numpy._core.multiarray", "_reconstruct"): _Call(_Array),
    ("numpy.core.multiarray", "scalar"): _Call(_scalar),
    ("numpy._core.multiarray", "scalar"): _Call(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Call(_Array.from_buffer),
    ("numpy._core.numeric", "_frombuffer"): _Call(_Array.from_buffer),
    ("builtins", "slice"): _Call(_Slice),
    ("__builtin__", "slice"): _Call(_Slice),
    ("_codecs", "encode"): _Call(_encode),
}


class _Unpickler(pickle.Unpickler):
    """Knows the admitted names; each stands for something of ours that can do nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise _Refused(
                f"it names {module[:60]}.{name[:60]}, which a table of counts does not need"
            )
        return ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to something outside the file")


# What a malformed pickle makes the unpickler raise, besides our own refusal.
_MALFORMED = (pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError,
              MemoryError, OverflowError, RecursionError)  # fmt: skip


def read_table(path: Path) -> tuple[list, list[tuple[list[int], np.ndarray]]]:
    """Column names of a pickled DataFrame, and its blocks: (column positions, array (k, row)).

    Runs no code of the pickle. Raises BadInput when it is anything but a plain table of numbers.
    """
    try:
        with path.open("rb") as file:
            frame = _Unpickler(file).load()
        return _parts(frame)
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


def _plain_name(name: Any) -> bool:
    if type(name) is int:
        return abs(name) < 2**63
    return type(name) is float or (type(name) is str and len(name) < 200)


def _parts(frame: Any) -> tuple[list, list[tuple[list[int], np.ndarray]]]:
    _demand(
        type(frame) is _Frame and type(getattr(frame, "manager", None)) is _Manager,
        "it is not a table",
    )
    axes, blocks = frame.manager.axes, frame.manager.blocks
    _demand(isinstance(axes, (list, tuple)) and len(axes) == 2, "a table needs rows and columns")
    _demand(
        all(isinstance(a, _Index) for a in axes) and isinstance(blocks, (list, tuple)), "odd axes"
    )
    columns, out, seen, rows = axes[0].values(), [], [], None
    _demand(len(columns) < MOST_COLUMNS and all(map(_plain_name, columns)), "odd column names")
    for block in blocks:
        _demand(
            isinstance(block, _Block) and isinstance(block.values, _Array),
            "a column that is not plain numbers",
        )
        values = np.atleast_2d(block.values.numpy())
        place = block.place
        _demand(isinstance(place, (_Slice, _Array)), "a column without a place")
        if isinstance(place, _Slice):
            _demand(place.range.stop <= len(columns), "a column in an odd place")
            place = list(place.range)
        else:
            place = place.numpy().reshape(-1).tolist()
        rows = values.shape[1] if rows is None else rows
        _demand(values.shape == (len(place), rows), "columns of unequal length")
        out.append((place, values))
        seen += place
    _demand(sorted(seen) == list(range(len(columns))), "columns without values")
    return columns, out
