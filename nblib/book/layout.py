"""Lay out the source of the book: prose, executed notebooks, one page per run, the tables.

Everything goes into one folder that mirrors the checkout, so links between pages are the same in
both. A file is only written when its content changed, so a second render is quick.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from nblib.book import pages, tables
from nblib.book.marks import Links, artifact_path
from nblib.core import store
from nblib.core.errors import CorruptArtifact
from nblib.report import model_choice, results

if TYPE_CHECKING:
    import pandas as pd

NOT_PAGES = ("_generated", "_build", "__pycache__", ".ipynb_checkpoints")
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.M)


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
    compared = model_choice.paired(results.comparable(table))
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
        layout.write(f"notebooks/{name}.ipynb", pages.page_notebook(artifact, "../", links))
    for page in paged:
        text = pages.page_notebook(page.folder, "../", links, page.title)
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


def clear(folder: Path) -> None:
    """Remove a folder and all in it, when it is there."""
    shutil.rmtree(folder, ignore_errors=True)
