"""Learning curves: how many presentations of each class a decoder needs (07).

k presentations a class are drawn from the train rows of the split, the same draws for every
decoder; a smaller k is part of a larger one. The test presentations are those of 05, untouched.
Below `FIRST_CHOICE` a class nothing is chosen: fixed settings, fixed epochs. From there on a fifth
of the k are the validation presentations. Units are chosen and scaled on the drawn rows alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from nblib import models
from nblib.core import params as P
from nblib.core.errors import BadParameter
from nblib.core.markup import in_markdown
from nblib.evaluate import scores as metrics
from nblib.evaluate import stats
from nblib.experiments import decode
from nblib.prepare import moments
from nblib.prepare.samples import Samples
from nblib.road import stages

if TYPE_CHECKING:
    from nblib.experiments.decode import Data
    from nblib.models.base import Decoder


class Params(P.Judge, P.Fit, P.StageParams):
    """Parameters of 07_few_shot: which decoders, with how many presentations of each class."""

    models: list[str] = Field(
        ["nearest_mean", "ridge", "poisson_naive_bayes", "logistic"],
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


FIRST_CHOICE = 5  # presentations a class from which on some are validation
ALL = 0
CURVE, DRAWS, NEEDED = "curve.parquet", "draws.parquet", "needed.parquet"
LEVELS = (0.5, 0.8, 0.9)


@dataclass(frozen=True)
class Curves:
    """draws: one row a model, k and draw; curve: one row a model and k, with interval, chance, p.

    k = 0 stands for all train presentations. units, bins: what the decoder named first reads at the
    largest k, first draw (see `importance`); None where it was not asked for.
    """

    draws: pd.DataFrame
    curve: pd.DataFrame
    scores: dict[str, metrics.Score]
    oracle: metrics.Score | None
    units: pd.DataFrame | None = None
    bins: pd.DataFrame | None = None


def check(data: Data, shots: list[int]) -> None:
    """BadParameter when a class has fewer train presentations than a k that is asked for."""
    shown = np.bincount(data.train.y, minlength=len(data.classes))
    if shown.min() < max(shots):
        rare = data.classes[shown.argmin()]
        raise BadParameter(
            f"shots = {shots}: {data.label_name} {rare} has {shown.min()} train presentations, "
            f"fewer than {max(shots)}; ask for fewer, or 0 for all."
        )


def check_choices(params: Params) -> None:
    """BadParameter for a decoder that is not there or named twice, and for k that are none."""
    names, shots = params.models, params.shots
    for name in names:
        if name not in models.MODELS:
            models.MODELS[name]  # raises, and names those there are
    if len(set(names)) != len(names):
        raise BadParameter(f"models = {names}: a decoder is named twice.")
    if not shots or len(set(shots)) != len(shots) or min(shots) < 0:
        raise BadParameter(f"shots = {shots}: expected different numbers from 1 up, 0 for all.")


def draw(y: np.ndarray, k: int, seed: int, number: int) -> np.ndarray:
    """Rows of k presentations of each class, in the order of the classes; y (B,) class index.

    The draws of one seed and number hold each other: those for k = 3 begin with those for k = 1.
    """
    rng = np.random.default_rng([seed, number])
    rows = [rng.permutation(np.flatnonzero(y == c))[:k] for c in range(int(y.max()) + 1)]
    return np.concatenate(rows)


def roles(
    data: Data, k: int, seed: int, number: int, train: Samples | None = None
) -> tuple[Samples, Samples | None]:
    """Train samples of a draw, and validation samples where k allows some; counts, not scaled.

    Both come out of the k, also where k is all: the split's own validation rows are not used.
    train: counts of all train rows, where they are at hand.
    """
    train = counts(data, data.train) if train is None else train
    y = data.train.y
    rows = draw(y, k or len(y), seed, number)
    if k != ALL and k < FIRST_CHOICE:
        return cut(train, rows), None
    shown = np.bincount(y[rows])[y[rows]]  # of each row's class
    first = np.searchsorted(y[rows], y[rows])  # rows lie class by class
    inside = np.arange(len(rows)) - first >= shown - np.maximum(1, np.round(0.2 * shown))
    return cut(train, rows[~inside]), cut(train, rows[inside])


def counts(data: Data, samples: Samples) -> Samples:
    """Samples as the counts they were before the split's scaler."""
    mean, scale = data.scaling
    return Samples(np.rint(samples.x * scale + mean).astype(np.float32), samples.y, samples.trial)


