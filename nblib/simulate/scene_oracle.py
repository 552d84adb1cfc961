"""The truth of a simulated recording, and the exact answer that follows from it.

Given the spike times in a presentation, the true rates and the gain, the posterior over images
follows from Bayes' rule: units and steps are independent Poisson counts. No decoder of the same
spikes can be right more often in expectation. Nothing here is trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nblib.core.errors import BadInput, BadParameter, MissingInput
from nblib.data.files.arrays import Stored, described, load_arrays, save_arrays

if TYPE_CHECKING:
    from nblib.data.recording import Recording

Which = int | slice | np.ndarray  # units by position
KIND = "nblib simulated truth"
PRESENTATIONS = ("start_s", "stop_s", "label", "block", "latent")
ABSENT_GAIN = 1e-3  # what is left of the rate of a unit that has drifted away from the probe


@dataclass(frozen=True)
class Truth:
    """What made the spikes of a simulated recording.

    Attributes
    ----------
    classes : int64 (C,) image numbers, ascending; -1 is the blank.
    templates : uint8 (scene, height, width).
    rates : float64 (unit, C, step) [Hz], at gain 1.
    step_s : width of a step [s]; the last step lasts until the presentation ends.
    units : arrays whose first axis is the unit: id, area, filters, and more.
    start_s, stop_s, label, block : (presentation,).
    latent : (presentation, 2), the slow shared state and running, see `gain`.
    params : what the recording was made from.
    """

    classes: np.ndarray
    templates: np.ndarray
    rates: np.ndarray
    step_s: float
    units: dict[str, np.ndarray]
    start_s: np.ndarray
    stop_s: np.ndarray
    label: np.ndarray
    block: np.ndarray
    latent: np.ndarray
    params: dict[str, Any]

    def gain(self, unit: Which, latent: np.ndarray, at_s: np.ndarray) -> np.ndarray:
        """Factor on the rate of the given units (by position) at latent states (time, 2).

        exp(coupling . latent - offset), and 1e-3 of that while the unit is away from its probe.
        Returns (..., time), rounded to 1e-6 as it was used to draw the spikes.
        """
        coupling, offset = self.units["coupling"][unit], self.units["gain_offset"][unit]
        presence = self.units["presence_s"][unit]
        log_gain = coupling[..., :1] * latent[:, 0] + coupling[..., 1:] * latent[:, 1]
        gain = np.exp(log_gain - offset[..., None])
        away = (at_s < presence[..., :1]) | (at_s >= presence[..., 1:])
        return np.round(np.where(away, ABSENT_GAIN * gain, gain), 6)

    def presentation_gain(self, unit: Which) -> np.ndarray:
        """Gain of the given units (by position) in every presentation, (..., presentation)."""
        return self.gain(unit, self.latent, self.start_s)


def write_truth(truth: Truth, path: Path) -> None:
    """Write the truth as HDF5, compressed and checksummed."""
    arrays = {"classes": truth.classes, "templates": truth.templates, "rates_hz": truth.rates}
    arrays |= {f"units/{name}": values for name, values in truth.units.items()}
    arrays |= {f"presentations/{name}": getattr(truth, name) for name in PRESENTATIONS}
    params = json.dumps(truth.params, sort_keys=True)
    save_arrays(path, arrays, kind=KIND, step_s=truth.step_s, params=params)


def read_truth(path: Path) -> Truth:
    """Read a truth file. Raises BadInput when it is missing, cut short or not a truth file."""
    try:
        if described(path).attributes.get("kind") == KIND:
            arrays = load_arrays(path)
            units = {n.removeprefix("units/"): v for n, v in arrays.items() if "units/" in n}
            return Truth(
                classes=arrays["classes"],
                templates=arrays["templates"],
                rates=arrays["rates_hz"],
                step_s=float(arrays.attributes["step_s"]),
                units=Stored(path, units),
                params=json.loads(arrays.attributes["params"]),
                **{name: arrays[f"presentations/{name}"] for name in PRESENTATIONS},
            )
    except (BadInput, MissingInput) as error:
        raise BadInput(
            f"{path}: cannot be read as the truth of a simulated recording ({error}); simulate the "
            "recording again."
        ) from None
    raise BadInput(f"{path}: this is not the truth file of a simulated recording.")


def oracle_log_posterior(
    truth: Truth | Path | str,
    recording: Recording,
    trial_index: Sequence[int] | np.ndarray,
    unit_ids: Sequence[int] | np.ndarray | None = None,
    *,
    classes: Sequence[int] | np.ndarray | None = None,
    window_s: tuple[float, float] = (0.0, np.inf),
) -> tuple[np.ndarray, np.ndarray]:
    """Exact log posterior over images, given spike times, true rates and gain.

    It is what an ideal observer of these spikes would say.

    Parameters
    ----------
    truth : a Truth or the path of its file.
    recording : that the truth describes.
    trial_index : rows of the natural-scene table.
    unit_ids : a subset of units (None: all); the posterior is exact for that subset, as units are
        independent given the gain.
    classes : the images that could have been shown, each with the same prior (None: all, with the
        blank).
    window_s : use only the spikes in this part of each presentation [s from its start].

    Returns
    -------
    Log posterior float64 (trial, class), each row normalised, and the classes int64.

    Raises
    ------
    BadParameter : for unknown units, trials or classes.
    BadInput : when the recording is not the one that the truth describes.
    """
    if not isinstance(truth, Truth):
        truth = read_truth(Path(truth))
    trials = _positions(trial_index, len(truth.start_s))
    column = {int(c): i for i, c in enumerate(truth.classes)}
    wanted = truth.classes if classes is None else np.unique(np.asarray(classes)).astype(np.int64)
    if unknown := [int(c) for c in wanted if int(c) not in column]:
        raise BadParameter(
            f"classes {unknown[:5]} were never shown; this recording has {truth.classes[0]} to "
            f"{truth.classes[-1]}."
        )
    rates = truth.rates[:, [column[int(c)] for c in wanted]]  # (U, C, step)
    row = {int(u): i for i, u in enumerate(truth.units["id"])}
    ids = truth.units["id"] if unit_ids is None else np.asarray(unit_ids)
    if unknown := [u for u in ids.tolist() if u not in row]:
        raise BadParameter(f"units {unknown[:5]} are not in the simulated recording's truth.")
    _check_same(truth, recording)
    place = recording.units.index.get_indexer(ids)

    unique, back = np.unique(trials, return_inverse=True)  # ascending in time
    start, stop = truth.start_s[unique], truth.stop_s[unique]
    n_steps = rates.shape[2]
    edges = np.append(np.arange(n_steps) * truth.step_s, np.inf)
    low = np.maximum(edges[:-1], window_s[0])
    high = np.minimum(np.minimum(edges[1:], window_s[1]), (stop - start)[:, None])
    width = np.maximum(high - low, 0.0)  # (T, step), seconds of each step that are looked at
    score = np.zeros((len(unique), len(wanted)))
    for lo in range(0, len(ids), 16):  # several units at once: one matrix product
        left, right = [], []
        for unit, at in zip(ids[lo : lo + 16].tolist(), place[lo : lo + 16], strict=True):
            i, times = row[unit], recording.spike_times(at)
            gain = truth.presentation_gain(i)[unique]
            left += [_step_counts(times, start, stop, truth.step_s, n_steps, window_s)]
            left += [-gain[:, None] * width]
            right += [np.log(rates[i].T), rates[i].T]  # (step, C)
        score += np.concatenate(left, axis=1) @ np.concatenate(right, axis=0)
    score -= _log_sum_exp(score)[:, None]
    return score[back], wanted.copy()


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    """log(sum(exp(x))) over the last axis; scipy's own would triple the import time."""
    top = x.max(axis=-1)
    return top + np.log(np.exp(x - top[..., None]).sum(axis=-1))


