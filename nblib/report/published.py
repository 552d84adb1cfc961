"""Numbers that others published, as rows beside ours: read with their provenance, never mixed in.

Three kinds of file are read: the lab's `3_shot_MODEL_per_mouse.csv`, its `session_details.csv`, and
a tidy table that states unit, selection and source (`TIDY`). Those of the project lie in
`params/published`, those that `nblib published FILE` took in under the data root.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from nblib.core import rawfiles, store
from nblib.core.errors import BadInput, MissingInput, some
from nblib.core.params import RECORDING_ID

COLUMNS = ("recording", "model", "metric", "value", "unit", "variant", "selected", "provenance", "flag", "note")  # fmt: skip
TIDY = ("recording", "model", "metric", "value", "unit", "selected", "source")
LAB_FILE = re.compile(r"3_shot_([A-Za-z0-9_-]+)_per_mouse\.csv", re.IGNORECASE)
DETAILS = "session_details.csv"
DETAILS_MODEL = "LSTM"  # the lab's table of its LSTM runs; it names no model
SESSION = ("mouse_number", "session_number", "session_id", "ecephys_session_id", "session", "id")
SCORES = {
    "test_acc": "accuracy", "test_accuracy": "accuracy", "train_acc": "train_accuracy",
    "train_accuracy": "train_accuracy", "val_acc": "val_accuracy", "val_accuracy": "val_accuracy",
}  # fmt: skip
UNKNOWN, EMPTY = "unit unknown", "no value"
# Above 1 no number is a fraction. Up to 2, beside percentages, it may be a percentage near chance
# or a fraction that went astray, and nothing in the file tells which.
UNSURE_UP_TO = 2.0
PERCENT = {"percent": 100.0, "fraction": 1.0}


def folder() -> Path:
    """Where tables of published numbers lie that somebody took in."""
    return store.home() / "published"


def files() -> list[Path]:
    """Every table of published numbers: those of the project, then those of the data root."""
    shipped = store.project_root() / "params" / "published"
    return [path for place in (shipped, folder()) for path in sorted(place.glob("*.csv"))]


def _check_place(path: Path) -> None:
    """BadInput when the data root holds other published numbers under this file's name."""
    place = folder() / path.name
    if place.is_file() and place.read_text("utf-8-sig") != path.read_text("utf-8-sig"):
        raise BadInput(f"{path}: {place} holds other numbers under that name; delete it first.")


def read(path: Path) -> pd.DataFrame:
    """The published numbers of one file, one row a number; columns as in `COLUMNS`.

    `value` is a fraction, or, where `flag` says "unit unknown", what the file holds, unchanged.
    `flag` also marks an empty cell, "no value", and a line that says what an earlier one says. Raises MissingInput for no file,
    BadInput naming file, row, column and value for what cannot be read.
    """
    header, lines = _lines(path)
    if match := LAB_FILE.fullmatch(path.name):
        rows = _lab_rows(path, header, lines, match[1])
    elif path.name.lower() == DETAILS:
        rows = _lab_rows(path, header, lines, DETAILS_MODEL)
    else:
        rows = _tidy_rows(path, header, lines)
    table = pd.DataFrame(rows, columns=[*COLUMNS, "_line"])
    _flag_repeats(table)
    return table.drop(columns="_line").astype({"value": float})


def table() -> pd.DataFrame:
    """All published numbers that the project and the data root hold."""
    parts = [read(path) for path in files()]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def beside(recordings: Iterable[str]) -> pd.DataFrame:
    """The published numbers of these recordings alone: no other may stand next to a run of ours."""
    everything = table()
    return everything[everything["recording"].isin(set(recordings))].reset_index(drop=True)


def contents(recordings: Iterable[str]) -> list[str]:
    """16 hex digits of each table that holds numbers of these recordings: what a report rests on."""
    wanted = set(recordings)
    there = [p for p in files() if wanted & set(read(p)["recording"])]
    return sorted(rawfiles.file_hash(path)[:16] for path in there)


