"""How near a predicted spike train is to the recorded one, always beside trains that know nothing.

Trains of times are in seconds. Trains of bins are counts (C, T), a row a cell; widths are in bins there.
No score is given for two empty trains: they agree about nothing.

Trains that were told window by window are judged so too: `window`, the bins of one, 0 where a train is one
whole. What is said of a window knows the spikes of the one before: smoothed as one train, the last 80 bins
said once more would have a correlation of 0.5 with a train in which nothing can be foreseen.
"""

from __future__ import annotations

import numba
import numpy as np
import pandas as pd
from scipy.signal import fftconvolve

from nblib.core.errors import BadInput
from nblib.evaluate import stats
from nblib.evaluate.scores import Score

SIGMAS = (2, 5, 10, 20, 50)  # bins, of the Schreiber similarities in `train_scores`
TAU, CORRELATION_SIGMA = 10.0, 50.0  # bins, of van Rossum's distance and of the correlation
FAR = 100.0  # widths of van Rossum's filter that windows are laid apart
AT_ONCE = 8  # cells whose trains are smoothed at once
SPARSE = 0.02  # share of bins with a spike below which spikes are smoothed one by one
SHIFT_S = 3.0  # of the reference that is the same train at another time
REFERENCES = ("no spikes", "every bin", "Poisson of the same rate", "the train, shifted")


def van_rossum(a: np.ndarray, b: np.ndarray, tau: float) -> float:
    """Distance of two trains of times [s], filtered by exp(-t / tau), in closed form.

    One spike against none is 1, as two spikes far apart are sqrt(2); the ends of a recording play no
    part. Source: van Rossum 2001, Neural Comput. 13:751. Raises BadInput for two empty trains.
    """
    _refuse_empty(len(a), len(b))
    times, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    weight = np.bincount(place, np.repeat([1.0, -1.0], [len(a), len(b)]))
    times, weight = times[weight != 0], weight[weight != 0]  # equal trains are 0 apart, exactly
    square = trace = 0.0
    for decay, w in zip(np.exp(-np.diff(times, prepend=times[:1]) / tau), weight, strict=True):
        trace *= decay
        square += w * (w + 2 * trace)
        trace += w
    return float(np.sqrt(max(square, 0.0)))


def victor_purpura(a: np.ndarray, b: np.ndarray, q: float) -> float:
    """Least cost to make one train of times [s] of the other: 1 to add or remove a spike, q a second to
    move one. Source: Victor and Purpura 1996, J. Neurophysiol. 76:1310. Raises BadInput for two empty
    trains."""
    _refuse_empty(len(a), len(b))
    a, b = np.sort(a), np.sort(b)
    count = np.arange(len(b) + 1.0)
    cost = count.copy()
    for time in a:
        moved = np.append(cost[0] + 1, np.minimum(cost[1:] + 1, cost[:-1] + q * np.abs(b - time)))
        # Adding spikes of b along the row: the least of what stands to the left, and a step each.
        cost = np.minimum.accumulate(moved - count) + count
    return float(cost[-1])


def schreiber(a: np.ndarray, b: np.ndarray, sigma: float, window: int = 0) -> np.ndarray:
    """Cosine of two trains of bins (C, T) after a Gaussian of `sigma` bins, (C,); 0 where one is empty.

    Source: Schreiber and others 2003, Neurocomputing 52:925. Raises BadInput where both are empty.
    """
    parts = [
        _cosine(*(smoothed(x[cells], sigma, window=window) for x in (a, b)), empty=0.0)
        for cells in _parts(len(a))
    ]
    return np.concatenate(parts)


def correlation(
    a: np.ndarray, b: np.ndarray, sigma: float = CORRELATION_SIGMA, window: int = 0
) -> np.ndarray:
    """Pearson's correlation of two trains of bins (C, T) after a Gaussian, (C,); NaN where one is flat."""
    parts = []
    for cells in _parts(len(a)):
        both = (smoothed(x[cells], sigma, "symmetric", window) for x in (a, b))
        parts.append(_cosine(*both, empty=np.nan, about_mean=True))
    return np.concatenate(parts)


