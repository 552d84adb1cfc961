"""The counts of coming bins, forecast from those before (11): bits a spike over the train mean.

What a forecast is worth is what it adds to the mean rate in train bins, which is the null and named so.
Every forecast may shrink to that mean, by a weight that validation bins choose.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from nblib.core.errors import BadParameter
from nblib.evaluate import stats
from nblib.evaluate.result import Row
from nblib.evaluate.scores import WORST, Score
from nblib.prepare.decoder_inputs import ROLES

if TYPE_CHECKING:
    from nblib.experiments.film import decoding
    from nblib.experiments.film.decoding import Film

BITS = "bits/spike"
TAUS_S = (0.5, 2.0, 10.0)  # of the running means
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # of a forecast against the mean
N_FACTORS = 8  # of the population, for the Poisson regression
LEAST_HZ = 1e-3  # no forecast says less
MODELS = ("last count", "running mean", "LinearNextBin", "Poisson GLM")


def gain_in_bits(counts: np.ndarray, rate: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Poisson log-likelihood of counts (B, N) under rate (B, N) less that under null (N,), in bits."""
    return (counts * np.log(rate / null) - (rate - null)) / np.log(2)


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
    starts, means = np.flatnonzero(data.after_pause), []
    for tau_s in TAUS_S:
        new = 1 - np.exp(-data.width_s / tau_s)
        pieces = []
        for piece in np.split(data.counts, starts[starts > 0]):
            begin = (1 - new) * piece[:1]
            pieces.append(lfilter([new], [1, new - 1], piece, axis=0, zi=begin)[0])
        means.append(np.concatenate(pieces))
    return np.array(means)


def rates(name: str, data: Film, means: np.ndarray, teach: np.ndarray, ahead: int, seed: int) -> np.ndarray:  # fmt: skip
    """Counts that a model expects `ahead` bins after each bin (n, N), taught by the bins `teach`."""
    counts, later = data.counts, data.counts[teach + ahead]
    if name == "last count":
        return counts
    if name == "running mean":
        losses = [((mean[teach] - later) ** 2).mean() for mean in means]
        return means[int(np.argmin(losses))]
    if name == "LinearNextBin":  # as SUMMER ships it: 64 hidden units, squared error, 20 epochs
        from sklearn.neural_network import MLPRegressor

        net = MLPRegressor(
            hidden_layer_sizes=(64,), alpha=0, batch_size=32, max_iter=20, tol=0, random_state=seed
        )
        with warnings.catch_warnings(action="ignore"):  # that 20 epochs are few
            return net.fit(counts[teach], later).predict(counts)
    from sklearn.linear_model import PoissonRegressor

    own, mean = np.log(means + 0.02), means[1, teach].mean(axis=0)  # (tau, n, N), (N,)
    spread = (means[1] - mean) / np.sqrt(mean + 1e-9)
    shared = spread @ np.linalg.svd(spread[teach], full_matrices=False)[2][:N_FACTORS].T
    expected = np.zeros_like(counts)
    for unit in np.flatnonzero(later.any(axis=0)):
        x = np.column_stack([*own[:, :, unit], shared])
        x = (x - x[teach].mean(axis=0)) / (x[teach].std(axis=0) + 1e-9)
        glm = PoissonRegressor(alpha=1e-3, solver="newton-cholesky", max_iter=50)
        expected[:, unit] = glm.fit(x[teach], later[:, unit]).predict(np.clip(x, -5, 5))
    return expected


