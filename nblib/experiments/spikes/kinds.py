"""Which cells are of a kind (13): by what they answer to one stimulus, by code, by spike-triggered average."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.evaluate import stats
from nblib.evaluate.result import Row
from nblib.evaluate.scores import Score
from nblib.prepare.encoding.history import LAGS, Inputs

if TYPE_CHECKING:
    from nblib.experiments.spikes.prediction import SpikeData
    from nblib.models.encoders.network import Predictor

COMPONENTS = 12  # of the features, before cells are grouped
STARTS = 200  # of k-means; from 20 it ends in another optimum by another seed
MOST_STEPS = 4000  # of the stimulus that a network answers
SHUFFLES = 200  # of the groups of cells, for p
RAND, LIKENESS = "adjusted Rand", "likeness of averages, within less between groups"
SHARE = "share explained by probe"
AVERAGE, ANSWERS, CODES = (
    "spike-triggered average",
    "answers of the network",
    "codes of the network",
)


def grouped(
    data: SpikeData, model: Predictor | None
) -> tuple[list[Row], dict[str, dict[str, np.ndarray]], pd.DataFrame, pd.DataFrame]:
    """Scores of each way to group the cells, arrays (averages, codes), the table of `agreement`, and the
    cells in the plane. Where kinds are not known, a way that makes one group of all has no score. Where
    units have several probes, how much of each way these explain is scored too.

    The plane shows the answers of the network where there is one, else the averages: unit, x, y, kind
    (group), type (true kind, -1 where it is not known), rate_hz.
    """
    params, types, units = data.params, data.stream.types, data.stream.units.index
    sta = spike_triggered(data.inputs)
    features, arrays = {AVERAGE: sta}, {"averages": {"sta": sta}}
    if model is not None:
        features = {ANSWERS: answers(model, data.inputs), AVERAGE: sta}
        if params.cell_code != "none":
            features[CODES] = model.net.z.weight.detach().numpy()
            arrays["codes"] = {"z": features[CODES]}
    n = params.n_kinds if types is None else len(np.unique(types))
    n = min(n, len(units) - 1)
    groups = {name: group(values, n, params.seed) for name, values in features.items()}
    # Averages of train say in any case that groups made of train are alike; those of test were not asked.
    fresh = spike_triggered(data.inputs, "test")
    shown = next(iter(features))
    at = in_the_plane(features[shown], params.perplexity, params.seed)
    columns = {
        "unit": units,
        "x": at[:, 0],
        "y": at[:, 1],
        "kind": groups[shown],
        "type": -1 if types is None else types,
        "rate_hz": data.inputs.rate / data.stream.bin_s,
    }
    if types is None:  # of one group, as of cells that are alike, nothing lies between groups
        groups = {name: of_cell for name, of_cell in groups.items() if np.ptp(of_cell)}
    rows = [scored(name, of_cell, fresh, types, params.seed) for name, of_cell in groups.items()]
    probe = data.stream.units.get("probe", default=pd.Series("", units)).to_numpy()
    if 1 < len(set(probe)) < len(units):
        rows += [explained(name, values, probe, params.seed) for name, values in features.items()]
    return rows, arrays, agreement(groups, fresh, types), pd.DataFrame(columns)


def spike_triggered(inputs: Inputs, role: str = "train") -> np.ndarray:
    """Mean stimulus before a spike in steps of a role, (C, channel, LAGS), the latest last; 0 is the mean
    stimulus of train."""
    steps = inputs.steps[role]
    counts = inputs.spikes[steps].sum(axis=1, dtype=np.float32)  # (steps, C)
    sums = np.zeros((inputs.n_cells, inputs.stimulus.shape[1], LAGS), np.float32)
    for part in np.array_split(np.arange(len(steps)), max(1, len(steps) // 4096)):
        sums += np.tensordot(counts[part].T, inputs.shown(steps[part]), axes=1)
    return sums / counts.sum(axis=0)[:, None, None]


def answers(model: Predictor, inputs: Inputs) -> np.ndarray:
    """What a network says that each cell does under the same stimulus, without history: (C, steps)."""
    import torch

    steps = inputs.steps["val"]
    parts = np.array_split(steps[:: max(1, len(steps) // MOST_STEPS)], 8)
    with torch.no_grad():
        said = [model.of_stimulus(torch.from_numpy(inputs.shown(part)))[..., 0] for part in parts]
    return torch.cat(said).T.numpy()


def unit_length(features: np.ndarray) -> np.ndarray:
    """Features (C, ...) as rows (C, n) of length 1."""
    flat = features.reshape(len(features), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def components(features: np.ndarray) -> np.ndarray:
    """First components (C, n) of features (C, ...), each cell's about its mean and of length 1; 0 where all
    cells have the same."""
    from sklearn.decomposition import PCA

    flat = features.reshape(len(features), -1)
    flat = unit_length(flat - flat.mean(axis=1, keepdims=True))
    if np.ptp(flat, axis=0).max() < 1e-6:
        return np.zeros((len(flat), 2))
    return PCA(min(COMPONENTS, *flat.shape)).fit_transform(flat)


def group(features: np.ndarray, n_kinds: int, seed: int = 0) -> np.ndarray:
    """Group of each cell (C,), from 0: k-means of the first components of features (C, ...)."""
    from sklearn.cluster import KMeans

    first = components(features)
    with warnings.catch_warnings(action="ignore"):  # of cells that are alike
        return KMeans(n_kinds, n_init=STARTS, random_state=seed).fit_predict(first)


def in_the_plane(features: np.ndarray, perplexity: float, seed: int = 0) -> np.ndarray:
    """Places of cells (C, 2) by t-SNE, from 0 to 1; in the middle where all are alike."""
    from sklearn.manifold import TSNE

    first = components(features)
    if not first.any():  # t-SNE would divide by their spread
        return np.full((len(first), 2), 0.5)
    near = min(perplexity, (len(first) - 1) / 3)
    with warnings.catch_warnings(action="ignore"):
        at = TSNE(2, perplexity=near, init="pca", random_state=seed).fit_transform(first)
    return (at - at.min(axis=0)) / np.maximum(np.ptp(at, axis=0), 1e-9)


def agreement(
    groups: dict[str, np.ndarray], sta: np.ndarray, types: np.ndarray | None
) -> pd.DataFrame:
    """How well each way to group cells finds their kinds, a row a way.

    rand: adjusted Rand index with the true kinds, NaN where they are not known; sta: mean likeness
    (cosine) of the spike-triggered averages `sta` of two cells of a group, of other time than the groups;
    sta_apart: of two groups.
    """
    from sklearn.metrics import adjusted_rand_score

    rows, alike = [], likeness(sta)
    for name, of_cell in groups.items():
        rand = np.nan if types is None else adjusted_rand_score(types, of_cell)
        rows.append((name, of_cell.max() + 1, rand, *within_and_between(of_cell, alike)))
    return pd.DataFrame(rows, columns=["by", "n_kinds", "rand", "sta", "sta_apart"])


def likeness(sta: np.ndarray) -> np.ndarray:
    """Cosine of the averages (C, ...) of each two cells, (C, C)."""
    flat = unit_length(sta)
    return flat @ flat.T


def within_and_between(groups: np.ndarray, alike: np.ndarray) -> tuple[float, float]:
    """Mean likeness of two cells of a group, and of two groups, 0 of no pair; groups (C,), alike (C, C)."""
    same, pair = groups[:, None] == groups, np.tri(len(groups), k=-1, dtype=bool)
    within, between = (
        alike[pair & which].sum() / max(1, (pair & which).sum()) for which in (same, ~same)
    )
    return float(within), float(between)


def scored(
    name: str, groups: np.ndarray, sta: np.ndarray, types: np.ndarray | None, seed: int = 0
) -> Row:
    """How well groups of cells (C,) are their kinds: the adjusted Rand index, or where kinds are not known
    by how much averages (C, ...) of other time are more alike within groups than between. The interval is over cells,
    each left out once; p is against shuffled groups."""
    from sklearn.metrics import adjusted_rand_score

    measure, alike = LIKENESS if types is None else RAND, likeness(sta)

    def score(cells: np.ndarray, groups: np.ndarray = groups) -> float:
        if types is not None:
            return adjusted_rand_score(types[cells], groups[cells])
        within, between = within_and_between(groups[cells], alike[np.ix_(cells, cells)])
        return within - between

    return _over_cells(name, "kinds of cells", measure, score, groups, seed)


def explained(name: str, features: np.ndarray, probe: np.ndarray, seed: int = 0) -> Row:
    """Which share of what tells cells apart, of the squares of the first components of features (C, ...),
    lies between probes (C,), as units of several recordings are told by; chance is that of shuffled probes."""
    first = components(features)

    def score(cells: np.ndarray, probe: np.ndarray = probe) -> float:
        x, of = first[cells] - first[cells].mean(axis=0), probe[cells]
        between = [(of == one).sum() * (x[of == one].mean(axis=0) ** 2).sum() for one in set(of)]
        return float(sum(between) / max((x**2).sum(), 1e-12))

    return _over_cells(name, "probes of cells", SHARE, score, probe, seed, chance=None)


def _over_cells(
    name: str,
    variant: str,
    measure: str,
    score: Callable[..., float],
    groups: np.ndarray,
    seed: int,
    chance: float | None = 0.0,
) -> Row:
    """The row of a score of groups of cells: score(cells, groups), the latter these where none are given.

    chance: None means the mean over shuffled groups.
    """
    cells, rng = np.arange(len(groups)), np.random.default_rng([seed, 9])
    value = score(cells)
    variance = stats.jackknife_variance(np.array([score(np.delete(cells, c)) for c in cells]))
    half = stats.t_quantile(len(cells) - 1) * float(np.sqrt(variance))
    null = np.array([score(cells, rng.permutation(groups)) for _ in range(SHUFFLES)])
    p, chance = stats.permutation_p(value, null), null.mean() if chance is None else chance
    ends = value - half, min(1.0, value + half)
    judged = Score(value, *ends, float(chance), p, len(cells), measure, "shuffled groups")
    of = {"model": name, "variant": variant}
    return Row(f"{variant.split()[0]} by {name}, {measure}", judged, of=of, metric=measure)


def in_words(table: pd.DataFrame) -> str:
    """What groups the cells best; "" where there are too few."""
    if table.empty:
        return ""
    if table["rand"].notna().all():
        said = ", ".join(f"{row.rand:.2f} by {row.by}" for row in table.itertuples())
        return f"Groups of cells agree with their true kinds (adjusted Rand index): {said}."
    rows = table.itertuples()
    said = ", ".join(
        f"{row.sta:.2f} by {row.by} ({row.sta_apart:.2f} between groups)" for row in rows
    )
    return f"Likeness of the averages of two cells of a group: {said}."
