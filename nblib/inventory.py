"""Match a folder's pickles, NWB files and tables, and say what does not line up.

Files are matched by the session id in their names; no pickle is opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nblib.errors import BadInput, MissingInput
from nblib.sources import hdf5
from nblib.sources.checks import some
from nblib.sources.lab_pickle import NAME as PICKLE_NAME

NWB_NAME = re.compile(r"(?:ecephys_)?session_(\d+)\.nwb")
# The one column that names the session, by what it may be called, in this order.
SESSION_COLUMNS = ("ecephys_session_id", "session_id", "session", "session_number", "id")
ID_TABLES = {
    "sessions.csv": ("id", "ecephys_session_id", "session_id"),
    "session_details.csv": SESSION_COLUMNS,
}
TABLES = ("sessions.csv", "probes.csv", "channels.csv", "units.csv", "session_details.csv")


@dataclass(frozen=True)
class Inventory:
    """What a folder holds: `table` has one row a session, `problems` one sentence each."""

    folder: Path
    table: pd.DataFrame
    problems: list[str]

    def __str__(self) -> str:
        shown = self.table.to_string() if len(self.table) else "no sessions"
        if not self.problems:
            return f"{self.folder}\n{shown}\neverything lines up"
        return "\n".join(
            [f"{self.folder}", shown, "what does not line up:", *(f"- {p}" for p in self.problems)]
        )


def inventory(folder: Path | str) -> Inventory:
    """Look through a folder and all below it.

    The table (index session id) tells for each session: `nwb` (files), `pickles` (their bins per
    presentation), and for each CSV table there whether it names the session. Raises MissingInput
    when there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingInput(f"{folder}: no such folder.")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    problems: list[str] = []
    nwb = _by_session(files, NWB_NAME)
    pickles = _by_session(files, PICKLE_NAME)
    tables = _tables(files, problems)
    named = {name: _sessions_of(path, table, problems) for name, (path, table) in tables.items()}
    listed = {name: ids for name, ids in named.items() if ids is not None}
    everyone = sorted(set(nwb) | set(pickles) | set(listed.get("session_details.csv", ())), key=int)
    rows = {
        "nwb": [len(nwb.get(s, [])) for s in everyone],
        "pickles": [
            ", ".join(sorted({_bins(p) for p in pickles.get(s, [])}, key=_number)) for s in everyone
        ],
        **{name: [s in ids for s in everyone] for name, ids in listed.items()},
    }
    _match(nwb, pickles, listed, problems)
    _twice(folder, nwb, pickles, problems)
    _unreadable(folder, nwb, pickles, problems)
    _strangers(folder, files, problems)
    if "session_details.csv" in tables:
        _accuracies(*tables["session_details.csv"], problems)
    return Inventory(folder, pd.DataFrame(rows, index=pd.Index(everyone, name="session")), problems)


def _by_session(files: list[Path], name: re.Pattern) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in files:
        if match := name.fullmatch(path.name):
            found.setdefault(match[1], []).append(path)
    return found


def _bins(path: Path) -> str:
    return PICKLE_NAME.fullmatch(path.name)[2] or "?"


def _number(bins: str) -> int:
    return int(bins) if bins.isdigit() else 0


def _tables(files: list[Path], problems: list[str]) -> dict[str, tuple[Path, pd.DataFrame]]:
    """The known CSV tables by name; where one lies in several folders, the highest of them."""
    found: dict[str, tuple[Path, pd.DataFrame]] = {}
    for name in TABLES:
        here = sorted((p for p in files if p.name.lower() == name), key=lambda p: (len(p.parts), p))
        if len(here) > 1:
            problems.append(f"{name} lies in {len(here)} places ({some(here)}); {here[0]} is used.")
        if not here:
            continue
        try:
            found[name] = here[0], pd.read_csv(here[0], low_memory=False)
        except (OSError, ValueError, pd.errors.ParserError) as error:
            problems.append(f"{here[0]}: not readable as a table ({error}).")
    return found


