"""Scores of a label that is on or off for seconds: neighbouring bins tell the same, so segments count.

Intervals are over segments, p by labels moved round within each segment. Tests bin by bin call noise a
result in four films of ten, so there are none. Shapes: B test bins, in the order of time.
"""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from nblib.core.errors import BadInput
from nblib.evaluate import stats
from nblib.evaluate.scores import FRACTION, Score

KAPPA, MOVED = "kappa", "time within groups"  # see `stats.permutation_slices`
METRICS = (KAPPA, "f1", "pr_auc", "auroc")


class Answers:
    """What one decoder said of the test bins, ready to be scored with other weights or labels.

    y (B,) 0 or 1; p (B,) probability of 1; segment (B,). Raises BadInput for bins of one label only.
    """

    def __init__(self, y: np.ndarray, p: np.ndarray, segment: np.ndarray):
        if set(np.unique(y).tolist()) != {0, 1} or np.isnan(p).any():
            raise BadInput("test bins need both labels, 0 and 1, and answers that are not NaN.")
        self.y, self.said = y.astype(float), (p > 0.5).astype(float)
        self.segment, self.n_bins = np.unique(segment, return_inverse=True, return_counts=True)[1:]
        self.rank = np.unique(p, return_inverse=True)[1]

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

    def redrawn(self, n_bootstrap: int, seed: int) -> np.ndarray:
        """The scores (n_bootstrap, 4) with segments drawn anew, the same ones for every decoder."""
        rng = np.random.default_rng([seed, 0])
        weights = stats.bootstrap_weights(len(self.n_bins), n_bootstrap, rng)
        return np.array([self.scores(self.y, w[self.segment]) for w in weights])

    def half_width(self, spread: np.ndarray | float) -> np.ndarray | float:
        """Half of Student's interval over segments, whose scores drawn anew spread so much."""
        df = max(len(self.n_bins) - 1, 1)
        return stdtrit(df, 0.975) * spread * np.sqrt(len(self.n_bins) / df)


def kappa(both, said, on, n) -> np.ndarray | float:
    """Cohen's kappa of n bins of which `on` are on, `said` were said to be, and `both` are and were."""
    by_luck = (said * on + (n - said) * (n - on)) / n**2
    return (1 + (2 * both - said - on) / n - by_luck) / np.maximum(1 - by_luck, 1e-12)


def state_scores(
    answers: Answers, *, n_permutations: int = 1000, n_bootstrap: int = 1000, seed: int = 0
) -> tuple[dict[str, Score], int]:
    """kappa, F1, PR-AUC and AUROC of one decoder, and how many independent bins its kappa is worth.

    Chance: of kappa 0, of AUROC one half, of PR-AUC the share of bins that are on, of F1 what always
    saying "on" scores. n_effective: n times the variance of kappa, were bins independent, over what
    it is with segments drawn anew.
    """
    values, n = answers.scores(answers.y), len(answers.y)
    drawn = answers.redrawn(n_bootstrap, seed)
    orders = stats.permutation_slices(answers.y, n_permutations, seed, answers.segment, MOVED)
    null = np.array([answers.scores(y) for part in orders for y in part])
    half = answers.half_width(drawn.std(axis=0))
    base = answers.y.mean()
    scores = {}
    for k, chance in enumerate((0.0, 2 * base / (1 + base), base, 0.5)):
        least, unit = (-1.0, KAPPA) if k == 0 else (0.0, FRACTION)
        low, high = max(least, values[k] - half[k]), min(1.0, values[k] + half[k])
        if len(answers.n_bins) == 1:
            low, high = least, 1.0
        p = stats.permutation_p(values[k], null[:, k])
        numbers = (float(x) for x in (values[k], low, high, chance, p))
        scores[METRICS[k]] = Score(*numbers, n, unit, stats.NULLS[MOVED])
    kinds = np.bincount((2 * answers.y + answers.said).astype(int), minlength=4) / n
    alone = np.random.default_rng([seed, 2]).multinomial(n, kinds, n_bootstrap).T
    alone = kappa(alone[3], alone[1] + alone[3], alone[2] + alone[3], n).var()
    return scores, min(n, max(1, round(n * alone / max(drawn[:, 0].var(), 1e-12))))


def kappa_difference(
    a: Answers, b: Answers, n_bootstrap: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """How much higher kappa of a is than of b on the same bins, and its interval over segments."""
    drawn = a.redrawn(n_bootstrap, seed)[:, 0] - b.redrawn(n_bootstrap, seed)[:, 0]
    value, half = a.scores(a.y)[0] - b.scores(b.y)[0], a.half_width(drawn.std())
    return float(value), float(value - half), float(value + half)
