"""What it costs to read very many runs: the audit of all, and the long table of their scores."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from measure import ROOT, Row, process

sys.path.insert(0, str(ROOT / "tests"))


def rows(*, runs: int = 10_000, at_most_s: float = 20.0) -> list[Row]:
    """Seconds of whole commands on a data root of so many runs, made for the purpose."""
    import many_runs
    import tiny_project
    from laboratory import Laboratory

    nblib = str(Path(sys.executable).parent / "nblib")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        project = tiny_project.make(Path(folder))
        env = tiny_project.environment(project)
        with mock.patch.dict(os.environ, env):
            many_runs.make(Laboratory(project), runs)
        for what in (["audit"], ["results", "--csv", str(Path(folder) / "scores.csv")]):
            began = time.perf_counter()
            process(nblib, *what, env=env)
            took = time.perf_counter() - began
            found.append(
                Row("results", f"nblib {' '.join(what[:2])}", took, limit=f"at most {at_most_s:g} s",
                    holds=took <= at_most_s, note=f"the whole command, {runs:,} small runs")
            )  # fmt: skip
    return found
