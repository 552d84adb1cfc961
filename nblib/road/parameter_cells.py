"""The parameters cell of each notebook, written from the classes that declare its parameters."""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any

from nblib.core import params as P
from nblib.core import store
from nblib.road import stages
from nblib.road.stage_registry import ReportParams

SHARED = {**P.Fit.model_fields, **P.Judge.model_fields}  # stand below what is the notebook's own


def parameters_cell(stage: str) -> str:
    """A line a parameter, `name: type = value  # meaning`, as papermill reads it."""
    info = stages.stage_info(stage)
    fields = info.params.model_fields
    names = sorted(fields, key=lambda n: (n not in ("recipe", "recording"), n in SHARED))
    lines = [_line(name, fields[name], fields[name].default) for name in names]
    settings = info.settings.model_fields
    if settings and not issubclass(info.params, ReportParams):
        lines.append("# None: as the recipe says")
        lines += [_line(name, field, None) for name, field in settings.items()]
    return "\n".join(lines)


def _line(name: str, field: Any, value: Any) -> str:
    meaning = field.description.replace(" = ", ": ")  # papermill reads one equals sign a line
    shown = json.dumps(value) if isinstance(value, str) else repr(value)
    if isinstance(value, list):
        shown = f"[{', '.join(json.dumps(v) for v in value)}]"
    return f"{name}: {_plain_type(field.annotation)} = {shown}  # {meaning}"


def _plain_type(declared: Any) -> str:
    """The plain type that papermill reads, for a declared one: `int` for `int | None`."""
    origin, parts = typing.get_origin(declared), typing.get_args(declared)
    if origin in (types.UnionType, typing.Union):
        return _plain_type(next(part for part in parts if part is not type(None)))
    if origin is typing.Literal:
        return type(parts[0]).__name__
    if origin is not None:
        return origin.__name__
    return "dict" if issubclass(declared, P.Params) else declared.__name__


def write_cells() -> list[Path]:
    """Bring the parameters cell of every shipped notebook up to date; the files that changed."""
    changed = []
    for stage in stages.STAGES:
        path = store.notebooks_dir() / f"{stage}.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        (cell,) = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
        source = parameters_cell(stage).splitlines(keepends=True)
        if cell["source"] != source:
            cell["source"] = source
            store.write_text(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
            changed.append(path)
    return changed