def _parts(n_cells: int) -> list[slice]:
    """Cells some at a time: smoothed trains of all are many times the trains."""
    return [slice(first, first + AT_ONCE) for first in range(0, n_cells, AT_ONCE)]


def smoothed(
    trains: np.ndarray, sigma: float, beyond: str = "constant", window: int = 0
) -> np.ndarray:
    """Trains of bins (C, T) after a Gaussian of `sigma` bins, cut off at four of them; beyond: what is
    taken for the bins beyond an end, of the train or of each window, as `np.pad` names it."""
    if window:
        of_each = smoothed(np.eye(window), sigma, beyond)  # what a spike in each bin becomes
        return (np.reshape(trains, (-1, window)) @ of_each).reshape(trains.shape)
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(trains, ((0, 0), (reach, reach)), mode=beyond)
    sparse = np.count_nonzero(padded) < SPARSE * padded.size
    spread = _spread if sparse else _convolved
    return spread(padded, kernel / kernel.sum())[:, 2 * reach : -2 * reach]


def _convolved(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.array([fftconvolve(row, kernel) for row in values])  # all at once take much memory


@numba.njit(cache=True)
def _spread(values, kernel):
    """A kernel (n,) at each value: quick where most values are 0."""
    n = len(kernel)
    total = np.zeros((len(values), values.shape[1] + n - 1))
    for row in range(len(values)):
        for t in np.flatnonzero(values[row]):
            total[row, t : t + n] += values[row, t] * kernel
    return total


def _cosine(a: np.ndarray, b: np.ndarray, empty: float, about_mean: bool = False) -> np.ndarray:
    """Cosine of rows; `empty` where one is 0, or (about its mean) flat. BadInput where both are 0."""
    _refuse_empty(a.any(axis=1), b.any(axis=1))
    if about_mean:
        a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    squares, both = [np.einsum("ct,ct->c", x, x) for x in (a, b)], np.einsum("ct,ct->c", a, b)
    norm, least = np.sqrt(squares[0] * squares[1]), 1e-12 * a.shape[1] if about_mean else 0.0
    return np.divide(both, norm, out=np.full_like(norm, empty), where=norm > least)


def bits_per_spike(log_likelihood: np.ndarray, spikes: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """What a model says of bins of spikes, over a constant rate, in bits a spike (C,).

    log_likelihood (C,) [nats] of Bernoulli bins, summed; spikes (C, T), 0 or 1; rate (C,): share of
    bins with a spike where the model was taught. NaN for a cell without a spike.
    """
    n, T = spikes.sum(axis=-1, dtype=float), spikes.shape[-1]
    constant = n * np.log(rate) + (T - n) * np.log1p(-rate)
    gain = (log_likelihood - constant) / np.log(2)
    return np.divide(gain, n, out=np.full_like(n, np.nan), where=n > 0)


def bernoulli(log_hazard: np.ndarray, spikes: np.ndarray) -> np.ndarray:
    """Log-likelihood [nats] of bins of 0 or 1 spikes (C, T), summed (C,), where a bin holds one with
    probability 1 - exp(-hazard)."""
    nats = []
    for hazard, train in zip(log_hazard, spikes, strict=True):
        hazard = np.exp(np.asarray(hazard, float))
        fired = np.log(np.maximum(-np.expm1(-hazard), 1e-300))
        nats.append(np.where(train > 0, fired, -hazard).sum())
    return np.array(nats)


def calibration(p: np.ndarray, spikes: np.ndarray, groups: int = 10) -> pd.DataFrame:
    """Bins sorted by the probability p of a spike, in groups of equal size: said, seen, and how many
    binomial standard deviations they lie apart (`z`)."""
    order = np.argsort(p, axis=None, kind="stable")
    rows = []
    for part in np.array_split(order, groups):
        said, fired = p.flat[part], spikes.flat[part] > 0
        sd = np.sqrt((said * (1 - said)).sum()) / len(part)
        rows.append({"n": len(part), "said": said.mean(), "seen": fired.mean(), "sd": sd})
    table = pd.DataFrame(rows)
    return table.assign(z=(table["seen"] - table["said"]) / table["sd"])


def references(
    spikes: np.ndarray, rate: np.ndarray, bin_s: float, seed: int = 0
) -> dict[str, np.ndarray]:
    """Trains (C, T) that know nothing of the moment, by their name in REFERENCES.

    rate (C,): share of bins with a spike in training. The last is the recorded train itself, moved on by
    3 s, the end to the front.
    """
    rng, T = np.random.default_rng([seed, 5]), spikes.shape[1]
    drawn = np.array([rng.random(T) < of_cell for of_cell in rate])
    shifted = np.roll(spikes, min(round(SHIFT_S / bin_s), T // 2), axis=1)
    trains = np.zeros_like(spikes), np.ones_like(spikes), drawn.astype(spikes.dtype), shifted
    return dict(zip(REFERENCES, trains, strict=True))


def train_scores(
    trains: dict[str, np.ndarray], spikes: np.ndarray, bin_s: float, window: int = 0
) -> dict[str, pd.DataFrame]:
    """Of each predicted train or rate (C, T) a table with a row a cell: count ratio, Schreiber, correlation,
    and van Rossum's distance over the square root of the number of recorded spikes: no spikes are 1 where
    the recorded lie far apart, more where they crowd. It is of trains alone.

    Raises BadInput for a cell that neither fires nor is said to.
    """
    parts = []
    for cells in _parts(len(spikes)):
        part = {name: train[cells] for name, train in trains.items()}
        parts.append(_scores_of_cells(part, spikes[cells], bin_s, window))
    return {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in trains}


def _scores_of_cells(
    trains: dict[str, np.ndarray], spikes: np.ndarray, bin_s: float, window: int
) -> dict[str, pd.DataFrame]:
    """`train_scores` of cells whose smoothed trains fit into memory together."""
    count = spikes.sum(axis=1)
    known = np.where(count > 0, count, np.nan)
    scores = {name: {"count_ratio": train.sum(axis=1) / known} for name, train in trains.items()}
    for sigma in SIGMAS:
        recorded = smoothed(spikes, sigma, window=window)
        for name, train in trains.items():
            predicted = smoothed(train, sigma, window=window)
            alike = _cosine(predicted, recorded, empty=0.0)
            scores[name][f"schreiber_{sigma}"] = alike
    at = np.arange(spikes.shape[1])
    at = bin_s * (at + FAR * TAU * (at // (window or len(at))))  # no window is near another
    times = [at[row > 0] for row in spikes]
    for name, train in trains.items():
        scores[name]["correlation"] = correlation(train, spikes, window=window)
        if np.isin(train, (0, 1)).all():
            pairs = zip((at[row > 0] for row in train), times, strict=True)
            distance = np.array([van_rossum(*pair, TAU * bin_s) for pair in pairs])
            scores[name]["van_rossum"] = distance / np.sqrt(np.maximum(count, 1))
    return {name: pd.DataFrame(columns) for name, columns in scores.items()}


def over_cells(
    values: np.ndarray, unit: str, *, weight: np.ndarray | None = None, chance: float = 0.0,
    n_bootstrap: int = 1000, seed: int = 0,
) -> Score:  # fmt: skip
    """The mean over cells (C,) that have a value, with its interval over them; p: signs flipped.

    weight (C,): what each cell counts, on any scale, as its spikes where they are pooled.
    """
    known = np.isfinite(values)
    if not known.any():
        raise BadInput(f"{unit}: no cell has a value.")
    weight = np.ones(len(values)) if weight is None else np.asarray(weight, float)
    values, weight = values[known], weight[known] / weight[known].mean()
    mean = (values * weight).mean()
    # Other cells would have other weights too, so a cell moves the mean by how far off it is itself.
    low, high = stats.mean_interval(
        mean + weight * (values - mean), n_bootstrap=n_bootstrap, seed=seed
    )
    p = stats.sign_flip_p(weight * (values - chance), n_permutations=1000, seed=seed)
    numbers = float(mean), float(low), float(high), chance, p, len(values)
    return Score(*numbers, unit, "sign flips over cells", absent=int((~known).sum()))


def _refuse_empty(a: np.ndarray | float, b: np.ndarray | float) -> None:
    if np.any((np.asarray(a) == 0) & (np.asarray(b) == 0)):
        raise BadInput("two trains without a spike have no likeness: no score is given for them.")
