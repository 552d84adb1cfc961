"""Read a pickled pandas DataFrame of numbers without running a line of it.

A pickle is a program. This one is run by an unpickler that admits the names in `ADMITTED` and no
other, and gives for each a class of our own that only keeps what it was given: no code of pandas or
numpy runs while it is read. Then the table is built from what was kept, arrays from bytes whose
type, shape and length were checked. Written by pandas 1.0 to 2.x, pickle protocol 2 to 5.
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
Blocks = list[tuple[list[int], np.ndarray]]


class _Refused(Exception):
    """The pickle is not a plain table of counts."""


def _demand(condition: bool, what: str) -> None:
    if not condition:
        raise _Refused(what)


class _Kept:
    """What a pickle makes of an admitted name: the arguments and the state that it gave."""

    __slots__ = ("args", "state")

    def __new__(cls, *args: Any) -> _Kept:
        kept = object.__new__(cls)
        kept.args, kept.state = args, None
        return kept

    def __setstate__(self, state: Any) -> None:
        self.state = state


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
ADMITTED = {
    (module, name): type(name, (_Kept,), {"__slots__": (), "__module__": __name__})
    for module, names in NAMES.items()
    for name in names.split()
}
INDICES = ("Index", "Int64Index", "UInt64Index", "Float64Index")


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


def read_table(path: Path) -> tuple[list, Blocks]:
    """Column names of a pickled DataFrame, and its blocks: (column positions, array (k, row)).

    Runs no code of the pickle. Raises BadInput when it is anything but a plain table of numbers.
    """
    try:
        with path.open("rb") as file:
            frame = _Unpickler(file).load()
        return _table(frame)
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


def _is(value: Any, *names: str) -> bool:
    """Whether a value was made by one of these names."""
    return isinstance(value, _Kept) and type(value).__name__ in names


def _table(frame: Any) -> tuple[list, Blocks]:
    _demand(_is(frame, "DataFrame") and isinstance(frame.state, dict), "it is not a table")
    manager = frame.state.get("_mgr", frame.state.get("_data"))  # `_data` before pandas 1.1
    _demand(_is(manager, "BlockManager"), "it is not a table")
    blocks, axes = _of_manager(manager)
    _demand(isinstance(axes, (list, tuple)) and len(axes) == 2, "a table needs rows and columns")
    _demand(all(_is(axis, "_new_Index") for axis in axes), "odd axes")
    columns, seen, rows, table = _labels(axes[0]), [], None, []
    _demand(len(columns) < MOST_COLUMNS and all(map(_plain_name, columns)), "odd column names")
    for data, where in blocks:
        values, place = np.atleast_2d(_array(data)), _positions(where, len(columns))
        rows = values.shape[1] if rows is None else rows
        _demand(values.shape == (len(place), rows), "columns of unequal length")
        table.append((place, values))
        seen += place
    _demand(sorted(seen) == list(range(len(columns))), "columns without values")
    return columns, table


def _of_manager(manager: _Kept) -> tuple[list[tuple[Any, Any]], Any]:
    """Values and place of each block, and the axes."""
    if manager.state is None:
        _demand(len(manager.args) == 2, "a table of another pandas")
        blocks, axes = manager.args
        sound = isinstance(blocks, (list, tuple))
        _demand(
            sound and all(_is(b, "_unpickle_block") and len(b.args) > 1 for b in blocks),
            "a column that is not plain numbers",
        )
        return [block.args[:2] for block in blocks], axes
    # Before pandas 1.3: (axes, arrays, items, {"0.14.1": {"axes": ..., "blocks": ...}}).
    state = manager.state
    known = isinstance(state, tuple) and len(state) >= 4 and isinstance(state[3], dict)
    _demand(known and isinstance(state[3].get("0.14.1"), dict), "a table of another pandas")
    parts = state[3]["0.14.1"]
    return [(b.get("values"), b.get("mgr_locs")) for b in parts.get("blocks", ())], parts.get(
        "axes"
    )


def _labels(index: _Kept) -> list:
    """What stands along an axis."""
    _demand(len(index.args) == 2 and isinstance(index.args[1], dict), "an odd index")
    kind, fields = getattr(index.args[0], "__name__", ""), index.args[1]
    if kind == "RangeIndex":
        bounds = [fields.get(k) for k in ("start", "stop", "step")]
        sound = all(type(b) is int and 0 <= b < MOST_COLUMNS for b in bounds) and bounds[2] > 0
        _demand(sound, "an odd index")
        return list(range(*bounds))
    _demand(kind in INDICES, "an odd index")
    return _array(fields.get("data")).reshape(-1).tolist()


def _plain_name(name: Any) -> bool:
    if type(name) is int:
        return abs(name) < 2**63
    return type(name) is float or (type(name) is str and len(name) < 200)


def _positions(place: Any, n_columns: int) -> list[int]:
    """The columns that a block holds: a slice or an array of positions."""
    if not _is(place, "slice"):
        return _array(place).reshape(-1).tolist()
    _demand(len(place.args) == 3, "an odd slice")
    start, stop, step = place.args[0], place.args[1], place.args[2] or 1
    sound = all(type(n) is int for n in (start, stop, step)) and 0 <= start <= stop <= n_columns
    _demand(sound and step > 0, "an odd slice")
    return list(range(start, stop, step))


def _array(made: Any) -> np.ndarray:
    """An array, built from its own bytes or plain items only."""
    if _is(made, "_frombuffer"):
        _demand(len(made.args) >= 4, "an array without data")
        data, dtype, shape, order = made.args[:4]
        _demand(order in ("C", "F") and made.args[4:] in ((), (None,)), "an array in another memory order")  # fmt: skip
    else:
        _demand(_is(made, "_reconstruct"), "a column that is not plain numbers")
        plain = made.args[:1] == (ADMITTED["numpy", "ndarray"],)
        _demand(plain, "an array of another class")
        _demand(isinstance(made.state, tuple) and len(made.state) == 5, "an array without data")
        _, shape, dtype, fortran, data = made.state
        order = "F" if fortran else "C"
    sound = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 2**40 for n in shape)
    _demand(sound and len(shape) <= 2, "an array of odd shape")
    size, dtype = int(np.prod(shape, dtype=object)), _dtype(dtype)
    if dtype.kind == "O":
        _demand(isinstance(data, list) and len(data) == size, "an array of objects")
        flat = np.empty(size, object)
        flat[:] = [_item(value) for value in data]
    else:
        data = _bytes(data)
        _demand(len(data) == size * dtype.itemsize, "an array whose bytes do not fit its shape")
        flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order=order)


def _dtype(made: Any) -> np.dtype:
    code = made.args[0] if _is(made, "dtype") and made.args else None
    fits = isinstance(code, str) and CODES.fullmatch(code) is not None
    _demand(fits, "an array of a type that counts do not have")
    if (state := made.state) is None:
        return np.dtype(code)
    # (version, byte order, subtype, names, fields, ...): fields could hide pointers in bytes.
    plain = isinstance(state, tuple) and len(state) >= 5 and state[2:5] == (None, None, None)
    _demand(plain and state[1] in ("<", ">", "=", "|"), "a structured array type")
    return np.dtype(state[1] + code)


def _bytes(data: Any) -> bytes:
    """The bytes of an array; older protocols write them as text."""
    if isinstance(data, (bytes, bytearray)):
        return data
    sound = _is(data, "encode") and len(data.args) == 2 and type(data.args[0]) is str
    _demand(sound and data.args[1] in ("latin1", "latin-1"), "an array without bytes")
    return data.args[0].encode("latin-1")


def _item(value: Any) -> Any:
    """A cell or an id: a plain value, or one of numpy's scalars."""
    if type(value) in PLAIN:
        return value
    _demand(_is(value, "scalar") and len(value.args) == 2, "an array of objects")
    dtype, data = _dtype(value.args[0]), _bytes(value.args[1])
    _demand(dtype.kind != "O" and len(data) == dtype.itemsize, "an odd scalar")
    return np.frombuffer(data, dtype)[0].item()
