"""The long table: every score of every run with its parameters and manifest, and published numbers.

One row a run, result and score. `source` tells runs ("run") from numbers that others published
("published"), which stand only beside runs of the same recording.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from nblib import published, results, store
from nblib.errors import StorageError

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


def every(recipe: str = "") -> pd.DataFrame:
    """All scores of all runs, or of those of one recipe, and the published ones beside them.

    After `COLUMNS` follow `param_NAME` for each parameter of a notebook and `setting_NAME` for
    each setting of a recipe; lists and mappings are JSON text. Scores are fractions unless `unit`
    says otherwise. `flag` as in `results.scan`: a row with one must not be averaged. A corrupt run
    is one row without a score.
    """
    runs = results.scan(recipe)
    rows = []
    for folder, own in runs.groupby("folder", sort=False):
        rows += _run_rows(Path(folder), own)
    for given in published.beside(runs["recording"]).to_dict("records"):
        rows.append({"source": "published"} | given)
    found = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    more = sorted(found, key=lambda name: (name.startswith("setting_"), name))
    table = pd.DataFrame(rows, columns=[*COLUMNS, *more], dtype=object)
    return table.apply(_typed)


def write(table: pd.DataFrame, csv: str | None = None, parquet: str | None = None) -> None:
    """Write the long table to a CSV file, a Parquet file, or both.

    Raises StorageError when a file cannot be written.
    """
    for path, save in ((csv, table.to_csv), (parquet, table.to_parquet)):
        if path is not None:
            try:
                save(path, index=False)
            except OSError as error:
                raise StorageError(f"{path}: cannot be written ({error.strerror}).") from None


def _run_rows(folder: Path, own: pd.DataFrame) -> list[dict[str, Any]]:
    """The scores of one run; own: its rows of the scan."""
    shared = {"source": "run", "provenance": str(folder), "selected": SELECTED, "note": ""}
    scan = [
        {k: int(v) if results.COLUMNS[k] is int and pd.notna(v) else v for k, v in row.items()}
        for row in own[[*IDENTITY, *FROM_SCAN, "result"]].to_dict("records")
    ]
    if "corrupt" in own["flag"].iloc[0]:
        return [shared | {k: v for k, v in row.items() if k != "result"} for row in scan]
    manifest = store.read_manifest(folder)
    told = results.results_of(folder, manifest)
    shared |= {name: manifest[name] for name in MANIFEST}
    settings = {k: v for k, v in (manifest["recipe"] or {}).items() if k not in NOT_A_SETTING}
    shared |= {f"setting_{k}": _cell(v) for k, v in settings.items()}
    given = {k: v for k, v in manifest["parameters"].items() if k not in settings}
    shared |= {f"param_{k}": _cell(v) for k, v in given.items()}
    rows = []
    for row in scan:
        for metric, score in told[row.pop("result")]["scores"].items():
            rows.append(shared | row | {"metric": metric} | {k: score.get(k) for k in SCORE})
    return rows


def _cell(value: Any) -> Any:
    """A value that a table can hold: lists and mappings as JSON, infinities as numbers."""
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    return float(value) if value in ("inf", "-inf") else value


def _typed(column: pd.Series) -> pd.Series:
    """A column of one type, so that it can be stored: truth, whole number, number or text."""
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
