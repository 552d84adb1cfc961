"""Numbers that others published, as rows beside ours: read with their provenance, never mixed in.

One kind of file is read: a CSV table with the columns `REQUIRED`, and beside them `note` and any
setting. Those of the project lie in `params/published`, those that `nblib published FILE` took in
under the data root.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core import store
from nblib.core.errors import BadInput, MissingInput, some
from nblib.core.params import RECORDING_ID
from nblib.data.files import hashes

COLUMNS = (
    "recording", "model", "metric", "value", "unit", "variant", "selected", "provenance", "flag",
    "note",
)  # fmt: skip
REQUIRED = ("recording", "model", "metric", "value", "unit", "selected", "source")
UNITS = {"percent": 100.0, "fraction": 1.0, "unknown": 1.0}  # what a value is divided by
LARGEST = {"percent": 100.0, "fraction": 1.0, "unknown": 100.0}


def folder() -> Path:
    """Where tables of published numbers lie that somebody took in."""
    return store.home() / "published"


def files() -> list[Path]:
    """Every table of published numbers: those of the project, then those of the data root."""
    shipped = store.project_root() / "params" / "published"
    return [path for place in (shipped, folder()) for path in sorted(place.glob("*.csv"))]


def read(path: Path) -> pd.DataFrame:
    """The published numbers of one file, one row a number; columns as in `COLUMNS`.

    `value` is a fraction, or, where `flag` says "unit unknown", what the file holds, unchanged.
    `flag` also marks a row that says what an earlier one says. Raises MissingInput for no file,
    BadInput naming file, row, column and value for what cannot be read.
    """
    cells = _cells(path)

    def refuse(faulty: pd.Series, column: str, why: str) -> None:
        if faulty.any():
            row = faulty.idxmax()
            text = cells.loc[row, column]
            raise BadInput(f"{path}, row {row}, column {column!r}: {text!r} {why}.")

    for column in REQUIRED:
        refuse(cells[column] == "", column, "is empty")
    unit, value = cells["unit"], pd.to_numeric(cells["value"], errors="coerce")
    refuse(~cells["recording"].str.fullmatch(RECORDING_ID), "recording", "is no recording id")
    refuse(~unit.isin(UNITS), "unit", f"is no unit; expected {', '.join(UNITS)}")
    refuse(value.isna(), "value", "is no number")
    refuse(~value.between(0, unit.map(LARGEST)), "value", "is no value of that unit")
    named = {*REQUIRED, "note"}
    variants = [
        ", ".join(f"{name}={text}" for name, text in row.items() if text and name not in named)
        for row in cells.to_dict("records")
    ]
    rows = [f"; {path.name}, row {row}" for row in cells.index]
    table = cells.assign(
        value=value / unit.map(UNITS),
        unit=unit.replace("percent", "fraction"),
        variant=variants,
        provenance=cells["source"] + rows,
        note=cells.get("note", ""),
    )
    again = table.duplicated(["recording", "model", "metric", "variant"])
    table["flag"] = np.where(unit == "unknown", "unit unknown", "")
    table.loc[again, "flag"] = "repeats an earlier row"
    return table[list(COLUMNS)].reset_index(drop=True)


def _cells(path: Path) -> pd.DataFrame:
    """A table as text without margins, by number of line; lines that hold nothing are left out."""
    form = {"header": None, "dtype": str, "keep_default_na": False, "skip_blank_lines": False}
    try:
        cells = pd.read_csv(path, encoding="utf-8-sig", **form)
    except FileNotFoundError:
        raise MissingInput(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: not readable as a table ({str(error).strip()}).") from None
    cells = cells.fillna("").apply(lambda column: column.str.strip())
    cells = cells.set_axis(cells.index + 1)[(cells != "").any(axis=1).to_numpy()]
    if len(cells) < 2:
        raise BadInput(f"{path}: a header and at least one row expected.")
    header = cells.iloc[0]
    if header.duplicated().any():
        raise BadInput(f"{path}: column {header[header.duplicated()].iloc[0]!r} stands twice.")
    if missing := [name for name in REQUIRED if name not in set(header)]:
        raise BadInput(
            f"{path}: column {missing[0]!r} is missing. Expected a table with the columns "
            f"{', '.join(REQUIRED)}."
        )
    return cells.iloc[1:].set_axis(header.tolist(), axis=1)


def table() -> pd.DataFrame:
    """All published numbers that the project and the data root hold."""
    parts = [read(path) for path in files()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def beside(recordings: Iterable[str]) -> pd.DataFrame:
    """The published numbers of these recordings alone: no other may stand next to a run of ours."""
    everything = table()
    return everything[everything["recording"].isin(set(recordings))].reset_index(drop=True)


def contents(recordings: Iterable[str]) -> list[str]:
    """16 hex digits of each table that holds numbers of these recordings: what a report rests on."""
    wanted = set(recordings)
    tables = [path for path in files() if wanted & set(read(path)["recording"])]
    return sorted(hashes.file_hash(path)[:16] for path in tables)


def sure(rows: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """The published test scores that may be drawn: no flag, their unit known."""
    return rows[(rows["flag"] == "") & (rows["metric"] == metric)]


def take_in(paths: list[Path]) -> str:
    """Check each file, copy it into the data root, and say what was read and what was flagged; without
    any, say what there is.

    Nothing is copied when one of them is refused. Raises what `read` raises, and BadInput for a
    name that stands for other numbers already.
    """
    if not paths:
        return "\n".join(describe(str(path), read(path)) for path in files())
    tables = {path: read(path) for path in paths}
    for path in tables:
        copy = folder() / path.name
        if copy.is_file() and copy.read_text("utf-8-sig") != path.read_text("utf-8-sig"):
            raise BadInput(f"{path}: {copy} holds other numbers under that name; delete it first.")
    for path in tables:
        store.write_text(folder() / path.name, path.read_text(encoding="utf-8-sig"))
    return "\n".join(describe(path.name, rows) for path, rows in tables.items())


def describe(name: str, rows: pd.DataFrame) -> str:
    """What a file holds, in a few lines: numbers, recordings, models, flags and notes."""
    models = ", ".join(sorted(set(rows["model"])))
    lines = [f"{name}: {len(rows)} numbers of {rows['recording'].nunique()} recordings ({models})."]
    for flag, part in rows[rows["flag"] != ""].groupby("flag"):
        shown = some((f"{r.recording} {r.metric} {r.value:g}" for r in part.itertuples()), 3)
        lines.append(f"  {flag}: {shown}. Kept as read, not converted, not drawn.")
    lines += [f"  note: {note}" for note in rows["note"].unique() if note]
    return "\n".join(lines)
