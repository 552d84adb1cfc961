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
from nblib.run import sweep
from nblib.run.sweep import Sweep

PLAN = "params/sweeps/book.yml"


def settled(notebook: str, given: dict[str, Any]) -> Path | None:
    """Artifact folder of this run when it is done and its executed notebook is there, else None."""
    from nblib.run import plan, reports

    job = plan.job_of(notebook, given)
    if job.recipe is None:
        return reports.there(job)
    folder = job.folder
    return folder if folder and (folder / pages.EXECUTED).is_file() else None


def run_plan(plan: Sweep, n_jobs: int) -> dict[str, Path]:
    """Run what is not done yet; return notebook -> artifact folder of the run that the book shows.

    Raises NblibError with the runner's message when a run fails.
    """
    from nblib.road import stages
    from nblib.run import many

    jobs = plan.runs()
    no_road = {
        name for name, info in stages.STAGES.items() if info.upstream is None and info.is_run
    }
    folders: list[Path | None] = [None] * len(jobs)
    is_report = [notebook in no_road for notebook, _ in jobs]
    for reports in (False, True):  # a report is of the runs that there will be
        for i in (i for i, is_one in enumerate(is_report) if is_one == reports):
            folders[i] = settled(*jobs[i])
        todo = [i for i, f in enumerate(folders) if f is None and is_report[i] == reports]
        # By force: a run made by hand in Jupyter is done, but left no executed notebook to show.
        outcomes = many.run_many([jobs[i] for i in todo], n_jobs, force=True) if todo else []
        failed = [outcome for outcome in outcomes if outcome.code]
        if failed:
            raise NblibError(
                f"{len(failed)} of {len(jobs)} runs failed, so there is no book. {failed[0].message}"
            )
        for i, outcome in zip(todo, outcomes, strict=True):
            folders[i] = Path(outcome.folder)
        if not reports and sweep.search_here(plan, n_jobs):
            raise NblibError("the search failed, so there is no book.")
    chosen: dict[str, Path] = {}
    first = 0
    for step in plan.steps:
        chosen.setdefault(step.notebook, folders[first + step.shown(plan.params)])
        first += len(step.runs(plan.params))
    return chosen


def find_done(plan: Sweep) -> dict[str, Path]:
    """Notebook -> artifact folder, out of what is done already; nothing is run.

    Where the plan's own run is not there, the newest one of that notebook is shown: its page says
    of what it is and when it was made.
    """
    chosen: dict[str, Path] = {}
    for step in plan.steps:
        if step.notebook in chosen:
            continue
        notebook, given = step.runs(plan.params)[step.shown(plan.params)]
        folder = settled(notebook, given) or newest(notebook)
        if folder is None:
            raise NblibError(f"{notebook}: no finished run to show; build without --no-run.")
        chosen[notebook] = folder
    return chosen


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


def build(root: Path, plan: Sweep, *, n_jobs: int, run: bool, fresh: bool, output: Path) -> int:
    """Make the whole book and say what was made; returns the exit code."""
    from nblib.report import results

    began = time.monotonic()
    shown = run_plan(plan, n_jobs) if run else find_done(plan)
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
