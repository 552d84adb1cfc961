"""How near decoders come to the best possible, the closed form and networks that start from it, beside scikit-learn's regression, and what it costs.

Each simulated recording takes the road of the demo recipe. Strengths are chosen on validation rows, and the
test rows are asked once. Shares are of the accuracy of the exact posterior, the mean over recordings.
Where the real recordings are, the decoder that validation chooses on one of them stands beside logistic
regression.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
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
PLENTY = {"n_repeats": 500}
PLENTY_SHARE = 0.97
REAL, REAL_FOLDS, REAL_UNITS, REAL_DRAWS = "allen_gratings", 5, 30, 20
RIVALS = ("logistic", "bayes_poisson", "ridge", "nearest_mean", "poisson_naive_bayes", "mlp", "lstm", "transformer")  # fmt: skip


def rows(
    *, seeds: int = 5, sizes: dict[str, Any] | None = None, big: dict[str, int] = BIG,
    plenty: dict[str, Any] = PLENTY, draws: int = REAL_DRAWS,
) -> list[Row]:  # fmt: skip
    """Share of the best possible and seconds of a fit; much data, real data; one large fit."""
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
    return [*found, _plentiful(plenty), *_real(draws), *_large(**big)]


def _task(n_bins: int, simulate: dict[str, int]):
    """Samples of a simulated recording, as 05 gets them, and the exact log-posterior of its test rows."""
    from nblib.experiments import decode

    values = {"recipe": "demo", "recording": "demo", "n_bins": n_bins, "simulate": simulate}
    data, recipe, params = next(_folds(values))
    return data, decode.ideal_observer(data, recipe, params)


def _folds(values: dict[str, Any]):
    """Samples of each fold of a split that is made for it, with the recipe and 05's parameters."""
    from nblib.core import store
    from nblib.experiments import decode
    from nblib.road import stages

    with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, NBLIB_HOME=home):
        given = [
            word
            for name, value in values.items()
            for word in ("-p", name, value if isinstance(value, str) else json.dumps(value))
        ]
        process(sys.executable, "-m", "nblib", "run", "04_split", "--with-upstream", *given)
        recording = values["recording"]
        for fold in range(values.get("n_folds", 1)):
            params, recipe = stages.settle_recipe("05_train_lstm", {**values, "fold": fold})
            split, counts = (
                store.folder(stage, recording, stages.key_for(stage, recipe, recording))
                for stage in ("04_split", "03_clean")
            )
            yield decode.load_data(split, counts, recipe, params), recipe, params


def _plentiful(sizes: dict[str, Any]) -> Row:
    """The closed form where examples abound: what remains is what the model cannot say."""
    data, ideal = _task(20, sizes)
    right = _fitted("bayes_poisson", data).score(data.test.x, data.test.y)
    share = float(right / (ideal.argmax(axis=1) == data.test.y).mean())
    note = f"{len(data.train):,} presentations teach {len(data.classes)} classes"
    return Row(GROUP, "bayes_poisson, 20 bins, many repeats: accuracy", share, "of the best possible",
               limit=f"at least {PLENTY_SHARE:g}", holds=share >= PLENTY_SHARE, note=note)  # fmt: skip


def _real(draws: int) -> list[Row]:
    """The decoder chosen on validation minus logistic regression, on draws of a real recording's units.

    Each draw of units is tested on one of the folds in turn. A presentation's answers are averaged over the
    draws that tested it, so that the interval is over presentations. No row without the recording.
    """
    from nblib.evaluate import stats
    from nblib.experiments import decode

    if not os.environ.get("NBLIB_TEST_DATA"):
        return []
    values = {"recipe": REAL, "recording": REAL, "n_units": 0, "n_folds": REAL_FOLDS}
    folds = [data for data, _, _ in _folds(values)]
    answers, names = [], []
    for draw in range(draws):
        data = folds[draw % REAL_FOLDS]
        keep = np.zeros(len(data.unit_ids), bool)
        keep[np.random.default_rng(draw).choice(keep.size, REAL_UNITS, replace=False)] = True
        data = decode.of_units(data, keep)
        fits = {name: _fitted(name, data) for name in RIVALS}
        names.append(max(fits, key=lambda name: fits[name].score(data.val.x, data.val.y)))
        right = [fits[name].predict(data.test.x) == data.test.y for name in (names[-1], "logistic")]
        answers.append(pd.DataFrame(dict(zip(("chosen", "logistic"), right, strict=True)), data.test.trial))  # fmt: skip
    mean = pd.concat(answers).astype(float).groupby(level=0).mean()
    d = stats.paired_difference(mean["chosen"].to_numpy(), mean["logistic"].to_numpy())
    share = {name: float(values.mean()) for name, values in mean.items()}
    against = "real recording: accuracy of logistic"
    note = (
        f"{REAL}, {draws} draws of {REAL_UNITS} units over {REAL_FOLDS} folds, {d.n} presentations; difference "
        f"{d.value:+.3f} ({d.ci_low:+.3f} to {d.ci_high:+.3f}); chosen: {dict(Counter(names))}"
    )
    return [
        Row(GROUP, against, share["logistic"], "of presentations", note=note),
        Row(GROUP, "real recording: accuracy of the chosen decoder", share["chosen"], "of presentations",
            share["chosen"] / share["logistic"], against, "not below logistic, interval ends above -0.01",
            d.value >= 0 and d.ci_high > -0.01, note),
    ]  # fmt: skip


def _fitted(
    name: str, data, known: dict[str, Any] | None = None, params: dict[str, Any] | None = None
):
    """A decoder fitted as 05 does, in silence, on the processor."""
    from nblib.models import make

    settings = {"device": "cpu", "progress": False}
    decoder = make(name, params or {}, settings=settings, scaling=data.scaling)
    decoder.known = dict(known or {})
    return decoder.fit(data.train.x, data.train.y, (data.val.x, data.val.y), n_classes=len(data.classes))  # fmt: skip


def _answers(data, n_bins: int) -> dict[str, tuple[float, float]]:
    """Accuracy on the test rows, and seconds of the fit, of each decoder."""
    from sklearn.linear_model import LogisticRegression

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
    members = MEMBERS[n_bins]
    for name in (*members, "ensemble"):
        params = {"members": members} if name == "ensemble" else {}
        began = time.perf_counter()
        decoder = _fitted(name, data, known, params)
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
