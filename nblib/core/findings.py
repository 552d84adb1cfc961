"""What is found in data: what is odd is told, what is broken is refused, each in one sentence.

A rule is one call: what is wrong, and a sentence with its figures and what to do.

    odd += tell(units["spikes"] == 0, "%n of %all units have no spikes (unit %rows).")
    odd += told({"%n units fire too often (unit %rows).": rate > 100, "Spikes begin before zero.": first < 0})
    refuse(frame % 1 > 0, f"{path}: frame is %value in row %rows; count whole frames.", value=frame)

What is wrong may be true or false, a mask, or the wrong ones themselves (ids, names). The sentence may
name %n, how many are wrong; %all, of how many; %rows, the first few; %row and %value, the first and what
it holds. What files get wrong time and again has a rule of its own, `check_...`, below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some

SHOWN = re.compile(r"%(n|all|rows|row|value)\b")


class Span(NamedTuple):
    """A named stretch of time [s]: "spikes from 0.5 to 3,600 s"."""

    name: str
    first: float
    last: float

    def __str__(self) -> str:
        return f"{self.name} from {self.ends}"

    @property
    def ends(self) -> str:
        return f"{seconds(self.first)} to {seconds(self.last)} s"

    @property
    def lasts(self) -> float:
        return self.last - self.first


def seconds(value: float) -> str:
    """A time as text: to the millisecond, never in powers of ten."""
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def counted(n: int, thing: str) -> str:
    """So many things: "1 gap", "12,345 gaps"."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def shown(value: Any) -> str:
    """A value as a sentence shows it: numbers short, text in quotes."""
    value = value.item() if isinstance(value, np.generic) else value
    return f"{value:.7g}" if isinstance(value, float) else repr(value)


def tell(wrong: Any, says: str, *, of: Any = None, value: Any = None) -> list[str]:
    """The sentence of a rule, alone in a list; an empty list where nothing is wrong.

    Parameters
    ----------
    wrong : a bool; a mask (row,), of which a Series has its rows' names; or the wrong ones themselves.
    of : the names of all rows of a mask; else they count from 0.
    value : what each row holds, (row,), or what words it, given the row's place.
    """
    if isinstance(wrong, bool | np.bool_):
        return [says] if wrong else []
    figures, rows, names = {}, wrong, of
    if isinstance(wrong, pd.Series):
        names, wrong = wrong.index if of is None else of, wrong.to_numpy(bool)
    if isinstance(wrong, np.ndarray) and wrong.dtype == bool:
        rows = np.flatnonzero(wrong)
        figures["all"] = f"{len(wrong):,}"
        if value is not None and len(rows):
            row = rows[0]
            figures["value"] = str(value(row)) if callable(value) else shown(np.asarray(value)[row])
        rows = rows if names is None else np.asarray(names)[rows]
    if not len(rows := list(rows)):
        return []
    figures |= {"n": f"{len(rows):,}", "rows": some(rows), "row": str(rows[0])}
    return [SHOWN.sub(lambda place: figures.get(place[1], place[0]), says)]


def told(rules: Mapping[str, Any]) -> list[str]:
    """The sentences of several rules, each with what is wrong: those that hold."""
    return [sentence for says, wrong in rules.items() for sentence in tell(wrong, says)]


def refuse(wrong: Any, says: str, **more: Any) -> None:
    """Raise the sentence of a rule, which begins with file and field, as BadInput; see `tell`."""
    for sentence in tell(wrong, says, **more):
        raise BadInput(sentence)


def check_array(field: str, values: Any, good: bool, expected: str) -> None:
    """Refuse an array that is not of the kind or shape that is expected."""
    refuse(not good, f"{field} is {values.dtype} of shape {values.shape}; expected {expected}.")


def check_length(field: str, n: int, m: int, things: str) -> None:
    """Refuse a field with another number of entries than there are things."""
    refuse(n != m, f"{field} has {n:,} entries for {m:,} {things}.")


def check_finite(field: str, values: np.ndarray, row: str = "row") -> None:
    """Refuse numbers (row,) that are NaN or infinite."""
    refuse(~np.isfinite(values), f"{field} is NaN or infinite in {row} %rows; mend the file there.")


def check_rising(field: str, times_s: np.ndarray, row: str = "row") -> None:
    """Refuse times (row,) that are not finite, or fall."""
    check_finite(field, times_s, row)
    refuse(
        np.diff(times_s) < 0,
        f"{field} falls after {row} %rows (%value); put the file in the order of time.",
        value=lambda place: Span("", *times_s[place : place + 2]).ends,
    )


def check_once(field: str, ids: Iterable[Any], things: str = "units") -> None:
    """Refuse ids or names of things that are missing, or stand more than once."""
    index = pd.Index(ids)
    refuse(
        index.isna(),
        f"{field} has no name for {things} in row %rows (NaN or nothing); give each one of its own.",
    )
    refuse(
        index[index.duplicated()].unique(),
        f"{field} names several {things} alike: %rows; leave one of each, or rename them.",
    )
