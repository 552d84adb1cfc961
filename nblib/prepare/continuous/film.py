"""A film cut into bins of whole frames, into segments that teach or judge, and windows of context."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import xarray as xr

from nblib.core.errors import BadParameter
from nblib.core.params import BinSettings, SplitSettings
from nblib.data.counts_dataset import NO_LABEL, to_ns
from nblib.data.recording import Recording

FOLDS = 5  # segments of a part; each is tested in one fold
# Parts by buffer [s], as published for a film of 4,726 s; others by the rule in `plan`.
PARTS = {4: 59, 8: 36, 12: 26, 16: 21, 20: 17, 24: 14, 28: 12, 32: 11, 36: 10, 40: 9, 44: 8}
PUBLISHED_S, WITHIN = 4726.4, 0.01


def bins_of_frames(recording: Recording, settings: BinSettings) -> tuple[pd.DataFrame, np.ndarray]:
    """The frames of a film put together, `frames_per_bin` at a time: a row a bin, and edges int64 ns (bin, 2).

    The index counts bins from the first frame. Rows have the recording's label, frame (the first),
    exposure_s, after_pause (the film paused in the bin or just before it), and a column an annotation:
    of the first frame, or of any or most of them, 99 where none has one. Bins that miss a frame are
    left out. Raises BadParameter for what is no film, and for a `bin_s` that is not so many frames.
    """
    frames, k = recording.intervals[recording.trials], settings.frames_per_bin
    if not recording.is_film:
        raise BadParameter(
            f"{recording.trial_place}: binning = 'frames' needs the frames of a film."
        )
    frame_s = frames["stop_time"].iloc[0] - frames["start_time"].iloc[0]
    n_frames, usual = settings.bin_s / frame_s, BinSettings.model_fields["bin_s"].default
    if settings.bin_s != usual and abs(n_frames - k) > 1e-6:
        raise BadParameter(
            f"bin_s = {settings.bin_s:g} s is {n_frames:.4g} frames of {frame_s:.4g} s, frames_per_bin = {k} is "
            f"{k * frame_s:.4g} s; bins of a film are whole frames. Leave bin_s out and set frames_per_bin."
        )
    number = (frames["frame"] - frames["frame"][0]).to_numpy() // k
    full = np.bincount(number) == k
    whole = np.flatnonzero(full)
    if not len(whole):
        raise BadParameter(f"frames_per_bin = {k}: {recording.trial_place} has no such bin.")
    rows = np.flatnonzero(full[number])

    def part(name: str) -> np.ndarray:
        """A column as (k, bin): to reduce a short axis last would be ten times slower."""
        return np.ascontiguousarray(frames[name].to_numpy()[rows].reshape(-1, k).T)

    exposure_s = frames["exposure_s"].to_numpy()[rows].reshape(-1, k).sum(axis=1)
    skipped = np.diff(whole, prepend=whole[0] - 1) > 1
    bins = {"frame": part("frame")[0], "exposure_s": exposure_s}
    bins["after_pause"] = part("after_pause").any(axis=0) | skipped
    for name in frames.attrs["annotations"]:
        labels = np.nan_to_num(part(name), nan=NO_LABEL).astype(np.int8)
        bins[name] = _label(labels, settings.bin_label)
    edges = np.column_stack([to_ns(part("start_time")[0]), to_ns(part("stop_time")[-1])])
    return pd.DataFrame(bins, index=whole).assign(label=bins[recording.label].astype(int)), edges


def _label(frames: np.ndarray, rule: str) -> np.ndarray:
    """Label of each bin from those of its frames (k, bin), 99 where the rule finds none."""
    known = frames != NO_LABEL
    if rule == "first":
        return frames[0]
    if rule == "any":
        labels = np.where(known, frames, -1).max(axis=0)
    else:
        values = np.unique(frames[known]) if known.any() else np.array([NO_LABEL])
        votes = np.stack([(frames == value).sum(axis=0) for value in values])
        labels = values[votes.argmax(axis=0)]
    return np.where(known.any(axis=0), labels, NO_LABEL)


def with_annotations(binned: xr.Dataset, bins: pd.DataFrame) -> xr.Dataset:
    """Counts of a film with what `bins_of_frames` knows of each bin; exposure is that of the frames."""
    known = ["frame", "after_pause"]
    names = bins.columns.drop([*known, "exposure_s", "label"])
    return binned.assign_coords(
        **{name: ("trial", bins[name]) for name in known},
        exposure_s=(("trial", "time"), bins[["exposure_s"]].to_numpy()),
        name=("name", names.to_numpy(str)),
        annotation=(("trial", "name"), bins[names].to_numpy(np.int8)),
    )


def is_film(binned: xr.Dataset) -> bool:
    """Whether these counts are of the frames of a film."""
    return "annotation" in binned.coords


def bin_s(binned: xr.Dataset) -> float:
    """Width of a film's bins, seconds of film."""
    return float(binned.stop_s[0] - binned.start_s[0])


