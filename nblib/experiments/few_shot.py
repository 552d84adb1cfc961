"""Learning curves: how many presentations of each class a decoder needs (07).

k presentations a class are drawn from the train rows of the split, the same draws for every
decoder (see `few_labels.draw`); validation presentations are some of the k. The test presentations are those
of 05, untouched. Units are chosen and scaled on the drawn rows alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from nblib import models
from nblib.core import params as P
from nblib.core.errors import BadParameter
from nblib.core.markup import in_markdown
from nblib.evaluate import stats
from nblib.evaluate.result import Result, Row, with_interval
from nblib.evaluate.scores import Score, decoding_scores
from nblib.experiments import decode
from nblib.experiments.few_labels import ALL, FIRST_CHOICE, answers, choosing, draw
from nblib.models import FitSettings
from nblib.prepare import train_statistics
from nblib.prepare.decoder_inputs import Samples
from nblib.road.stage_registry import StageParams

if TYPE_CHECKING:
    from nblib.core.params import SplitSettings
    from nblib.experiments.decode import Data
    from nblib.models.base import Decoder


class Params(P.Judge, P.Fit, StageParams):
    """Parameters of 07: which decoders, with how many presentations of each class."""

    models: list[str] = Field(
        ["nearest_mean", "ridge", "bayes_poisson", "logistic"],
        min_length=1,
        description="decoders, see models",
    )
    shots: list[int] = Field(
        [1, 3, 5, 10, 20, 0], description="presentations a class; 0 = all [count]"
    )
    n_draws: int = Field(10, ge=1, le=1000, description="draws up to 5 a class [count]")
    n_draws_large: int = Field(5, ge=1, le=1000, description="draws above 5 a class [count]")
    importance: int = Field(
        300, ge=0, description="test presentations for the importance of units; 0 = none [count]"
    )
    refit: bool = Field(False, description="after the choice, teach again with all that were drawn")

    def check(self) -> None:
        """BadParameter for a decoder that is not there or named twice, and for k that are none."""
        names, shots = self.models, self.shots
        for name in names:
            if name not in models.MODELS:
                models.MODELS[name]  # raises, and names those there are
        if len(set(names)) != len(names):
            raise BadParameter(f"models = {names}: a decoder is named twice.")
        if not shots or len(set(shots)) != len(shots) or min(shots) < 0:
            raise BadParameter(f"shots = {shots}: expected different numbers from 1 up, 0 for all.")


LEVELS = (0.5, 0.8, 0.9)


def check_shots(data: Data, shots: list[int]) -> None:
    """BadParameter when a class has fewer train presentations than a k that is asked for."""
    shown = np.bincount(data.train.y, minlength=len(data.classes))
    if shown.min() < max(shots):
        rare = data.classes[shown.argmin()]
        raise BadParameter(
            f"shots = {shots}: {data.label_name} {rare} has {shown.min()} train presentations, "
            f"fewer than {max(shots)}; ask for fewer, or 0 for all."
        )


def counts(data: Data, samples: Samples) -> Samples:
    """Samples as the counts they were before the split's scaler."""
    mean, scale = data.scaling
    return Samples(np.rint(samples.x * scale + mean).astype(np.float32), samples.y, samples.trial)


def drawn(train: Samples, k: int, seed: int, number: int) -> tuple[Samples, Samples | None]:
    """Train samples of a draw, and validation samples where k allows some.

    Both come out of the k, also where k is all: the split's own validation rows are not used.
    """
    rows = draw(train.y, k, [seed, number])
    chooses = choosing(train.y[rows], k)
    if chooses is None:
        return train.rows(np.sort(rows)), None
    return train.rows(np.sort(rows[~chooses])), train.rows(np.sort(rows[chooses]))


