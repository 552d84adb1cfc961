"""What is fitted on embeddings or windows of few labels (09): a probe, a layer, or a whole network.

Shapes: n labelled rows, of which some choose the penalty or the epoch; E embedding, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nblib.experiments.embedders import Embedders, trains_a_network
from nblib.experiments.few_labels import choosing
from nblib.experiments.pretext import EPS
from nblib.models import FitSettings, reproducible

if TYPE_CHECKING:
    from nblib.experiments.subjects import Fold
    from nblib.prepare.potentials.stored_windows import Cohort

C_VALUES = (0.01, 0.1, 1.0)  # inverse penalty of the probe, on standardised embeddings
C_FIXED = 0.1
EPOCHS = 100  # at most; most fits stop earlier
AT_ONCE = 512  # windows judged at a time


def teach_and_choose(
    rows: np.ndarray, y: np.ndarray, budget: int, cohort: Cohort
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Rows (n,) of a cohort with their classes, and which of them choose (`few_labels.choosing`).

    A row that would choose though it shares samples with one that teaches is left out; where all
    would, none chooses and all teach.
    """
    chooses = choosing(y, budget)
    if chooses is None:
        return rows, y, None
    record, start = cohort.record[rows], cohort.start_s[rows]
    alone = np.ones(len(rows), bool)
    for number in np.unique(record[chooses]):
        here = np.flatnonzero(chooses & (record == number))
        teach = np.r_[-np.inf, np.sort(start[~chooses & (record == number)]), np.inf]
        after = np.searchsorted(teach, start[here])
        nearest = np.minimum(teach[after] - start[here], start[here] - teach[after - 1])
        alone[here] = nearest > cohort.window_s - EPS
    if not alone[chooses].any():
        return rows, y, None
    return rows[alone], y[alone], chooses[alone]


def probe(
    x: np.ndarray, y: np.ndarray, chooses: np.ndarray | None, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (E, K) and bias (K,) of a logistic probe; `chooses` rows pick the penalty, then all fit."""
    best = C_FIXED
    if chooses is not None:
        losses = {}
        for c in C_VALUES:
            weight, bias = _logistic(x[~chooses], y[~chooses], c, n_classes)
            losses[c] = _log_loss(x[chooses] @ weight + bias, y[chooses])
        best = min(losses, key=losses.get)
    return _logistic(x, y, best, n_classes)


def _logistic(
    x: np.ndarray, y: np.ndarray, c: float, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS on the span of the rows."""
    from scipy.optimize import minimize

    n, d = x.shape
    # Few rows lie in few directions: the answer lies in their span.
    basis = None
    if n < d:
        basis, r = np.linalg.qr(x.T)  # (E, n), (n, n)
        x, d = r.T, basis.shape[1]
    target = np.eye(n_classes)[y]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat[: d * n_classes].reshape(d, n_classes), flat[d * n_classes :]
        score = x @ weight + bias
        score -= score.max(axis=1, keepdims=True)
        e = np.exp(score)
        total = e.sum(axis=1, keepdims=True)
        value = c * (np.log(total).sum() - (score * target).sum()) + 0.5 * (weight**2).sum()
        back = c * (e / total - target)
        return value, np.r_[(x.T @ back + weight).ravel(), back.sum(axis=0)]

    solution = minimize(
        loss, np.zeros((d + 1) * n_classes), jac=True, method="L-BFGS-B", options={"maxiter": 200}
    )
    weight = solution.x[: d * n_classes].reshape(d, n_classes)
    return (weight if basis is None else basis @ weight), solution.x[d * n_classes :]


def _log_loss(score: np.ndarray, y: np.ndarray) -> float:
    score = score - score.max(axis=1, keepdims=True)
    return float((np.log(np.exp(score).sum(axis=1)) - score[np.arange(len(y)), y]).mean())


def train(
    embedder: Any,
    x: np.ndarray,
    y: np.ndarray,
    chooses: np.ndarray | None,
    n_classes: int,
    settings: dict[str, Any],
) -> Any:
    """A linear layer on a copy of an embedder, all weights trained on windows x (n, T, C).

    embedder: None for the layer alone, on embeddings x (n, E) that stay as they are, by AdamW (the
    lab: Adam). settings: seed, device, threads and max_epochs (None: 100).
    """
    from torch import nn

    from nblib.models import training
    from nblib.prepare.decoder_inputs import Samples

    defaults = {"batch_size": 64, "learning_rate": 5e-4}
    below = copy.deepcopy(embedder)
    if embedder is None:
        defaults, below = {"batch_size": 256, "learning_rate": 5e-3}, nn.Flatten()
    with reproducible(settings["seed"]):
        n_features = x.shape[1] if embedder is None else embedder.config["embedding"]
        net = nn.Sequential(below, nn.Linear(n_features, n_classes))
    defaults |= {"max_epochs": EPOCHS, "weight_decay": 1e-3, "patience": 10, "progress": False}
    chosen = {name: value for name, value in settings.items() if value is not None}
    x, rows = _as_windows(x), np.arange(len(y))
    learn, choose = (rows, None) if chooses is None else (rows[~chooses], rows[chooses])
    val = None if choose is None else Samples(x[choose], y[choose], choose)
    training.fit(net, Samples(x[learn], y[learn], learn), val, FitSettings(**defaults | chosen))
    return net


def classes_of(net: Any, x: np.ndarray) -> np.ndarray:
    """Class (W,) that a trained network gives windows (W, T, C) or embeddings (W, E)."""
    import torch

    x = torch.from_numpy(_as_windows(x))
    with torch.inference_mode():
        return np.concatenate([net(part).argmax(dim=1).numpy() for part in x.split(AT_ONCE)])


def _as_windows(x: np.ndarray) -> np.ndarray:
    """Windows (W, T, C) as they are, embeddings (W, E) as windows of one sample."""
    return x if x.ndim == 3 else x[:, None].astype(np.float32)


def standardised(h: np.ndarray, fold: Fold) -> np.ndarray:
    """Embeddings (W, D) less their mean over the training subjects' windows, in units of their spread there;
    a dimension that never changes is 0. Labels play no part."""
    known = h[np.isin(fold.subject, np.unique(fold.subject[fold.train]))].astype(np.float64)
    sd = known.std(axis=0)
    return (h - known.mean(axis=0)) / np.where(sd > 1e-9, sd, np.inf)


def learner(name: str, fold: Fold, embedders: Embedders, device: str) -> Callable[..., np.ndarray]:
    """What learns from labels: (rows, y, chooses, n_classes, seed) -> class of each test window."""
    params = embedders.params
    settings = {"device": device, "threads": params.threads, "max_epochs": params.max_epochs}
    if trains_a_network(name, params.head):
        net, x = embedders.net(name, fold.number), embedders.cohort.x
    else:
        net, x = None, standardised(embedders.embed(name, fold.number), fold)

    def train_layers(rows, y, chooses, n_classes, seed):
        fitted = train(net, x[rows], y, chooses, n_classes, settings | {"seed": seed})
        return classes_of(fitted, x[fold.test])

    def fit_probe(rows, y, chooses, n_classes, seed):
        weight, bias = probe(x[rows], y, chooses, n_classes)
        return (x[fold.test] @ weight + bias).argmax(axis=1)

    return fit_probe if net is None and params.head == "logistic" else train_layers
