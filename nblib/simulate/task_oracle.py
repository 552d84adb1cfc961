"""What could be known at best of a simulated task: exact answers from its truth, by forward and backward sums.

Trials are independent here, so a decoder that reads the trials beside may know more of the block.
Source of the recursion: Rabiner 1989, Proc. IEEE 77:257.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nblib.simulate.task import Causes, Units

AT_ONCE = 20  # trials
WHISKER = 3  # of the inputs


def rates_of(task: Causes, units: Units, causes: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Spikes a bin that each unit is expected to fire: (cause, bin, level, unit)."""
    drive = task.drive[causes] @ units.weights.T + units.base  # (H, T, N)
    whisker = task.levels[:, None] * units.weights[:, WHISKER]  # (V, N)
    return np.exp(drive[:, :, None] + whisker)


@dataclass(frozen=True)
class Ceiling:
    """The best possible answers for a session; cause (trial,), level (trial, T): what is true of its trials."""

    task: Causes
    units: Units
    cause: np.ndarray
    level: np.ndarray

    def posterior(
        self, counts: np.ndarray, seen: np.ndarray | slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """p(cause) (K, H) and p(level | cause) (T, K, H, V) of trials, from counts (K, T, N) of `seen` units."""
        rates, counts = rates_of(self.task, self.units)[..., seen], counts[..., seen]
        n_trials, n_bins = counts.shape[:2]
        h, v = len(self.task.prior), len(self.task.first)
        log = np.empty((n_bins, n_trials, h, v))
        for t in range(n_bins):
            each = np.log(rates[:, t]).reshape(h * v, -1) @ counts[:, t].T.astype(float)
            log[t] = each.T.reshape(n_trials, h, v) - rates[:, t].sum(axis=-1)
        largest = log.max(axis=-1, keepdims=True)
        likelihood = np.exp(log - largest)
        forward, evidence = (
            np.empty_like(log),
            np.log(self.task.prior) + largest[..., 0].sum(axis=0),
        )
        now = self.task.first * likelihood[0]
        for t in range(n_bins):
            if t:
                now = self._step(now, t, 0) * likelihood[t]
            total = now.sum(axis=-1, keepdims=True)
            forward[t] = now = now / total
            evidence = evidence + np.log(total[..., 0])
        back, level = np.ones((n_trials, h, v)), log
        for t in range(n_bins - 1, -1, -1):
            both = forward[t] * back
            level[t] = both / both.sum(axis=-1, keepdims=True)
            if t:
                back = self._step(back * likelihood[t], t, 1)
                back /= back.sum(axis=-1, keepdims=True)
        cause = np.exp(evidence - evidence.max(axis=1, keepdims=True))
        return cause / cause.sum(axis=1, keepdims=True), level

    def _step(self, weights: np.ndarray, t: int, back: int) -> np.ndarray:
        """Weights of levels (K, H, V) one step on to bin t, or back from it."""
        still, moving = (step.T if back else step for step in self.task.steps)
        moves = self.task.moving[:, t, None]
        return np.where(moves, weights @ moving, weights @ still)

    def decode(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """wheel and whisker (K, T): posterior means; choice (K, 2), probabilityLeft (K, 3): posteriors; from counts (K, T, N)."""
        task, parts = self.task, []
        for lo in range(0, len(counts), AT_ONCE):
            cause, level = self.posterior(counts[lo : lo + AT_ONCE])
            whisker = ((level @ task.levels) * cause).sum(axis=2).T
            choice = np.stack([cause @ (task.choice == c) for c in (-1, 1)], axis=1)
            block = np.stack([cause @ (task.block == b) for b in (-1, 0, 1)], axis=1)
            parts.append((cause @ task.wheel, whisker, choice, block))
        whole = map(np.concatenate, zip(*parts, strict=True))
        return dict(zip(("wheel", "whisker", "choice", "probabilityLeft"), whole, strict=True))

    def encode(self, trials: np.ndarray) -> np.ndarray:
        """E[spikes a bin | choice, block, wheel, whisker] (K, T, N): contrast and gain summed out."""
        task, rates = self.task, rates_of(self.task, self.units)
        known = np.column_stack([task.block, task.choice, task.onset, task.speed])
        expected, bins = [], np.arange(rates.shape[1])
        for cause, level in zip(self.cause[trials], self.level[trials], strict=True):
            alike = np.flatnonzero((known == known[cause]).all(axis=1))
            weight = task.prior[alike] / task.prior[alike].sum()
            expected.append(np.einsum("h,htn->tn", weight, rates[alike][:, bins, level]))
        return np.array(expected)

    def impute(self, counts: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """E[spikes a bin of `hidden` units | counts of the others] (K, T, hidden), from counts (K, T, N)."""
        seen = np.setdiff1d(np.arange(counts.shape[2]), hidden)
        rates, parts = rates_of(self.task, self.units)[..., hidden], []
        for lo in range(0, len(counts), AT_ONCE):
            cause, level = self.posterior(counts[lo : lo + AT_ONCE], seen)
            joint = (cause[:, :, None] * level).reshape(*level.shape[:2], -1)  # (T, K, H * V)
            each = rates.transpose(1, 0, 2, 3).reshape(len(joint), joint.shape[2], -1)
            parts.append((joint @ each).transpose(1, 0, 2))
        return np.concatenate(parts)
