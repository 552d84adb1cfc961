"""A learning curve of the linear decoders, beside fitting every point from scratch."""

from __future__ import annotations

import time

from measure import Row

from nblib.core.params import SplitSettings

LIMITS = SplitSettings()
C_RIDGE = (0.001, 0.01, 0.1, 1.0, 10.0)


def rows(
    *,
    units: int = 100,
    bins: int = 5,
    classes: int = 119,
    repeats: int = 36,
    shots: tuple[int, ...] = (1, 3, 5, 10, 20, 0),
) -> list[Row]:
    """Seconds of whole curves, two draws a point; the same choices made by scikit-learn, cold."""
    params, data = _task(units, bins, classes, repeats, shots)
    from nblib.experiments import few_shot

    found = []
    for name, scratch in (("ridge", _ridge), ("logistic", _logistic)):
        ours = theirs = 0.0
        for k in shots:
            for draw in range(1 if k == 0 else 2):
                began = time.perf_counter()
                few_shot.fit(name, data, k, draw, params, LIMITS)
                ours += time.perf_counter() - began
                train, val = few_shot.drawn(data.train, k, 0, draw)
                scale = few_shot.scaling(train, LIMITS, zscore=True)
                began = time.perf_counter()
                scratch(
                    few_shot.scaled(train, *scale),
                    None if val is None else few_shot.scaled(val, *scale),
                )
                theirs += time.perf_counter() - began
        against = f"{name} from scratch"
        found += [
            Row("few-shot", against, theirs, "s", 1.0, note="scikit-learn, every strength fitted anew, solver as it comes"),
            Row("few-shot", f"{name}, nblib", ours, "s", ours / theirs, against,
                note=f"a curve of {len(shots)} points, 2 draws each, {units} units × {bins} bins, {classes} classes"),
        ]  # fmt: skip
    return found


def _task(units, bins, classes, repeats, shots):
    import numpy as np
    import pandas as pd

    from nblib.experiments import decode
    from nblib.experiments.few_shot import Params as FewShotParams
    from nblib.prepare.decoder_inputs import Samples

    rng = np.random.default_rng(0)
    rates = np.exp(0.5 * rng.standard_normal((classes, bins, units)))

    def samples(n, first):
        y = rng.permutation(np.repeat(np.arange(classes), n))
        counts = rng.poisson(rates[y]).astype(np.float32)
        return Samples(counts, y, np.arange(first, first + len(y)))

    data = decode.Data(
        samples(repeats, 0), samples(4, 10**6), samples(1, 10**7), classes=np.arange(classes),
        unit_ids=np.arange(units), units=pd.DataFrame(index=range(units)),
        scaling=(np.zeros(units), np.ones(units)), stop_s=np.arange(bins), label_name="frame",
        split_hash="bench",
    )  # fmt: skip
    params = FewShotParams(shots=list(shots), n_draws=2, n_draws_large=2)
    return params, data


def _best(models, train, val):
    x, v = train.x.reshape(len(train), -1), (val or train).x.reshape(len(val or train), -1)
    return max(model.fit(x, train.y).score(v, (val or train).y) for model in models)


def _ridge(train, val):
    from sklearn.linear_model import RidgeClassifier

    strengths = C_RIDGE if val is not None else C_RIDGE[2:3]
    return _best([RidgeClassifier(alpha=len(train) / c) for c in strengths], train, val)


def _logistic(train, val):
    import warnings

    from sklearn.linear_model import LogisticRegression

    from nblib import models

    strengths = models.make("logistic").params["c_values"]
    if val is None:
        strengths = models.MODELS["logistic"].fixed.get("c_values", strengths[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = [LogisticRegression(C=c, max_iter=1000) for c in strengths]
        return _best(made, train, val)
