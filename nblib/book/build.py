"""`nblib book`: run the notebooks of the book's plan, lay out its source, render it, check the pages.

The source is one folder that mirrors the checkout, so links between pages are the same in both. A
file is only written when its content changed, so a second render is quick.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nblib.book import check, pages, tables
from nblib.book.pages import Links, artifact_path
from nblib.core import store
from nblib.core.errors import CorruptArtifact, NblibError
from nblib.report import all_runs, model_choice
from nblib.road.stage_registry import STAGES
from nblib.run import many, plan, sweep
from nblib.run.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd

PLAN = "params/sweeps/book.yml"
NOT_PAGES = ("_generated", "_build", "__pycache__", ".ipynb_checkpoints")
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.M)


def settled(notebook: str, values: dict[str, Any]) -> Path | None:
    """Artifact folder of this run when it is done and its executed notebook is there, else None."""
    folder = plan.job_of(notebook, values).done()
    return folder if folder and (folder / store.EXECUTED).is_file() else None


def run_plan(book: Sweep, n_jobs: int) -> dict[str, Path]:
    """Run what is not done yet, and what that rests on; return notebook -> artifact folder of the
    run that the book shows.

    Raises NblibError with the message of the first run that fails.
    """
    tasks = [run for runs in sweep.split_up(book, book.runs()) for run in runs]
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
    made = [f for f in made if (f / store.EXECUTED).is_file()]
    return max(made, key=lambda f: store.read_manifest(f)["created"], default=None)


# --- the source of the book ----------------------------------------------------------------------


class Layout:
    """Writes files of one folder, only those that changed, and removes those no longer wanted."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.written: set[Path] = set()

    def write(self, name: str, content: str | bytes) -> Path:
        """Put `content` into the file `name`."""
        path = self.folder / name
        data = content.encode() if isinstance(content, str) else content
        self.written.add(path)
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return path

    def copy(self, source: Path, name: str) -> Path:
        """Put a copy of the file `source` under `name`."""
        return self.write(name, source.read_bytes())

    def finish(self) -> None:
        """Remove every file that was not written in this round."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_file() and path not in self.written:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def put_artifacts(layout: Layout, folders: list[Path]) -> None:
    """Manifests and scores of these artifacts and of all that they were made from."""
    by_key: dict[str, list[Path]] = {}
    for folder in store.artifacts():
        by_key.setdefault(folder.name, []).append(folder)
    todo, done = list(folders), set()
    while todo:
        folder = todo.pop()
        if folder in done:
            continue
        done.add(folder)
        # A manifest that cannot be read is shown as it lies there; its row says "corrupt".
        with contextlib.suppress(CorruptArtifact):
            upstream = store.read_manifest(folder)["upstream"]
            for key in upstream:
                known = by_key.get(key, [])  # the same file under two ids has one key
                todo += [f for f in known if f.parts[-2] == folder.parts[-2]] or known
        for name in (store.MANIFEST, "metrics.json"):
            if (folder / name).is_file():
                layout.copy(folder / name, f"extra/{artifact_path(folder, name)}")


def lay_out(
    folder: Path, root: Path, shown_notebooks: dict[str, Path], table: pd.DataFrame
) -> list[pages.RunPage]:
    """Write the source of the book into `folder`; return the runs that have a page in it.

    root: the checkout; shown_notebooks: notebook name -> artifact folder whose executed notebook
    is shown in its place; table: the scan of the runs.
    """
    layout = Layout(folder)
    paged = pages.run_pages(table)
    links = Links.of(table, paged)
    compared = model_choice.paired(all_runs.comparable(table))
    figure = tables.comparison(table, links)
    headline = tables.headline(table, links, compared)
    parts = {
        "headline": f"{headline}\n\n{figure}" if headline else "",
        "verdicts": tables.verdicts(table, compared),
        "results": tables.results_table(table, links, pages.MOST_RUN_PAGES),
        "comparison": figure,
        "bench": pages.bench_table(root / "book" / "bench.json"),
    }
    for path in sorted((root / "book").rglob("*")):
        name = path.relative_to(root)
        if not path.is_file() or set(name.parts) & set(NOT_PAGES):
            continue
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            layout.write(str(name), MARK.sub(lambda mark: parts[mark[1]], text))
        else:
            layout.copy(path, str(name))
    for name, artifact in shown_notebooks.items():
        layout.write(f"notebooks/{name}.ipynb", pages.page_notebook(artifact, links))
    for page in paged:
        text = pages.page_notebook(page.folder, links, page.title)
        layout.write(f"runs/{page.slug}.ipynb", text)
    put_artifacts(layout, [*shown_notebooks.values(), *map(Path, table["folder"])])
    layout.write("book/_static/itables.js", tables.itables_files())
    layout.write("_toc.yml", toc((root / "_toc.yml").read_text(), paged))
    config = yaml.safe_load((root / "_config.yml").read_text())
    config["sphinx"]["config"]["html_extra_path"] = ["extra"]
    layout.write("_config.yml", yaml.safe_dump(config, sort_keys=False))
    layout.finish()
    return paged


def toc(text: str, runs: list[pages.RunPage]) -> str:
    """The table of contents with the pages of the runs below the results."""
    contents = yaml.safe_load(text)
    entries = [{"file": f"runs/{run.slug}", "title": run.short_title} for run in runs]
    for part in contents["parts"]:
        for chapter in part["chapters"]:
            if chapter["file"] == "book/results" and entries:
                chapter["sections"] = entries
    return yaml.safe_dump(contents, sort_keys=False)


# --- the pages -----------------------------------------------------------------------------------


def render(source: Path, output: Path, *, fresh: bool = False) -> Path:
    """Render the book with Jupyter Book, warnings being errors; return the folder of the pages."""
    if fresh:
        shutil.rmtree(output / "_build", ignore_errors=True)
    command = [
        str(Path(sys.executable).with_name("jupyter-book")), "build", str(source), "--path-output", str(output),
        "--warningiserror", "--keep-going", "--nitpick", "--quiet",
    ]  # fmt: skip
    answer = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if answer.returncode:
        # No half book, and a page that was read with a warning must warn again next time.
        shutil.rmtree(output / "_build", ignore_errors=True)
        raise NblibError(
            f"the book did not render without warnings:\n{answer.stderr.strip()}\n{answer.stdout.strip()[-2000:]}"
        )
    return output / "_build" / "html"


def build(n_jobs: int, no_run: bool, fresh: bool, output: Path | None) -> int:
    """`nblib book`: make the whole book and say what was made; returns the exit code.

    no_run: show what is there; fresh: render every page anew; output: the folder that gets
    `_build/html`, None = book/ of the checkout.
    """
    began, root = time.monotonic(), store.project_root()
    book = sweep.read(root / PLAN)
    shown = find_done(book) if no_run else run_plan(book, n_jobs)
    ran = time.monotonic()
    source = root / "book" / "_generated"
    paged = lay_out(source, root, shown, all_runs.scan())
    print("rendering the pages ...", flush=True)
    html = render(source, (output or root / "book").resolve(), fresh=fresh)
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
