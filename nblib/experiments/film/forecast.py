"""The counts of coming bins, forecast from those before (11): bits a spike over the train mean.

What a forecast is worth is what it adds to the mean rate in train bins, which is the null and named so.
Every forecast may shrink to that mean, by a weight that validation bins choose.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.core.errors import BadParameter
from nblib.evaluate import stats
from nblib.evaluate.ratios import BITS, gain_in_bits, per_unit
from nblib.evaluate.result import Row
from nblib.evaluate.scores import WORST, Score
from nblib.experiments.film import shipped
from nblib.prepare.decoder_inputs import ROLES

if TYPE_CHECKING:
    from nblib.experiments.film import decoding
    from nblib.experiments.film.decoding import Film

TAUS_S = (0.5, 2.0, 10.0)  # of the running means
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # of a forecast against the mean
N_FACTORS = 8  # of the population
LEAST_HZ = 1e-3  # no forecast says less
MODELS = ("last count", "running mean", "LinearNextBin", "Poisson GLM", "reduced rank")


def pairs(data: Film, fold: int, role: str, ahead: int) -> np.ndarray:
    """Positions t (B,) whose bin and the one `ahead` bins later are of one role and one segment, with
    no pause and no missing bin between them."""
    at = np.flatnonzero(data.roles[fold] == role)
    at = at[at + ahead < len(data.trial)]
    pauses = np.cumsum(data.after_pause)
    same = [data.roles[fold], data.segment, pauses, data.trial - np.arange(len(data.trial))]
    return at[np.all([values[at] == values[at + ahead] for values in same], axis=0)]


def running_means(data: Film) -> np.ndarray:
    """Means of the counts up to each bin, weighted by exp(-age / tau): (tau, n, N); they begin anew
    after each pause."""
    pieces = pd.DataFrame(data.counts).groupby(np.cumsum(data.after_pause))
    new = 1 - np.exp(-data.width_s / np.array(TAUS_S))
    return np.array([pieces.ewm(alpha=a, adjust=False).mean().to_numpy() for a in new])


def expected_counts(
    name: str, counts: np.ndarray, means: np.ndarray, teach: np.ndarray, later: np.ndarray, seed: int
) -> np.ndarray:  # fmt: skip
    """Counts that a model expects some bins after each bin (n, N), from the counts (n, N) and running means
    (tau, n, N) up to it; taught by the bins `teach` (B,) and the counts that came `later` (B, N)."""
    if name == "last count":
        return counts
    if name == "running mean":
        return min(means, key=lambda mean: ((mean[teach] - later) ** 2).mean())
    if name == "LinearNextBin":
        x = counts.astype(float)
        return shipped.network(x[teach], later, on_off=False, seed=seed)(x)
    n_factors = min(N_FACTORS, counts.shape[1])
    if name == "reduced rank":  # all units from all running means, by partial least squares
        from sklearn.cross_decomposition import PLSRegression

        x = np.concatenate(means, axis=1)
        return PLSRegression(n_factors).fit(x[teach], later).predict(x)
    from sklearn.decomposition import PCA
    from sklearn.linear_model import PoissonRegressor
    from sklearn.preprocessing import StandardScaler

    spread = means[1] / np.sqrt(means[1, teach].mean(axis=0) + 1e-9)
    shared = PCA(n_factors, svd_solver="full").fit(spread[teach]).transform(spread)
    expected = np.zeros(counts.shape)
    for unit in np.flatnonzero(later.any(axis=0)):
        x = np.column_stack([*np.log(means[:, :, unit] + 0.02), shared])
        x = StandardScaler().fit(x[teach]).transform(x)
        glm = PoissonRegressor(alpha=1e-3, solver="newton-cholesky", max_iter=50)
        expected[:, unit] = glm.fit(x[teach], later[:, unit]).predict(np.clip(x, -5, 5))
    return expected


def forecast(data: Film, params: decoding.Params) -> tuple[list[Row], pd.DataFrame]:
    """Scores of every forecast at every horizon over the folds' test bins, and a row a unit.

    The table: model, horizon_s, unit, over_train_mean (bits a spike, the null of every score), ci_low,
    ci_high, r2, n_spikes, over_test_mean (over the mean of the test bins, as some report), weight (what validation gave the model against
    the train mean, over folds), unshrunk (bits at weight 1).
    """
    if not params.horizons_s:  # the means of 2,286 units would take 6 GB
        return [], pd.DataFrame()
    rows, tables, means = [], [], running_means(data)
    aheads = dict.fromkeys(round(horizon_s / data.width_s) for horizon_s in params.horizons_s)
    if 0 in aheads:
        raise BadParameter(
            f"horizons_s = {params.horizons_s}: {min(params.horizons_s):g} s is no whole bin of "
            f"{data.width_s:.3g} s ahead."
        )
    for ahead, name in itertools.product(aheads, MODELS):
        horizon_s = round(ahead * data.width_s, 6)  # of whole bins
        folds = params.folds or range(len(data.roles))
        parts = [of_fold(name, data, means, fold, ahead, params.seed) for fold in folds]
        weight, segment, *arrays = map(np.concatenate, zip(*parts, strict=True))
        spoke = arrays[0].any(axis=0)
        counts, rate, raw, null = (part[:, spoke] for part in arrays)
        # Of every unit, and of all together.
        gain = gain_in_bits(counts, rate, null)
        gain, spikes = (np.column_stack([part, part.sum(axis=1)]) for part in (gain, counts))
        bits, n_spikes = gain.sum(axis=0) / spikes.sum(axis=0), spikes.sum(axis=0)
        # Numbers whose mean is bits a spike, and which vary over bins as that ratio does.
        each = bits + len(gain) * (gain - bits * spikes) / n_spikes
        low, high = stats.mean_interval(
            each.T, group=segment, least=-WORST, most=WORST, n_bootstrap=params.n_bootstrap,
            seed=params.seed,
        )  # fmt: skip
        by_segment = pd.Series(gain[:, -1]).groupby(segment).sum().to_numpy()
        p = stats.sign_flip_p(by_segment, n_permutations=1000, seed=params.seed)
        numbers = float(bits[-1]), float(low[-1]), float(high[-1]), 0.0, p, len(gain)
        of = {"model": name, "variant": f"{horizon_s:g} s ahead"}
        score = Score(*numbers, BITS, "sign flips over segments")
        rows.append(Row(f"{name}, {of['variant']}", score, of=of, metric=BITS))
        error, of_null = (((counts - said) ** 2).sum(axis=0) for said in (rate, null))
        tables.append(pd.DataFrame({
            "model": name, "horizon_s": horizon_s, "unit": data.unit_ids[spoke],
            "over_train_mean": bits[:-1], "ci_low": low[:-1], "ci_high": high[:-1],
            "r2": 1 - error / of_null, "n_spikes": n_spikes[:-1].astype(int),
            "over_test_mean": per_unit(counts, rate, counts.mean(axis=0)), "weight": weight.mean(),
            "unshrunk": per_unit(counts, raw, null),
        }))  # fmt: skip
    return rows, pd.concat(tables, ignore_index=True)


def of_fold(
    name: str, data: Film, means: np.ndarray, fold: int, ahead: int, seed: int
) -> tuple[np.ndarray, ...]:
    """The weight of a model in one fold (1,), and of the test bins: segment (B,), counts, what is
    expected as shrunk and as it is, and the train mean (B, N). BadParameter where no pair of bins is left."""
    teach, val, test = (pairs(data, fold, role, ahead) for role in ROLES)
    if not min(len(teach), len(val), len(test)):
        raise BadParameter(
            f"horizons_s: no bins lie {ahead * data.width_s:g} s apart in a segment."
        )
    least, later = LEAST_HZ * data.width_s, data.counts[teach + ahead]
    null = np.maximum(later.mean(axis=0), least)
    expected = np.maximum(expected_counts(name, data.counts, means, teach, later, seed), least)
    of_val = data.counts[val + ahead]
    gains = pd.DataFrame({
        weight: gain_in_bits(of_val, weight * expected[val] + (1 - weight) * null, null).sum(axis=1)
        for weight in WEIGHTS
    }).groupby(data.segment[val]).sum()  # fmt: skip
    weight = gains.sum().idxmax()
    # What validation gains by chance, too, is no reason to leave the mean.
    if gains[weight].sum() <= gains[weight].std(ddof=0) * np.sqrt(len(gains)):
        weight = 0.0
    raw, null = expected[test], np.tile(null, (len(test), 1))
    shrunk = weight * raw + (1 - weight) * null
    return np.array([weight]), data.segment[test], data.counts[test + ahead], shrunk, raw, null