def _positions(trial_index: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    trials = np.asarray(trial_index)
    if trials.ndim != 1 or trials.dtype.kind not in "iu":
        raise BadParameter(
            f"trial_index must be whole numbers (n,), not {trials.dtype} of shape {trials.shape}."
        )
    if len(trials) and (trials.min() < 0 or trials.max() >= n):
        raise BadParameter(
            f"trial_index runs from {trials.min()} to {trials.max()}; the recording has trials 0 "
            f"to {n - 1}."
        )
    return trials


def _check_same(truth: Truth, recording: Recording) -> None:
    start = recording.trial_table["start_time"].to_numpy()
    if not np.array_equal(start, truth.start_s):
        raise BadInput(
            f"{recording.where}: its {len(start)} trials are not the {len(truth.start_s)} "
            "presentations of the truth file; they belong to different recordings."
        )


def _step_counts(
    times: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    step_s: float,
    n_steps: int,
    window_s: tuple[float, float],
) -> np.ndarray:
    """Spikes in each step of each presentation, float64 (T, step); `start` ascends."""
    trial = np.searchsorted(start, times, side="right") - 1
    inside = trial >= 0
    trial, times = trial[inside], times[inside]
    since = times - start[trial]
    inside = (times < stop[trial]) & (since >= window_s[0]) & (since < window_s[1])
    trial, since = trial[inside], since[inside]
    step = np.minimum((since / step_s).astype(np.int64), n_steps - 1)
    counts = np.bincount(trial * n_steps + step, minlength=len(start) * n_steps)
    return counts.reshape(len(start), n_steps).astype(float)
