"""Which of a folder's pickles belongs to which NWB file, and what does not line up.

Files are matched by the session id in their names; no pickle is opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nblib.core.errors import BadInput, MissingInput, some
from nblib.data import allen
from nblib.data.lab_pickle import NAME as PICKLE_NAME

NWB_NAME = re.compile(r"(?:ecephys_)?session_(\d+)\.nwb")
LFP_NAME = re.compile(r"probe_\d+_lfp\.nwb")  # of a session, but holds no spikes


@dataclass(frozen=True)
class Inventory:
    """What a folder holds: `table` has one row a session, `problems` one sentence each."""

    folder: Path
    table: pd.DataFrame
    problems: list[str]

    @property
    def exit_code(self) -> int:
        return int(bool(self.problems))

    def __str__(self) -> str:
        shown = self.table.to_string() if len(self.table) else "no sessions"
        heading = "what does not line up:" if self.problems else "everything lines up"
        return "\n".join([str(self.folder), shown, heading, *(f"- {p}" for p in self.problems)])


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
        place = path.relative_to(folder)
        if match := PICKLE_NAME.fullmatch(path.name) or NWB_NAME.fullmatch(path.name):
            bins = "" if path.suffix == ".nwb" else match[2] or "?"
            rows.append((match[1], path.suffix == ".nwb", bins, path.name, place))
            if bins == "?":
                problems.append(f"{place}: the name does not tell the bins per presentation.")
        elif not LFP_NAME.fullmatch(path.name):
            problems.append(f"{place}: the name tells no session.")
    files = pd.DataFrame(rows, columns=["session", "nwb", "pickles", "name", "place"])
    by_session = files.sort_values("session", key=lambda s: s.astype(int)).groupby(
        "session", sort=False
    )
    table = by_session.agg({"nwb": "sum", "pickles": _listed})
    for lacking, what in (
        (table.index[table["nwb"] == 0], "a pickle and no NWB file"),
        (table.index[table["pickles"] == ""], "an NWB file and no pickle"),
    ):
        if len(lacking):
            problems.append(f"{len(lacking)} sessions have {what}: {some(lacking, 12)}.")
    for name, places in files.groupby("name")["place"]:
        if len(places) > 1:
            problems.append(f"{name} lies in {len(places)} places: {some(places)}.")
    for row in files[files["nwb"].astype(bool)].itertuples():
        try:
            allen.check_session(folder / row.place, row.session)
        except BadInput as error:
            problems.append(str(error))
    return Inventory(folder, table, problems)


def _listed(bins: pd.Series) -> str:
    return ", ".join(sorted(set(bins) - {""}, key=lambda b: b.zfill(3)))
