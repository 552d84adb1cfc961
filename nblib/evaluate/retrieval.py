"""Scores of decoded image features: finding the image, the noise ceiling, drawing it.

Shapes: B presentations, S images, D features. Larger similarity is nearer.
"""

from __future__ import annotations

import numpy as np

from nblib.evaluate import stats
from nblib.evaluate.scores import FRACTION, Score

NULL = "image permutation"


def similarity(decoded: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Cosine of decoded features (B, D) and those of each image (S, D): (B, S)."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return decoded @ unit.T / np.maximum(np.linalg.norm(decoded, axis=1, keepdims=True), 1e-12)


def retrieval_scores(
    near: np.ndarray, y: np.ndarray, *, n_permutations: int, seed: int
) -> dict[str, Score]:
    """How often the true image is the nearest of S, among the five nearest, and its median rank.

    near (B, S); y (B,) column of the true image. The interval is over scenes, not presentations, as
    one wants to know of other images; that of the median lies between the ranks that hold the
    interval of one half (Woodruff 1952, J. Am. Stat. Assoc. 47:635). p: scenes change places as wholes, so that
    each keeps its own presentations together. Chance is that of a guess: 1 / S, 5 / S, (S + 1) / 2.
    """
    n, n_images = near.shape
    # Place of every image among all: (B, S), 1 = nearest; ties count against it.
    place = np.empty((n, n_images), np.int32)
    for i, row in enumerate(near):
        place[i] = n_images - np.searchsorted(np.sort(row), row, side="left")
    count = np.bincount(y, minlength=n_images)
    there = np.flatnonzero(count)
    top = min(5, n_images)
    rank = place[np.arange(n), y]
    rng = np.random.default_rng([seed, 32])
    null = []
    for _ in range(n_permutations):
        other = np.arange(n_images)
        other[there] = rng.permutation(there)
        r = place[np.arange(n), other[y]]
        null.append(((r == 1).mean(), (r <= top).mean(), np.median(r)))
    values = ((rank == 1).mean(), (rank <= top).mean(), np.median(rank))
    chances = (1 / n_images, top / n_images, (n_images + 1) / 2)
    _, variance, n_scenes = stats.mean_variance(rank <= values[2], group=y)
    middle = stats.effective_interval(0.5, variance, n_scenes, n_scenes - 1)
    intervals = (
        stats.fraction_interval(rank == 1, group=y),
        stats.fraction_interval(rank <= top, group=y),
        (
            np.quantile(rank, middle[0], method="lower"),
            np.quantile(rank, middle[1], method="higher"),
        ),
    )
    scores = {}
    names = ("accuracy", "top5", "median_rank")
    columns = zip(names, values, chances, intervals, np.array(null).T, strict=True)
    for name, value, chance, (low, high), null_values in columns:
        sign, unit = (-1, "rank") if name == "median_rank" else (1, FRACTION)
        p = stats.permutation_p(sign * value, sign * null_values)
        scores[name] = Score(float(value), float(low), float(high), chance, p, n, unit, NULL)
    return scores


def agreement(decoded: np.ndarray, features: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How well single presentations tell the features, beside how reliably they say anything.

    r: correlation over test presentations of decoded and true feature; reliability: the root of
    the share of the decoded feature's variance that lies between images, which is the largest
    correlation that *this* decoded feature can have with anything fixed by the image (the bound of
    Sahani and Linden 2003, NIPS 15, for a response, applied to the decoder's output). A decoder that
    uses more of the units may be more reliable. Both are means over features.
    decoded (B, D); features (S, D); y (B,) row of the image shown. NaN where no image was shown
    twice, or none of the features varies.
    """
    a, b = _varying(decoded, features[y])
    r = _correlation(a, b)
    scene, group = np.unique(y, return_inverse=True)
    count = np.bincount(group).astype(float)
    sums = np.zeros((len(scene), a.shape[1]))
    np.add.at(sums, group, a)
    within = ((a - (sums / count[:, None])[group]) ** 2).sum(axis=0)
    between = (count[:, None] * (sums / count[:, None]) ** 2).sum(axis=0)
    s, n = len(scene), len(y)
    if s < 2 or n <= s or a.shape[1] == 0:
        return {"r": float("nan"), "reliability": float("nan")}
    noise = within / (n - s)
    per = (n - (count**2).sum() / n) / (s - 1)  # presentations an image, for unequal numbers
    signal = np.maximum((between / (s - 1) - noise) / per, 0)
    reliability = np.sqrt(signal / np.maximum(signal + noise, 1e-12))
    return {"r": float(r.mean()), "reliability": float(reliability.mean())}


def best_agreement(proba: np.ndarray, features: np.ndarray, y: np.ndarray) -> float:
    """The noise ceiling where the truth is known: r of the posterior mean of the features.

    proba (B, S): exact posterior over the images; features (S, D); y (B,). No decoder has a smaller
    squared error; mean over features.
    """
    return float(_correlation(*_varying(proba @ features, features[y])).mean())


def _varying(decoded: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both, without their means, of the features that vary."""
    varies = (decoded.std(axis=0) > 1e-9) & (true.std(axis=0) > 1e-9)
    a, b = decoded[:, varies], true[:, varies]
    return a - a.mean(axis=0), b - b.mean(axis=0)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation feature by feature (D,) of what has no mean (B, D)."""
    return (a * b).mean(axis=0) / (a.std(axis=0) * b.std(axis=0))


def reconstruction(
    pictures: np.ndarray,
    shown: np.ndarray,
    mean: np.ndarray,
    *,
    n_bootstrap: int,
    n_permutations: int,
    seed: int,
) -> Score:
    """Pixel correlation of reconstructions and images (n, H, W), beside that with other images.

    What all images share, the mean training image (H, W), is taken off both. Interval over
    images; p: images change places.
    """
    r = pixel_correlation(pictures - mean, shown - mean)  # (n, n)
    n, matched = len(r), np.diag(r)
    rng = np.random.default_rng([seed, 33])
    null = [r[np.arange(n), rng.permutation(n)].mean() for _ in range(n_permutations)]
    low, high = stats.mean_interval(
        matched, least=-1.0, most=1.0, n_bootstrap=n_bootstrap, seed=seed
    )
    others = float((r.sum() - matched.sum()) / (n * (n - 1)))
    p = stats.permutation_p(float(matched.mean()), np.array(null))
    return Score(float(matched.mean()), float(low), float(high), others, p, n, "correlation", NULL)


def pixel_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation over pixels of every image of a (n, H, W) with every one of b (m, H, W)."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None, :]
    return a @ b.T / np.maximum(norm, 1e-12)
