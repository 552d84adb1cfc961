"""Pretext tasks: what the order of windows in time can teach an embedder, without labels.

Relative positioning (RP), temporal shuffling (TS) and contrastive predictive coding (CPC), as
defined by Banville et al. 2020 (J Neural Eng 18:046020). Samplers work on the recording and the
start time of every window; no signal is touched. Shapes: W windows, P samples, T time, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nblib.core.errors import BadInput

if TYPE_CHECKING:
    from nblib.prepare.potentials.stored_windows import Cohort

TASKS = ("rp", "ts", "cpc")
TITLES = {
    "rp": "relative positioning",
    "ts": "temporal shuffling",
    "cpc": "contrastive predictive coding",
}
EMBEDDINGS = "embeddings"  # file that 08 writes: h (W, E), record and start_s (W,)
EPS = 1e-6  # s; start times are compared with this tolerance


@dataclass(frozen=True)
class Timeline:
    """Where the windows of some recordings lie: row (V,) of each in the cohort, record and start_s.

    Sorted by recording, then time; each lasts window_s.
    """

    row: np.ndarray
    record: np.ndarray
    start_s: np.ndarray
    names: tuple[str, ...]
    window_s: float

    @classmethod
    def of(cls, cohort: Cohort, records: np.ndarray) -> Timeline:
        """The timeline of some recordings of a cohort, by their numbers."""
        row = np.flatnonzero(np.isin(cohort.record, records))
        row = row[np.lexsort((cohort.start_s[row], cohort.record[row]))]
        names = tuple(p.recording for p in cohort.parts)
        record, start = cohort.record[row], cohort.start_s[row]
        # From each recording's own beginning: clocks may count from 1970.
        known, place = np.unique(record, return_inverse=True)
        first = np.full(len(known), np.inf)
        np.minimum.at(first, place, start)
        return cls(row, record, start - first[place], names, cohort.window_s)

    def shuffled(self, seed: list[int]) -> Timeline:
        """The same times with the windows of each recording in another order."""
        rng, row = np.random.default_rng(seed), self.row.copy()
        for record in np.unique(self.record):
            inside = self.record == record
            row[inside] = rng.permutation(row[inside])
        return replace(self, row=row)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """First and one past the last position of each window's own recording, (V,) each."""
        lo = np.searchsorted(self.record, self.record, "left")
        return lo, np.searchsorted(self.record, self.record, "right")

    def shared(self) -> tuple[np.ndarray, np.ndarray]:
        """First and one past the last position of the windows that share samples with each, itself
        among them: (V,) each."""
        lo, hi = self.start_s - self.window_s, self.start_s + self.window_s
        return self.before(lo + 2 * EPS), self.before(hi)

    def before(self, at_s: np.ndarray) -> np.ndarray:
        """How far each window's recording reaches before `at_s` (V,): position of the first at or after."""
        return self._search(at_s - EPS)

    def after(self, at_s: np.ndarray) -> np.ndarray:
        """Position of the first window of the recording that begins later than `at_s` (V,)."""
        return self._search(at_s + EPS)

    def _search(self, at_s: np.ndarray) -> np.ndarray:
        # One search for all: times of recording r are moved by r times more than any lasts.
        span = float(np.ptp(self.start_s)) + float(np.abs(self.start_s).max(initial=0)) + 1e4
        lo, hi = self.bounds()
        moved = self.start_s + self.record * 4 * span
        first = np.searchsorted(moved, at_s + self.record * 4 * span, "left")
        return np.clip(first, lo, hi)


