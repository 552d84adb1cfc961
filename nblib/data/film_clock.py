"""The clock of a film: which frame was on screen when, as a watch log says, and when in the film a spike fell.

A frame is on screen from the last row of the watch log with its film time to the first row with the
next one; a pause repeats a film time. Each spike keeps its place in its frame.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some

OFF_S = 1e-6  # film times may miss their frame by so much


def frame_of(film_s: np.ndarray, rate_hz: float, where: str) -> np.ndarray:
    """Number of the frame that begins at each film time [s]; BadInput for a time that is no frame's."""
    frame = np.rint(film_s * rate_hz)
    if len(wrong := np.flatnonzero(~(np.abs(frame / rate_hz - film_s) <= OFF_S))):
        row = wrong[0]
        raise BadInput(
            f"{where} is {film_s[row]:.9g} s in row {row}; the nearest frame at {rate_hz:g} Hz begins at "
            f"{frame[row] / rate_hz:.9g} s."
        )
    return frame.astype(np.int64)


def shown_frames(
    film_s: np.ndarray, clock_s: np.ndarray, rate_hz: float, where: str
) -> pd.DataFrame:
    """Frames from the rows of a watch log: film time and recording time of each [s].

    Returns frame, start and stop [ns of the recording's clock], and after_pause: whether the film
    paused, once or more, or skipped frames just before it. The last frame has no end and is left out.
    Raises BadInput for times that fall, and for frames that last unlike a frame.
    """
    for name, times in (("pts", film_s), ("neural_recording_time", clock_s)):
        if len(rows := np.flatnonzero(~np.isfinite(times))):
            raise BadInput(f"{where}: {name} is not finite in row {some(rows)}.")
    frame = frame_of(film_s, rate_hz, f"{where}: pts")
    clock = np.rint(clock_s * 1e9).astype(np.int64)
    falls = np.flatnonzero((np.diff(frame) < 0) | (np.diff(clock) < 0))
    if len(falls):
        raise BadInput(f"{where}: {len(frame)} rows, times fall after row {some(falls)}.")
    if not len(frame) or frame[0] == frame[-1]:
        raise BadInput(f"{where}: {len(frame)} rows of less than 2 frames.")
    first = np.flatnonzero(np.diff(frame, prepend=frame[0] - 1))
    number = frame[first]
    arrives, leaves = clock[first], clock[np.append(first[1:], len(frame)) - 1]
    start, stop, skipped = leaves[:-1], arrives[1:], np.diff(number) > 1
    if skipped.mean() > 0.5:
        raise BadInput(
            f"{where}: most rows lie {np.median(np.diff(number)):g} frames apart; pts must be seconds of film, "
            f"and frame_rate_hz = {rate_hz:g} the film's."
        )
    usual = int(np.median(stop - start))
    if not 0.5 < usual / 1e9 * rate_hz < 2:
        raise BadInput(
            f"{where}: a frame lasts {usual / 1e9:.4g} s, at {rate_hz:g} Hz it should be "
            f"{1 / rate_hz:.4g} s; check time_unit in the recipe."
        )
    stop = np.where(skipped, np.minimum(stop, start + usual), stop)
    paused = (leaves > arrives)[:-1] | np.append(False, skipped[:-1])
    return pd.DataFrame({"frame": number[:-1], "start": start, "stop": stop, "after_pause": paused})


def on_film(
    spike_s: np.ndarray, shown: pd.DataFrame, rate_hz: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Film time of each spike [s], in whole nanoseconds; whether it fell into a frame, or into a pause."""
    at = np.rint(spike_s * 1e9).astype(np.int64)
    start, stop = shown["start"].to_numpy(), shown["stop"].to_numpy()
    place = np.searchsorted(start, at, side="right") - 1
    near = np.maximum(place, 0)
    frame, begin, end = shown["frame"].to_numpy()[near], start[near], stop[near]
    inside = (place >= 0) & (at < end)
    opens, closes = (np.rint((frame + k) / rate_hz * 1e9).astype(np.int64) for k in (0, 1))
    share = (at - begin) / np.maximum(end - begin, 1)
    film = np.minimum(opens + (share * (closes - opens)).astype(np.int64), closes - 1)
    return film / 1e9, inside, ~inside & (place >= 0) & (at < stop[-1])
