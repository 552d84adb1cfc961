"""Which cells are of a kind (13): by what they answer to one stimulus, by code, by spike-triggered average."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.prepare.spike_history import LAGS, Inputs

if TYPE_CHECKING:
    from nblib.models.encoder_net import Predictor

COMPONENTS = 12  # of the features, before cells are grouped
MOST_STEPS = 4000  # of the stimulus that all models answer


def spike_triggered(inputs: Inputs) -> np.ndarray:
    """Mean stimulus before a spike in train, (C, channel, LAGS), the latest last; 0 is the mean stimulus."""
    steps = inputs.steps["train"]
    counts = inputs.spikes[steps].sum(axis=1, dtype=np.float32)  # (steps, C)
    sums = np.zeros((inputs.n_cells, inputs.stimulus.shape[1], LAGS), np.float32)
    for first in range(0, len(steps), 4096):
        part = slice(first, first + 4096)
        sums += np.einsum("sc,skl->ckl", counts[part], inputs.shown(steps[part]), optimize=True)
    return sums / counts.sum(axis=0)[:, None, None]


def responses(model: Predictor, inputs: Inputs) -> np.ndarray:
    """What a network says each cell does under the same stimulus, without history: (C, steps)."""
    import torch

    steps = inputs.steps["val"]
    steps = steps[:: max(1, len(steps) // MOST_STEPS)]
    with torch.no_grad():
        said = [
            model.net(torch.from_numpy(inputs.shown(part)))[..., 0]
            for part in np.array_split(steps, 8)
        ]
    return torch.cat(said).T.numpy()


def group(features: np.ndarray, n_kinds: int, seed: int = 0) -> np.ndarray:
    """Kind of each cell (C,), from 0: k-means of the first components of features (C, ...)."""
    from sklearn.cluster import KMeans

    return KMeans(n_kinds, n_init=20, random_state=seed).fit_predict(components(features))


def components(features: np.ndarray) -> np.ndarray:
    """The first components (C, n) of features (C, ...), each cell's about its own mean and of length 1."""
    from sklearn.decomposition import PCA

    flat = features.reshape(len(features), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    return PCA(min(COMPONENTS, len(flat) - 1, flat.shape[1])).fit_transform(flat)


def plane(features: np.ndarray, perplexity: float, seed: int = 0) -> np.ndarray:
    """Places of cells (C, 2) by t-SNE, from 0 to 1."""
    from sklearn.manifold import TSNE

    places = components(features)
    perplexity = min(perplexity, (len(places) - 1) / 3)
    with warnings.catch_warnings(action="ignore"):
        at = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(places)
    return (at - at.min(axis=0)) / np.maximum(np.ptp(at, axis=0), 1e-9)


def agreement(features: dict[str, np.ndarray], sta: np.ndarray, types: np.ndarray | None, n_kinds: int, seed: int = 0) -> pd.DataFrame:  # fmt: skip
    """How well each way to group cells finds their kinds: a row a way.

    rand: adjusted Rand index with the true types, NaN where they are not known; sta: mean correlation of
    the spike-triggered averages of two cells of a group; sta_apart: of two groups.
    """
    from sklearn.metrics import adjusted_rand_score

    flat = components_of_one(sta)
    alike = flat @ flat.T
    rows = []
    for name, values in features.items():
        kinds = group(values, n_kinds, seed)
        same = kinds[:, None] == kinds
        other = ~np.eye(len(kinds), dtype=bool)
        rows.append({
            "by": name, "n_kinds": n_kinds,
            "rand": np.nan if types is None else adjusted_rand_score(types, kinds),
            "sta": alike[same & other].mean() if (same & other).any() else np.nan,
            "sta_apart": alike[~same].mean() if (~same).any() else np.nan,
        })  # fmt: skip
    return pd.DataFrame(rows)


def components_of_one(sta: np.ndarray) -> np.ndarray:
    """Averages (C, ...) as rows of length 1."""
    flat = sta.reshape(len(sta), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
