"""What an encoder knows at a moment: the stimulus before it, and the cell's own spikes before it.

Time goes in steps of 8 bins. Everything of step s is known at its first bin; nothing reaches over a seam
or further back than `CONTEXT_STEPS`, so that it fits into the gap between two roles.

Shapes: T steps, C cells, S steps chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from nblib.core.errors import BadInput, BadParameter
from nblib.prepare.continuous import STEP
from nblib.prepare.spike_distance import distances
from nblib.prepare.stream import Stream

LAGS = 63  # steps of stimulus seen
CONTEXT_STEPS = 100  # of spikes seen, the longest context
LONGEST = 200  # bins; a spike further back than these counts as so far back
EDGES = np.unique(
    np.round(np.geomspace(1, LONGEST, 24)).astype(int)
)  # of times since the last spike
N_AGES = len(EDGES) + 1
AGE = np.digitize(np.arange(LONGEST + 1), EDGES)  # group of each such time
TAUS = (4.0, 20.0, 100.0)  # steps, of the traces of spikes
RECENT = 32  # steps whose counts are seen one by one


@dataclass(frozen=True)
class Inputs:
    """What encoders read of a stream.

    stimulus (T, channel) float32, mean 0 and spread 1 over train steps; spikes (T, 8, C) uint8, 0 or 1;
    since (T, 8, C) uint8: bins since the last spike before each bin, at most LONGEST; traces (T, C, 3)
    float32: decaying sums of spikes before the step; steps: those of each role; rate (C,): share of train
    bins with a spike; after_seam (T,): steps since the last seam.
    """

    stimulus: np.ndarray
    spikes: np.ndarray
    since: np.ndarray
    traces: np.ndarray
    steps: dict[str, np.ndarray]
    rate: np.ndarray
    after_seam: np.ndarray

    @property
    def n_cells(self) -> int:
        return len(self.rate)

    def shown(self, steps: np.ndarray) -> np.ndarray:
        """Stimulus before steps (S,), the latest last: (S, channel, LAGS); 0 beyond a seam."""
        lag = np.arange(-LAGS, 0)
        seen = self.stimulus[np.maximum(steps[:, None] + lag, 0)]
        seen[-lag > self.after_seam[steps][:, None]] = 0
        return np.ascontiguousarray(seen.transpose(0, 2, 1))

    def ahead(self, steps: np.ndarray, n_bins: int) -> np.ndarray:
        """Spikes of the n bins from the first bin of steps (S,) on: (S, C, n_bins) uint8."""
        bins = steps[:, None] * STEP + np.arange(n_bins)
        return self.spikes.reshape(-1, self.n_cells)[bins].transpose(0, 2, 1)

    def age(self, steps: np.ndarray, ahead: int = 0) -> np.ndarray:
        """Group of the time since the last spike before each bin of steps (S,): (S, 8, C). With `ahead`:
        as it would be in each of so many bins from the step on, if no other spike came: (S, C, ahead)."""
        if not ahead:
            return AGE[self.since[steps]]
        last = self.since[steps, 0].astype(int)[..., None]
        return AGE[np.minimum(last + np.arange(ahead), LONGEST)]

    def recent(self, steps: np.ndarray) -> np.ndarray:
        """What is known of the spikes before steps (S,): group of age as 0 or 1, traces, recent counts:
        (S, C, features) float32."""
        age = np.eye(N_AGES, dtype=np.float32)[AGE[self.since[steps, 0]]]
        lag = np.arange(-RECENT, 0)
        counts = self.spikes[np.maximum(steps[:, None] + lag, 0)].sum(axis=2, dtype=np.float32)
        counts[-lag > self.after_seam[steps][:, None]] = 0
        return np.concatenate([age, self.traces[steps], counts.transpose(0, 2, 1)], axis=2)


def inputs_of(stream: Stream, horizon_s: float) -> Inputs:
    """What encoders read, for predictions that reach `horizon_s` ahead.

    Raises BadParameter where the split keeps less time free between roles than context and horizon,
    or bins do not fall into steps; BadInput where a cell does not fire in train, validation or test.
    """
    if stream.row_bins % STEP:
        raise BadParameter(
            f"rows of {stream.row_bins} bins are no multiple of {STEP}; take a narrower bin_s."
        )
    context_s = CONTEXT_STEPS * STEP * stream.bin_s
    step_s = STEP * stream.bin_s
    steps = {
        role: stream.windows(role, context_s, max(horizon_s, step_s), STEP) // STEP
        for role in ("train", "val", "test")
    }
    T = len(stream.number) // STEP
    spikes = (stream.counts > 0).astype(np.uint8)
    shown = stream.stimulus.reshape(T, STEP, -1).mean(axis=1)
    spread = shown[steps["train"]].std(axis=0)
    shown = (shown - shown[steps["train"]].mean(axis=0)) / np.where(spread > 0, spread, 1)
    cuts = np.flatnonzero(np.diff(stream.number) != 1) + 1
    since, traces, after_seam = np.empty(spikes.shape, np.uint8), [], []
    for first, stop in zip(np.r_[0, cuts], np.r_[cuts, len(spikes)], strict=True):
        part = spikes[first:stop]
        back = distances(part[::-1], LONGEST, future=True, axis=0)[::-1]
        since[first] = LONGEST
        since[first + 1 : stop] = np.minimum(back[:-1] + 1, LONGEST)
        traces.append(traces_of(part.reshape(-1, STEP, part.shape[1]).sum(axis=1)))
        after_seam.append(np.arange((stop - first) // STEP))
    spikes = spikes.reshape(T, STEP, -1)
    for role, at in steps.items():
        if not len(at):
            raise BadInput(
                f"no step of {role} is left with its context and horizon; the parts of the split are too short."
            )
        if (silent := ~spikes[at].any(axis=(0, 1))).any():
            names = stream.units.index[silent].tolist()
            raise BadInput(f"unit {names[0]} (of {len(names)}) has no spike in {role} and cannot be scored; leave it out in 03, or record longer.")  # fmt: skip
    return Inputs(
        shown.astype(np.float32), spikes, since.reshape(spikes.shape), np.concatenate(traces), steps,
        spikes[steps["train"]].mean(axis=(0, 1)), np.concatenate(after_seam),
    )  # fmt: skip


def traces_of(counts: np.ndarray) -> np.ndarray:
    """Sums of counts (T, C) of steps before each, decaying with TAUS: (T, C, 3), cut off exactly
    CONTEXT_STEPS back."""
    traces = []
    for tau in TAUS:
        decay = np.exp(-1 / tau)
        whole = np.zeros(CONTEXT_STEPS + 2)
        whole[1], whole[-1] = 1, -(decay**CONTEXT_STEPS)
        traces.append(lfilter(whole, [1, -decay], counts, axis=0) / np.sqrt(tau))
    return np.stack(traces, axis=2).astype(np.float32)
