"""What the notebooks call where recordings part ways.

A lab pickle holds counts and no spike times: its road begins at 02, and what needs spike times is
left out. Everywhere else these functions pass straight on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nblib import binning, cleaning, responses, sources, splits, stages
from nblib.inspection import SessionReport
from nblib.params import SplitSettings
from nblib.recording import Recording

if TYPE_CHECKING:
    import xarray as xr


def someone_is_there() -> bool:
    """True in a notebook whose front end can ask its reader a question.

    Jupyter's front ends allow input with every cell they run; papermill, nbconvert and the book
    do not. That is the one thing in a kernel's sight that tells a person from a batch.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return False
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin", False))


def open_session(stage: stages.Stage) -> Recording | None:
    """The stage's recording, once 01 has looked at it; None for counts without spike times.

    Raises MissingInput when 01 has not been run for this recording, BadInput for a broken file.
    """
    if stage.recipe.source == "lab_pickle":
        return None
    if stage.name != "01_ingest":
        stage.input("01_ingest")
    return sources.open_recording(stage.recipe, stage.recording)


def bin_session(session: Recording | None, stage: stages.Stage) -> xr.Dataset:
    """Counts (trial, time, unit) as the recipe asks; a lab pickle's own counts when it is None."""
    if session is None:
        return sources.open_binned(stage.recipe, stage.recording)
    return binning.bin_recording(session, stage.settings)


def save_counts(binned: xr.Dataset, folder: Path) -> None:
    """Write counts (see `binning.save`)."""
    binning.save(binned, folder)


def load_counts(folder: Path) -> xr.Dataset:
    """Read counts that 02 or 03 stored (see `binning.load`)."""
    return binning.load(folder)


def psth(session: Recording | None, binned: xr.Dataset) -> pd.DataFrame:
    """Mean response by area: in fine bins from spike times, else in the bins that there are."""
    return responses.binned_psth(binned) if session is None else responses.area_psth(session)


def fit_folds(
    binned: xr.Dataset, split: pd.DataFrame, settings: SplitSettings
) -> list[splits.TrainStatistics]:
    """What is fitted on train rows, fold by fold (see `splits.fit_statistics`)."""
    folds = sorted(int(fold) for fold in split["fold"].unique())
    return [splits.fit_statistics(binned, split, fold, settings) for fold in folds]


def save_report(report: SessionReport, folder: Path) -> None:
    """Write a session report: one Parquet file a table, and report.json with what is odd."""
    for name, table in report.tables.items():
        plain = table.reset_index() if table.index.name else table
        texts = {c: plain[c].astype(str) for c in plain if plain[c].dtype == object}
        plain.assign(**texts).to_parquet(folder / f"{name}.parquet", index=False)
    text = json.dumps({"recording": report.recording, "odd": report.odd}, indent=1)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")


def save_cleaned(binned: xr.Dataset, removals: pd.DataFrame, folder: Path) -> None:
    """Write the cleaned counts and the table of what was removed."""
    binning.save(binned, folder)
    removals.to_parquet(folder / cleaning.FILE, index=False)
