"""A project of one-cell notebooks in a temporary folder, for the tests of runner and command line.

The notebooks are real ones (parameters cell, `nblib.begin`, `stage.commit`); their work is a line.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil

from nblib.core import store

RECIPE = """\
recipe: tiny
recordings: ["000021"]
source: nwb
path: {raw}
"""
COMMIT = "stage.commit(lambda folder: (folder / 'out.txt').write_text(str(stage.recording)))"


@dataclass(frozen=True)
class Project:
    root: Path
    home: Path

    def notebook(
        self, name: str, work: str = COMMIT, *, stage: str = "", parameters: str = ""
    ) -> Path:
        """Write notebooks/<name>.ipynb: parameters, begin, work."""
        stage = stage or name
        cell = nbformat.v4.new_code_cell
        own = (
            'recipe: str = "tiny"\nrecording: str = "000021"'
            if stage not in ("90_results", "91_search")
            else 'recipe: str = ""'
        )
        notebook = nbformat.v4.new_notebook(
            cells=[
                nbformat.v4.new_markdown_cell(f"# {name}"),
                cell(f"{own}\n{parameters}", metadata={"tags": ["parameters"]}),
                cell(f'import nblib\nstage = nblib.begin("{stage}", globals())'),
                *(cell(part) for part in work.split("\n---\n")),
            ],
            metadata={
                "kernelspec": {"name": "nblib", "language": "python", "display_name": "nblib"}
            },
        )
        path = self.root / "notebooks" / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    def recipe(self, name: str, recordings: list[str]) -> None:
        text = RECIPE.format(raw=self.root / "raw.nwb").replace("recipe: tiny", f"recipe: {name}")
        text = text.replace('["000021"]', json.dumps(recordings))
        (self.root / "params" / "recipes" / f"{name}.yml").write_text(text)

    def committed(self) -> list[Path]:
        return list(store.artifacts())

    def failed(self) -> list[Path]:
        return sorted((self.home / "failed").glob("*/*.ipynb"))

    def sockets(self) -> list[Path]:
        """Private folders of kernels that are still there."""
        return sorted(Path(os.environ["TMPDIR"]).glob("nblib-*"))


def make(root: Path) -> Project:
    """Lay out a project under `root`; the caller points the environment at it."""
    for folder in ("project/notebooks", "project/params/recipes", "home", "tmp"):
        (root / folder).mkdir(parents=True)
    project = Project(root / "project", root / "home")
    (project.root / "raw.nwb").write_bytes(b"a raw file, only hashed here")
    project.recipe("tiny", ["000021"])
    for stage in ("01_ingest", "02_bin", "03_clean"):
        project.notebook(
            stage,
            COMMIT if stage == "01_ingest" else f"stage.input(stage.info.upstream)\n---\n{COMMIT}",
        )
    return project


def enter(root: Path, monkeypatch) -> Project:
    """Lay out a project under `root` and point the environment at it for one test."""
    project = make(root)
    for name, value in environment(project).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", None)  # read TMPDIR again
    return project


def environment(project: Project) -> dict[str, str]:
    """Where this project and its data are; temporary files go beside them, to be counted."""
    return {
        "NBLIB_PROJECT": str(project.root),
        "NBLIB_HOME": str(project.home),
        "TMPDIR": str(project.root.parent / "tmp"),
    }


def wait_until(true: Callable[[], object], seconds: float = 90.0) -> None:
    """Return when `true()` holds; fail when it does not within so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    """Has this process ended?"""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