def plan(n_bins: int, width_s: float, settings: SplitSettings) -> tuple[int, int, int, int]:
    """(parts, bins of a part, bins of a gap, bins of a segment) of a film of n bins.

    A gap holds the buffer and the context. Parts are as many as published for the buffer, or by the
    rule that gives the same from 24 s on. BadParameter where no segment is left.
    """
    past, future = settings.context_s
    gap = math.ceil((settings.gap_s + past + future) / width_s - 1e-9)
    parts = settings.n_parts
    if not parts and abs(n_bins * width_s / PUBLISHED_S - 1) < WITHIN:
        parts = PARTS.get(settings.gap_s, 0)
    parts = parts or max(1, round(n_bins / (FOLDS * 2.39 * max(gap, 1))))
    base = n_bins // parts
    segment = (base - FOLDS * gap) // FOLDS
    if segment < 1:
        raise BadParameter(
            f"split: segments leaves no bin between gaps of {gap} bins in {parts} part(s) of {base} bins; use "
            "a smaller gap_s or n_parts."
        )
    return parts, base, gap, segment


def segment_roles(
    n_bins: int, width_s: float, fold: int, settings: SplitSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Role (n,) and segment (n,) of each bin of a film in one fold, counted from 0.

    In every part, segment `fold` judges and the next one validates. A gap between two segments that
    teach teaches too; the one that ends a part, in folds 1 and 2 only, as published. A bin of a gap
    counts to the segment before it.
    """
    parts, base, gap, length = plan(n_bins, width_s, settings)
    at = np.arange(n_bins)
    part = np.minimum(at // base, parts - 1)
    segment = np.minimum((at - part * base) // (length + gap), FOLDS - 1)
    place = at - part * base - segment * (length + gap)  # in its segment, or the gap behind it
    role = np.array(["train"] * FOLDS)
    role[fold], role[(fold + 1) % FOLDS] = "test", "val"
    teaches = (role == "train") & (np.roll(role, -1) == "train")
    teaches[-1] &= fold in (1, 2)
    in_gap = np.where(teaches[segment] & (place < length + gap), "train", "gap")
    return np.where(place < length, role[segment], in_gap), part * FOLDS + segment


def random_roles(role: np.ndarray, seed: int) -> np.ndarray:
    """Roles dealt to bins at random, each as often: what a leak curve sets beside its buffers."""
    return np.random.default_rng([seed, 5]).permutation(role)


def around(
    counts: np.ndarray, number: np.ndarray, at: np.ndarray, windows: list[list[float]], width_s: float
) -> np.ndarray:  # fmt: skip
    """Counts of the bins around each of some bins: float32 (B, T, N), spikes over the root of bins.

    counts (n, N) of bins of these numbers (n,), rising; at (B,) positions; windows (T, 2): start and stop
    of each, from the begin of the bin [s], rounded to bins, at least one. At the ends of the film, and where
    bins are missing, they are what is left of them.
    """
    sums = np.zeros((len(counts) + 1, counts.shape[1]), np.int32)
    np.cumsum(counts, axis=0, out=sums[1:])
    x = np.empty((len(at), len(windows), counts.shape[1]), np.float32)
    for k, (first, stop) in enumerate(np.rint(np.asarray(windows) / width_s).astype(int)):
        ends = first, max(stop, first + 1)
        low, high = (np.searchsorted(number, number[at] + end) for end in ends)
        spikes, root = sums[high], np.sqrt(np.maximum(high - low, 1))[:, None]
        spikes -= sums[low]
        np.divide(spikes, root, out=x[:, k], casting="same_kind")
    return x
