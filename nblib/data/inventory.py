"""Which of a folder's pickles belongs to which NWB file, and what does not line up.

Files are matched by the session id in their names; no pickle is opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nblib.core.errors import BadInput, MissingInput
from nblib.data.checks import some
from nblib.data.lab_pickle import NAME as PICKLE_NAME
from nblib.data.nwb import hdf5

NWB_NAME = re.compile(r"(?:ecephys_)?session_(\d+)\.nwb")
LFP_NAME = re.compile(r"probe_\d+_lfp\.nwb")  # of a session, but holds no spikes


@dataclass(frozen=True)
class Inventory:
    """What a folder holds: `table` has one row a session, `problems` one sentence each."""

    folder: Path
    table: pd.DataFrame
    problems: list[str]

    def __str__(self) -> str:
        shown = self.table.to_string() if len(self.table) else "no sessions"
        ending = [f"- {p}" for p in self.problems]
        heading = "what does not line up:" if ending else "everything lines up"
        return "\n".join([str(self.folder), shown, heading, *ending])


def inventory(folder: Path | str) -> Inventory:
    """Look through a folder and all below it.

    The table (index session id) tells for each session: `nwb` (how many files) and `pickles` (their
    bins per presentation). Raises MissingInput when there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingInput(f"{folder}: no such folder.")
    rows, problems = [], []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".pkl", ".nwb")):
        pickle, nwb = PICKLE_NAME.fullmatch(path.name), NWB_NAME.fullmatch(path.name)
        if pickle:
            rows.append((pickle[1], "pickle", pickle[2] or "?", path))
        elif nwb:
            rows.append((nwb[1], "nwb", "", path))
        elif not LFP_NAME.fullmatch(path.name):
            problems.append(f"{path.relative_to(folder)}: the name tells no session.")
    files = pd.DataFrame(rows, columns=["session", "kind", "bins", "path"])
    pickles, nwb = files[files["kind"] == "pickle"], files[files["kind"] == "nwb"]
    sessions = sorted(files["session"].unique(), key=int)
    table = pd.DataFrame(index=pd.Index(sessions, name="session"))
    table["nwb"] = nwb["session"].value_counts().reindex(sessions, fill_value=0)
    bins = pickles.groupby("session")["bins"].agg(
        lambda bins: ", ".join(sorted(set(bins), key=lambda b: b.zfill(3)))
    )
    table["pickles"] = bins.reindex(sessions, fill_value="")
    for lacking, what in (
        (table.index[table["nwb"] == 0], "a pickle and no NWB file"),
        (table.index[table["pickles"] == ""], "an NWB file and no pickle"),
    ):
        if len(lacking):
            problems.append(f"{len(lacking)} sessions have {what}: {some(lacking, 12)}.")
    for name, places in files.groupby(files["path"].map(lambda p: p.name))["path"]:
        if len(places) > 1:
            where = some(p.relative_to(folder) for p in places)
            problems.append(f"{name} lies in {len(places)} places: {where}.")
    for row in pickles.itertuples():
        if row.bins == "?":
            place = row.path.relative_to(folder)
            problems.append(f"{place}: the name does not tell the bins per presentation.")
    problems += [fault for row in nwb.itertuples() if (fault := _fault(row.path, row.session))]
    return Inventory(folder, table, problems)


def _fault(path: Path, session: str) -> str:
    """What is wrong with an NWB file whose name tells its session; "" when nothing is."""
    try:
        with hdf5.opened(path) as file:
            names = ("identifier", "general/session_id")
            inside = [hdf5.scalar_text(file, name) for name in names]
    except BadInput as error:
        return str(error)
    if any(name.isdigit() for name in inside) and session not in inside:
        return f"{path}: the file inside is of session {some(sorted(set(inside)))}."
    return ""
