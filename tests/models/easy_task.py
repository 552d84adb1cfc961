"""An easy decoding task and small versions of every decoder."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from nblib.prepare.decoder_inputs import Samples

N_BINS, N_UNITS, N_CLASSES = 3, 10, 4
ENCODER = {"d_model": 16, "heads": 2, "feedforward": 32, "dropout": 0.0, "input_dropout": 0.0}
GRAPH = {"k": 3, "channels": 4, "dropout": 0.1, "input_dropout": 0.0}
SMALL = {
    "nearest_mean": {"shrink": [0.0, 0.3]},
    "ridge": {"c_values": [0.1, 1.0]},
    "poisson_naive_bayes": {"pseudo": [0.3, 1.0]},
    "bayes_poisson": {"courses": 2, "gain_sd": [0.0, 10.0]},
    "logistic": {"c_values": [0.01, 1.0]},
    "pca_logistic": {"components": [6, 12], "c_values": [0.01, 1.0]},
    "linear_svm": {"c_values": [0.001, 0.1]},
    "mlp": {"hidden": 32, "dropout": 0.1},
    "cnn": {"filters": 16, "dropout": 0.1},
    "lstm": {"hidden": 16, "dropout": 0.1, "input_dropout": 0.0},
    "gru": {"hidden": 16, "dropout": 0.1, "input_dropout": 0.0},
    "transformer": ENCODER,
    "transformer_lstm": {**ENCODER, "hidden": 16},
    "autoencoder_lstm": {**ENCODER, "hidden": 16, "pretrain_epochs": 2},
    "st_gat": {**GRAPH, "hidden": 16},
    "st_gat_dynamic": {**GRAPH, "hidden": 16},
    "gat": {**GRAPH, "hidden": 32},
    "ensemble": {"members": ["bayes_poisson", "nearest_mean"]},
    "gcn": {"k": 3, "channels": 4, "dropout": 0.1, "input_dropout": 0.0},
}
QUICK = SimpleNamespace(
    max_epochs=12, batch_size=32, learning_rate=1e-2, device="cpu", progress=False, seed=0
)


def quick(**changes) -> SimpleNamespace:
    """Settings of a quick fit, changed."""
    return SimpleNamespace(**vars(QUICK) | changes)


def easy(n: int, seed: int, noise: float = 1.0) -> Samples:
    """Classes with a pattern over bins and units of their own, in unit noise."""
    pattern = np.random.default_rng(99).standard_normal((N_CLASSES, N_BINS, N_UNITS))
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % N_CLASSES)
    x = pattern[y] + noise * rng.standard_normal((n, N_BINS, N_UNITS))
    return Samples(x.astype(np.float32), y.astype(np.int64), np.arange(n) + 1000 * seed)


def fit(decoder, train: Samples, val: Samples | None, n_classes=N_CLASSES, settings=QUICK, **more):
    """Fit a decoder on samples, as the notebooks do; its history."""
    decoder.settings = settings
    pair = None if val is None else (val.x, val.y)
    return decoder.fit(train.x, train.y, pair, n_classes=n_classes, **more).history_


def small(name: str, **changes):
    """A small decoder, not fitted. One that needs counts learns how these samples become some."""
    from nblib.models import make

    scaling = np.full(N_UNITS, 12.0), np.ones(N_UNITS)
    return make(name, {**SMALL[name], **changes}, scaling=scaling)
