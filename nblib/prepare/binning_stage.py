"""What 02 makes: counts of spikes, counts that came without them, or windows of a potential."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.core.markup import in_markdown
from nblib.data import counts_dataset, opening
from nblib.data.counts_dataset import areas_of, units_of
from nblib.data.recording import Recording
from nblib.data.trials import labelling
from nblib.prepare import binning, continuous, responses
from nblib.prepare.continuous import film
from nblib.prepare.potentials import lfp_windows, spectra, stored_windows
from nblib.prepare.potentials.stored_windows import Windows
from nblib.road.stage_registry import INGEST
from nblib.road.stages import Stage

if TYPE_CHECKING:
    import xarray as xr

BINS_SHOWN = 25  # bins per presentation in a PSTH; 10 ms for a scene of 250 ms
MOST_TRIALS = 500  # presentations that a population PSTH is averaged over
CLEAR = 5  # standard errors of a spike-triggered average: chance makes 3 to 4 of some hundreds


def bin_session(session: Recording | None, stage: Stage) -> xr.Dataset | Windows:
    """Counts (trial, time, unit) as the recipe asks; those that the source holds when it is None;
    windows of a field potential. Raises BadInput where their classes are not those that 01 saw."""
    if session is None:
        return opening.open_binned(stage.recipe, stage.recording)
    if session.lfp is not None:
        made = lfp_windows.cut(session, stage.settings)
        classes = json.loads(made.classes)
    else:
        made = binning.bin_recording(session, stage.settings)
        if continuous.is_continuous(made):
            return made
        classes = json.loads(made.attrs["classes"])
    seen = pd.read_parquet(stage.input(INGEST) / "classes.parquet")["class"].tolist()
    now = session.labelled.classes if session.trials else []
    # Binning may lose a class, whose trials it counts as left out; a label may not change.
    for one, other in ((now, seen), (seen, now), (classes, now)):
        labelling.check_classes(one, other, f"recording {stage.recording!r}")
    return made


def save(binned: xr.Dataset | Windows, folder: Path) -> None:
    """Write counts (see `counts_dataset.save`) or windows (see `stored_windows.save`)."""
    stored_windows.save(binned, folder) if isinstance(binned, Windows) else counts_dataset.save(
        binned, folder
    )


def response(
    session: Recording | None, binned: xr.Dataset | Windows
) -> pd.DataFrame | xr.DataArray:
    """Mean response by area: in fine bins from spike times, else in the bins that there are; the
    spectra by state of windows; spike-triggered averages of a recording without trials."""
    if isinstance(binned, Windows):
        return spectra.spectra(binned)
    if continuous.is_continuous(binned):
        return continuous.spike_triggered(binned)
    return binned_psth(binned) if session is None else area_psth(session)


def area_psth(recording: Recording) -> pd.DataFrame:
    """Mean firing rate around the onset of a presentation, by area.

    At most 500 presentations, evenly spread over the session, in bins of 1/25 of a presentation
    (10 ms for a scene of 250 ms), from 5 bins before the onset to 10 after the end.
    Returns area, time_s (bin centre), rate_hz and sem_hz (mean and standard error over units),
    n_units; `attrs["shown_s"]` is the length of a presentation.
    """
    trials = responses.drawn_trials(recording)
    width = responses.shown_s(trials) / BINS_SHOWN
    offsets = np.arange(-5, BINS_SHOWN + 11) * width
    rows = np.unique(np.linspace(0, len(trials) - 1, min(MOST_TRIALS, len(trials))).astype(int))
    edges = binning.window_edges(trials["start_time"].to_numpy()[rows], offsets)
    counts = binning.count_spikes(recording, edges)  # (trial, bin, unit)
    rate = counts.mean(axis=0) / width  # (bin, unit)
    return _by_area(
        rate, areas_of(recording.units), (offsets[:-1] + offsets[1:]) / 2, responses.shown_s(trials)
    )


def binned_psth(binned: xr.Dataset) -> pd.DataFrame:
    """As `area_psth`, from binned counts alone: for counts that came without spike times."""
    exposure = binned["exposure_s"].to_numpy()  # (trial, bin)
    rate = binned["counts"].to_numpy().sum(axis=0) / exposure.sum(axis=0)[:, None]
    width = exposure.mean(axis=0)
    return _by_area(rate, areas_of(units_of(binned)), np.cumsum(width) - width / 2, width.sum())


def _by_area(
    rate: np.ndarray, areas: np.ndarray, time_s: np.ndarray, shown_s: float
) -> pd.DataFrame:
    parts = []
    for area in np.unique(areas):
        in_area = rate[:, areas == area]  # (bin, unit)
        n = in_area.shape[1]
        error = in_area.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(len(in_area))
        columns = {"area": area, "time_s": time_s, "rate_hz": in_area.mean(axis=1), "sem_hz": error}
        parts.append(pd.DataFrame(columns | {"n_units": n}))
    psth = pd.concat(parts, ignore_index=True)
    psth.attrs["shown_s"] = float(shown_s)
    return psth


def sentence(binned: xr.Dataset | Windows, psth: pd.DataFrame | xr.DataArray) -> str:
    """What 02 made, in a sentence."""
    if not isinstance(binned, Windows) and continuous.is_continuous(binned):
        n_bins, strongest = (
            binned.sizes["trial"] * binned.sizes["time"],
            abs(psth).max(("channel", "lag_s")),
        )
        return (
            f"**Result.** {n_bins:,} bins × {binned.sizes['unit']:,} units hold {int(binned['counts'].sum()):,} "
            f"spikes, beside {binned.sizes['channel']} channel(s) of stimulus. In {int((strongest > CLEAR).sum())} units "
            f"the stimulus before a spike lies more than {CLEAR} standard errors off its mean."
            f"{_left_out(binned.attrs['left_out'], 'Rows of about a second')}"
        )
    if isinstance(binned, Windows):
        inside = pd.Series(binned.label[binned.labelled]).value_counts().sort_index()
        states = ", ".join(f"{n} of {in_markdown(name)}" for name, n in inside.items())
        left = f" {binned.dropped} windows touch NaN and were left out." if binned.dropped else ""
        left += _left_out(binned.left_out, "Intervals")
        return (
            f"**Result.** {len(binned):,} windows of {binned.window_s:g} s ({binned.x.shape[1]} samples × "
            f"{binned.x.shape[2]} channels), {int(binned.labelled.sum()):,} of them inside a state: {states}.{left}"
        )
    shown = psth[psth["time_s"].between(0, psth.attrs["shown_s"])]
    peak = shown.loc[shown["rate_hz"].idxmax()]
    rows = f"{binned.sizes['trial']:,} {continuous.row_word(binned)}"
    part, paused = "During a presentation", ""
    if film.is_film(binned):
        part = f"While {in_markdown(binned.attrs['label_name'])} stays on or off"
        paused = f" The film paused {int(binned['after_pause'].sum())} times."
    else:
        rows += f" × {binned.sizes['time']} bins"
    return (
        f"**Result.** {rows} × "
        f"{binned.sizes['unit']:,} units hold {int(binned['counts'].sum()):,} spikes, "
        f"{float(binned['counts'].mean()):.2f} a bin.{paused} {part} the highest mean rate "
        f"is {peak['rate_hz']:.1f} Hz, {1000 * peak['time_s']:.0f} ms after onset"
        f"{' in ' + in_markdown(peak['area']) if peak['area'] else ''}."
        f"{_left_out(binned.attrs['left_out'], 'Trials')}{_odd(binned.attrs.get('odd', ''))}"
    )


def _odd(findings: str) -> str:
    """What is odd in counts that came without spikes, as 01 does not tell of them."""
    return f" Odd in the file: {in_markdown(findings)}" if findings else ""


def _left_out(reasons: str, what: str) -> str:
    """A sentence on trials or intervals left out, from the JSON of `labelling.Trials.attrs`."""
    listed = ", ".join(f"{n} ({in_markdown(why)})" for why, n in json.loads(reasons).items())
    return f" {what} left out: {listed}." if listed else ""
