"""Which recordings a sweep means: ids, files that match a pattern, or a query on a source's sessions."""

from __future__ import annotations

import glob
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from nblib.core import params as P
from nblib.core import recipes
from nblib.core.errors import BadParameter
from nblib.core.source_registry import SOURCES
from nblib.data import sources


class Recordings(P.Params):
    """Recordings that are not listed by hand: `files` or `query`, one of them.

    A query may go by the name of its source: `allen: {sex: F}` is `query: {sex: F}`.
    """

    files: str | None = Field(
        None, description="local files by a pattern, such as ~/nwb/*.nwb; an id is a file's name"
    )
    query: dict[str, Any] | None = Field(
        None, description="sessions by columns of their table: a value, a list, or {min, max}"
    )
    table: str | None = Field(
        None, description="file (CSV) of the sessions; None = ask where the source downloads them"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_source(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "query" in values:
            return values
        return {("query" if name in SOURCES else name): value for name, value in values.items()}

    @model_validator(mode="after")
    def _one(self) -> Recordings:
        if (self.files is None) == (self.query is None):
            raise ValueError("give either files or query")
        if self.table is not None and self.query is None:
            raise ValueError("table goes with query")
        return self


def settle(wanted: Recordings, recipe: str | None) -> tuple[str, list[str]]:
    """The recipe that holds the recordings meant, derived from `recipe`, and their ids, sorted.

    Raises BadParameter when nothing matches, files lie in several folders, an id could not be one,
    or the table of sessions has no such column.
    """
    if not isinstance(recipe, str):
        raise BadParameter("recordings by files or by query need `recipe` in params.")
    base = recipes.find_recipe(recipe)
    if wanted.query is not None and not sources.offered(base.source, "list_sessions"):
        raise BadParameter(
            f"recordings.query: recipe {recipe!r} is of source {base.source!r}, which lists no sessions."
        )
    if sources.is_simulated(base.source):
        raise BadParameter(
            f"recordings.files: recipe {recipe!r} simulates its recordings and reads no file."
        )
    if wanted.files is not None:
        ids, path = _matching(wanted.files)
        return recipes.derive(base, {"recordings": ids, "path": path}).recipe, ids
    ids = query(_sessions(wanted.table, base.source), wanted.query)
    return recipes.derive(base, {"recordings": ids}).recipe, ids


def _matching(pattern: str) -> tuple[list[str], str]:
    """Ids of the files that match, and the path that finds each of them."""
    full = str(Path(pattern).expanduser())
    if not Path(full).is_absolute():
        raise BadParameter(f"recordings.files = {pattern!r}: give an absolute path, or one with ~.")
    paths = sorted(Path(p) for p in glob.glob(full, recursive=True) if Path(p).is_file())  # noqa: PTH207 - a whole pattern
    if not paths:
        raise BadParameter(f"recordings.files = {pattern!r}: no file matches.")
    places = {(p.parent, p.suffix) for p in paths}
    if len(places) > 1:
        two = sorted(f"{folder}/*{suffix}" for folder, suffix in places)[:2]
        raise BadParameter(
            f"recordings.files = {pattern!r}: matches {' and '.join(two)}; one recipe finds files of "
            "one folder and ending, so write a step for each."
        )
    for path in paths:
        if not re.fullmatch(P.RECORDING_ID, path.stem):
            raise BadParameter(
                f"recordings.files: {path}: {path.stem!r} cannot be a recording id, which holds letters, "
                "digits, '.', '_' and '-' only; rename the file."
            )
    folder, suffix = places.pop()
    return [p.stem for p in paths], f"{folder}/{{recording}}{suffix}"


@cache
def _sessions(table: str | None, source: str) -> pd.DataFrame:
    """The table of sessions, looked up once a call: it may come over the network."""
    if table is None:
        return sources.offered(source, "list_sessions")("")
    try:
        sessions = pd.read_csv(Path(table).expanduser(), dtype={"session_id": str, "id": str})
    except (OSError, ValueError) as error:
        raise BadParameter(f"recordings.table = {table!r}: cannot be read ({error}).") from None
    name = next((n for n in ("session_id", "id") if n in sessions), None)
    if name is None:
        raise BadParameter(f"recordings.table = {table!r}: no column session_id.")
    return sessions.set_index(name)


def query(table: pd.DataFrame, wanted: dict[str, Any]) -> list[str]:
    """Ids (the index) of the rows that meet every condition, sorted.

    wanted: column -> a value; a list, of which one must hold; or {min, max}, both included. Where a
    cell holds a list of names, such as the structures, a value must be among them.
    """
    table = table.assign(**{table.index.name or "session_id": table.index})
    keep = np.ones(len(table), dtype=bool)
    for column, value in wanted.items():
        if column not in table:
            raise BadParameter(
                f"recordings.query: no column {column!r}; there are {', '.join(table.columns)}."
            )
        keep &= _meets(table[column], value)
    ids = sorted(str(i) for i in table.index[keep])
    if not ids:
        raise BadParameter(f"recordings.query = {wanted}: none of {len(table)} sessions is such.")
    return ids


def _meets(cells: pd.Series, value: Any) -> pd.Series:
    """Whether each cell of a column meets a condition."""
    name = f"recordings.query.{cells.name}"
    if isinstance(value, dict):
        if not value or set(value) - {"min", "max"}:
            raise BadParameter(f"{name} = {value}: expected min, max or both.")
        for number in [*cells.dropna(), *value.values()]:
            if isinstance(number, bool) or not pd.api.types.is_number(number):
                raise BadParameter(f"{name}: {number!r} is not a number.")
        return cells.between(value.get("min", -np.inf), value.get("max", np.inf))
    options = {_text(option) for option in (value if isinstance(value, list) else [value])}
    return cells.map(lambda cell: not options.isdisjoint(_names(cell)))


def _names(cell: Any) -> list[str]:
    if isinstance(cell, list) or str(cell).startswith("["):
        return re.findall(r"[^\[\]',\"\s]+", str(cell))
    return [_text(cell)]


def _text(value: Any) -> str:
    """110.0 and 110 are the same: a column with gaps is read as floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
