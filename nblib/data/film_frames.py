"""The clock of a film: which frame was on screen when, as a watch log says, and when in the film a spike fell.

A frame is on screen from the last row of the watch log with its film time to the first row with the
next one; a pause repeats a film time. Each spike keeps its place in its frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.core.findings import check_rising, refuse
from nblib.data.files.plain import read_table
from nblib.data.trials.columns import numbers

OFF_S = 1e-6  # film times may miss their frame by so much
LEAST_INSIDE = 0.01  # of the frames that a file annotates; of one in milliseconds a thousandth is


def frame_of(film_s: np.ndarray, rate_hz: float, where: str) -> np.ndarray:
    """Number of the frame that begins at each film time [s]; BadInput for a time that is no frame's."""
    frame = np.rint(film_s * rate_hz)
    refuse(
        ~(np.abs(frame / rate_hz - film_s) <= OFF_S),
        f"{where} is %value.",
        value=lambda row: (
            f"{film_s[row]:.9g} s in row {row}; the nearest frame at {rate_hz:g} Hz begins at "
            f"{frame[row] / rate_hz:.9g} s"
        ),
    )
    return frame.astype(np.int64)


def picture_of(frame: int) -> str:
    """The file that holds the picture of a frame: files count from 1, frames from 0."""
    return f"frame_{frame + 1:06d}.jpg"


def shown_frames(
    film_s: np.ndarray, clock_s: np.ndarray, rate_hz: float, where: str
) -> pd.DataFrame:
    """Frames from the rows of a watch log: film time and recording time of each [s].

    Returns frame, start and stop [ns of the recording's clock], and after_pause: whether the film
    paused, once or more, or skipped frames just before it. The last frame has no end and is left out.
    Raises BadInput for times that fall, and for frames that last unlike a frame.
    """
    for name, times in (("pts", film_s), ("neural_recording_time", clock_s)):
        check_rising(f"{where}: {name}", times)
    frame = frame_of(film_s, rate_hz, f"{where}: pts")
    clock = np.rint(clock_s * 1e9).astype(np.int64)
    few = not len(frame) or frame[0] == frame[-1]
    refuse(few, f"{where}: {len(frame)} rows of less than 2 frames.")
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
    paused = (leaves > arrives)[:-1]
    if paused.mean() > 0.5:
        raise BadInput(
            f"{where}: most film times stand in two or more rows, which is a pause; keep one row a frame, or set "
            f"frame_rate_hz if {rate_hz:g} is not the film's."
        )
    paused |= np.append(False, skipped[:-1])
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


def frames_of_spans(path: Path, window: list[int], rate_hz: float) -> dict[str, np.ndarray]:
    """Annotations (frame,) up to the end of a window, from a CSV of spans: label, and start and stop
    [s of film] or first_frame and last_frame; each label is 1 in its spans and 0 elsewhere.

    window: first frame that is read, and one past the last. Raises BadInput for other columns, a row
    without a label, a span that holds no frame or ends within one, and for spans of which hardly a
    frame lies in the window, as of another film or in milliseconds.
    """
    table = read_table(path, ("label",), as_text=True)  # "01" and "1" are two labels
    by_frame = {"first_frame", "last_frame"} <= set(table)
    if by_frame == ({"start", "stop"} <= set(table)):
        raise BadInput(
            f"{path}: expected columns start and stop [s of film], or first_frame and last_frame, not both; found "
            f"{some(table.columns, 40)}."
        )
    ends = ("first_frame", "last_frame") if by_frame else ("start", "stop")
    low, high = given = [numbers(table[name], f"{path}: column {name!r}") for name in ends]
    if by_frame:
        for name, frame in zip(ends, given, strict=True):
            refuse(
                frame % 1 > 0,
                f"{path}: {name} is %value in row %rows; whole frames, counted from 0, are needed. Times [s of film] "
                "go by the names start and stop.",
                value=frame,
            )
        high = high + 1
    else:  # the frames that begin in [start, stop)
        low, high = (np.ceil(np.round(end * rate_hz, 6)) for end in given)
    holds = np.isfinite(low) & np.isfinite(high) & (low < high) & (table["label"].str.strip() != "")
    refuse(
        ~np.asarray(holds),
        f"{path}: no label, or no frame from {ends[0]} to {ends[1]}, in row %rows; a span needs both, and a frame "
        f"lasts {1 / rate_hz:.3g} s.",
    )
    inside = np.clip(high, *window) - np.clip(low, *window)
    if inside.sum() < LEAST_INSIDE * (high - low).sum():
        unit, rate = ("frames", 1) if by_frame else ("s of film", rate_hz)
        raise BadInput(
            f"{path}: it annotates {given[0].min():g} to {given[1].max():g} [{unit}], of which the film here, "
            f"{window[0] / rate:g} to {window[1] / rate:g}, holds {inside.sum() / (high - low).sum():.2%}. It is "
            f"of another film, or in another unit, such as milliseconds; {ends[0]} and {ends[1]} must be in [{unit}]."
        )
    labels = {str(name): np.zeros(window[1], np.int8) for name in table["label"]}
    for name, first, stop in zip(table["label"], low, high, strict=True):
        labels[str(name)][max(int(first), 0) : max(int(stop), 0)] = 1
    return labels
