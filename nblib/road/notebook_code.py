"""The code of a notebook: what its file holds, what its kernel has run, and its fingerprint."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nblib.core import store
from nblib.core.errors import BadParameter, there_is
from nblib.core.markup import no_formula


def code_cells(notebook: Path) -> list[str]:
    """Sources of a notebook's code cells, without its parameters cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    skip = {"parameters", "injected-parameters"}
    return [
        "".join(c["source"]).strip()
        for c in cells
        if c["cell_type"] == "code" and not skip & set(c.get("metadata", {}).get("tags", []))
    ]


def code_hash(cells: list[str]) -> str:
    """16 hex digits of the cells, in order; empty ones do not count."""
    return hashlib.sha256("\0".join(c for c in cells if c).encode()).hexdigest()[:16]


def hash_of(notebook: Path) -> str:
    """The same of a notebook's file."""
    return code_hash(code_cells(notebook))


def own_notebook(name: str) -> Path:
    """The notebook file this kernel runs: told by the runner, else by Jupyter, else the shipped one."""
    shipped = store.notebooks_dir() / f"{name}.ipynb"
    for variable in ("NBLIB_NOTEBOOK", "JPY_SESSION_NAME"):
        path = Path(os.environ.get(variable, ""))
        if path.suffix == ".ipynb" and path.is_file():
            return path
    return shipped


def is_interactive() -> bool:
    """True in a notebook whose front end can ask its reader a question.

    Jupyter's front ends allow input with every cell they run; papermill, nbconvert and the book
    do not. That is the one thing in a kernel's sight that tells a person from a batch.
    """
    kernel = getattr(_shell(), "kernel", None)
    if kernel is None:
        return False
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin", False))


def show_no_formula() -> None:
    """Let no HTML that this kernel's cells show hold a formula: tables, counts and settings are full of
    names from the data, and some hold dollars."""
    if (shell := _shell()) is None:
        return
    from IPython.core.formatters import HTMLFormatter

    class TextOnly(HTMLFormatter):
        def __call__(self, shown: Any) -> Any:
            page = super().__call__(shown)
            return no_formula(page) if isinstance(page, str) else page

    shown_as = shell.display_formatter.formatters
    kept = ("singleton_printers", "type_printers", "deferred_printers")
    before = {name: getattr(shown_as["text/html"], name) for name in kept}
    shown_as["text/html"] = TextOnly(parent=shell.display_formatter, **before)


def executed_cells() -> list[str]:
    """Raw source of the cells this kernel has executed, oldest first; empty outside IPython."""
    history = getattr(_shell(), "history_manager", None)
    return [c.strip() for c in history.input_hist_raw if c.strip()] if history else []


def _shell() -> Any:
    """IPython's shell, None outside of it."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _assigned(source: str) -> list[str] | None:
    """Names that a cell of plain `name = literal` lines assigns; None for any other cell."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    names = []
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not isinstance(target, ast.Name):
            return None
        names.append(target.id)
    return names


def sets_parameters(cell: str, taken: Collection[str]) -> bool:
    """Whether a cell does nothing but assign values to parameters, of those in `taken`."""
    assigned = _assigned(cell)
    return assigned is not None and set(assigned) <= set(taken)


def check_injected(name: str, taken: Collection[str]) -> set[str]:
    """Names that papermill injected or a person typed; BadParameter for one not in `taken`.

    name: of the notebook, for the message. papermill itself only warns of an unknown name and
    runs with the defaults.
    """
    injected: set[str] = set()
    typed: set[str] = set()
    for cell in executed_cells():
        assigned = set(_assigned(cell) or [])
        if cell.startswith(("# Parameters", "# parameters")):
            injected |= assigned
        elif assigned & set(taken):
            typed = assigned  # the parameters cell as it was run last: a fault may have been mended
    injected |= typed
    check_names(name, injected, taken)
    return injected


def check_names(name: str, names: Collection[str], taken: Collection[str]) -> None:
    """BadParameter with a did-you-mean list for each name that the notebook does not take."""
    unknown = sorted(set(names) - set(taken))
    faults = [f"unknown parameter {one!r}; {there_is(taken, one)}" for one in unknown]
    if faults:
        raise BadParameter(f"{name}: {' '.join(faults)}")