def cut(samples: Samples, rows: np.ndarray) -> Samples:
    rows = np.sort(rows)
    return Samples(samples.x[rows], samples.y[rows], samples.trial[rows])


def scaling(train: Samples, settings: Any, zscore: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of each unit (N,) over the rows drawn.

    A unit that 04 would leave out by these rows (settings: its limits) has an infinite scale: it
    stays 0 and tells nothing.
    """
    mean, sd, peak = moments.of_units(train.x, np.arange(len(train)))
    good = moments.faults(mean, sd, peak, settings) == ""
    if not zscore:
        mean, sd = np.zeros_like(mean), np.ones_like(sd)
    return mean, np.where(good, sd, np.inf)


def scaled(samples: Samples, how: tuple[np.ndarray, np.ndarray]) -> Samples:
    mean, scale = how
    return Samples(((samples.x - mean) / scale).astype(np.float32), samples.y, samples.trial)


def fit_one(
    name: str, data: Data, k: int, number: int, stage: stages.Stage, device: str,
    whole: Samples | None = None,
) -> Decoder:  # fmt: skip
    """A decoder fitted on one draw; `scaling` says how its samples were scaled."""
    params = stage.params
    train, val = roles(data, k, params.seed, number, whole)
    how = scaling(train, stage.recipe, stage.recipe.scaler == "zscore")
    decoder = models.make(name, models.MODELS[name].fixed if val is None else {})
    decoder.units = data.units
    decoder.scaling = (how[0], np.where(np.isinf(how[1]), 0.0, how[1]))
    settings = SimpleNamespace(
        max_epochs=params.max_epochs, device=device, threads=params.threads,
        seed=params.seed + number, progress=False,
    )  # fmt: skip
    decoder.fit(
        scaled(train, how),
        None if val is None else scaled(val, how),
        n_classes=len(data.classes),
        settings=settings,
    )
    decoder.fitted["scale"] = how
    return decoder


def run(data: Data, stage: stages.Stage) -> Curves:
    """Every decoder at every k and draw, judged on the same test presentations."""
    params = stage.params
    check_choices(params)
    check(data, params.shots)
    device = models.device_of(params.models, params.device)
    test, whole = counts(data, data.test), counts(data, data.train)
    rows, predicted = [], {}
    for name in params.models:
        for k in sorted(params.shots, key=lambda k: k or np.inf):
            answers = []
            for number in range(n_draws(k, params)):
                decoder = fit_one(name, data, k, number, stage, device, whole)
                answer = decoder.predict(scaled(test, decoder.fitted["scale"]).x)
                answers.append(answer)
                if (name, number) == (params.models[0], 0):
                    reader = decoder  # that of the largest k stays
                rows.append(
                    {"model": name, "k": k, "draw": number, "n_train": _n_train(data, k),
                     "accuracy": float((answer == data.test.y).mean())}
                )  # fmt: skip
            predicted[name, k] = np.array(answers)  # (draws, B)
    how = decode.resampling(data, stage)
    draws = {"n_permutations": params.n_permutations, "seed": params.seed, "group": data.group}
    scores = {key: score(p, data.test.y, **draws) for key, p in predicted.items()}
    curve = pd.DataFrame(
        [
            {"model": name, "k": k, "per_class": k or per_class(data),
             "n_draws": len(predicted[name, k]), **asdict(s)}
            for (name, k), s in scores.items()
        ]
    )  # fmt: skip
    best = decode.oracle_log_proba(data, stage)
    oracle = None if best is None else metrics.decoding_scores(data.test.y, best, **how)["accuracy"]
    named = {f"{name}, k = {k or 'all'}": s for (name, k), s in scores.items()}
    seen = scaled(test, reader.fitted["scale"])
    carriers = decode.carriers(reader, seen, data, stage)
    return Curves(pd.DataFrame(rows), curve, named, oracle, *carriers)


def n_draws(k: int, params) -> int:
    """Draws at this k: many where few examples make a draw a matter of luck, one of all."""
    if k == ALL:
        return 1
    return params.n_draws if k <= FIRST_CHOICE else params.n_draws_large


def per_class(data: Data) -> float:
    """Train presentations of a class, mean over classes."""
    return len(data.train) / len(data.classes)


def _n_train(data: Data, k: int) -> int:
    return k * len(data.classes) if k else len(data.train)


def score(
    predicted: np.ndarray, y: np.ndarray, *, n_permutations: int, seed: int,
    group: np.ndarray | None = None,
) -> metrics.Score:  # fmt: skip
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
    return metrics.Score(
        value, low, high,
        chance=float(np.bincount(y).max() / n),
        p=stats.permutation_p(value, np.concatenate(null)), n=n,
    )  # fmt: skip


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
        full = part[part["k"] == ALL]
        for level in LEVELS:
            told = len(full) and full["ci_low"].iloc[0] > full["chance"].iloc[0]
            wanted = level * full["value"].iloc[0] if told else np.nan
            told = told and wanted > full["chance"].iloc[0]
            row[f"k for {level:.0%}"] = _reaches(log_k, value, wanted) if told else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _reaches(log_k: np.ndarray, value: np.ndarray, level: float) -> float:
    """The first k at which the curve, straight between its points, reaches the level."""
    above = int(np.argmax(value >= level))
    if above == 0:
        return float(np.exp(log_k[0]))
    share = (level - value[above - 1]) / (value[above] - value[above - 1])
    return float(np.exp(log_k[above - 1] + share * (log_k[above] - log_k[above - 1])))


def save(folder: Path, stage: stages.Stage, data: Data, curves: Curves) -> None:
    """Write draws, curve, what is needed, and metrics.json with a row for each model and k."""
    rows = [
        {"model": point["model"], "variant": f"k={point['k'] or 'all'}",
         "n_train": _n_train(data, point["k"]), "scores": {"accuracy": score}}
        for point, score in zip(
            curves.curve.to_dict("records"), curves.scores.values(), strict=True
        )
    ]  # fmt: skip
    metrics.write_metrics(
        folder,
        {
            **decode.identity(stage, data), "models": list(stage.params.models),
            "scores": curves.scores, "rows": rows,
            "oracle": {} if curves.oracle is None else {"accuracy": curves.oracle},
        },
    )  # fmt: skip
    curves.draws.to_parquet(folder / DRAWS, index=False)
    curves.curve.to_parquet(folder / CURVE, index=False)
    needed(curves.curve).to_parquet(folder / NEEDED, index=False)
    for name in ("units", "bins"):
        if (table := getattr(curves, name)) is not None:
            table.to_parquet(folder / f"importance_{name}.parquet", index=False)


def in_words(data: Data, curves: Curves) -> str:
    """The result in a sentence a decoder, from its fewest presentations to its most."""
    lines = []
    for name, part in curves.curve.groupby("model", sort=False):
        part = part.sort_values("per_class")
        ends = part.iloc[[0, -1]] if len(part) > 1 else part
        told = [
            f"{p.value:.1%} (95 % interval {p.ci_low:.1%} to {p.ci_high:.1%}) with {p.per_class:.0f}"
            for p in ends.itertuples()
        ]
        lines.append(f"- **{name}**: {', '.join(told)}")
    first = curves.curve.iloc[0]
    return (
        f"**Result.** Right {in_markdown(data.label_name)} in so many of {first['n']:,} test presentations, by training "
        f"presentations of each class; guessing would be right in {first['chance']:.1%}:\n\n"
        + "\n".join(lines)
    )
