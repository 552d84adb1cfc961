"""Spike times to counts: per presentation, fixed width, event window, or any list of edges.

Times are rounded to int64 nanoseconds and bins are half-open `[edge, next edge)`; the counts are
defined by those integers alone, so no bin depends on float rounding late in a recording.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import xarray as xr

from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import BinSettings
from nblib.data.counts_dataset import build, numbers_or_text, to_ns
from nblib.data.recording import Recording
from nblib.data.trials import labelling, usable
from nblib.data.trials.columns import numbers, require
from nblib.prepare import continuous
from nblib.prepare.bin_of_spike import count_flat, first_at_or_after, in_threads
from nblib.prepare.continuous import film
from nblib.prepare.signals import bin_signals

MOST_BINS = 1_000_000  # of a trial; more is a slip of the keyboard, and would fill the memory
THREADS = 2  # reading and counting overlap; more threads only wait for the same memory


def presentation_edges(start_s: np.ndarray, stop_s: np.ndarray, n_bins: int) -> np.ndarray:
    """Edges that cut each presentation into `n_bins` equal bins.

    start_s, stop_s : (trial,) seconds. Returns int64 ns (trial, n_bins + 1); edge i is
    `start + i * (stop - start) // n_bins`, exact in integers.
    """
    start, stop = to_ns(start_s), to_ns(stop_s)
    steps = np.arange(n_bins + 1, dtype=np.int64)
    return start[:, None] + (steps * (stop - start)[:, None]) // n_bins


def window_edges(event_s: np.ndarray, offsets_s: np.ndarray) -> np.ndarray:
    """Edges at fixed offsets from each event: int64 ns (trial, n_offsets)."""
    return to_ns(event_s)[:, None] + to_ns(offsets_s)[None, :]


def count_spikes(recording: Recording, edges_ns: np.ndarray, threads: int = THREADS) -> np.ndarray:
    """Count each unit's spikes in each bin of each trial.

    edges_ns : int64 ns (trial, bins + 1), rising within a trial; trials may overlap.
    Returns counts (trial, bin, unit), uint8 or, when a bin holds more than 255 spikes, uint16.
    Streams over units: beyond the result, memory does not grow with the recording.
    Raises BadInput when a count exceeds 65,535 and BadParameter when edges do not rise.
    """
    edges_ns = np.ascontiguousarray(edges_ns, np.int64)
    n_trials, n_edges = edges_ns.shape
    if n_trials == 0 or n_edges < 2:
        raise BadParameter(
            f"edges of shape {edges_ns.shape}: expected at least one trial and two edges."
        )
    if (np.diff(edges_ns, axis=1) < 0).any():
        row = int(np.argmax((np.diff(edges_ns, axis=1) < 0).any(axis=1)))
        raise BadParameter(f"bin edges of trial {row} do not rise.")
    order = np.argsort(edges_ns[:, 0], kind="stable")
    edges_ns = edges_ns[order]
    joined = n_edges == 2 and (edges_ns[1:, 0] == edges_ns[:-1, 1]).all()
    if joined:  # bins that abut, as a film's: each edge once, as of one trial
        edges_ns = np.append(edges_ns[:, 0], edges_ns[-1, 1])[None]
    out, wide = count_flat(recording, first_at_or_after(edges_ns), threads)
    out = out[:, :, :-1]
    if joined:
        out, wide = out.transpose(0, 2, 1), {unit: counts.T for unit, counts in wide.items()}
    return _assemble(out, wide, order, recording, threads)


def _assemble(
    out: np.ndarray, wide: dict[int, np.ndarray], order: np.ndarray, recording: Recording, threads
) -> np.ndarray:
    """(unit, sorted trial, bin) to (trial, bin, unit) in the smallest sufficient type."""
    kind = np.uint16 if wide else np.uint8
    for unit, counts in wide.items():
        if counts.max() > np.iinfo(np.uint16).max:
            raise BadInput(
                f"{recording.where}: unit {recording.units.index[unit]} has {counts.max()} spikes "
                "in one bin, more than a uint16 holds; use narrower bins or check the unit's spike times."
            )
    counts = np.empty((*out.shape[1:], out.shape[0]), kind)
    step = 128  # a blocked transpose: both sides stay in cache

    def turn(first: int) -> None:
        counts[order[first : first + step]] = out[:, first : first + step].transpose(1, 2, 0)

    in_threads(turn, list(range(0, len(order), step)), threads)
    for unit, values in wide.items():
        counts[order, :, unit] = values
    return counts


def trial_edges(table: pd.DataFrame, settings: BinSettings, where: str) -> np.ndarray:
    """Bin edges of every trial as the settings ask: int64 ns (trial, bins + 1)."""
    if settings.binning == "per_presentation":
        return presentation_edges(table["start_time"], table["stop_time"], settings.n_bins)
    if settings.binning == "fixed_width":
        shortest = float((table["stop_time"] - table["start_time"]).min())
        n = int(np.floor(shortest / settings.bin_s + 1e-9))
        if n < 1:
            raise BadParameter(
                f"bin_s = {settings.bin_s}: the shortest trial of {where} lasts {shortest:.4g} s."
            )
        return window_edges(table["start_time"], _offsets(n, settings.bin_s))
    event = numbers(
        require(table, settings.event, where, "event"), f"{where}: column {settings.event!r}"
    )
    if settings.binning == "edges":
        return window_edges(event, np.asarray(settings.edges_s))
    span = settings.window_stop_s - settings.window_start_s
    n = round(span / settings.bin_s)
    if n < 1 or abs(n * settings.bin_s - span) > 1e-6:
        raise BadParameter(
            f"bin_s = {settings.bin_s} does not divide the window of {span:.6g} s into whole bins."
        )
    return window_edges(event, settings.window_start_s + _offsets(n, settings.bin_s))


def _offsets(n_bins: int, bin_s: float) -> np.ndarray:
    """Edges of so many bins (n_bins + 1,), from the first [s]; BadParameter for more than can be meant."""
    if n_bins > MOST_BINS:
        raise BadParameter(
            f"bin_s = {bin_s}: that makes {n_bins:,} bins a trial, more than {MOST_BINS:,}; take wider bins or a "
            "shorter window."
        )
    return np.arange(n_bins + 1) * bin_s


def bin_recording(
    recording: Recording, settings: BinSettings, threads: int = THREADS
) -> xr.Dataset:
    """Count the spikes of a recording's trials, or of all of its time.

    Returns a Dataset with `counts (trial, time, unit)`, the further signals (trial, time) and the
    coordinates described in the data dictionary. Raises what `usable.to_count`, `bin_signals` and
    `continuous.rows_of_time` raise.
    """
    where = recording.trial_place
    if settings.binning == "continuous":
        table, edges, attrs = continuous.rows_of_time(recording, settings)
    else:
        chosen = usable.to_count(
            recording.labelled, recording.rules, settings, where, usable.times_of(settings)
        )
        table, attrs = chosen.table, chosen.attrs()
        if settings.binning == "frames":
            table, edges = film.bins_of_frames(recording, settings)
        else:
            edges = trial_edges(table, settings, where)
    counts = count_spikes(recording, edges, threads)
    binned = build(
        counts, table.index.to_numpy(), labelling.as_array(table["label"]), edges, recording.units,
        block=numbers_or_text(table["stimulus_block"]) if "stimulus_block" in table else None,
        attrs={
            "recording": recording.id, "subject": recording.subject, "label_name": recording.label,
            "binning": json.dumps(settings.model_dump()), "source": recording.where,
            "clock": "recorded", **attrs,
        },
    )  # fmt: skip
    if settings.binning == "frames":
        binned = film.with_annotations(binned, table)
    if settings.binning == "continuous":
        binned = continuous.with_stimulus(binned, recording, settings)
    beside = {
        name: ("trial", labelling.variable(table, name, recording.rules, where))
        for name in settings.variables
    }
    for name, values in bin_signals(recording, settings.signals, edges, settings.causal).items():
        beside[name] = (("trial", "time"), values)
    if taken := sorted(set(beside) & set(binned.variables)):
        raise BadParameter(
            f"signals and variables: {taken[0]!r} is what the counts call something else; rename it."
        )
    return binned.assign(beside).set_coords(settings.variables)
