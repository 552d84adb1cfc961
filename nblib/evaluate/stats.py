"""Intervals, tests and comparisons that a score is stated with; plain functions on arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, stdtrit

from nblib.core.errors import BadParameter

# Random draws are made in slices of about this many numbers, so memory stays flat.
_DRAWS_AT_ONCE = 4_000_000
TAIL = (1 - 0.95) / 2  # on either side of every interval
FEW = 10  # units; of fewer, a bootstrap is too narrow


def permutation_p(observed: float, null: np.ndarray) -> float:
    """Share of the null at or above what was observed, (k + 1) / (n + 1), never 0.

    observed: the score, higher = better; null (n,): scores under permuted labels.
    Source: Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39.
    """
    null = np.asarray(null, dtype=np.float64)
    if null.size == 0 or not np.isfinite(null).all() or not np.isfinite(observed):
        raise BadParameter("permutation_p needs a finite score and at least one finite null score.")
    # Equal scores summed in another order differ in the last digits; they count as ties.
    tolerance = 1e-12 * max(1.0, abs(observed))
    return float((np.count_nonzero(null >= observed - tolerance) + 1) / (null.size + 1))


def binomial_interval(k: float, n: float) -> tuple[float, float]:
    """Exact interval of a share k / n (Clopper and Pearson 1934, Biometrika 26:404)."""
    if not 0 <= k <= n or n <= 0:
        raise BadParameter(f"binomial_interval needs 0 <= k <= n and n > 0, not k={k}, n={n}.")
    low = 0.0 if k <= 0 else float(betaincinv(k, n - k + 1, TAIL))
    high = 1.0 if k >= n else float(betaincinv(k + 1, n - k, 1 - TAIL))
    return low, high


def mean_variance(
    values: np.ndarray,
    weight: np.ndarray | None = None,
    group: np.ndarray | None = None,
    expected: np.ndarray | None = None,
) -> tuple[float, float, int]:
    """Weighted mean of values (n,), the variance of that mean, and how many units it rests on.

    weight (n,): on any scale. group (n,): values of one group hang together, so each group is one
    unit. expected (n,): what each value varies about, the mean where it is not given. The variance
    is infinite where there is one unit only.
    """
    values = _finite(values, "values")
    weight = np.ones(values.size) if weight is None else np.asarray(weight, np.float64)
    weight = weight / weight.sum()
    mean = float(weight @ values)
    place = np.arange(values.size)
    if group is not None:
        place = np.unique(group, return_inverse=True)[1]
    sums = np.bincount(place, weight * (values - (mean if expected is None else expected)))
    n_units = len(sums)
    if n_units == 1:
        return mean, np.inf, 1
    return mean, float(n_units / (n_units - 1) * (sums**2).sum()), n_units


def fraction_interval(
    values: np.ndarray, *, group: np.ndarray | None = None
) -> tuple[float, float]:
    """Interval of the mean of fractions (n,): right or wrong answers, or one number a subject.

    group (n,): values of one group hang together. For independent answers it is the exact one of
    `binomial_interval`; else the same at the number of answers that would vary as much
    (see `effective_interval`). It is never empty, and the whole range where there is one unit only.
    """
    values = _finite(values, "values")
    mean, variance, n_units = mean_variance(values, group=group)
    alone = n_units == values.size and np.isin(values, (0, 1)).all()
    return effective_interval(mean, variance, n_units, np.inf if alone else n_units - 1)


def effective_interval(
    share: float, variance: float, n_units: float, df: float
) -> tuple[float, float]:
    """Clopper and Pearson's interval at the number of independent answers that vary as a share does.

    variance: of the share, known with df degrees of freedom; where none was seen, as in a perfect
    score, it stands on n_units answers. Source: Korn and Graubard 1998, Survey
    Methodology 24:193.
    """
    if not np.isfinite(variance):
        return 0.0, 1.0
    share = min(max(share, 0.0), 1.0)  # sums of fractions miss 1 by a last digit
    n = float(n_units)
    if variance > 1e-20:  # else the rounding of sums
        n = share * (1 - share) / variance + 1  # one more: exact for independent answers
        n *= (stdtrit(1e9, 1 - TAIL) / stdtrit(min(df, 1e9), 1 - TAIL)) ** 2
    return binomial_interval(share * n, n)


def in_blocks(group: np.ndarray | None) -> bool:
    """Whether some group of `group` (n,) holds several presentations."""
    return group is not None and len(np.unique(group)) < len(group)


# What a permutation exchanges, and what p is then measured against, in words.
NULLS = {
    "presentations": "label permutation",
    "time": "moving labels along time",
    "time within groups": "moving labels along time within groups",
}


def exchangeable(group: np.ndarray | None, unit: str | None = None) -> str:
    """The unit that is exchanged where none is named; BadParameter for one that cannot be."""
    unit = unit or ("time" if in_blocks(group) else "presentations")
    if unit not in NULLS:
        raise BadParameter(f"unit = {unit!r}: expected {', '.join(NULLS)}.")
    if unit == "time within groups" and not in_blocks(group):
        raise BadParameter(f"unit = {unit!r} needs groups of several presentations.")
    return unit


def null_of(group: np.ndarray | None, unit: str | None = None) -> str:
    """What `permutation_slices` holds a score against, in words."""
    return NULLS[exchangeable(group, unit)]


def permutation_slices(
    labels: np.ndarray,
    n_permutations: int,
    seed: int,
    group: np.ndarray | None = None,
    unit: str | None = None,
) -> Iterator[np.ndarray]:
    """Yield labels (n,) in other orders, (rows, n) at a time until n_permutations rows.

    Parameters
    ----------
    labels
        In the order of time; class indices, or the values of a continuous target.
    group
        (n,), what hangs together: blocks of time, segments, subjects.
    unit
        What is exchangeable. "presentations": random orders, which are as likely as the true one
        where the order of labels is random. "time": all labels are moved along time by a random
        number of places, the last ones back to the front. Where labels come in blocks, a slow
        signal that knows nothing matches the true order better than a random one; moved labels stay
        as slow as they are. "time within groups": the same in each group by itself, by a number of
        places of its own. Every number of places, 0 among them, comes as often. Both are honest for
        what is stationary; a drift is torn where the last labels meet the first. None: "time" where
        some group holds several presentations, else "presentations".

    Raises
    ------
    BadParameter
        For another unit, and for groups that leave no order but the true one.
    """
    unit = exchangeable(group, unit)
    rng = np.random.default_rng([seed, 1])
    n = len(labels)
    step = max(1, _DRAWS_AT_ONCE // n)
    if unit == "time":
        moves = np.concatenate([rng.permutation(n) for _ in range(0, n_permutations, n)])
    elif unit == "time within groups":
        place = np.unique(group, return_inverse=True)[1]
        order, size = np.argsort(place, kind="stable"), np.bincount(place)
        first = (np.cumsum(size) - size)[place[order]]  # of the group of each, in that order
        inside, back = np.arange(n) - first, np.argsort(order)
    for start in range(0, n_permutations, step):
        rows = min(step, n_permutations - start)
        if unit == "presentations":
            yield rng.permuted(np.broadcast_to(labels, (rows, n)), axis=1)
        elif unit == "time":
            yield labels[(np.arange(n) + moves[start : start + rows, None]) % n]
        else:
            moves = rng.integers(0, size, (rows, len(size)))[:, place[order]]
            yield labels[order][first + (inside + moves) % size[place[order]]][:, back]


def mean_interval(
    values: np.ndarray,
    *,
    group: np.ndarray | None = None,
    least: float = -np.inf,
    most: float = np.inf,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean over the last axis of values (..., n), two arrays (...).

    group (n,): values of one group are drawn together. Bootstrap of Student's t over groups (Efron
    and Tibshirani 1993, An Introduction to the Bootstrap, section 12.5), as losses are skewed, at
    least as wide as Student's own; that alone for fewer than `FEW` groups; for a single one the
    bounds least and most.
    """
    values = np.asarray(values, np.float64)
    n = values.shape[-1]
    place = np.arange(n) if group is None else np.unique(group, return_inverse=True)[1]
    order, size = np.argsort(place, kind="stable"), np.bincount(place)
    sums = np.add.reduceat(values[..., order], np.cumsum(size) - size, axis=-1)  # (..., groups)
    mean, g = values.mean(axis=-1), len(size)
    if g == 1:
        return np.full_like(mean, least), np.full_like(mean, most)
    sums = sums - mean[..., None] * size  # the mean is 0 from here on
    error = np.sqrt(g / (g - 1) * (sums**2).sum(axis=-1)) / n
    first, last = stdtrit(g - 1, [TAIL, 1 - TAIL])
    if g >= FEW:
        ratios, rng, step = [], np.random.default_rng([seed, 0]), max(1, _DRAWS_AT_ONCE // g)
        for start in range(0, n_bootstrap, step):
            w = bootstrap_weights(g, min(step, n_bootstrap - start), rng)  # (draws, groups)
            drawn = sums @ w.T / (w @ size)  # (..., draws)
            squares = sums**2 @ w.T - 2 * drawn * ((sums * size) @ w.T) + drawn**2 * (w @ size**2)
            spread = np.sqrt(g / (g - 1) * np.maximum(squares, 0)) / (w @ size)
            # A draw of equal values alone has no spread and tells nothing.
            none = spread <= 1e-6 * error[..., None]
            ratios.append(np.divide(drawn, spread, out=np.zeros_like(drawn), where=~none))
        ends = np.quantile(np.concatenate(ratios, axis=-1), [TAIL, 1 - TAIL], axis=-1)
        first, last = np.minimum(first, ends[0]), np.maximum(last, ends[1])
    return np.maximum(least, mean - last * error), np.minimum(most, mean - first * error)


def bootstrap_weights(n: int, n_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n units is drawn in each bootstrap sample.

    Returns (n_bootstrap, n) float32 counts; each row sums to n.
    """
    drawn = rng.integers(0, n, size=(n_bootstrap, n))
    drawn += np.arange(n_bootstrap)[:, None] * n  # one block of n counters per sample
    counts = np.bincount(drawn.ravel(), minlength=n_bootstrap * n)
    return counts.reshape(n_bootstrap, n).astype(np.float32)


def half_width(drawn: np.ndarray, n_units: int) -> np.ndarray:
    """Half of Student's interval of scores drawn anew (draws, ...) over so many units, at least 2."""
    # Draws from n units vary by (n - 1) / n of what other units would.
    return t_quantile(n_units - 1) * np.sqrt(n_units / (n_units - 1)) * drawn.std(axis=0)


def t_quantile(df: int) -> float:
    """How many standard errors half of an interval is, of so many degrees of freedom, at least one."""
    return float(stdtrit(max(df, 1), 1 - TAIL))


def jackknife_variance(left_out: np.ndarray, times: np.ndarray | None = None) -> np.ndarray:
    """Variance of scores from their values with each unit left out (units, ...); 0 for a single unit.

    times (units,): how many units each row stands for. Source: Efron and Stein 1981, Ann. Stat. 9:586.
    """
    times = np.ones(len(left_out)) if times is None else times
    off = left_out - np.average(left_out, axis=0, weights=times)
    return (1 - 1 / times.sum()) * np.tensordot(times, off**2, 1)


def t_interval(
    values: np.ndarray, least: float = -np.inf, most: float = np.inf
) -> tuple[float, float]:
    """Student's interval of the mean of independent values (n,), cut at the bounds.

    For few subjects, where a bootstrap is too narrow: of 3 it holds the truth in 78 % of cases
    only. A single value tells nothing: then it is the bounds, or BadParameter without any.
    """
    values = _finite(values, "values")
    mean, variance, n = mean_variance(values)
    if n == 1:
        if not np.isfinite([least, most]).all():
            raise BadParameter("t_interval needs at least 2 values.")
        return least, most
    half = float(stdtrit(n - 1, 1 - TAIL) * np.sqrt(variance))
    return max(least, mean - half), min(most, mean + half)


def sign_flip_p(
    values: np.ndarray, *, n_permutations: int = 10_000, seed: int = 0, two_sided: bool = False
) -> float:
    """p that the mean of independent values (n,) lies above 0 (or differs from it): signs flipped.

    Exact for at most 13 values, else by random flips. Of n values no p is below 1 / 2**n.
    """
    values = _finite(values, "values")
    n = values.size
    if n <= 13:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        null = signs @ values / n
    else:
        rng, step = np.random.default_rng([seed, 4]), max(1, _DRAWS_AT_ONCE // n)
        sizes = [min(step, n_permutations - start) for start in range(0, n_permutations, step)]
        null = np.concatenate(
            [(2 * (rng.integers(0, 2, (k, n), np.int8) @ values) - values.sum()) / n for k in sizes]
        )
    observed = values.mean()
    if two_sided:
        null, observed = np.abs(null), abs(observed)
    if n <= 13:  # the identity is among them
        return float((null >= observed - 1e-12).mean())
    return permutation_p(observed, null)


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over the same presentations, its interval and two-sided p."""

    value: float
    ci_low: float
    ci_high: float
    p: float
    n: int


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    *,
    group: np.ndarray | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two decoders on the same test presentations.

    a, b (n,): one fraction per presentation, in the same order; group (n,): presentations that hang
    together. The interval is Student's with one presentation added that speaks for a and one for b
    (Bonett and Price 2012, J. Educ. Behav. Stat. 37:479), so that it is not empty where both always
    agree; p is two-sided, by swapping a and b within groups at random (signs flipped). Raises
    BadParameter when the lengths differ or a value is no fraction.
    """
    a, b = _finite(a, "a"), _finite(b, "b")
    if a.shape != b.shape:
        raise BadParameter(
            f"paired_difference needs the same presentations in both: {a.size} and {b.size} given."
        )
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) > 1:
        raise BadParameter("paired_difference needs fractions between 0 and 1.")
    difference = a - b
    place = np.arange(a.size) if group is None else np.unique(group, return_inverse=True)[1]
    sums = np.bincount(place, difference)
    low, high = -1.0, 1.0
    if len(sums) > 1:
        units = np.r_[place, len(sums), len(sums) + 1]
        mean, variance, _ = mean_variance(np.r_[difference, 1.0, -1.0], group=units)
        half = stdtrit(len(sums) - 1, 1 - TAIL) * np.sqrt(variance)
        low, high = max(low, float(mean - half)), min(high, float(mean + half))
    p = sign_flip_p(sums, n_permutations=n_permutations, seed=seed, two_sided=True)
    return PairedDifference(float(difference.mean()), low, high, p, difference.size)


def holm(p: np.ndarray) -> np.ndarray:
    """p values (m,) adjusted for m comparisons (Holm 1979, Scand. J. Stat. 6:65), same order."""
    p = _finite(p, "p")
    if ((p < 0) | (p > 1)).any():
        raise BadParameter("holm needs p values between 0 and 1.")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise BadParameter(f"{name} must be a non-empty row of finite numbers.")
    return values
