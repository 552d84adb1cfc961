"""How near decoders come to the best possible, the closed form and networks that start from it, beside scikit-learn's regression, and what it costs.

Each simulated recording takes the road of the demo recipe. Strengths are chosen on validation rows, and the
test rows are asked once. Shares are of the accuracy of the exact posterior, the mean over recordings.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from typing import Any
from unittest import mock

import numpy as np
from measure import Row, memory, process

GROUP = "decoders"
FIT_S, FIT_GB = 10.0, 1.0
FIRST_SEED = 10  # no decoder was developed on these recordings
MEMBERS = {5: ("bayes_poisson", "lstm", "transformer", "mlp"), 20: ("bayes_poisson", "ridge")}
SHARES = {  # at least; of networks accuracies of .80 and .82
    "bayes_poisson, 5 bins": 0.885, "lstm, 5 bins": 0.84, "transformer, 5 bins": 0.86, "mlp, 5 bins": 0.84,
    "ensemble, 5 bins": 0.90, "ensemble, 20 bins": 0.90,
}  # fmt: skip
BIG = {"n": 5_950, "bins": 20, "units": 2_000, "classes": 119}
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def rows(
    *, seeds: int = 5, sizes: dict[str, Any] | None = None, big: dict[str, int] = BIG
) -> list[Row]:
    """Share of the best possible and seconds of a fit; then one large fit, its seconds and memory."""
    share, seconds = defaultdict(list), defaultdict(float)
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for n_bins in MEMBERS:
            data, ideal = _task(n_bins, {"seed": seed, **(sizes or {})})
            for name, (right, took) in _answers(data, n_bins).items():
                share[name].append(right / (ideal.argmax(axis=1) == data.test.y).mean())
                seconds[name] += took / seeds
    found, note = [], f"demo recipe, {seeds} simulated recordings"
    against = "scikit-learn's logistic regression, 5 bins"
    for name, values in share.items():
        value, least = float(np.mean(values)), SHARES.get(name)
        said = f"at least {least:g}" if least else ""
        found += [
            Row(GROUP, f"{name}: accuracy", value, "of the best possible", value / np.mean(share[against]),
                against, said, value >= least if least else None, note),
            Row(GROUP, f"{name}: fit", seconds[name], "s", seconds[name] / seconds[against], against, note=note),
        ]  # fmt: skip
    return found + _large(**big)


def _task(n_bins: int, simulate: dict[str, int]):
    """Samples of a simulated recording, as 05 gets them, and the exact log-posterior of its test rows."""
    from nblib.core import store
    from nblib.experiments import decode
    from nblib.road import stages

    values = {"recipe": "demo", "recording": "demo", "n_bins": n_bins, "simulate": simulate}
    with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, NBLIB_HOME=home):
        given = [word for name, value in values.items() for word in ("-p", name, str(value))]
        process(sys.executable, "-m", "nblib", "run", "04_split", "--with-upstream", *given)
        params, recipe = stages.settle_recipe("05_train_lstm", values)
        split, counts = (
            store.folder(stage, "demo", stages.key_for(stage, recipe, "demo"))
            for stage in ("04_split", "03_clean")
        )
        data = decode.load_data(split, counts, recipe, params)
        return data, decode.ideal_observer(data, recipe, params)


def _answers(data, n_bins: int) -> dict[str, tuple[float, float]]:
    """Accuracy on the test rows, and seconds of the fit, of each decoder."""
    from sklearn.linear_model import LogisticRegression

    from nblib.models import make

    flat = {role: getattr(data, role).x.reshape(len(getattr(data, role)), -1) for role in ("train", "val", "test")}  # fmt: skip
    found, known = {}, {}
    if n_bins == 5:  # many features take it minutes
        began = time.perf_counter()
        fits = [LogisticRegression(C=c, max_iter=200).fit(flat["train"], data.train.y) for c in PENALTIES]  # fmt: skip
        best = max(fits, key=lambda fit: fit.score(flat["val"], data.val.y))
        took = time.perf_counter() - began
        found["scikit-learn's logistic regression, 5 bins"] = (
            best.score(flat["test"], data.test.y),
            took,
        )
    members, settings = MEMBERS[n_bins], {"device": "cpu", "progress": False}
    for name in (*members, "ensemble"):
        params = {"members": members} if name == "ensemble" else {}
        decoder = make(name, params, settings=settings, scaling=data.scaling)
        decoder.known = dict(known)
        began = time.perf_counter()
        decoder.fit(data.train.x, data.train.y, (data.val.x, data.val.y), n_classes=len(data.classes))  # fmt: skip
        took = time.perf_counter() - began
        known[name] = decoder
        if name != "ridge":
            found[f"{name}, {n_bins} bins"] = decoder.score(data.test.x, data.test.y), took
    return found


def _large(n: int, bins: int, units: int, classes: int) -> list[Row]:
    """Seconds of one fit, and its highest memory beside the samples."""
    from nblib.models import make

    rng = np.random.default_rng(0)
    x = np.empty((n, bins, units), np.float32)
    for row in x:
        row[:] = rng.poisson(0.25, row.shape)
    y = np.arange(n) % classes
    before, highest, done = memory("VmRSS"), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            highest[0] = max(highest[0], memory("VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    make("bayes_poisson").fit(x, y, (x[: n // 10], y[: n // 10]))
    took = time.perf_counter() - began
    done.set()
    watcher.join()
    beside = max(highest[0] - before, 1) / 2**30
    size = f"{n:,} presentations × {bins} bins × {units:,} units, {classes} classes"
    return [
        Row(GROUP, "bayes_poisson: a large fit", took, "s", limit=f"at most {FIT_S:g} s", holds=took <= FIT_S, note=size),
        Row(GROUP, "bayes_poisson: memory beside the counts", beside, "GB", limit=f"at most {FIT_GB:g} GB",
            holds=beside <= FIT_GB, note=size),
    ]  # fmt: skip
