"""Functions in processes of their own that begin at once: forks of the tests', imports done."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

FORK = multiprocessing.get_context("fork")


class Fork(FORK.Process):
    """`body(*arguments)` in a process that is at work as soon as this is made."""

    def __init__(self, body: Callable[..., Any], *arguments: Any):
        super().__init__()
        self.body, self.arguments = body, arguments
        self.told = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `done`
        self.start()

    def run(self) -> None:
        for number in (1, 2):
            os.dup2(self.told.fileno(), number)
        sys.stdout = sys.stderr = self.told
        self.body(*self.arguments)

    def done(self, code: int = 0, seconds: float = 60.0) -> str:
        """What it printed; fails unless it ends within so many seconds with this exit code."""
        self.join(seconds)
        with self.told as told:
            told.seek(0)
            said = told.read()
        assert self.exitcode == code, said
        return said
