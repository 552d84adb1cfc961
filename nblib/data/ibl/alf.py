"""Files of an ALF folder: `_namespace_object.attribute.extra.extension`, revisions in folders `#name#`.

Source of the rules: https://int-brain-lab.github.io/ONE/alf_intro.html
"""

from __future__ import annotations

import re
from pathlib import Path

from nblib.core.errors import BadInput, MissingInput

NAME = re.compile(
    r"(?:_\w+?_)?(?P<object>\w+)\.(?P<attribute>\w+)(?:\.[\w-]+)*?\.(?P<kind>npy|pqt|csv)"
)


def names(folder: Path) -> list[str]:
    """`object.attribute` of every file of a folder and its revisions."""
    parts = [NAME.fullmatch(p.name) for p in (*folder.glob("*.*"), *folder.glob("#*#/*.*"))]
    return sorted({f"{p['object']}.{p['attribute']}" for p in parts if p})


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
            f"{newest[0].parent}: two files for {name}: {newest[0].name} and {newest[1].name}; take one away."
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