def _pick(lo: np.ndarray, hi: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One position of each half-open range [lo, hi)."""
    return lo + (rng.random(len(lo)) * (hi - lo)).astype(np.int64)


def _anchors(
    can: np.ndarray, line: Timeline, n: int, why: str, rng: np.random.Generator
) -> np.ndarray:
    """n positions out of those that `can` (V,); BadInput for a recording in which none can."""
    for record in np.unique(line.record):
        inside = line.record == record
        if not can[inside].any():
            length = np.ptp(line.start_s[inside])
            raise BadInput(
                f"recording {line.names[record]!r} lasts {length:.4g} s and holds {inside.sum()} windows: {why}."
            )
    return rng.choice(np.flatnonzero(can), n)


def draw_rp(
    line: Timeline, n: int, tau_pos_s: float, tau_neg_s: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of windows (n, 2), positions in the timeline, and y (n,): half 1 (near), half 0 (far).

    Near: another window of the recording, at most tau_pos_s away; far: more than tau_neg_s away. The
    two share no sample. Raises BadInput for a recording in which no window has both.
    """
    lo, hi = line.bounds()
    near_lo, near_hi = line.before(line.start_s - tau_pos_s), line.after(line.start_s + tau_pos_s)
    shared_lo, shared_hi = (np.clip(at, near_lo, near_hi) for at in line.shared())
    n_shared = shared_hi - shared_lo  # the window itself at least
    far_s = max(tau_neg_s, line.window_s - 2 * EPS)
    left, right = line.before(line.start_s - far_s), line.after(line.start_s + far_s)
    n_far = (left - lo) + (hi - right)
    can = (near_hi - near_lo > n_shared) & (n_far > 0)
    why = f"no pair is at most tau_pos_s = {tau_pos_s:g} s and another more than tau_neg_s = {tau_neg_s:g} s apart"
    anchor = _anchors(can, line, n, why, rng)
    y = rng.permutation(np.arange(n) % 2)
    near = _pick(near_lo[anchor], near_hi[anchor] - n_shared[anchor], rng)
    near = near + (near >= shared_lo[anchor]) * n_shared[anchor]
    far = lo[anchor] + (rng.random(n) * n_far[anchor]).astype(np.int64)
    far = np.where(far < left[anchor], far, far - left[anchor] + right[anchor])
    pairs = np.stack([anchor, np.where(y == 1, near, far)], axis=1)
    turned = rng.random(n) < 0.5
    pairs[turned] = pairs[turned][:, ::-1]
    return pairs, y


def draw_ts(
    line: Timeline, n: int, tau_pos_s: float, tau_neg_s: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Triplets (n, 3) and y (n,): 1 where the middle window lies between the outer two in time.

    The outer two are at most tau_pos_s apart, with at least one window between them. Where y is
    0, the middle one is more than tau_neg_s away from both. No two share a sample. Half of the
    triplets run backwards.
    """
    lo, hi = line.bounds()
    last = line.after(line.start_s + tau_pos_s)  # one past the last that may close the triplet
    place = np.arange(len(line.row))
    shared_lo, shared_hi = line.shared()
    # The first that may close it: beyond one window, at least, that is beyond the anchor.
    middle = np.minimum(shared_hi, len(place) - 1)
    closing = np.where(shared_hi < hi, shared_hi[middle], hi)
    can_close = closing < last
    far_s = max(tau_neg_s, line.window_s - 2 * EPS)
    left = line.before(line.start_s - far_s)
    right_of = line.after(line.start_s + far_s)
    # A far window must exist whatever closes the triplet: before the anchor, or after the last.
    last_end = np.where(last - 1 >= place, right_of[np.minimum(last - 1, len(place) - 1)], hi)
    can = can_close & ((left - lo) + (hi - last_end) > 0)
    why = f"no three windows within tau_pos_s = {tau_pos_s:g} s and another more than tau_neg_s = {tau_neg_s:g} s away"
    anchor = _anchors(can, line, n, why, rng)
    close = _pick(closing[anchor], last[anchor], rng)
    y = rng.permutation(np.arange(n) % 2)
    between = _pick(shared_hi[anchor], shared_lo[close], rng)
    a, b = left[anchor], right_of[close]
    n_far = (a - lo[anchor]) + (hi[anchor] - b)
    far = lo[anchor] + (rng.random(n) * n_far).astype(np.int64)
    far = np.where(far < a, far, far - a + b)
    triplets = np.stack([anchor, np.where(y == 1, between, far), close], axis=1)
    turned = rng.random(n) < 0.5
    triplets[turned] = triplets[turned][:, ::-1]
    return triplets, y


def draw_cpc(
    line: Timeline,
    n: int,
    n_context: int,
    n_ahead: int,
    n_negatives: int,
    same_recording: bool,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Context windows (n, n_context) and, for each of the n_ahead that follow, candidates.

    candidates (n, n_ahead, 1 + n_negatives): the true window first, then others, drawn from the same
    recording or from all. No two windows of the context and of those to be told share a sample: where
    windows overlap, only every so many stand in a row. None of the others shares a sample with them.
    Raises BadInput for a recording without a run of windows that long.
    """
    lo, hi = line.bounds()
    place, length = np.arange(len(line.row)), n_context + n_ahead
    step = np.median(np.diff(line.start_s)) if len(place) > 1 else 0.0
    stride = max(1, int(np.ceil(line.window_s / step - 1e-3))) if step > 0 else 1
    run = place[:, None] + stride * np.arange(length)  # (V, length)
    whole = run[:, -1] < hi
    steps = np.diff(line.start_s[np.minimum(run, len(place) - 1)], axis=1)
    # Windows that were left out break a run.
    even = (np.abs(steps - stride * step) < 0.5 * step).all(axis=1)
    even &= (steps > line.window_s - EPS).all(axis=1)
    shared_lo, shared_hi = line.shared()
    end = shared_hi[
        np.minimum(run[:, -1], len(place) - 1)
    ]  # of the windows that share with the run
    can = whole & even & (hi - lo > end - shared_lo)
    why = f"no run of {n_context} + {n_ahead} windows, and one beside it, in time order"
    first = _anchors(can, line, n, why, rng)
    context, ahead = run[first, :n_context], run[first, n_context:]
    if same_recording:
        low, high = lo[first], hi[first]
    else:
        low, high = np.zeros(n, np.int64), np.full(n, len(place))
    begin, taken = shared_lo[first, None, None], (end - shared_lo)[first, None, None]
    free = (high - low)[:, None, None] - taken
    other = low[:, None, None] + (rng.random((n, n_ahead, n_negatives)) * free).astype(np.int64)
    other = np.where(other >= begin, other + taken, other)
    return context, np.concatenate([ahead[:, :, None], other], axis=2)
