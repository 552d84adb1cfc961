"""Every error a user can cause or meet: one clear sentence, never a wall."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class NblibError(Exception):
    """Base of all errors that nblib raises on purpose; `str(error)` is written for the user."""

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows of it: the sentence, not the thirty frames that lead to it."""
        return [f"{type(self).__name__}: {self}"]


def some(values: Iterable[Any], most: int = 5) -> str:
    """The first few values as text, with the count when there are more."""
    items = [str(v) for v in values]
    return ", ".join(items[:most]) + (f", … ({len(items)} in all)" if len(items) > most else "")


def there_is(names: Iterable[Any], name: str = "", most: int = 40) -> str:
    """What there is in place of a name that is not: those that are nearly it, else all; ends a sentence."""
    names = [str(there) for there in names]
    near = difflib.get_close_matches(name, names)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there is {some(names, most) or 'none'}."


class BadParameter(NblibError):
    """A parameter is unknown, of the wrong type or out of bounds (exit code 2)."""


class BadInput(NblibError):
    """A data file is broken or is not what its name promises; the message names file and field."""


class MissingInput(NblibError):
    """An artifact that a stage needs does not exist; the message holds the command that makes it."""


class CorruptArtifact(NblibError):
    """A stored file no longer has the bytes that its manifest recorded."""


class OutdatedArtifact(CorruptArtifact):
    """An artifact of an earlier version of nblib, whose manifest cannot be checked."""


class StorageError(NblibError):
    """The data root cannot be written: disk full, quota, permissions."""


class RunFailed(NblibError):
    """A notebook ran and did not commit its artifact (exit code 3)."""
