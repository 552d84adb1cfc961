"""What an encoder knows at a moment: the stimulus before it, and the cell's own spikes before it.

Time goes in steps of 8 bins. Everything of step s is known at its first bin and reaches no further back than
`CONTEXT_STEPS`: so far back from a step of a role there is neither a seam nor another role
(`Stream.windows`), and steps near a seam are of no role.

Shapes: T steps, C cells, S steps chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numba
import numpy as np
from scipy.signal import lfilter

from nblib.core.errors import BadInput, BadParameter, some
from nblib.prepare.continuous import STEP
from nblib.prepare.continuous.stream import Stream
from nblib.prepare.decoder_inputs import ROLES

LAGS = 63  # steps of stimulus seen
CONTEXT_STEPS = 100  # of spikes seen, the longest context
LONGEST = 200  # bins; a spike further back than these counts as so far back
EDGES = np.unique(
    np.round(np.geomspace(1, LONGEST, 24)).astype(int)
)  # of times since the last spike
N_AGES = len(EDGES) + 1
AGE = np.digitize(np.arange(LONGEST + 1), EDGES)  # group of each such time
MOST_CHANNELS = 32  # of the stimulus: full-field colours, sounds, a mean here and there
TAUS = (4.0, 20.0, 100.0)  # steps, of the traces of spikes
RECENT = 32  # steps whose counts are seen one by one


@dataclass(frozen=True)
class Inputs:
    """What encoders read of a stream.

    stimulus (T, channel) float32, mean 0 and spread 1 over train steps; spikes (T, 8, C) uint8, 0 or 1;
    since (T, 8, C) uint8: bins since the last spike before each bin, at most LONGEST; traces (T, C, 3)
    float32: decaying sums of spikes before the step; steps: those of each role; rate (C,): share of train
    bins with a spike; until (T,): the first bin after the stretch without a seam that a step lies in.
    """

    stimulus: np.ndarray
    spikes: np.ndarray
    since: np.ndarray
    traces: np.ndarray
    steps: dict[str, np.ndarray]
    rate: np.ndarray
    until: np.ndarray

    @property
    def n_cells(self) -> int:
        return len(self.rate)

    @cached_property
    def counts(self) -> np.ndarray:
        """Spikes of each step, (T, C) float32."""
        return self.spikes.sum(axis=1, dtype=np.float32)

    def shown(self, steps: np.ndarray) -> np.ndarray:
        """Stimulus before steps (S,), the latest last: (S, channel, LAGS)."""
        seen = self.stimulus[steps[:, None] + np.arange(-LAGS, 0)]
        return np.ascontiguousarray(seen.transpose(0, 2, 1))

    def ahead(self, steps: np.ndarray, n_bins: int) -> np.ndarray:
        """Spikes of the n bins from the first bin of steps (S,) on, none after a seam or the recording's
        end: (S, C, n_bins) uint8."""
        spikes = self.spikes.reshape(-1, self.n_cells)
        bins = steps[:, None] * STEP + np.arange(n_bins)
        ahead = spikes[np.minimum(bins, len(spikes) - 1)]
        ahead[bins >= self.until[steps, None]] = 0
        return ahead.transpose(0, 2, 1)

    def age(self, steps: np.ndarray) -> np.ndarray:
        """Group of the time since the last spike before each bin of steps (S,): (S, C, 8)."""
        return AGE[self.since[steps]].transpose(0, 2, 1)

    def age_ahead(self, steps: np.ndarray, n_bins: int) -> np.ndarray:
        """The same as it would be in the n bins from steps (S,) on if no other spike came: (S, C, n_bins)."""
        last = self.since[steps, 0].astype(int)[..., None]
        return AGE[np.minimum(last + np.arange(n_bins), LONGEST)]

    def recent(self, steps: np.ndarray) -> np.ndarray:
        """What is known of the spikes before steps (S,): group of age as 0 or 1, traces, recent counts:
        (S, C, features) float32."""
        age = np.eye(N_AGES, dtype=np.float32)[AGE[self.since[steps, 0]]]
        before = steps[:, None] + np.arange(-RECENT, 0)
        counts = self.counts[before].transpose(0, 2, 1)
        return np.concatenate([age, self.traces[steps], counts], axis=2)

    def around(self, step: int) -> tuple[Inputs, int]:
        """The stretch about a step that anything said of it may rest on, as if it were the recording; and
        where the step lies in it."""
        first, stop = max(0, step - 3 * CONTEXT_STEPS), step + 3 * CONTEXT_STEPS
        stimulus, spikes = self.stimulus[first:stop], self.spikes[first:stop]
        until = np.minimum(self.until[first:stop] - first * STEP, len(spikes) * STEP)
        return self._of(stimulus, spikes, until=until), step - first

    def with_noise_from(self, step: int, rng: np.random.Generator) -> Inputs:
        """The same with noise for all stimulus and spikes from the first bin of a step on."""
        stimulus, spikes = self.stimulus.copy(), self.spikes.copy()
        stimulus[step:] = rng.standard_normal(stimulus[step:].shape)
        spikes[step:] = rng.random(spikes[step:].shape) < 0.2
        return self._of(stimulus, spikes)

    def _of(self, stimulus: np.ndarray, spikes: np.ndarray, **changed: np.ndarray) -> Inputs:
        """The same of other stimulus and spikes."""
        known = {"since": since_last(spikes), "traces": traces_of(spikes)}
        return replace(self, stimulus=stimulus, spikes=spikes, **known, **changed)


def context_s(bin_s: float) -> float:
    """How far back anything reaches [s]."""
    return CONTEXT_STEPS * STEP * bin_s


def inputs_of(stream: Stream, horizon_s: float) -> Inputs:
    """What encoders read, for predictions that reach `horizon_s` ahead.

    Raises BadParameter where the split keeps less time free between roles than context and horizon,
    or bins do not fall into steps; BadInput where a role holds no step, or no spike of some cell, for a
    stimulus that never changes in train or has too many channels, and for a single cell.
    """
    if len(stream.units) < 2:
        raise BadInput(
            f"unit {some(stream.units.index)} is left alone by 03 and 04, and scores have their intervals over cells: "
            "two at least are needed."
        )
    if (n := stream.stimulus.shape[1]) > MOST_CHANNELS:
        raise BadInput(
            f"the stimulus has {n} channels, and a model of each cell fills the memory with more than {MOST_CHANNELS}; "
            "write a series of fewer, such as means over parts of the field, and name it in the recipe (series)."
        )
    if stream.row_bins % STEP:
        raise BadParameter(
            f"rows of {stream.row_bins} bins are no multiple of {STEP}; take a narrower bin_s."
        )
    reach = context_s(stream.bin_s), max(horizon_s, STEP * stream.bin_s)
    steps = {role: stream.windows(role, *reach, STEP) // STEP for role in ROLES}
    T = len(stream.number) // STEP
    shown = stream.stimulus.reshape(T, STEP, -1).mean(axis=1)
    counts = stream.counts.reshape(T, STEP, -1)
    one_at_most = (
        counts.dtype == np.uint8 and counts.max(initial=0) <= 1
    )  # then they are not copied
    spikes = counts if one_at_most else (counts > 0).astype(np.uint8)
    for role, at in steps.items():
        if not len(at):
            raise BadInput(
                f"no step of {role} is left with its context and horizon; its parts are too short."
            )
        if (silent := ~spikes[at].any(axis=(0, 1))).any():
            rates = counts[:, :, silent].mean(axis=(0, 1)) / stream.bin_s
            raise BadInput(
                f"no spike in {role} of {silent.sum()} unit(s), {some(stream.units.index[silent])}, which fire "
                f"{rates.min():.2g} to {rates.max():.2g} Hz in all: what is said of them cannot be judged. Leave them "
                f"out by least_rate_hz in the recipe (04), or take longer parts (cycle_s)."
            )
    spread = shown[steps["train"]].std(axis=0)
    if not spread.any():
        raise BadInput(
            f"the stimulus is {some(shown[steps['train'][0]])} in all of train, so it tells nothing of spikes; name "
            "another series in the recipe (series)."
        )
    shown = (shown - shown[steps["train"]].mean(axis=0)) / np.where(spread > 0, spread, 1)
    rate = spikes[steps["train"]].mean(axis=(0, 1))
    known = since_last(spikes), traces_of(spikes)
    ends = np.append(np.flatnonzero(np.diff(stream.number) != 1) + 1, len(stream.number))
    until = ends[np.searchsorted(ends, np.arange(T) * STEP, side="right")]
    return Inputs(shown.astype(np.float32), spikes, *known, steps, rate, until)


def since_last(spikes: np.ndarray) -> np.ndarray:
    """Bins since the last spike before each bin of spikes (T, 8, C), at most LONGEST."""
    return _since_last(spikes.reshape(-1, spikes.shape[2])).reshape(spikes.shape)


@numba.njit(cache=True)
def _since_last(spikes):
    since = np.full(spikes.shape, LONGEST, np.uint8)
    for t in range(1, len(spikes)):
        for cell in range(spikes.shape[1]):
            if spikes[t - 1, cell]:
                since[t, cell] = 1
            elif since[t - 1, cell] < LONGEST:
                since[t, cell] = since[t - 1, cell] + 1
    return since


def traces_of(spikes: np.ndarray) -> np.ndarray:
    """Sums of spikes (T, 8, C) in the steps before each, decaying with TAUS: (T, C, 3), cut off exactly
    CONTEXT_STEPS back."""
    counts = np.ascontiguousarray(spikes.sum(axis=1, dtype=np.uint8).T)  # (C, T)
    traces = np.empty((counts.shape[1], len(counts), len(TAUS)), np.float32)
    for cell, k in np.ndindex(traces.shape[1:]):
        decay = np.exp(-1 / TAUS[k])
        trace = lfilter([0, 1], [1, -decay], counts[cell]) / np.sqrt(TAUS[k])
        trace[CONTEXT_STEPS:] -= decay**CONTEXT_STEPS * trace[:-CONTEXT_STEPS].copy()
        traces[:, cell, k] = trace
    return traces
