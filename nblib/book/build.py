"""`nblib book`: run the notebooks of the book's plan, render them, check what was rendered."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nblib.book import check, layout, pages
from nblib.core import store
from nblib.core.errors import BadParameter, NblibError
from nblib.report import results
from nblib.road.stage_registry import STAGES
from nblib.run import many, plan, sweep
from nblib.run.sweep import Sweep

PLAN = "params/sweeps/book.yml"


def settled(notebook: str, values: dict[str, Any]) -> Path | None:
    """Artifact folder of this run when it is done and its executed notebook is there, else None."""
    folder = plan.job_of(notebook, values).done()
    return folder if folder and (folder / pages.EXECUTED).is_file() else None


def run_plan(book: Sweep, n_jobs: int) -> dict[str, Path]:
    """Run what is not done yet; return notebook -> artifact folder of the run that the book shows.

    Raises NblibError with the message of the first run that fails.
    """
    tasks = book.runs()
    reports = {name for name, info in STAGES.items() if info.upstream is None and info.is_run}
    for last in (False, True):  # a report is of the runs that there will be
        todo = [task for task in tasks if (task[0] in reports) == last and settled(*task) is None]
        # By force: a run made by hand in Jupyter is done, but left no executed notebook to show.
        exits = many.run_many(todo, n_jobs, force=True) if todo else []
        if failed := [one for one in exits if one.code]:
            raise NblibError(
                f"{len(failed)} of {len(tasks)} runs failed, so there is no book. {failed[0].message}"
            )
        if not last and sweep.search_here(book, n_jobs):
            raise NblibError("the search failed, so there is no book.")
    return find_done(book)


def find_done(book: Sweep) -> dict[str, Path]:
    """Notebook -> artifact folder, out of what is done already; nothing is run.

    Where the plan's own run is not there, the newest one of that notebook is shown: its page says
    of what it is and when it was made.
    """
    shown: dict[str, Path] = {}
    for step in book.steps:
        if step.notebook in shown:
            continue
        notebook, values = step.runs(book.params)[step.shown(book.params)]
        folder = settled(notebook, values) or newest(notebook)
        if folder is None:
            raise NblibError(f"{notebook}: no finished run to show; build without --no-run.")
        shown[notebook] = folder
    return shown


def newest(notebook: str) -> Path | None:
    """The artifact of this notebook made last, of those that hold their executed notebook."""
    made = [f for f in store.artifacts() if f.parts[-3] == notebook]
    made = [f for f in made if (f / pages.EXECUTED).is_file()]
    return max(made, key=lambda f: store.read_manifest(f)["created"], default=None)


def render(source: Path, output: Path, *, fresh: bool = False) -> Path:
    """Render the book with Jupyter Book, warnings being errors; return the folder of the pages."""
    if fresh:
        layout.clear(output / "_build")
    command = [
        str(Path(sys.executable).with_name("jupyter-book")), "build", str(source), "--path-output", str(output),
        "--warningiserror", "--keep-going", "--nitpick", "--quiet",
    ]  # fmt: skip
    told = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if told.returncode:
        # No half book, and a page that was read with a warning must warn again next time.
        layout.clear(output / "_build")
        raise NblibError(
            f"the book did not render without warnings:\n{told.stderr.strip()}\n{told.stdout.strip()[-2000:]}"
        )
    return output / "_build" / "html"


def build(root: Path, book: Sweep, *, n_jobs: int, run: bool, fresh: bool, output: Path) -> int:
    """Make the whole book and say what was made; returns the exit code."""
    began = time.monotonic()
    shown = run_plan(book, n_jobs) if run else find_done(book)
    ran = time.monotonic()
    source = root / "book" / "_generated"
    paged = layout.lay_out(source, root, shown, results.scan())
    print("rendering the pages ...", flush=True)
    html = render(source, output, fresh=fresh)
    faults, sizes = check.check(html)
    for fault in faults:
        print(f"nblib: {fault}", file=sys.stderr)
    if faults:
        return 1
    largest = max(sizes, key=sizes.get)
    print(
        f"{len(sizes)} pages, {len(paged)} of them runs, largest page {largest} ({sizes[largest] / 1e6:.2f} MB), no broken link, "
        f"nothing from the network. Runs {ran - began:.0f} s, pages {time.monotonic() - ran:.0f} s.\n"
        f"Open {html / 'index.html'}"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of `nblib book`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="nblib book", description=__doc__)
    parser.add_argument("--no-run", action="store_true", help="render what is there, run nothing")
    parser.add_argument("--fresh", action="store_true", help="render every page anew")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side (default 2)")
    parser.add_argument("--output", type=Path, help="folder that gets _build/html (default book/)")
    given = parser.parse_args(argv)
    root = store.project_root()
    try:
        return build(
            root, sweep.read(root / PLAN), n_jobs=given.jobs, run=not given.no_run, fresh=given.fresh,
            output=(given.output or root / "book").resolve(),
        )  # fmt: skip
    except NblibError as error:
        print(f"nblib: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadParameter) else 1
