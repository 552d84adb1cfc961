"""Notebooks whose cells run in this process, one after the other, without a kernel."""

from __future__ import annotations

from typing import Any

import nbformat

from nblib.core import store

ROAD = ("01_ingest", "02_bin", "03_clean", "04_split")


def by_hand(name: str, **given: Any) -> None:
    """Run the cells of a notebook until it has committed; `given` follows its parameters cell."""
    names: dict[str, Any] = {}
    for cell in nbformat.read(store.notebooks_dir() / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            names.update(given)
            if "stage.commit(" in cell.source:
                return