def _sessions_of(path: Path, table: pd.DataFrame, problems: list[str]) -> set[str] | None:
    """Session ids that a table names; None when it names none."""
    lower = {str(c).strip().lower(): c for c in table.columns}
    wanted = ID_TABLES.get(path.name.lower(), ("ecephys_session_id",))
    column = next((lower[c] for c in wanted if c in lower), None)
    if column is None:
        if path.name.lower() in ID_TABLES:
            problems.append(
                f"{path.name}: no column names the session; its columns are {some(table.columns, 40)}."
            )
        return None
    numbers = pd.to_numeric(table[column], errors="coerce")
    bad = np.flatnonzero(numbers.isna())
    if len(bad):
        problems.append(f"{path.name}: column {column!r} holds no session id in row {some(bad)}.")
    return {str(int(n)) for n in numbers.dropna().unique()}


def _match(nwb: dict, pickles: dict, listed: dict[str, set[str]], problems: list[str]) -> None:
    def tell(sessions: set[str], what: str) -> None:
        if sessions:
            problems.append(f"{len(sessions)} {what}: {some(sorted(sessions, key=int), 12)}.")

    tell(set(pickles) - set(nwb), "sessions have a pickle and no NWB file")
    tell(set(nwb) - set(pickles), "sessions have an NWB file and no pickle")
    files = set(nwb) | set(pickles)
    if "session_details.csv" in listed:
        details = listed["session_details.csv"]
        tell(
            details - files, "sessions of session_details.csv have neither a pickle nor an NWB file"
        )
        tell(files - details, "sessions with files are not in session_details.csv")
    for name in ("sessions.csv", "units.csv"):
        if name in listed:
            tell(files - listed[name], f"sessions with files are not in {name}")


def _twice(folder: Path, nwb: dict, pickles: dict, problems: list[str]) -> None:
    for found in (nwb, pickles):
        by_name: dict[str, list[Path]] = {}
        for path in (p for paths in found.values() for p in paths):
            by_name.setdefault(path.name, []).append(path.relative_to(folder))
        for name, places in by_name.items():
            if len(places) > 1:
                problems.append(f"{name} lies in {len(places)} places: {some(places)}.")


def _unreadable(folder: Path, nwb: dict, pickles: dict, problems: list[str]) -> None:
    for session, paths in nwb.items():
        for path in paths:
            try:
                with hdf5.opened(path) as file:
                    told = (
                        hdf5.scalar_text(file, "identifier"),
                        hdf5.scalar_text(file, "general/session_id"),
                    )
            except BadInput as error:
                problems.append(str(error))
                continue
            if any(t.isdigit() for t in told) and session not in told:
                problems.append(
                    f"{path.relative_to(folder)}: the file inside is of session {some(set(told))}."
                )
    for path in (p for paths in pickles.values() for p in paths):
        if path.stat().st_size == 0:
            problems.append(f"{path.relative_to(folder)}: the file is empty.")
        if _bins(path) == "?":
            problems.append(
                f"{path.relative_to(folder)}: the name does not tell the bins per presentation."
            )


def _strangers(folder: Path, files: list[Path], problems: list[str]) -> None:
    """Pickles and NWB files whose names do not tell a session."""
    known = (PICKLE_NAME, NWB_NAME, re.compile(r"probe_\d+_lfp\.nwb"))
    odd = [
        p.relative_to(folder)
        for p in files
        if p.suffix in (".pkl", ".nwb") and not any(k.fullmatch(p.name) for k in known)
    ]
    if odd:
        problems.append(
            f"{len(odd)} pickles or NWB files carry no session id in the expected form: {some(odd)}."
        )


def _accuracies(path: Path, table: pd.DataFrame, problems: list[str]) -> None:
    """Accuracies outside [0, 1], told apart from percentages."""
    for column in table.columns:
        if "acc" not in str(column).lower():
            continue
        values = pd.to_numeric(table[column], errors="coerce")
        out = values[(values > 1) | (values < 0)]
        if not len(out):
            continue
        percent = int(((out > 1.5) & (out <= 100)).sum())
        problems.append(
            f"{path.name}: {column} is outside [0, 1] in {len(out)} of {len(values)} rows (row {some(out.index)}: "
            f"{some(out)}); {percent} could be percentages, {len(out) - percent} are neither fraction nor percentage."
        )
