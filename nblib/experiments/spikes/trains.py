"""Spike trains of the windows ahead (13): inferred from each model, scored beside trains that know nothing.

What has to be chosen (a width, the worth of a spike) is chosen on validation windows.

Shapes: S windows, C cells, L bins ahead, T = S * L.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.evaluate import spike_trains
from nblib.evaluate.result import Row, readable

if TYPE_CHECKING:
    from nblib.evaluate.scores import Score
    from nblib.experiments.spikes.prediction import SpikeData
    from nblib.models.encoders.network import Predictor

SIGMAS = (5.0, 10.0, 20.0, 35.0, 50.0)  # bins: widths that the expected likeness is tried at
REWARDS = np.linspace(0, 40, 9)  # what a spike may be worth to the exact inference
WIDTHS = (
    5,
    10,
    20,
    40,
    80,
)  # bins whose expected count becomes whole, in trains of the Poisson twin
CHOOSES = "val"  # the role whose windows choose
RECORDED, RATE = "recorded", "rate, no train"
GREEDY, EXACT, TWIN = (
    "distance: greedy, published",
    "distance: least energy",
    "intensity: best published",
)
OTHERS = {"greedy": GREEDY, "twin": TWIN}  # what the others are held against


def inferred(
    data: SpikeData, models: dict[str, Predictor]
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Trains (C, T) of the test windows by how they were inferred, the recorded ones first; and what was
    chosen: a row a choice, with the role whose windows chose."""
    trains, choices = {RECORDED: data.windows("test")}, {}
    for head in ("chain", "intensity"):
        if head in models:
            p = {role: probabilities(models[head], data, role) for role in (CHOOSES, "test")}
            draw = np.random.default_rng([data.params.seed, 7])
            like = f"{head}: most like"
            trains[like], choices[like] = chosen(
                p, {f"{s:g} bins": most_like(s) for s in SIGMAS}, data
            )
            if head == "chain":
                trains["chain: sampled"] = samples(models[head], data)
            else:
                trains[TWIN], choices[TWIN] = chosen(p, published_twins(draw), data)
            trains[f"{head}: {RATE}"] = p["test"]
    if "distance" in models:
        from nblib.models.encoders import references

        seen = log_distances(models["distance"], data, data.starts("test"))
        trains[GREEDY] = ahead_of(references.greedy(*seen), data)
        worth = best_reward(models["distance"], data)
        trains[EXACT] = ahead_of(references.least_energy(*seen, -worth), data)
        choices[EXACT] = f"a spike is worth {worth:g}"
    table = pd.DataFrame({"of": choices.keys(), "chosen": choices.values()}, dtype=str)
    return trains, table.assign(role=CHOOSES)


def probabilities(model: Predictor, data: SpikeData, role: str) -> np.ndarray:
    """Probability of a spike in each bin of the windows of a role, (C, T)."""
    return joined(data.ask(model, data.starts(role), lambda model, x, _: model.probabilities(x)))


def samples(model: Predictor, data: SpikeData) -> np.ndarray:
    """A train of the chain for each test window, drawn exactly, (C, T)."""
    seed = data.params.seed
    return joined(data.ask(model, data.starts("test"), lambda model, x, _: model.samples(x, seed)))


def joined(windows: np.ndarray) -> np.ndarray:
    """Windows (S, C, L) one behind the other: (C, S * L)."""
    return windows.transpose(1, 0, 2).reshape(windows.shape[1], -1)


def chosen(
    p: dict[str, np.ndarray], ways: dict[str, Callable], data: SpikeData
) -> tuple[np.ndarray, str]:
    """Test trains of the way whose validation trains are most like the recorded, and its name: by the sum
    of correlation at 50 bins and Schreiber's measure at 10, undefined ones as 0."""
    spikes, likeness = data.windows(CHOOSES), {}
    for name, way in ways.items():
        train = way(p[CHOOSES])
        heard = train.any(axis=1) | spikes.any(axis=1)
        pair = train[heard], spikes[heard]
        alike = np.nan_to_num(spike_trains.correlation(*pair)) + spike_trains.schreiber(*pair, 10)
        likeness[name] = alike.mean()
    best = max(likeness, key=likeness.get)
    return ways[best](p["test"]), best


def most_like(sigma: float):
    """The train that is expected to be most like the recorded one, at a width [bins]."""
    from nblib.models.encoders import references

    return lambda p: np.array([references.best_expected(row, sigma) for row in p])


def published_twins(rng: np.random.Generator) -> dict[str, Callable]:
    """Trains from expected counts, as published: of some bins rounded, rounded down, or drawn."""
    whole = {"rounded": np.rint, "rounded down": np.floor, "drawn": rng.poisson}
    return {
        f"{width} bins {name}": lambda p, w=width, make=make: spread(make(expected(p, w)), w, p.shape[1])
        for width in WIDTHS for name, make in whole.items()
    }  # fmt: skip


def expected(p: np.ndarray, width: int) -> np.ndarray:
    """Expected spikes of every `width` bins, (C, T // width)."""
    n = p.shape[1] // width
    return p[:, : n * width].reshape(len(p), n, width).sum(axis=2)


def spread(counts: np.ndarray, width: int, length: int) -> np.ndarray:
    """Counts of every `width` bins as trains (C, length), each count spread evenly over its bins."""
    train = np.zeros((len(counts), length), np.uint8)
    for cell, block in zip(*np.nonzero(counts), strict=True):
        n = min(int(counts[cell, block]), width)
        train[cell, block * width + ((np.arange(n) + 0.5) * width / n).astype(int)] = 1
    return train