def sure(rows: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """The published test scores that may be drawn: no flag, their unit known."""
    return rows[(rows["flag"] == "") & (rows["metric"] == metric)]


def take_in(paths: Iterable[Path]) -> str:
    """Check each file, copy it into the data root, and say what was read and what was flagged.

    Nothing is copied when one of them is refused. Raises what `read` raises, and BadInput for a
    name that stands for other numbers already.
    """
    read_in = [(path, read(path)) for path in paths]
    for path, _ in read_in:
        _check_place(path)
    told = []
    for path, rows in read_in:
        store.write_text(folder() / path.name, path.read_text(encoding="utf-8-sig"))
        told.append(describe(path.name, rows))
    return "\n".join(told)


def describe(name: str, rows: pd.DataFrame) -> str:
    """What a file holds, in a few lines: numbers, recordings, models, flags and notes."""
    models = ", ".join(sorted(set(rows["model"])))
    lines = [f"{name}: {len(rows)} numbers of {rows['recording'].nunique()} recordings ({models})."]
    for flag, part in rows[rows["flag"] != ""].groupby("flag"):
        shown = some((f"{r.recording} {r.metric} {r.value:g}" for r in part.itertuples()), 3)
        lines.append(f"  {flag}: {shown}. Kept as read, not converted, not drawn.")
    lines += [f"  note: {note}" for note in rows["note"].unique() if note]
    return "\n".join(lines)


# --- reading -------------------------------------------------------------------------------------


def _lines(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header, and each line that holds something with its number; cells are text without margins."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            raw = [(reader.line_num, [c.strip() for c in cells]) for cells in reader if any(cells)]
    except FileNotFoundError:
        raise MissingInput(f"{path}: no such file.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: not readable as a table ({error}).") from None
    if len(raw) < 2:
        raise BadInput(f"{path}: a header and at least one row expected.")
    header = raw[0][1]
    if twice := [name for name in header if header.count(name) > 1]:
        raise BadInput(f"{path}: column {twice[0]!r} stands twice.")
    for line, cells in raw[1:]:
        if len(cells) != len(header):
            raise BadInput(f"{path}, row {line}: {len(cells)} cells, the header has {len(header)}.")
    return header, [(line, dict(zip(header, cells, strict=True))) for line, cells in raw[1:]]


def _lab_rows(path: Path, header: list[str], lines: list, model: str) -> list[dict]:
    """Rows of a table of the lab: unit judged column by column, the model by the file's name."""
    session = next((name for name in SESSION if name in header), None)
    if session is None:
        raise BadInput(f"{path}: no column of sessions; expected one of {', '.join(SESSION)}, found {', '.join(header)}.")  # fmt: skip
    scores = [name for name in header if name in SCORES]
    if not scores:
        raise BadInput(f"{path}: no column of scores; expected one of {', '.join(SCORES)}, found {', '.join(header)}.")  # fmt: skip
    selected = "best epoch on the test rows" if "epochs" in header else "as reported, no validation"
    settings = [name for name in header if name not in (session, "model", *scores)]
    rows = []
    for column in scores:
        given = [(n, _number(path, n, column, cell[column])) for n, cell in lines if cell[column]]
        judged = dict(zip([n for n, _ in given], units([v for _, v in given]), strict=True))
        values = dict(given)
        for line, cell in lines:
            named, unit = cell.get("model", ""), judged.get(line, "")
            differs = named != "" and _same_name(named) != _same_name(model)
            note = f"its model column says {named!r}; the file's name is taken" if differs else ""
            rows.append({
                "recording": _recording(path, line, session, cell[session]), "model": model,
                "metric": SCORES[column],
                "value": values.get(line, float("nan")) / PERCENT.get(unit, 1.0),
                "unit": "fraction" if unit in PERCENT else unit,
                "variant": ", ".join(f"{name}={cell[name]}" for name in settings if cell[name]),
                "selected": selected, "provenance": f"{path.name}, row {line}",
                "flag": {"unknown": UNKNOWN, "": EMPTY}.get(unit, ""), "note": note, "_line": line,
            })  # fmt: skip
    return rows


def _tidy_rows(path: Path, header: list[str], lines: list) -> list[dict]:
    """Rows of a table that states unit, selection and source itself."""
    if missing := [name for name in TIDY if name not in header]:
        raise BadInput(
            f"{path}: column {missing[0]!r} is missing. Expected 3_shot_MODEL_per_mouse.csv, {DETAILS}, or a "
            f"table with the columns {', '.join(TIDY)}."
        )
    rows = []
    for line, cell in lines:
        if empty := [name for name in TIDY if cell[name] == ""]:
            raise BadInput(f"{path}, row {line}, column {empty[0]!r}: empty.")
        value = _number(path, line, "value", cell["value"])
        if cell["unit"] not in PERCENT:
            raise BadInput(f"{path}, row {line}, column 'unit': {cell['unit']!r}; expected percent or fraction.")  # fmt: skip
        if value > PERCENT[cell["unit"]]:
            raise BadInput(f"{path}, row {line}, column 'value': {cell['value']!r} is no {cell['unit']}.")  # fmt: skip
        settings = [name for name in header if name not in (*TIDY, "note")]
        rows.append({
            "recording": _recording(path, line, "recording", cell["recording"]),
            "model": cell["model"], "metric": cell["metric"],
            "value": value / PERCENT[cell["unit"]], "unit": "fraction",
            "variant": ", ".join(f"{name}={cell[name]}" for name in settings if cell[name]),
            "selected": cell["selected"], "provenance": f"{cell['source']}; {path.name}, row {line}",
            "flag": "", "note": cell.get("note", ""), "_line": line,
        })  # fmt: skip
    return rows


def units(values: list[float]) -> list[str]:
    """Unit of each value of one column, between 0 and 100: "fraction", "percent" or "unknown".

    All in [0, 1]: fractions. Otherwise what lies above 2 is a percentage, as a fraction cannot,
    and of what lies below nothing in the column tells which it is.
    """
    if all(value <= 1 for value in values):
        return ["fraction"] * len(values)
    return ["percent" if value > UNSURE_UP_TO else "unknown" for value in values]


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{path}, row {line}, column {column!r}: {text!r} is no number.") from None
    if not 0 <= value <= 100:
        raise BadInput(
            f"{path}, row {line}, column {column!r}: {text!r} is neither a fraction nor a percentage."
        )
    return value


def _recording(path: Path, line: int, column: str, text: str) -> str:
    if not re.fullmatch(RECORDING_ID, text):
        raise BadInput(f"{path}, row {line}, column {column!r}: {text!r} is no recording id.")
    return text


def _same_name(model: str) -> str:
    return re.sub(r"[^a-z0-9]", "", model.lower())


def _flag_repeats(rows: pd.DataFrame) -> None:
    """Flag numbers of a recording, model and settings that an earlier line gave already."""
    first: dict[tuple, int] = {}
    for i, row in rows.iterrows():
        who = tuple(row[["recording", "model", "metric", "variant"]])
        earlier = first.setdefault(who, row["_line"])
        if earlier != row["_line"]:
            again = f"repeats row {earlier}"
            rows.loc[i, "flag"] = ", ".join(filter(None, [row["flag"], again]))
