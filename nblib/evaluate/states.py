"""Scores of a label that is on or off for seconds: neighbouring bins tell the same, so segments count.

Intervals are over segments, p by labels moved round within each segment. Tests bin by bin call noise a
result in four films of ten, so there are none. Shapes: B test bins, in the order of time.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from nblib.core.errors import BadInput
from nblib.evaluate import stats
from nblib.evaluate.scores import FRACTION, Score

KAPPA, MOVED = "kappa", "time within groups"  # see `stats.permutation_slices`
METRICS = (KAPPA, "f1", "pr_auc", "auroc")
LEAST = np.array([-1.0, 0.0, 0.0, 0.0])


class Answers:
    """What one decoder said of the test bins: `values` of its METRICS (4,), and their intervals.

    y (B,) 0 or 1; p (B,) probability of 1; segment (B,). `drawn` (n_bootstrap, 4): the values with
    segments drawn anew, the same ones for every decoder. Raises BadInput for bins of one label only.
    """

    def __init__(
        self,
        y: np.ndarray,
        p: np.ndarray,
        segment: np.ndarray,
        n_bootstrap: int = 1000,
        seed: int = 0,
    ):
        if set(np.unique(y).tolist()) != {0, 1} or np.isnan(p).any():
            raise BadInput("test bins need both labels, 0 and 1, and answers that are not NaN.")
        self.y, self.said = y.astype(float), (p > 0.5).astype(float)
        self.segment, self.n_bins = np.unique(segment, return_inverse=True, return_counts=True)[1:]
        self.rank = np.unique(p, return_inverse=True)[1]
        self.n_bootstrap, self.seed = n_bootstrap, seed

    def scores(self, y: np.ndarray, weight: np.ndarray | float = 1.0) -> np.ndarray:
        """kappa, F1, PR-AUC and AUROC (4,) of labels y (B,), each bin counted `weight` (B,) times."""
        on, off = np.bincount(self.rank, weight * y), np.bincount(self.rank, weight * (1 - y))
        n_on, n_off = on.sum(), off.sum()
        hits, found = np.cumsum(on[::-1]), np.cumsum((on + off)[::-1])  # from the surest on
        both, said = (weight * y * self.said).sum(), (weight * self.said).sum()
        precision = hits / np.maximum(found, 1e-12)
        return np.array([
            kappa(both, said, n_on, n_on + n_off), 2 * both / max(said + n_on, 1e-12),
            on[::-1] @ precision / max(n_on, 1e-12),
            on @ (np.cumsum(off) - off / 2) / max(n_on * n_off, 1e-12),
        ])  # fmt: skip

    @cached_property
    def values(self) -> np.ndarray:
        return self.scores(self.y)

    @cached_property
    def drawn(self) -> np.ndarray:
        rng = np.random.default_rng([self.seed, 0])
        weights = stats.bootstrap_weights(len(self.n_bins), self.n_bootstrap, rng)
        return np.array([self.scores(self.y, weight[self.segment]) for weight in weights])

    def interval(self) -> np.ndarray:
        """Student's interval of each of the values over segments, (2, 4); of one segment, all there is."""
        if len(self.n_bins) == 1:
            return np.array([LEAST, np.ones(4)])
        half = self._half(self.drawn)
        return np.array(
            [np.maximum(LEAST, self.values - half), np.minimum(1.0, self.values + half)]
        )

    def over(self, other: Answers) -> tuple[float, float, float]:
        """How much higher its kappa is than that of another on the same bins, and the interval of that."""
        more = float(self.values[0] - other.values[0])
        half = float(self._half(self.drawn[:, 0] - other.drawn[:, 0]))
        return more, more - half, more + half

    def _half(self, drawn: np.ndarray) -> np.ndarray:
        n = len(self.n_bins)
        return stats.half_width(drawn, n) * np.sqrt(n / max(n - 1, 1))


def kappa(both, said, on, n) -> np.ndarray | float:
    """Cohen's kappa of n bins of which `on` are on, `said` were said to be, and `both` are and were."""
    by_luck = (said * on + (n - said) * (n - on)) / n**2
    return (1 + (2 * both - said - on) / n - by_luck) / np.maximum(1 - by_luck, 1e-12)


def state_scores(answers: Answers, n_permutations: int = 1000) -> tuple[dict[str, Score], int]:
    """kappa, F1, PR-AUC and AUROC of one decoder, and how many independent bins its kappa is worth.

    Chance: of kappa 0, of AUROC one half, of PR-AUC the share of bins that are on, of F1 what always
    saying "on" scores. n_effective: n times the variance of kappa, were bins independent, over what
    it is with segments drawn anew.
    """
    n, base, seed = len(answers.y), answers.y.mean(), answers.seed
    orders = stats.permutation_slices(answers.y, n_permutations, seed, answers.segment, MOVED)
    null = np.array([answers.scores(y) for part in orders for y in part])
    p = [stats.permutation_p(*pair) for pair in zip(answers.values, null.T, strict=True)]
    chance = 0.0, 2 * base / (1 + base), base, 0.5
    units = KAPPA, FRACTION, FRACTION, FRACTION
    columns = answers.values, *answers.interval(), chance, p
    scores = {
        name: Score(*map(float, numbers), n, unit, stats.NULLS[MOVED])
        for name, unit, *numbers in zip(METRICS, units, *columns, strict=True)
    }
    kinds = np.bincount((2 * answers.y + answers.said).astype(int), minlength=4) / n
    draws = np.random.default_rng([seed, 2]).multinomial(n, kinds, answers.n_bootstrap).T
    alone = kappa(draws[3], draws[1] + draws[3], draws[2] + draws[3], n).var()
    return scores, min(n, max(1, round(n * alone / max(answers.drawn[:, 0].var(), 1e-12))))
