"""Where the clock of a sampled signal is even."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nblib.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from nblib.data.recording import Series

UNEVEN = 0.5  # steps of the clock may differ so much from the usual one, as a share of it


def even_pieces(raw: Series, path: Path) -> tuple[float, tuple[tuple[int, int, float], ...]]:
    """Rate [Hz], and the stretches without a gap: first sample, one past the last, start [s].

    Raises BadInput, naming the sample, for a start or timestamps that are no times, fall, stand twice
    or crowd: a step that is too long is a gap, one that is too short is no clock.
    """
    where = f"{path}: the clock of {raw.name}"
    if raw.rate_hz is not None:
        if not np.isfinite(raw.start_s):
            raise BadInput(f"{where} starts at {raw.start_s}, which is no time.")
        return raw.rate_hz, ((0, raw.n_samples, raw.start_s),)
    times = raw.timestamps()
    if len(times) < 2:
        raise BadInput(f"{where} has {len(times)} timestamps; at least two tell a rate.")
    lost = np.flatnonzero(~np.isfinite(times))
    if len(lost):
        raise BadInput(
            f"{where} has {len(lost)} timestamps that are NaN or infinite, the first at sample {lost[0]}; "
            "mend them in the file."
        )
    step = np.diff(times)
    usual = float(np.median(step))
    for samples, fault, remedy in (
        (step < 0, "falls", "It begins anew there: write the parts as files of their own."),
        (step == 0, "stands still", "Write a rate in place of the timestamps if the sampling was even."),
        (step < UNEVEN * usual, "is not even: a step is too short", "Windows need an even rate."),
    ):  # fmt: skip
        at = np.flatnonzero(samples)
        if len(at):
            raise BadInput(
                f"{where} {fault} at sample {at[0] + 1}, {times[at[0]] - times[0]:.6g} s after the first "
                f"({len(at)} times in all; the usual step is {usual:.6g} s). {remedy}"
            )
    gaps = np.flatnonzero(step > (1 + UNEVEN) * usual)
    first, stop = np.r_[0, gaps + 1], np.r_[gaps + 1, len(times)]
    lasted = (times[stop - 1] - times[first]).sum()
    if not lasted > 0:
        raise BadInput(f"{where} is not even: no two of its steps are alike.")
    rate = float((stop - first - 1).sum() / lasted)
    return rate, tuple(zip(first.tolist(), stop.tolist(), times[first].tolist(), strict=True))
