"""Notebooks in this process, without a kernel: their first cells, or all until they commit."""

from __future__ import annotations

from typing import Any

import nbformat

from nblib.core import store
from nblib.road import stages

ROAD = ("01_ingest", "02_bin", "03_clean", "04_split")


def begin(name: str, **given: Any) -> stages.Stage:
    """A stage as a notebook's validate cell makes it, with the parameters cell's defaults."""
    info = stages.STAGES[name]
    values = {k: f.default for k, f in info.params.model_fields.items()}
    return stages.begin(name, {**values, **dict.fromkeys(info.settings.model_fields), **given})


def by_hand(name: str, **given: Any) -> dict[str, Any]:
    """Run the cells of a notebook until it has committed; what it holds then, by name.

    given: follows its parameters cell.
    """
    names: dict[str, Any] = {}
    for cell in nbformat.read(store.notebooks_dir() / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            names.update(given)
            if "stage.commit(" in cell.source:
                return names
    raise AssertionError(f"{name} commits nothing")