def forecast(data: Film, params: decoding.Params) -> tuple[list[Row], pd.DataFrame]:
    """Scores of every forecast at every horizon over the folds' test bins, and a row a unit.

    The table: model, horizon_s, unit, bits, ci_low, ci_high, r2, n_spikes, over_test_mean (bits over the
    mean of the test bins themselves, as some report them), weight (what validation gave the model against
    the train mean, over folds), unshrunk (bits at weight 1).
    """
    rows, tables, means = [], [pd.DataFrame()], running_means(data)
    draws = params.model_dump(include={"n_bootstrap", "seed"}) | {"least": -WORST, "most": WORST}
    for horizon_s in params.horizons_s:
        ahead = max(1, round(horizon_s / data.width_s))
        for name in MODELS:
            folds = params.folds or range(len(data.roles))
            parts = [of_fold(name, data, means, fold, ahead, params.seed) for fold in folds]
            *arrays, weight = zip(*parts, strict=True)
            counts, rate, raw, null, segment = map(np.concatenate, arrays)
            spoke = counts.any(axis=0)
            counts, rate, raw, null = (part[:, spoke] for part in (counts, rate, raw, null))
            gain, n_spikes = gain_in_bits(counts, rate, null), counts.sum(axis=0)
            total = gain.sum(axis=1) * len(gain) / counts.sum()  # its mean is bits a spike
            low, high = stats.mean_interval(total, group=segment, **draws)
            by_segment = np.bincount(np.unique(segment, return_inverse=True)[1], total)
            p = stats.sign_flip_p(by_segment, n_permutations=1000, seed=params.seed)
            numbers = float(total.mean()), float(low), float(high), 0.0, p, len(gain)
            score = Score(*numbers, BITS, "sign flips over segments")
            of = {"model": name, "variant": f"{horizon_s:g} s ahead"}
            rows.append(Row(f"{name}, {of['variant']}", score, of=of, metric=BITS))
            each = gain * len(gain) / n_spikes
            low, high = stats.mean_interval(each.T, group=segment, **draws)
            error, of_null = (((counts - r) ** 2).sum(axis=0) for r in (rate, null))
            over_test_mean = gain_in_bits(counts, rate, counts.mean(axis=0)).sum(axis=0) / n_spikes
            tables.append(pd.DataFrame({
                "model": name, "horizon_s": horizon_s, "unit": data.unit_ids[spoke],
                "bits": each.mean(axis=0), "ci_low": low, "ci_high": high, "r2": 1 - error / of_null,
                "n_spikes": n_spikes.astype(int), "over_test_mean": over_test_mean,
                "weight": np.mean(weight),
                "unshrunk": gain_in_bits(counts, raw, null).sum(axis=0) / n_spikes,
            }))  # fmt: skip
    return rows, pd.concat(tables, ignore_index=True)


def of_fold(
    name: str, data: Film, means: np.ndarray, fold: int, ahead: int, seed: int
) -> tuple[np.ndarray, ...]:
    """Of the test bins of a fold: counts, what is expected of them as shrunk and as it is, the train
    mean (B, N), segments (B,); and the weight of the model. BadParameter where no pair of bins is left."""
    teach, val, test = (pairs(data, fold, role, ahead) for role in ROLES)
    if not min(len(teach), len(val), len(test)):
        raise BadParameter(
            f"horizons_s: no bins lie {ahead * data.width_s:g} s apart in a segment."
        )
    least = LEAST_HZ * data.width_s
    null = np.maximum(data.counts[teach + ahead].mean(axis=0), least)
    expected = np.maximum(rates(name, data, means, teach, ahead, seed), least)
    of_val, place = data.counts[val + ahead], np.unique(data.segment[val], return_inverse=True)[1]
    gains = np.array(
        [
            np.bincount(
                place, gain_in_bits(of_val, w * expected[val] + (1 - w) * null, null).sum(axis=1)
            )
            for w in WEIGHTS
        ]
    )  # (weight, segment)
    best = int(gains.sum(axis=1).argmax())
    # What validation gains by chance, too, is no reason to leave the mean.
    sure = gains[best].sum() > gains[best].std() * np.sqrt(gains.shape[1])
    w, raw = WEIGHTS[best] if sure else 0.0, expected[test]
    null = np.tile(null, (len(test), 1))
    return data.counts[test + ahead], w * raw + (1 - w) * null, raw, null, data.segment[test], w
