"""Which of a folder's pickles belongs to which NWB file, and what does not line up.

Files are matched by the session id in their names; no pickle is opened.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nblib.core.errors import BadInput, MissingInput, some
from nblib.data import hdf5
from nblib.data.lab_pickle import NAME as PICKLE_NAME

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
    nwb, pickles, places = defaultdict(list), defaultdict(set), defaultdict(list)
    problems = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".pkl", ".nwb")):
        place = path.relative_to(folder)
        if match := PICKLE_NAME.fullmatch(path.name):
            pickles[match[1]].add(match[2] or "?")
            if not match[2]:
                problems.append(f"{place}: the name does not tell the bins per presentation.")
        elif match := NWB_NAME.fullmatch(path.name):
            nwb[match[1]].append(path)
        else:
            if not LFP_NAME.fullmatch(path.name):
                problems.append(f"{place}: the name tells no session.")
            continue
        places[path.name].append(place)
    sessions = sorted({*nwb, *pickles}, key=int)
    bins = [", ".join(sorted(pickles[s], key=lambda b: b.zfill(3))) for s in sessions]
    table = pd.DataFrame(
        {"nwb": [len(nwb[s]) for s in sessions], "pickles": bins},
        index=pd.Index(sessions, name="session"),
    )
    for lacking, what in (
        (table.index[table["nwb"] == 0], "a pickle and no NWB file"),
        (table.index[table["pickles"] == ""], "an NWB file and no pickle"),
    ):
        if len(lacking):
            problems.append(f"{len(lacking)} sessions have {what}: {some(lacking, 12)}.")
    for name, several in sorted(places.items()):
        if len(several) > 1:
            problems.append(f"{name} lies in {len(several)} places: {some(several)}.")
    paths = [(path, session) for session in sessions for path in nwb[session]]
    problems += [fault for path, session in paths if (fault := _fault(path, session))]
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
