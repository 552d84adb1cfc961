"""The long table: every score of every run with its parameters and manifest, and published numbers.

One row a run, result and score. `source` tells runs ("run") from numbers that others published
("published"), which stand only beside runs of the same recording.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from nblib.core.errors import StorageError
from nblib.report import published, results
from nblib.report.runs import Run

IDENTITY = (
    "notebook", "group", "recipe", "base", "changed", "recording", "model", "fold", "seed", "variant",
)  # fmt: skip
FROM_SCAN = (
    "split_hash", "n_train", "n_val", "n_test", "n_classes", "n_units", "n_bins", "val_accuracy",
    "fit_s", "stage_version", "edited", "executed", "run", "key", "folder", "flag",
)  # fmt: skip
SCORE = ("value", "ci_low", "ci_high", "chance", "p", "n", "unit")
MANIFEST = (
    "created", "code_version", "host", "job_id", "threads", "wall_s", "peak_rss_bytes", "peak_gpu_bytes",
)  # fmt: skip
COLUMNS = (
    "source", *IDENTITY, "metric", *SCORE, *FROM_SCAN, *MANIFEST, "selected", "provenance", "note",
)  # fmt: skip
NOT_A_SETTING = ("recipe", "recordings")
SELECTED = "on validation rows"


def long_table(runs: list[Run | results.Unreadable], table: pd.DataFrame) -> pd.DataFrame:
    """All scores of runs, and the published ones of their recordings beside them.

    table: the scan of these runs (`results.table_of`), or some rows of it.
    After `COLUMNS` follow `param_NAME` for each parameter of a notebook and `setting_NAME` for
    each setting of a recipe; lists and mappings are JSON text. Scores are fractions unless `unit`
    says otherwise. `flag` as in the scan: a row with one must not be averaged. A corrupt run
    is one row without a score.
    """
    by_folder = {str(run.folder): run for run in runs}
    folders = pd.Index(table["folder"].unique())
    details = _typed(pd.DataFrame([_details(by_folder[f]) for f in folders], dtype=object))
    scan = _typed(table[[*IDENTITY, *FROM_SCAN]].astype(object))
    rows, scores = [], []  # of each score, its row of the scan
    for i, folder, result, known in table[["folder", "result", "metric"]].itertuples():
        found = {None: {}} if known is None else by_folder[folder].results[result]["scores"]
        for metric, score in found.items():
            rows.append(i)
            scores.append({"metric": metric} | {name: score.get(name) for name in SCORE})
    of_run = folders.get_indexer(table.loc[rows, "folder"])
    parts = [
        scan.loc[rows], details.iloc[of_run],
        _typed(pd.DataFrame(scores, columns=["metric", *SCORE], dtype=object)),
    ]  # fmt: skip
    ours = pd.concat([part.reset_index(drop=True) for part in parts], axis=1)
    others = published.beside(table["recording"]).assign(source="published")
    both = pd.concat([ours, others]) if len(others) else ours
    more = sorted(set(both) - set(COLUMNS), key=lambda name: (name.startswith("setting_"), name))
    return both.reindex(columns=[*COLUMNS, *more]).reset_index(drop=True)


def write(table: pd.DataFrame, csv: str | None = None, parquet: str | None = None) -> None:
    """Write the long table to a CSV file, a Parquet file, or both.

    Raises StorageError when a file cannot be written.
    """
    for path, save in ((csv, table.to_csv), (parquet, table.to_parquet)):
        if path is not None:
            try:
                save(path, index=False)
            except OSError as error:
                raise StorageError(
                    f"{path}: cannot be written ({error.strerror or error})."
                ) from None


def _details(run: Run | results.Unreadable) -> dict[str, Any]:
    """What all scores of a run share: where they are from, manifest, parameters, settings."""
    shared = {"source": "run", "provenance": str(run.folder), "selected": SELECTED, "note": ""}
    if isinstance(run, results.Unreadable):
        return shared
    manifest = run.manifest
    shared |= {name: manifest.get(name) for name in MANIFEST}
    settings = {k: v for k, v in (manifest["recipe"] or {}).items() if k not in NOT_A_SETTING}
    given = {k: v for k, v in manifest["parameters"].items() if k not in settings}
    shared |= {f"setting_{k}": _cell(v) for k, v in settings.items()}
    return shared | {f"param_{k}": _cell(v) for k, v in given.items()}


def _cell(value: Any) -> Any:
    """A value that a table can hold: lists and mappings as JSON, infinities as numbers."""
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    return float(value) if value in ("inf", "-inf") else value


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose columns are of one type each, so that they can be stored."""
    return pd.DataFrame({name: _of_one_type(table[name]) for name in table}, index=table.index)


def _of_one_type(column: pd.Series) -> pd.Series:
    """Truth, whole number, number or text."""
    kinds = {type(v) for v in column[column.notna()]}
    if not kinds:
        return column
    if kinds <= {bool}:
        return column.astype("boolean")
    if kinds <= {int}:
        return column.astype("Int64")
    if kinds <= {int, float}:
        return column.astype(float)
    return column.map(lambda v: v if isinstance(v, str) else json.dumps(v), na_action="ignore")
