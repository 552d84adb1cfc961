"""Scores of a label that is on or off for seconds: neighbouring bins tell the same, so segments count.

Intervals are over segments and folds (see `half_width`), p by labels moved round within each segment. Tests
bin by bin call noise a result in four films of ten, so there are none. Shapes: B test bins, in the order
of time.
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

    y (B,) 0 or 1; p (B,) probability of 1; segment (B,); fold (B,), whose decoder answered; n_train: bins
    that taught the decoder of a fold. Raises BadInput for bins of one label only.
    """

    def __init__(
        self,
        y: np.ndarray,
        p: np.ndarray,
        segment: np.ndarray,
        fold: np.ndarray | int = 0,
        n_train: float = np.inf,
    ):
        if set(np.unique(y).tolist()) != {0, 1} or np.isnan(p).any():
            raise BadInput("test bins need both labels, 0 and 1, and answers that are not NaN.")
        self.y, self.said = y.astype(float), (p > 0.5).astype(float)
        units = segment, np.broadcast_to(fold, y.shape)
        self.segment, self.fold = (np.unique(of, return_inverse=True)[1] for of in units)
        self.rank = np.unique(p, return_inverse=True)[1]
        self.per_train = len(y) / n_train

    def scores(self, y: np.ndarray, weight: np.ndarray | float = 1.0) -> np.ndarray:
        """kappa, F1, PR-AUC and AUROC (4,) of labels y (B,), each bin counted `weight` (B,) times."""
        on, off = np.bincount(self.rank, weight * y), np.bincount(self.rank, weight * (1 - y))
        n_on, n_off = on.sum(), off.sum()
        hits, called = np.cumsum(on[::-1]), np.cumsum((on + off)[::-1])  # from the surest on
        both, said = (weight * y * self.said).sum(), (weight * self.said).sum()
        precision = hits / np.maximum(called, 1e-12)
        return np.array(
            [
                kappa(both, said, n_on, n_on + n_off),
                2 * both / max(said + n_on, 1e-12),
                on[::-1] @ precision / max(n_on, 1e-12),
                on @ (np.cumsum(off) - off / 2) / max(n_on * n_off, 1e-12),
            ]
        )

    @cached_property
    def values(self) -> np.ndarray:
        """kappa, F1, PR-AUC and AUROC (4,) of its own labels."""
        return self.scores(self.y)

    @cached_property
    def left_out(self) -> list[np.ndarray]:
        """The values with each segment left out (segments, 4), and with each fold (folds, 4)."""
        return [
            np.array([self.scores(self.y, of != k) for k in range(of.max() + 1)])
            if of.any()
            else self.values[None]
            for of in (self.segment, self.fold)
        ]

    def interval(self) -> np.ndarray:
        """The interval of each of the values, (2, 4); of one segment, all there is."""
        if not self.segment.any():
            return np.array([LEAST, np.ones(4)])
        half = half_width(self.left_out, self.per_train)
        return np.array([np.maximum(LEAST, self.values - half), np.minimum(1, self.values + half)])

    def over(self, other: Answers) -> tuple[float, float, float]:
        """How much higher its kappa is than that of another on the same bins, and the interval of that."""
        more = float(self.values[0] - other.values[0])
        pairs = zip(self.left_out, other.left_out, strict=True)
        half = float(half_width([one[:, 0] - two[:, 0] for one, two in pairs], self.per_train))
        return more, more - half, more + half


def half_width(left_out: list[np.ndarray], per_train: float) -> np.ndarray:
    """Half of Student's interval of scores, from their values with each segment, and each fold, left out."""
    return stats.t_quantile(len(left_out[0]) - 1) * np.sqrt(variance(left_out, per_train))


def variance(left_out: list[np.ndarray], per_train: float) -> np.ndarray:
    """Variance of scores, from their values with each segment, and each fold, left out.

    left_out: (segments, ...) and (folds, ...). The larger variance of the two counts, as segments of a
    fold share a decoder. per_train: test bins over train bins; what was learned varies too, which other
    folds do not show, as they share most of what they learn from. The factor on the variance for that is
    Nadeau and Bengio's (2003, Machine Learning 52:239).
    """
    of_units = [stats.jackknife_variance(values) for values in left_out]
    return np.max(of_units, axis=0) * (1 + per_train)


def kappa(both, said, on, n) -> np.ndarray | float:
    """Cohen's kappa of n bins of which `on` are on, `said` were said to be, and `both` are and were."""
    by_luck = (said * on + (n - said) * (n - on)) / n**2
    return (1 + (2 * both - said - on) / n - by_luck) / np.maximum(1 - by_luck, 1e-12)


def state_scores(
    answers: Answers, n_permutations: int = 1000, seed: int = 0
) -> tuple[dict[str, Score], int]:
    """kappa, F1, PR-AUC and AUROC of one decoder, and how many independent bins its kappa is worth.

    Chance: of kappa 0, of AUROC one half, of PR-AUC the share of bins that are on, of F1 what always
    saying "on" scores. n_effective: n times the variance of kappa, were bins independent, over that of
    the decoders' answers as it is.
    """
    n, base = len(answers.y), answers.y.mean()
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
    # Of four kinds of bins, by label and answer: kappa with one bin of each kind left out.
    kinds = np.bincount((2 * answers.y + answers.said).astype(int), minlength=4)
    _, false, missed, both = (kinds - np.eye(4)).T
    alone = stats.jackknife_variance(kappa(both, false + both, missed + both, n - 1), kinds)
    together = max(stats.jackknife_variance(values[:, 0]) for values in answers.left_out)
    return scores, min(n, max(1, round(n * alone / max(together, 1e-12))))
