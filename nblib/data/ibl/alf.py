"""Files of an ALF folder: `_namespace_object.attribute.extra.extension`, revisions in folders `#name#`.

Source of the rules: https://int-brain-lab.github.io/ONE/alf_intro.html
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from nblib.core.errors import BadInput, MissingInput
from nblib.data.files.plain import read_table

NAME = re.compile(
    r"(?:_\w+?_)?(?P<object>\w+)\.(?P<attribute>\w+)(?:\.[\w-]+)*?\.(?P<kind>npy|pqt|csv)"
)


def find(folder: Path, name: str) -> Path | None:
    """The file `object.attribute` of a folder, whatever its namespace and further parts; None without.

    The newest revision wins, by its name; a file in no revision is the oldest. BadInput where two files
    of one revision have that name.
    """
    by_revision: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.*"), *folder.glob("#*#/*.*")]):
        parts = NAME.fullmatch(path.name)
        if parts and f"{parts['object']}.{parts['attribute']}" == name:
            by_revision.setdefault(revision(path), []).append(path)
    newest = by_revision[max(by_revision)] if by_revision else [None]
    if len(newest) > 1:
        raise BadInput(
            f"{newest[0].parent}: two files for {name}: {newest[0].name} and {newest[1].name}."
        )
    return newest[0]


def require(folder: Path, name: str) -> Path:
    """As `find`; MissingInput where there is none."""
    if (path := find(folder, name)) is None:
        raise MissingInput(f"{folder}: no file {name} (nor in a revision of it).")
    return path


def revision(path: Path) -> str:
    """Name of the revision that a file is of; "" for none."""
    return path.parent.name.strip("#") if path.parent.name.startswith("#") else ""


def read_columns(path: Path, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table of a `.pqt` or `.csv` file that has at least these columns; BadInput otherwise."""
    if path.suffix == ".csv":
        return read_table(path, columns)
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise BadInput(f"{path}: not readable as a table ({error}).") from None
    if missing := [c for c in columns if c not in table]:
        raise BadInput(
            f"{path}: no column {missing[0]!r}; its columns are {', '.join(map(str, table.columns))}."
        )
    return table
