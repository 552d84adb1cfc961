"""The figures of 01 and 02, whatever a recording holds: spikes, counts or field potentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nblib.prepare import responses, windows
from nblib.report.plots import potentials
from nblib.report.plots import responses as response_plots
from nblib.report.plots import session as session_plots
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    from nblib.data.recording import Recording
    from nblib.data.session import SessionReport

TRACE_S = 6.0


def recording_overview(session: Recording, report: SessionReport) -> Picture:
    """The session at a glance: units, presentations and rate, or channels and intervals."""
    if session.lfp is not None:
        return potentials.lfp_overview(report.tables["channels"], report.tables["intervals"])
    labels = responses.labels_of(session) if session.trials else None
    invalid = report.tables["invalid"][["start_time", "stop_time"]].to_numpy()
    return session_plots.session_overview(
        session.units, labels, report.tables["rate"], session.intervals, invalid,
        trials=session.trials, label_name=session.label, grey=session.rules.blank,
    )  # fmt: skip


def recording_close_up(session: Recording) -> Picture:
    """A few seconds from the middle: spikes of all units, or the potential of every channel."""
    if session.lfp is not None:
        series = session.lfp
        first, stop, start = max(series.even, key=lambda piece: piece[1] - piece[0])
        n = min(stop - first, round(TRACE_S * series.rate_hz))
        lo = first + (stop - first - n) // 2
        start += (lo - first) / series.rate_hz
        return potentials.lfp_traces(series.read(lo, lo + n), start, series.rate_hz, session.meta["channels"])  # fmt: skip
    window = responses.example_window(session)
    spike_s, unit = responses.spikes_between(session, *window)
    trials = session.trial_table if session.trials else None
    return session_plots.raster(spike_s, unit, responses.areas_of(session.units), trials, window)


def average_response(binned: Any, psth: Any) -> Picture:
    """Mean firing rate by area around the onset (`bins.response`), or power spectra by state."""
    if isinstance(binned, windows.Windows):
        return potentials.state_spectra(psth)
    return response_plots.psth_by_area(psth, psth.attrs["shown_s"])


def label_differences(binned: Any, psth: Any) -> Picture:
    """What tells labels apart: tuning of every unit, or band power of every channel."""
    if isinstance(binned, windows.Windows):
        return potentials.band_power(psth)
    tuning, labels = responses.tuning_curves(binned)
    areas = responses.areas_of(responses.units_of(binned))
    return response_plots.tuning_heatmap(tuning, labels, areas, binned.attrs["label_name"])
