"""What the notebooks call where recordings part ways.

A lab pickle holds counts and no spike times: its road begins at 02, and what needs spike times is
left out. Field potentials are cut into windows where spikes are counted. Everywhere else these
functions pass straight on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nblib.core.markup import in_markdown
from nblib.core.params import SplitSettings
from nblib.data import inspection, sources
from nblib.data.inspection import SessionReport, potentials
from nblib.data.recording import Recording
from nblib.data.trials import labelling
from nblib.prepare import binning, cleaning, responses, splits, windows
from nblib.prepare.windows import Windows
from nblib.road import stages

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
    """The stage's recording, once 01 has looked at it; None for counts, which hold no spike times.

    Raises MissingInput when 01 has not been run for this recording, BadInput for a broken file.
    """
    if stage.recipe.holds == "counts":
        return None
    if stage.name != "01_ingest":
        stage.input("01_ingest")
    return sources.open_recording(stage.recipe, stage.recording)


def look(session: Recording) -> SessionReport:
    """What a recording holds and what is odd in it (see `inspection` and `windows`)."""
    if windows.LFP in session.series:
        return potentials.report(session)
    return inspection.session_report(session)


def bin_session(session: Recording | None, stage: stages.Stage) -> xr.Dataset | Windows:
    """Counts (trial, time, unit) as the recipe asks; those that the source holds when it is None;
    windows of a field potential. Raises BadInput where their classes are not those that 01 saw."""
    if session is None:
        return sources.open_binned(stage.recipe, stage.recording)
    if windows.LFP in session.series:
        made = windows.cut(session, stage.settings)
        told = made.classes
    else:
        made = binning.bin_recording(session, stage.settings)
        told = made.attrs["classes"]
    seen = pd.read_parquet(stage.input("01_ingest") / "classes.parquet")["class"].tolist()
    for one, other in ((json.loads(told), seen), (seen, json.loads(told))):
        labelling.check_classes(one, other, f"recording {stage.recording!r}")
    return made


def save_counts(binned: xr.Dataset | Windows, folder: Path) -> None:
    """Write counts (see `binning.save`) or windows (see `windows.save`)."""
    windows.save(binned, folder) if isinstance(binned, Windows) else binning.save(binned, folder)


def load_counts(folder: Path) -> xr.Dataset:
    """Read counts that 02 or 03 stored (see `binning.load`)."""
    return binning.load(folder)


def psth(session: Recording | None, binned: xr.Dataset | Windows) -> pd.DataFrame:
    """Mean response by area: in fine bins from spike times, else in the bins that there are; the
    spectra by state of windows."""
    if isinstance(binned, Windows):
        return windows.spectra(binned)
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


def odd_in_words(report: SessionReport) -> str:
    """What is odd in a recording, a line each."""
    odd = report.odd or ["Nothing odd was found."]
    return "\n".join(f"- {in_markdown(sentence)}" for sentence in odd)


def ingest_in_words(session: Recording, report: SessionReport) -> str:
    """What 01 found, in a sentence."""
    found = report.tables["summary"].set_index("item")["value"]
    if windows.LFP in session.series:
        held = (
            f"{found['channels']} channels of field potential ({found['electrodes']} electrodes, "
            f"{found['signal to [s]'] - found['signal from [s]']:,.0f} s at {found['rate [Hz]']:g} Hz) and "
            f"{found['intervals']} intervals of {found['labels']} labels"
        )
    else:
        held = (
            f"{session.n_spikes:,} spikes of {session.n_units:,} units (mean rate "
            f"{found['mean rate [Hz]']} Hz) and "
            + (
                f"{found['presentations']:,} presentations of {found['labels']} labels"
                if session.trials
                else "no trials"
            )
        )
    return f"**Result.** Recording *{in_markdown(session.id)}* holds {held}. Odd findings: {len(report.odd)}."


def bin_in_words(binned: xr.Dataset | Windows, psth: pd.DataFrame) -> str:
    """What 02 made, in a sentence."""
    if isinstance(binned, Windows):
        inside = pd.Series(binned.label[binned.labelled]).value_counts().sort_index()
        told = ", ".join(f"{n} of {in_markdown(name)}" for name, n in inside.items())
        left = f" {binned.dropped} windows touch NaN and were left out." if binned.dropped else ""
        left += _left_out(binned.left_out, "Intervals")
        return (
            f"**Result.** {len(binned):,} windows of {binned.window_s:g} s ({binned.x.shape[1]} samples × "
            f"{binned.x.shape[2]} channels), {int(binned.labelled.sum()):,} of them inside a state: {told}.{left}"
        )
    shown = psth[psth["time_s"].between(0, psth.attrs["shown_s"])]
    peak = shown.loc[shown["rate_hz"].idxmax()]
    return (
        f"**Result.** {binned.sizes['trial']:,} presentations × {binned.sizes['time']} bins × "
        f"{binned.sizes['unit']:,} units hold {int(binned['counts'].sum()):,} spikes, "
        f"{float(binned['counts'].mean()):.2f} a bin. During a presentation the highest mean rate "
        f"is {peak['rate_hz']:.1f} Hz, {1000 * peak['time_s']:.0f} ms after onset"
        f"{' in ' + in_markdown(peak['area']) if peak['area'] else ''}."
        f"{_left_out(binned.attrs['left_out'], 'Trials')}"
    )


def _left_out(told: str, what: str) -> str:
    """A sentence on trials or intervals left out, from the JSON of `labelling.Trials.attrs`."""
    reasons = ", ".join(f"{n} ({in_markdown(why)})" for why, n in json.loads(told).items())
    return f" {what} left out: {reasons}." if reasons else ""
