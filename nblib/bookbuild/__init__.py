"""`nblib book`: run the notebooks of the book's plan, render them, check what was rendered."""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nblib import params as P
from nblib import store
from nblib.bookbuild import check, pages
from nblib.errors import BadParameter, NblibError

PLAN = "params/sweeps/book.yml"
Job = tuple[str, dict[str, Any]]  # notebook, parameters


class Step(P.Params):
    """One step of the plan: a notebook, run once for each combination of the values in `each`."""

    notebook: str
    params: dict[str, Any] | None = None  # None: the parameters of the whole plan
    each: dict[str, list[Any]] = {}
    show: dict[str, Any] = {}

    def jobs(self, common: dict[str, Any]) -> list[Job]:
        """Every run of this step."""
        given = common if self.params is None else self.params
        combinations = itertools.product(*self.each.values())
        return [
            (self.notebook, {**given, **dict(zip(self.each, values, strict=True))})
            for values in combinations
        ]


class Plan(P.Params):
    """What the book runs: params/sweeps/book.yml."""

    sweep: str
    params: dict[str, Any] = {}
    steps: list[Step]


def read_plan(path: Path) -> Plan:
    """Read and check the plan; BadParameter names what is wrong in it."""
    values = P.read_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(values, dict):
        raise BadParameter(f"{path}: expected 'name: value' lines.")
    return P.checked(Plan, values, str(path))


def run_plan(plan: Plan, n_jobs: int) -> dict[str, Path]:
    """Run what is not done yet; return notebook -> artifact folder of the run that the book shows.

    Raises NblibError with the runner's message when a run fails.
    """
    from nblib import runner

    chosen: dict[str, Path] = {}
    for step in plan.steps:
        jobs = step.jobs(plan.params)
        outcomes = runner.run_many(jobs, n_jobs, progress=True)
        # Committed by hand in Jupyter, so without an executed notebook to show: run it here.
        again = [
            i
            for i, o in enumerate(outcomes)
            if o.code == 0 and not (o.folder / pages.EXECUTED).is_file()
        ]
        for i, outcome in zip(
            again, runner.run_many([jobs[i] for i in again], n_jobs, force=True), strict=True
        ):
            outcomes[i] = outcome
        failed = [o for o in outcomes if o.code]
        if failed:
            raise NblibError(
                f"{step.notebook}: {len(failed)} of {len(jobs)} runs failed, so there is no book. {failed[0].message}"
            )
        wanted = [i for i, (_, given) in enumerate(jobs) if step.show.items() <= given.items()]
        if not wanted:
            raise BadParameter(
                f"{PLAN}: no run of {step.notebook} has {step.show}, which it says to show."
            )
        chosen[step.notebook] = Path(outcomes[wanted[0]].folder)
    return chosen


def find_done(plan: Plan) -> dict[str, Path]:
    """Notebook -> artifact folder, out of what is committed already; nothing is run."""
    from nblib import runner

    chosen = {}
    for step in plan.steps:
        for notebook, given in step.jobs(plan.params):
            folder = runner.plan(notebook, given).folder or newest(notebook)
            shown = step.show.items() <= given.items()
            if shown and notebook not in chosen and folder and (folder / pages.EXECUTED).is_file():
                chosen[notebook] = folder
    return chosen


def newest(stage: str) -> Path | None:
    """The report made last, whatever it was made from."""
    found = [a for a in store.artifacts() if a.parts[-3] == stage]
    return max(found, key=lambda a: store.read_manifest(a)["created"], default=None)


def render(source: Path, output: Path, *, fresh: bool = False) -> Path:
    """Render the book with Jupyter Book, warnings being errors; return the folder of the pages."""
    if fresh:
        pages.clear(output / "_build")
    command = [
        str(Path(sys.executable).with_name("jupyter-book")), "build", str(source), "--path-output", str(output),
        "--warningiserror", "--keep-going", "--nitpick", "--quiet",
    ]  # fmt: skip
    told = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if told.returncode:
        # No half book, and a page that was read with a warning must warn again next time.
        pages.clear(output / "_build")
        raise NblibError(
            f"the book did not render without warnings:\n{told.stderr.strip()}\n{told.stdout.strip()[-2000:]}"
        )
    return output / "_build" / "html"


def build(root: Path, plan: Plan, *, n_jobs: int, run: bool, fresh: bool, output: Path) -> int:
    """Make the whole book and say what was made; returns the exit code."""
    from nblib import results

    began = time.monotonic()
    shown = run_plan(plan, n_jobs) if run else find_done(plan)
    missing = [step.notebook for step in plan.steps if step.notebook not in shown]
    if missing:
        raise NblibError(
            f"no finished run of {', '.join(missing)} to show; build without --no-run."
        )
    ran = time.monotonic()
    source = root / "book" / "_generated"
    paged = pages.lay_out(source, root, shown, results.scan())
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
            root, read_plan(root / PLAN), n_jobs=given.jobs, run=not given.no_run, fresh=given.fresh,
            output=(given.output or root / "book").resolve(),
        )  # fmt: skip
    except NblibError as error:
        print(f"nblib: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadParameter) else 1
