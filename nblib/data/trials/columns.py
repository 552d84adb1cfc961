"""Columns of a table that a recipe names: that they are there, with one value a row, and numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.core.params import MISSING

# In a table's `attrs`: the columns that were not read, with the reason. Most are only not flat
# (waveforms, lists), which is as it should be.
LEFT_OUT = "left_out"


def require(table: pd.DataFrame, name: str, where: str, setting: str = "") -> pd.Series:
    """A column with one value a row that is needed; `where` names file and table.

    Raises BadInput that says what is there instead, and which setting of the recipe names it.
    """
    mend = (
        f" Set `{setting}` in the recipe to a column that has one value a row." if setting else ""
    )
    if name not in table:
        reason = table.attrs.get(LEFT_OUT, {}).get(name)
        if reason:
            raise BadInput(f"{where}: column {name!r} cannot be used: {reason}.{mend}")
        raise BadInput(
            f"{where} has no column {name!r}; its columns are {some(table.columns, 40)}."
            + (f" Set `{setting}` in the recipe." if setting else "")
        )
    values = table[name]
    if values.dtype == object:
        for row, value in enumerate(values):
            if isinstance(value, list):
                raise BadInput(
                    f"{where}: column {name!r} holds lists, in row {row} {value}; one value a row "
                    f"is needed.{mend}"
                )
    return values


def numbers(values: pd.Series, where: str) -> np.ndarray:
    """A column as float64; text that holds numbers is read, missing text is NaN.

    Raises BadInput with the row and value that is no number; `where` names file, table and column.
    """
    if values.dtype.kind in "biuf":
        return values.to_numpy(np.float64)
    words = values.astype(str).str.strip()
    parsed = pd.to_numeric(words, errors="coerce")
    rows = np.flatnonzero(parsed.isna() & values.notna() & ~words.isin(["", *MISSING]))
    if len(rows):
        raise BadInput(
            f"{where} holds {values.iloc[rows[0]]!r} in row {some(rows)}; a number is needed."
        )
    return parsed.to_numpy(np.float64)
