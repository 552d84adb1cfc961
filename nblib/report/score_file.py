"""A file of all scores: each with the parameters and settings behind it, published numbers beside them."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from nblib.core.errors import StorageError
from nblib.report import published
from nblib.report.all_runs import IDENTITY, OF_RESULT, SCORE
from nblib.report.one_run import Run, Unreadable

# The columns of a file: these, then `param_NAME` and `setting_NAME`.
MANIFEST_OF_FILE = (
    "created", "code_version", "host", "job_id", "threads", "wall_s", "peak_rss_bytes", "peak_gpu_bytes",
)  # fmt: skip
FILE = (
    "source", *IDENTITY, "metric", *SCORE, *OF_RESULT, *MANIFEST_OF_FILE, "selected", "provenance", "note",
)  # fmt: skip


def with_settings(table: pd.DataFrame, runs: list[Run | Unreadable]) -> pd.DataFrame:
    """A table of `all_runs.scores` for a file, and the published numbers of its recordings beside it.

    `source` tells runs ("run") from numbers that others published ("published"). After `FILE`
    follow `param_NAME` for each parameter of a notebook and `setting_NAME` for each setting of a
    recipe; lists and mappings are JSON text. Each column is of one type.
    """
    folders = set(table["folder"])
    of_runs = pd.DataFrame([_of_run(r) for r in runs if str(r.folder) in folders], dtype=object)
    if len(of_runs):
        twice = [name for name in of_runs if name in table and name != "folder"]
        table = table.drop(columns=twice).merge(of_runs, how="left", on="folder")
    others = published.beside(table["recording"]).assign(source="published")
    both = pd.concat([table, others]) if len(others) else table
    more = sorted(name for name in both if name.startswith(("param_", "setting_")))
    return both.reindex(columns=[*FILE, *more]).reset_index(drop=True).apply(_of_one_type)


def write(table: pd.DataFrame, csv: str | None = None, parquet: str | None = None) -> None:
    """Write a table of `with_settings` as CSV, Parquet or both; StorageError for one that cannot be."""
    for path, save in ((csv, table.to_csv), (parquet, table.to_parquet)):
        if path is not None:
            try:
                save(path, index=False)
            except OSError as error:
                raise StorageError(
                    f"{path}: cannot be written ({error.strerror or error})."
                ) from None


def _of_run(run: Run | Unreadable) -> dict[str, Any]:
    """What all scores of a run share: where they are from, manifest, parameters, settings."""
    folder = str(run.folder)
    shared = {"folder": folder, "source": "run", "provenance": folder, "note": ""}
    shared["selected"] = "on validation rows"
    if isinstance(run, Unreadable):
        return shared
    manifest = run.manifest
    settings = {
        k: v for k, v in (manifest["recipe"] or {}).items() if k not in ("recipe", "recordings")
    }
    parameters = {k: v for k, v in manifest["parameters"].items() if k not in settings}
    shared |= {name: manifest.get(name) for name in MANIFEST_OF_FILE}
    shared |= {f"setting_{k}": _cell(v) for k, v in settings.items()}
    return shared | {f"param_{k}": _cell(v) for k, v in parameters.items()}


def _cell(value: Any) -> Any:
    """A value that a table can hold: lists and mappings as JSON, infinities as numbers."""
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    return float(value) if value in ("inf", "-inf") else value


def _of_one_type(column: pd.Series) -> pd.Series:
    """Truth, whole number, number or text."""
    kinds = {type(v) for v in column[column.notna()].astype(object)}
    if not kinds:
        return column
    if kinds <= {bool}:
        return column.astype("boolean")
    if kinds <= {int}:
        return column.astype("Int64")
    if kinds <= {int, float}:
        return column.astype(float)
    return column.map(lambda v: v if isinstance(v, str) else json.dumps(v), na_action="ignore")