def log_distances(
    model: Predictor, data: SpikeData, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted distances (S * C, past + L) [bins], and bins since the last known spike (S * C,)."""
    out = data.ask(model, steps, lambda model, x, _: model(*x))
    since = data.inputs.since[steps, 0].reshape(-1)
    return np.exp(out.reshape(len(since), -1)), since.astype(np.int64)


def ahead_of(trains: np.ndarray, data: SpikeData) -> np.ndarray:
    """Windows (S * C, past + L) of `log_distances` as (C, T), without the past."""
    return joined(trains[:, -data.ahead :].reshape(-1, data.inputs.n_cells, data.ahead))


def best_reward(model: Predictor, data: SpikeData) -> float:
    """What a spike must be worth for exact trains to hold as many as validation windows do."""
    from nblib.models.encoders import references

    steps = data.starts(CHOOSES)
    steps = steps[:: max(1, len(steps) * data.inputs.n_cells // 600)]
    seen = log_distances(model, data, steps)
    true = data.inputs.ahead(steps, data.ahead).sum()
    counts = np.array([references.least_energy(*seen, -worth).sum() for worth in REWARDS], float)
    return float(REWARDS[np.abs(counts - true).argmin()])


# --- scores --------------------------------------------------------------------------------------


def scored(trains: dict[str, np.ndarray], data: SpikeData) -> tuple[list[Row], pd.DataFrame]:
    """Scores of inferred trains and of the references: rows of a result, and a table with a row each.

    The table: means over cells of the columns of `spike_trains.train_scores`; the interval of the
    correlation; by how much it and Schreiber's measure at 10 bins lie over the published inference and
    the Poisson twin, each with its interval over cells.
    """
    spikes = trains[RECORDED]
    heard = spikes.any(axis=1)
    draws = {"n_bootstrap": data.params.n_bootstrap, "seed": data.params.seed}
    known = (data.inputs.rate, data.stream.bin_s, data.params.seed)
    all_trains = {k: v for k, v in trains.items() if k != RECORDED} | spike_trains.references(
        spikes, *known
    )
    each = {
        name: spike_trains.train_scores(train[heard], spikes[heard], data.stream.bin_s)
        for name, train in all_trains.items()
    }
    rows, table = [], []
    for name, scores in each.items():
        undefined = int(scores["correlation"].isna().sum())
        scores["correlation"] = scores["correlation"].fillna(0.0)
        score: Score = spike_trains.over_cells(
            scores["correlation"].to_numpy(), "correlation", **draws
        )
        row = {"trains": name, **scores.mean().to_dict(), "undefined": undefined,
               "ci_low": score.ci_low, "ci_high": score.ci_high}  # fmt: skip
        for key, other in OTHERS.items():
            for measure in (
                ("correlation", "schreiber_10") if other in each and other != name else ()
            ):
                less = each[other][measure].fillna(0.0)
                gap = spike_trains.over_cells((scores[measure] - less).to_numpy(), measure, **draws)
                ends = {"": gap.value, "_low": gap.ci_low, "_high": gap.ci_high}
                row |= {f"{measure}_over_{key}{end}": value for end, value in ends.items()}
        table.append(row)
        if name not in spike_trains.REFERENCES:
            of = {"model": name.partition(":")[0], "variant": name}
            rows.append(Row(f"{name}, correlation at 50 bins", score, of=of, metric="correlation"))
    return rows, pd.DataFrame(table)


def readable_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `scored` as people read it."""
    columns = {
        "trains": "{trains}", "spikes / recorded": "{count_ratio:.2f}",
        "correlation, 50 bins": "{correlation:.3f}", "95 % interval": "{ci_low:.3f} to {ci_high:.3f}",
        **{f"Schreiber, {sigma}": f"{{schreiber_{sigma}:.3f}}" for sigma in spike_trains.SIGMAS},
        "van Rossum, 10": "{van_rossum:.2f}",
    }  # fmt: skip
    return readable(table, columns)


def in_words(table: pd.DataFrame) -> str:
    """Which train is nearest, and where the published inference or the Poisson twin wins."""
    table = table.set_index("trains")
    trains = table.drop(
        [name for name in table.index if name in spike_trains.REFERENCES or name.endswith(RATE)]
    )
    best, sharp = trains["correlation"].idxmax(), trains["schreiber_10"].idxmax()
    row = trains.loc[best]
    text = (
        f"Of the inferred trains *{best}* is nearest to the recorded, with a correlation of "
        f"{row['correlation']:.2f} at {row['count_ratio']:.2f} of the spikes"
    )
    names = {
        "greedy": "the published greedy inference",
        "twin": "the best published train of the Poisson twin",
    }
    for key, name in names.items():
        if np.isfinite(gap := row.get(f"correlation_over_{key}", np.nan)):
            low, high = row[f"correlation_over_{key}_low"], row[f"correlation_over_{key}_high"]
            sure = "" if low > 0 else ", no sure difference"
            text += f"; {gap:+.2f} ({low:.2f} to {high:.2f}{sure}) over {name}"
    text += "."
    if sharp != best:
        text += (
            f" By Schreiber's measure at 10 bins *{sharp}* is nearer, {trains['schreiber_10'][sharp]:.3f} against "
            f"{row['schreiber_10']:.3f}, at {trains['count_ratio'][sharp]:.2f} of the spikes."
        )
    rates = table["schreiber_10"][[name for name in table.index if name.endswith(RATE)]]
    if len(rates) and rates.max() > trains["schreiber_10"].max():
        text += f" A rate is nearer than any train ({rates.max():.3f}): take it where no train is needed."
    return text