def scaling(train: Samples, limits: SplitSettings, zscore: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of each unit (N,) over the rows drawn.

    A unit that 04 would leave out by these rows (by its limits) has an infinite scale: it stays 0
    and tells nothing.
    """
    mean, sd, peak = train_statistics.unit_moments(train.x, np.arange(len(train)))
    good = train_statistics.unit_faults(mean, sd, peak, limits) == ""
    if not zscore:
        mean, sd = np.zeros_like(mean), np.ones_like(sd)
    return mean, np.where(good, sd, np.inf)


def scaled(samples: Samples, mean: np.ndarray, scale: np.ndarray) -> Samples:
    """Samples less the mean (N,) of each unit, in units of its scale (N,)."""
    return Samples(((samples.x - mean) / scale).astype(np.float32), samples.y, samples.trial)


def fit(
    name: str,
    data: Data,
    k: int,
    number: int,
    params: Params,
    limits: SplitSettings,
    train: Samples | None = None,
) -> tuple[Decoder, tuple[np.ndarray, np.ndarray]]:
    """A decoder fitted on one draw, and the mean and scale (N,) of its samples.

    train: counts of all train rows, where they are at hand; limits: which units 04 leaves out.
    """
    train = counts(data, data.train) if train is None else train
    learn, choose = drawn(train, k, params.seed, number)
    mean, scale = scaling(learn, limits, limits.scaler == "zscore")
    decoder = models.make(
        name, units=data.units, scaling=(mean, np.where(np.isinf(scale), 0.0, scale))
    )
    seed = params.seed + number
    decoder.set_params(settings=FitSettings.of(params, decoder.training, seed=seed, progress=False))
    learn = scaled(learn, mean, scale)
    val = None
    if choose is not None:
        choose = scaled(choose, mean, scale)
        val = choose.x, choose.y
    decoder.fit(learn.x, learn.y, val, n_classes=len(data.classes), refit=params.refit)
    return decoder, (mean, scale)


def learning_curves(
    data: Data, params: Params, limits: SplitSettings, ideal: np.ndarray | None = None
) -> Result:
    """Every decoder at every k and draw, judged on the same test presentations.

    Parameters
    ----------
    data
        With the counts of all units (`decode.load_data`, every_unit=True).
    limits
        The settings of 04: which units are left out, and whether counts are scaled.
    ideal
        Log-probabilities (B, C) of the best possible decoder, where they are known.

    Returns
    -------
    Result
        Tables: draws, one row a model, k and draw; curve, one row a model and k with interval,
        chance and p; needed (see `needed`); importance_units and importance_bins, what the decoder
        named first reads at the largest k, first draw. k = 0 stands for all train presentations.
    """
    params.check()
    check_shots(data, params.shots)
    device = models.device_of(params.models, params.device)
    quiet = params.model_copy(update={"device": device})
    test, train = counts(data, data.test), counts(data, data.train)
    first = {}  # fit of the decoder named first, first draw; that of the largest k stays

    def predict(name: str, _, k: int, number: int) -> np.ndarray:
        decoder, (mean, scale) = fit(name, data, k, number, quiet, limits, train)
        samples = scaled(test, mean, scale)
        if (name, number) == (params.models[0], 0):
            first["decoder"], first["samples"] = decoder, samples
        return decoder.predict(samples.x)

    def n_draws(_: str, k: int) -> int:
        return params.n_draws if k <= FIRST_CHOICE else params.n_draws_large

    rows, predicted = [], {}
    learners = {name: partial(predict, name) for name in params.models}
    for answer in answers(learners, sorted(params.shots, key=lambda k: k or np.inf), n_draws):
        name, k = answer.model, answer.budget
        predicted.setdefault((name, k), []).append(answer.predicted)
        row = {"model": name, "k": k, "draw": answer.draw, "n_train": _n_train(data, k)}
        rows.append(row | {"accuracy": float((answer.predicted == data.test.y).mean())})
    judge = decode.resampling(params, data.group)
    best = None if ideal is None else decoding_scores(data.test.y, ideal, **judge)["accuracy"]
    judge.pop("n_bootstrap")
    results, curve = [], []
    for (name, k), said in predicted.items():
        s, of = (
            score(np.array(said), data.test.y, **judge),
            {"model": name, "variant": f"k={k or 'all'}"},
        )
        of["n_train"] = _n_train(data, k)
        results.append(Row(f"{name}, k = {k or 'all'}", s, best, of, "accuracy"))
        per_class = k or len(data.train) / len(data.classes)
        row = {"model": name, "k": k, "per_class": per_class, "n_draws": len(said)}
        curve.append(row | s.fields())
    curve = pd.DataFrame(curve)
    tables = {
        "draws": pd.DataFrame(rows),
        "curve": curve,
        "needed": needed(curve),
        **decode.importances(first["decoder"], first["samples"], data, params),
    }
    return Result(results, data.about | {"models": list(params.models)}, tables)


def _n_train(data: Data, k: int) -> int:
    return k * len(data.classes) if k else len(data.train)


def score(
    predicted: np.ndarray, y: np.ndarray, *, n_permutations: int, seed: int,
    group: np.ndarray | None = None,
) -> Score:  # fmt: skip
    """Mean accuracy over draws; its interval counts the luck of draws and of test presentations.

    predicted (draws, B), y (B,), group (B,): presentations that hang together. p: share of label
    permutations whose mean accuracy is as high.
    """
    right = (predicted == y).astype(np.float64)  # (D, B)
    n_draw, n = right.shape
    value = float(right.mean())
    _, of_test, n_units = stats.mean_variance(right.mean(axis=0), group=group)
    if n_draw == 1:
        low, high = stats.fraction_interval(right[0], group=group)
    else:
        # What one draw and one presentation have in common counts twice: on the safe side.
        of_draws = stats.mean_variance(right.mean(axis=1))[1]
        both = of_test + of_draws
        parts = of_test**2 / max(1, n_units - 1) + of_draws**2 / (n_draw - 1)
        df = both**2 / parts if parts > 0 else np.inf  # Satterthwaite 1946, Biometrics Bull. 2:110
        low, high = stats.effective_interval(value, both, n_units, df)
    votes = np.zeros((n, int(max(y.max(), predicted.max())) + 1))
    for answer in predicted:
        votes[np.arange(n), answer] += 1 / n_draw  # how often each class is named: (B, C)
    null = [
        votes[np.arange(n), labels].mean(axis=1)
        for labels in stats.permutation_slices(y, n_permutations, seed, group)
    ]
    p = stats.permutation_p(value, np.concatenate(null))
    chance = float(np.bincount(y).max() / n)
    return Score(value, low, high, chance, p, n, null=stats.null_of(group))


def needed(curve: pd.DataFrame) -> pd.DataFrame:
    """How many presentations a class each decoder needs, read off its curve on a log axis of k.

    One row a model: area (mean accuracy over log k, a fraction), and for 50, 80 and 90 % of what
    it reaches with all presentations, the k that gives it: 1 at least (fewer cannot be told). NaN
    where the curve holds no run with all, where that run is not above chance by its interval, and
    where guessing alone would reach the level.
    """
    rows = []
    for name, part in curve.groupby("model", sort=False):
        part = part.sort_values("per_class")
        log_k, value = np.log(part["per_class"].to_numpy(float)), part["value"].to_numpy(float)
        span = log_k[-1] - log_k[0]
        area = np.trapezoid(value, log_k) / span if span > 0 else value[-1]
        row = {"model": name, "area": float(area)}
        full = part[(part["k"] == ALL) & (part["ci_low"] > part["chance"])]
        for level in LEVELS:
            wanted = level * full["value"].iloc[0] if len(full) else np.nan
            above_chance = len(full) and wanted > full["chance"].iloc[0]
            row[f"k for {level:.0%}"] = _reaches(log_k, value, wanted) if above_chance else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _reaches(log_k: np.ndarray, value: np.ndarray, level: float) -> float:
    """The first k at which the curve, straight between its points, reaches the level."""
    above = int(np.argmax(value >= level))
    if above == 0:
        return float(np.exp(log_k[0]))
    share = (level - value[above - 1]) / (value[above] - value[above - 1])
    return float(np.exp(log_k[above - 1] + share * (log_k[above] - log_k[above - 1])))


def in_words(result: Result, data: Data) -> str:
    """The result in a sentence a decoder, from its fewest presentations to its most."""
    lines, curve = [], result.tables["curve"]
    for name, part in curve.groupby("model", sort=False):
        part = part.sort_values("per_class")
        ends = part.iloc[[0, -1]] if len(part) > 1 else part
        points = [f"{with_interval(p)} with {p.per_class:.0f}" for p in ends.itertuples()]
        lines.append(f"- **{name}**: {', '.join(points)}")
    first = curve.iloc[0]
    return (
        f"**Result.** Right {in_markdown(data.label_name)} in so many of {first['n']:,} test presentations, by training "
        f"presentations of each class; guessing would be right in {first['chance']:.1%}:\n\n"
        + "\n".join(lines)
    )
