"""Look before you leap: what a recording holds, what is odd in it, and what is broken.

Broken is refused with the unit ids or rows; odd is reported. Spikes stream past in pieces, so
memory does not grow with the recording.
"""

from __future__ import annotations

from nblib.data.checks import potentials, spikes
from nblib.data.checks.report import SessionReport as SessionReport
from nblib.data.recording import Recording


def session_report(recording: Recording) -> SessionReport:
    """Check a recording and describe it.

    Raises
    ------
    BadInput : with unit ids or rows, for NaN or infinite spike times, spike times that are not sorted
        within a unit, a spike index that does not fit, times that are not on one clock in seconds (see
        `clock`), and invalid or observed times that are reversed or have no start.
    """
    kind = spikes if recording.lfp is None else potentials
    return kind.report(recording)
