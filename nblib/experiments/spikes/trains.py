"""Spike trains of the windows ahead (13): inferred from each model, scored beside trains that know nothing.

What has to be chosen (a width, the worth of a spike) is chosen on validation windows.

Shapes: S windows, C cells, L bins ahead, T = S * L.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.evaluate import spike_trains
from nblib.evaluate.result import Row, readable

if TYPE_CHECKING:
    from nblib.experiments.spikes.prediction import SpikeData
    from nblib.models.encoders.network import Predictor

SIGMAS = (5.0, 10.0, 20.0, 35.0, 50.0)  # bins: widths that the expected likeness is tried at
REWARDS = np.linspace(0, 40, 9)  # what a spike may be worth to the exact inference
WIDTHS = (5, 10, 20, 40, 80)  # bins whose expected count is made whole, in trains of the twin
AT_ONCE = 256  # windows of all cells that are inferred at once
CHOOSES = "val"  # the role whose windows choose
RECORDED, RATE = "recorded", "rate, no train"
GREEDY, EXACT = "distance: greedy, published", "distance: least energy"
TWIN = "intensity: best published"
# What the others are held against: in the table, and in words.
OTHERS = {
    "greedy": (GREEDY, "the published greedy inference"),
    "twin": (TWIN, "the best published train of the Poisson twin"),
}
HELD = ("correlation", "schreiber_10")  # the measures in which they are


def inferred(
    data: SpikeData, models: dict[str, Predictor]
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Trains (C, T) of the test windows by how they were inferred, the recorded ones first; and what was
    chosen: a row a choice, with the role whose windows chose."""
    from nblib.models.encoders import references

    trains, choices, seed = {RECORDED: data.windows("test")}, {}, data.params.seed
    rng = np.random.default_rng([seed, 8])  # of samples, of all batches of windows

    def ask(head: str, role: str, question: Callable) -> np.ndarray:
        answers = data.answers(models[head], data.starts(role), question)
        return np.concatenate([joined(windows) for windows in answers], axis=1)

    for head in (head for head in ("chain", "intensity") if head in models):
        p = {
            role: ask(head, role, lambda model, x, y: model.probabilities(x))
            for role in (CHOOSES, "test")
        }
        best = partial(references.best_expected, window=data.ahead)
        widths = {f"{s:g} bins": partial(best, sigma=s) for s in SIGMAS}
        like = f"{head}: most like"
        trains[like], choices[like] = chosen(p, widths, data)
        if head == "chain":
            trains["chain: sampled"] = ask(head, "test", lambda model, x, y: model.samples(x, rng))
        else:
            twins = published_twins(np.random.default_rng([seed, 7]), data.ahead)
            trains[TWIN], choices[TWIN] = chosen(p, twins, data)
        trains[f"{head}: {RATE}"] = p["test"]
    if "distance" in models:
        worth = best_reward(models["distance"], data)
        choices[EXACT] = f"a spike is worth {worth:g}"
        ways = {
            GREEDY: references.greedy,
            EXACT: partial(references.least_energy, per_spike=-worth),
        }
        parts = {name: [] for name in ways}
        starts = data.starts("test")
        for steps in np.array_split(starts, 1 + len(starts) // AT_ONCE):
            seen = distances_said(models["distance"], data, steps)
            for name, way in ways.items():
                ahead = way(*seen)[:, -data.ahead :]
                parts[name].append(joined(ahead.reshape(len(steps), -1, data.ahead)))
        trains |= {name: np.concatenate(part, axis=1) for name, part in parts.items()}
    table = pd.DataFrame({"of": choices.keys(), "chosen": choices.values()}, dtype=str)
    return trains, table.assign(role=CHOOSES)


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
        slow = spike_trains.correlation(*pair, window=data.ahead)
        alike = np.nan_to_num(slow) + spike_trains.schreiber(*pair, 10, data.ahead)
        likeness[name] = alike.mean()
    best = max(likeness, key=likeness.get)
    return ways[best](p["test"]), best


def published_twins(rng: np.random.Generator, window: int) -> dict[str, Callable]:
    """Trains from expected counts, as published: of some bins rounded, rounded down, or drawn."""
    whole = {"rounded": np.rint, "rounded down": np.floor, "drawn": rng.poisson}
    widths = sorted({min(width, window) for width in WIDTHS})
    ways = product(widths, whole.items())
    return {
        f"{width} bins {name}": partial(spread, width, make, window) for width, (name, make) in ways
    }


def spread(width: int, make: Callable, window: int, p: np.ndarray) -> np.ndarray:
    """Trains (C, T) of the expected spikes p (C, T): those of every `width` bins of a window made a whole
    number, and spread evenly over them."""
    rows = p.reshape(-1, window)
    n, train = window // width, np.zeros(rows.shape, np.uint8)
    counts = make(rows[:, : n * width].reshape(len(rows), n, width).sum(axis=2))
    for row, block in zip(*np.nonzero(counts), strict=True):
        n = min(int(counts[row, block]), width)
        train[row, block * width + ((np.arange(n) + 0.5) * width / n).astype(int)] = 1
    return train.reshape(p.shape)


def distances_said(
    model: Predictor, data: SpikeData, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted distances (S * C, past + L) [bins], and bins since the last known spike (S * C,)."""
    since = data.inputs.since[steps, 0].reshape(-1)
    return np.exp(data.ask(model, steps).reshape(len(since), -1)), since.astype(np.int64)


def best_reward(model: Predictor, data: SpikeData) -> float:
    """What a spike must be worth for exact trains to hold as many as validation windows do."""
    from nblib.models.encoders import references

    steps = data.starts(CHOOSES)
    steps = steps[:: max(1, len(steps) * data.inputs.n_cells // 600)]
    seen = distances_said(model, data, steps)
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
    heard, bin_s, draws = spikes.any(axis=1), data.stream.bin_s, data.params.draws
    blind = spike_trains.references(spikes, data.inputs.rate, bin_s, data.params.seed)
    judged = {name: train for name, train in (trains | blind).items() if name != RECORDED}
    if not heard.all():
        judged, spikes = {name: train[heard] for name, train in judged.items()}, spikes[heard]
    each = spike_trains.train_scores(judged, spikes, bin_s, data.ahead)
    undefined = {name: int(scores["correlation"].isna().sum()) for name, scores in each.items()}
    each = {name: scores.fillna({"correlation": 0.0}) for name, scores in each.items()}
    rows, table = [], []
    for name, scores in each.items():
        score = spike_trains.over_cells(scores["correlation"].to_numpy(), "correlation", **draws)
        row = {"trains": name, **scores.mean(), "undefined": undefined[name]}
        row |= {"ci_low": score.ci_low, "ci_high": score.ci_high}
        against = {
            key: other for key, (other, _) in OTHERS.items() if other in each and other != name
        }
        for (key, other), measure in product(against.items(), HELD):
            more = (scores[measure] - each[other][measure]).to_numpy()
            gap = spike_trains.over_cells(more, measure, **draws)
            column = f"{measure}_over_{key}"
            row |= {column: gap.value, f"{column}_low": gap.ci_low, f"{column}_high": gap.ci_high}
        table.append(row)
        if name not in blind:
            of = {"model": name.partition(":")[0], "variant": name}
            rows.append(Row(f"{name}, correlation at 50 bins", score, of=of, metric="correlation"))
    return rows, pd.DataFrame(table)


def readable_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `scored` as people read it."""
    columns = {
        "trains": "{trains}",
        "spikes / recorded": "{count_ratio:.2f}",
        "correlation, 50 bins": "{correlation:.3f}",
        "cells without a correlation": "{undefined}",
        "95 % interval": "{ci_low:.3f} to {ci_high:.3f}",
        **{f"Schreiber, {sigma}": f"{{schreiber_{sigma}:.3f}}" for sigma in spike_trains.SIGMAS},
        "van Rossum, 10": "{van_rossum:.2f}",
    }
    return readable(table, columns)


def in_words(table: pd.DataFrame) -> str:
    """Which train is nearest of those with spikes, and where the published inference or the Poisson twin
    wins; "" where none was inferred."""
    table = table[~table["trains"].isin(spike_trains.REFERENCES)].set_index("trains")
    if table.empty:
        return ""
    rates = table.index.str.endswith(RATE)
    sharp, trains = table["schreiber_10"], table[~rates & (table["count_ratio"] > 0)]
    if trains.empty:
        return "No inferred train holds a spike."
    best, sharpest = trains["correlation"].idxmax(), trains["schreiber_10"].idxmax()
    row = trains.loc[best]
    text = (
        f"Of the inferred trains *{best}* is nearest to the recorded, with a correlation of "
        f"{row['correlation']:.2f} at {row['count_ratio']:.2f} of the spikes"
    )
    for key, (_, name) in OTHERS.items():
        column = f"correlation_over_{key}"
        if pd.notna(row.get(column)):
            low, high = row[f"{column}_low"], row[f"{column}_high"]
            sure = "" if low > 0 else ", no sure difference"
            text += f"; {row[column]:+.2f} ({low:.2f} to {high:.2f}{sure}) over {name}"
    text += "."
    if sharpest != best:
        text += (
            f" By Schreiber's measure at 10 bins *{sharpest}* is nearer, {sharp[sharpest]:.3f} against "
            f"{sharp[best]:.3f}, at {trains['count_ratio'][sharpest]:.2f} of the spikes."
        )
    if rates.any() and sharp[rates].max() > sharp[sharpest]:
        text += f" A rate is nearer than any train ({sharp[rates].max():.3f}): take it where no train is needed."
    return text
