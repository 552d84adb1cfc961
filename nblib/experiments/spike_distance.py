"""When will a cell fire, and which cells are of a kind (13)?

One step ahead, given all before: `lnp`, `glm`, and `net`, one network for all cells. Further ahead, where
nothing after t0 is known: `intensity`, `distance` and `chain` (see `nblib.models.encoder_net`), and spike
trains inferred from each, scored beside trains that know nothing.

Shapes: S steps, C cells, T bins, L bins ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core import params as P
from nblib.core.errors import BadParameter
from nblib.evaluate import spike_trains
from nblib.evaluate.result import Result, Row
from nblib.evaluate.scores import Score
from nblib.experiments import cell_kinds
from nblib.prepare import spike_history
from nblib.prepare.continuous import STEP
from nblib.prepare.spike_history import Inputs

if TYPE_CHECKING:
    from nblib.models.encoder_net import Predictor
    from nblib.prepare.stream import Stream

NOW, AHEAD = ("lnp", "glm", "net"), ("intensity", "distance", "chain")
BITS = "bits/spike"
SIGMAS = (10.0, 20.0, 35.0, 50.0)  # bins: widths that the expected likeness of a train is tried at
REWARDS = np.linspace(0, 40, 9)  # energies that a spike may give back; validation counts choose
ROUNDED = (5, 10, 20, 40, 80)  # bins whose expected count is rounded, in trains of the Poisson twin
SECONDS_SHOWN = 4.0
DEFAULTS = {
    "max_epochs": 12, "batch_size": 128, "learning_rate": 3e-3, "weight_decay": 0.05, "patience": 3,
}  # fmt: skip


class Params(P.Fit, P.StageParams):
    """Parameters of 13: which models, how cells are told apart, how far ahead."""

    recipe: str = Field("retina_demo", description="recipe in params/recipes, or a path to one")
    recording: str = Field("r1", description="recording id of that recipe, a string")
    encoders: list[Literal["lnp", "glm", "net", "intensity", "distance", "chain"]] = Field(
        [*NOW, *AHEAD],
        min_length=1,
        description="lnp, glm, net; ahead: intensity, distance, chain",
    )
    cell_code: Literal["none", "embedding", "vae", "token", "hypernetwork"] = Field(
        "embedding", description="how networks tell cells apart"
    )
    history: bool = Field(True, description="networks see the cell's own spikes")
    latent: int = Field(24, ge=1, le=200, description="dimensions of a cell's code [count]")
    horizon_ms: float = Field(
        80.0, ge=8, le=190, description="how far ahead trains are predicted [ms]"
    )
    steps_an_epoch: int = Field(3000, ge=64, description="train steps drawn an epoch [count]")
    n_kinds: int = Field(8, ge=2, description="kinds of cells, where they are not known [count]")
    perplexity: float = Field(12.0, ge=2, description="neighbours that t-SNE keeps near [count]")
    n_bootstrap: int = Field(1000, ge=100, le=100_000, description="bootstrap draws [count]")


@dataclass
class Data:
    """A stream, what encoders read of it, and the parameters."""

    stream: Stream
    inputs: Inputs
    params: Params
    ahead: int  # bins

    @property
    def test(self) -> np.ndarray:
        """Bins of the test steps by cell: spikes (C, T)."""
        return by_cell(self.inputs.spikes[self.inputs.steps["test"]])

    def starts(self, role: str) -> np.ndarray:
        """Steps at which windows of a role begin, one behind the other."""
        steps, width = self.inputs.steps[role], self.ahead // STEP
        runs = np.split(steps, np.flatnonzero(np.diff(steps) != 1) + 1)
        return np.concatenate([run[::width] for run in runs])

    def table(self) -> pd.DataFrame:
        """Steps and spikes of each role."""
        rows = {role: {"steps": len(at), "seconds": len(at) * STEP * self.stream.bin_s,
                       "spikes": int(self.inputs.spikes[at].sum())} for role, at in self.inputs.steps.items()}  # fmt: skip
        return pd.DataFrame(rows).T


def load(split: Path, counts: Path, recipe: P.Recipe, params: Params) -> Data:
    """The recording as encoders read it. Raises what `stream.load` and `inputs_of` raise."""
    from nblib.prepare import stream

    loaded = stream.load(split, counts, recipe, params.recording)
    ahead = max(STEP, round(params.horizon_ms / 1e3 / loaded.bin_s / STEP) * STEP)
    if not loaded.counts.shape[1]:
        raise BadParameter(f"recording {params.recording!r} has no unit.")
    return Data(loaded, spike_history.inputs_of(loaded, ahead * loaded.bin_s), params, ahead)


def by_cell(values: np.ndarray) -> np.ndarray:
    """(S, bins, C) as (C, S * bins)."""
    return values.reshape(-1, values.shape[2]).T


# --- models --------------------------------------------------------------------------------------


def fit_network(data: Data, head: str, folder: Path | None = None, **changes) -> Predictor:
    """A network with one head, fitted to train steps; validation steps stop it."""
    import torch

    from nblib.models import encoder_net
    from nblib.models.settings import FitSettings

    params = data.params
    rules = {"code": params.cell_code, "history": params.history, "latent": params.latent} | changes
    settings = FitSettings.of(params, DEFAULTS, progress=False)
    with torch.random.fork_rng():
        torch.manual_seed(params.seed)
        model = encoder_net.Predictor(data.inputs, head, n_bins=data.ahead, **rules)
    every = 2 if head == "now" else data.ahead // STEP
    model.history_of_fit = encoder_net.train(
        model, data.inputs, settings, folder, per_epoch=params.steps_an_epoch, every=every
    )
    return model


def log_hazards_now(data: Data, name: str, folder: Path | None, models: dict) -> np.ndarray:
    """Log of spikes a bin in all test bins, given all before each: (C, T)."""
    steps = data.inputs.steps["test"]
    if name == "net":
        models[name] = fit_network(data, "now", folder)
        return by_cell(said(models[name], data.inputs, steps, lambda model, x, _: model(*x)))
    from nblib.models import glm_encoder

    weights = glm_encoder.fit_cells(data.inputs, name == "glm", data.params.seed)
    return by_cell(glm_encoder.log_hazard(data.inputs, weights, steps))


def said(model: Predictor, inputs: Inputs, steps: np.ndarray, ask) -> np.ndarray:
    """What a network says at steps (S, ...), some at a time; ask: (model, x, y) -> tensor."""
    import torch

    answers = []
    with torch.no_grad():
        for first in range(0, len(steps), 256):
            x, y = model.batch(inputs, steps[first : first + 256])
            answers.append(ask(model, x, y).numpy())
    return np.concatenate(answers)


# --- trains --------------------------------------------------------------------------------------


def trains_ahead(data: Data, models: dict[str, Predictor]) -> dict[str, np.ndarray]:
    """Trains (C, T) of the test windows, by how they were inferred; `recorded` the true ones.

    What has to be chosen (a width, the worth of a spike) is chosen on validation windows.
    """
    inputs, steps = data.inputs, data.starts("test")
    trains = {"recorded": joined(inputs.ahead(steps, data.ahead))}
    rng = np.random.default_rng([data.params.seed, 7])
    for head in ("chain", "intensity"):
        if head in models:
            p = probabilities(models[head], data, "test")
            sigma = best_sigma(models[head], data)
            trains[f"{head}: most like"] = np.array([_most_like(row, sigma) for row in p])
            trains[f"{head}: rate"] = p
            if head == "intensity":
                trains["intensity: sampled"] = (rng.random(p.shape) < p).astype(np.uint8)
                trains["intensity: rounded"] = rounded(p, best_width(models[head], data))
    if "distance" in models:
        from nblib.models import spike_references

        distance, since = log_distances(models["distance"], data, steps)
        trains["distance: greedy (published)"] = data_windows(
            spike_references.greedy(distance, since), data
        )
        reward = best_reward(models["distance"], data)
        exact = spike_references.least_energy(distance, since, -reward)
        trains["distance: exact"] = data_windows(exact, data)
    return trains


def joined(windows: np.ndarray) -> np.ndarray:
    """Windows (S, C, L) one behind the other: (C, S * L)."""
    return windows.transpose(1, 0, 2).reshape(windows.shape[1], -1)


def data_windows(trains: np.ndarray, data: Data) -> np.ndarray:
    """Windows (S * C, past + L) of `log_distances` as (C, T), without the past."""
    ahead = trains[:, -data.ahead :].reshape(-1, data.inputs.n_cells, data.ahead)
    return joined(ahead)


def log_distances(model: Predictor, data: Data, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted distances (S * C, past + L) [bins], and bins since the last known spike (S * C,)."""
    out = said(model, data.inputs, steps, lambda model, x, _: model(*x))
    since = data.inputs.since[steps, 0].reshape(-1)
    return np.exp(out.reshape(len(since), -1)), since.astype(np.int64)


def probabilities(model: Predictor, data: Data, role: str) -> np.ndarray:
    """Probability of a spike in each bin of the windows of a role, (C, T)."""
    ask = lambda model, x, _: model.probabilities(x)  # noqa: E731
    return joined(said(model, data.inputs, data.starts(role), ask))


def best_sigma(model: Predictor, data: Data) -> float:
    """The width at which trains most like what is expected are nearest to the validation trains."""
    p, spikes = (
        probabilities(model, data, "val"),
        joined(data.inputs.ahead(data.starts("val"), data.ahead)),
    )
    likeness = [
        _likeness(np.array([_most_like(row, sigma) for row in p]), spikes) for sigma in SIGMAS
    ]
    return SIGMAS[int(np.argmax(likeness))]


def _most_like(p: np.ndarray, sigma: float) -> np.ndarray:
    from nblib.models import spike_references

    return spike_references.best_expected(p, sigma)


def _likeness(predicted: np.ndarray, spikes: np.ndarray) -> float:
    """Correlation and Schreiber's similarity at 10 bins, mean over cells, what is undefined as 0."""
    heard = predicted.any(axis=1) | spikes.any(axis=1)
    both = predicted[heard], spikes[heard]
    correlation = np.nan_to_num(spike_trains.correlation(*both))
    return float(correlation.mean() + spike_trains.schreiber(*both, 10).mean())


def rounded(p: np.ndarray, width: int) -> np.ndarray:
    """Expected counts of so many bins rounded to whole ones, spread over these bins: (C, T), as published
    for the Poisson twin."""
    n = p.shape[1] // width
    counts = np.rint(p[:, : n * width].reshape(len(p), n, width).sum(axis=2)).astype(int)
    train = np.zeros_like(p, np.uint8)
    for cell, block in zip(*np.nonzero(counts), strict=True):
        k = counts[cell, block]
        train[cell, block * width + ((np.arange(k) + 0.5) * width / k).astype(int)] = 1
    return train


def best_width(model: Predictor, data: Data) -> int:
    """The width of `rounded` whose validation trains are nearest to the recorded."""
    p, spikes = (
        probabilities(model, data, "val"),
        joined(data.inputs.ahead(data.starts("val"), data.ahead)),
    )
    return ROUNDED[int(np.argmax([_likeness(rounded(p, width), spikes) for width in ROUNDED]))]


def best_reward(model: Predictor, data: Data) -> float:
    """What a spike must be worth for the exact trains to have as many spikes as validation windows."""
    from nblib.models import spike_references

    steps = data.starts("val")
    steps = steps[:: max(1, len(steps) * data.inputs.n_cells // 600)]
    distance, since = log_distances(model, data, steps)
    true = data.inputs.ahead(steps, data.ahead).sum()
    counts = [spike_references.least_energy(distance, since, -worth).sum() for worth in REWARDS]
    return float(REWARDS[int(np.abs(np.array(counts, float) - true).argmin())])


# --- what is found -------------------------------------------------------------------------------


def predict(data: Data, folder: Path | None = None) -> Result:
    """Fit the models that are asked for, score them on test bins, infer trains, group the cells.

    Tables: cells (bits a spike of each model and unit), trains (a row an inference), calibration (of the
    best model one step ahead that validation has: the network), kinds (see `cell_kinds.agreement`), plane
    (a row a unit). Arrays: averages, codes, and a stretch of test windows.
    """
    inputs, params, models = data.inputs, data.params, {}
    test, rows, cells, tables = data.test, [], [], {}
    oracle = None
    if data.stream.log_intensity is not None:
        truth = data.stream.log_intensity.reshape(-1, STEP, inputs.n_cells)[inputs.steps["test"]]
        oracle = bits_of(spike_trains.bernoulli(by_cell(truth), test), test, inputs.rate)
    for name in [name for name in NOW if name in params.encoders]:
        log_hazard = log_hazards_now(data, name, folder, models)
        bits = bits_of(spike_trains.bernoulli(log_hazard, test), test, inputs.rate)
        rows.append(bits_row(name, "one step ahead", bits, test, oracle, params))
        cells.append(pd.DataFrame({"model": name, "unit": data.stream.units.index, "bits": bits}))
        if name == "net" or "calibration" not in tables:
            tables["calibration"] = spike_trains.calibration(
                -np.expm1(-np.exp(log_hazard)), test
            ).assign(model=name)
    spikes = joined(inputs.ahead(data.starts("test"), data.ahead))
    for head in [name for name in AHEAD if name in params.encoders]:
        models[head] = fit_network(data, head, folder)
        if head == "distance":
            continue
        nats = said(
            models[head],
            inputs,
            data.starts("test"),
            lambda model, x, y: model.log_likelihood(x, y),
        ).sum(axis=0)
        bits = bits_of(nats, spikes, inputs.rate)
        rows.append(bits_row(head, f"{params.horizon_ms:g} ms ahead", bits, spikes, None, params))
        cells.append(pd.DataFrame({"model": head, "unit": data.stream.units.index, "bits": bits}))
    arrays: dict[str, dict[str, np.ndarray]] = {}
    ahead = {name: model for name, model in models.items() if name in AHEAD}
    if ahead:
        trains = trains_ahead(data, ahead)
        more, tables["trains"] = scores_of_trains(trains, data)
        rows += more
        busiest = int(spikes.sum(axis=1).argsort()[len(spikes) * 3 // 4])
        n = round(SECONDS_SHOWN / data.stream.bin_s)
        first = (
            int(np.convolve(spikes[busiest], np.ones(n), "valid").argmax())
            if spikes.shape[1] > n
            else 0
        )
        arrays["stretch"] = {
            name: train[busiest, first : first + n].astype(np.float32)
            for name, train in trains.items()
        }
    sta = cell_kinds.spike_triggered(inputs)
    arrays["averages"] = {"sta": sta}
    features = {"spike-triggered average": sta}
    if "net" in models:
        features = {
            "answers of the network": cell_kinds.responses(models["net"], inputs)
        } | features
        if params.cell_code != "none":
            features["codes of the network"] = models["net"].net.z.weight.detach().numpy()
            arrays["codes"] = {"z": features["codes of the network"]}
    types = data.stream.types
    n_kinds = min(
        len(set(types.tolist())) if types is not None else params.n_kinds, inputs.n_cells - 1
    )
    tables["kinds"] = cell_kinds.agreement(features, sta, types, n_kinds, params.seed)
    best = next(iter(features.values()))
    at = cell_kinds.plane(best, params.perplexity, params.seed)
    tables["plane"] = pd.DataFrame({
        "unit": data.stream.units.index, "x": at[:, 0], "y": at[:, 1], "kind": cell_kinds.group(best, n_kinds, params.seed),
        "type": -1 if types is None else types, "rate_hz": inputs.rate / data.stream.bin_s,
    })  # fmt: skip
    tables["cells"] = (
        pd.concat(cells, ignore_index=True)
        if cells
        else pd.DataFrame(columns=["model", "unit", "bits"])
    )
    about = {
        "split_hash": data.stream.split_hash, "n_test": int(test.sum()), "n_units": inputs.n_cells,
        "horizon_ms": data.ahead * data.stream.bin_s * 1e3, "bin_s": data.stream.bin_s,
        "context_s": spike_history.CONTEXT_STEPS * STEP * data.stream.bin_s, "chosen_on": "val",
    }  # fmt: skip
    files = [model.stored(name) for name, model in models.items()]
    return Result(rows, about, tables, arrays, files)


def bits_of(nats: np.ndarray, spikes: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Bits a spike of each cell (C,) over the constant rate of train bins."""
    return spike_trains.bits_per_spike(nats, spikes, rate)


def bits_row(name: str, variant: str, bits: np.ndarray, spikes: np.ndarray, oracle: np.ndarray | None, params: Params) -> Row:  # fmt: skip
    """Pooled bits a spike, with their interval over cells."""
    share = (
        spikes.sum(axis=1) * len(spikes) / spikes.sum()
    )  # the mean of bits * share is the pooled value
    draws = {"n_bootstrap": params.n_bootstrap, "seed": params.seed}
    score, best = (
        None if each is None else spike_trains.over_cells(each * share, BITS, **draws)
        for each in (bits, oracle)
    )
    return Row(f"{name}, {variant}", score, best, {"model": name, "variant": variant}, BITS)


def scores_of_trains(trains: dict[str, np.ndarray], data: Data) -> tuple[list[Row], pd.DataFrame]:
    """Scores of every inferred train and of the references, means over cells: rows of a result, and a
    row each with the interval of the correlation and of its difference to the published inference."""
    trains = dict(trains)
    spikes = trains.pop("recorded")
    heard = spikes.any(axis=1)
    draws = {"n_bootstrap": data.params.n_bootstrap, "seed": data.params.seed}
    trains |= spike_trains.references(spikes, data.inputs.rate, data.stream.bin_s, data.params.seed)
    each = {
        name: spike_trains.train_scores(train[heard], spikes[heard], data.stream.bin_s)
        for name, train in trains.items()
    }
    rows, table = [], []
    for name, scores in each.items():
        row = {
            "trains": name,
            **scores.mean().to_dict(),
            "undefined": int(scores["correlation"].isna().sum()),
        }
        values = scores["correlation"].fillna(0.0).to_numpy()
        score: Score = spike_trains.over_cells(values, "correlation", **draws)
        row |= {"correlation": score.value, "ci_low": score.ci_low, "ci_high": score.ci_high}
        for other in ("distance: greedy (published)", "intensity: rounded"):
            if other in each and name != other:
                less = each[other]["correlation"].fillna(0.0).to_numpy()
                gap = spike_trains.over_cells(values - less, "difference", **draws)
                key = "greedy" if "greedy" in other else "twin"
                row |= {
                    f"over_{key}": gap.value,
                    f"over_{key}_low": gap.ci_low,
                    f"over_{key}_high": gap.ci_high,
                }
        table.append(row)
        if name not in spike_trains.REFERENCES:
            of = {"model": name.partition(":")[0], "variant": name}
            rows.append(Row(f"{name}, correlation at 50 bins", score, of=of, metric="correlation"))
    return rows, pd.DataFrame(table)


# --- as people read it ---------------------------------------------------------------------------


def trains_table(result: Result) -> pd.DataFrame:
    """The inferred trains and the references, as people read them."""
    from nblib.evaluate.result import readable

    columns = {
        "trains": "{trains}", "spikes / recorded": "{count_ratio:.2f}",
        "correlation, 50 bins": "{correlation:.3f}", "95 % interval": "{ci_low:.3f} to {ci_high:.3f}",
        **{f"Schreiber, {sigma}": f"{{schreiber_{sigma}:.3f}}" for sigma in spike_trains.SIGMAS},
        "van Rossum, 10 (none: 1)": "{van_rossum:.2f}",
    }  # fmt: skip
    return readable(result.tables["trains"], columns)


def in_words(result: Result) -> str:
    """The result in sentences: who predicts best, whose trains are nearest, and what groups the cells."""
    parts = []
    if bits := {
        row.of["model"]: row for row in result.rows if row.metric == BITS and row.of["model"] in NOW
    }:
        said = ", ".join(f"`{name}` {_stated(row.score)}" for name, row in bits.items())
        text = f"**Result.** One step ahead, over a constant rate: {said} bits a spike."
        if (best := next(iter(bits.values())).best) is not None:
            text += f" The simulated truth itself reaches {best.value:.2f}."
        parts.append(text)
    if further := {
        row.of["model"]: row.score
        for row in result.rows
        if row.metric == BITS and row.of["model"] in AHEAD
    }:
        said = ", ".join(f"`{name}` {_stated(score)}" for name, score in further.items())
        parts.append(
            f"With nothing known of the {result.about['horizon_ms']:.0f} ms ahead: {said}."
        )
    if "trains" in result.tables:
        parts.append(_trains_in_words(result.tables["trains"].set_index("trains")))
    kinds = result.tables["kinds"].set_index("by")
    if kinds["rand"].notna().all():
        said = ", ".join(f"{name} {value:.2f}" for name, value in kinds["rand"].items())
        parts.append(f"Cells grouped agree with their true kinds (adjusted Rand index) by {said}.")
    else:
        name = kinds["sta"].idxmax()
        parts.append(f"Spike-triggered averages of two cells of a group correlate most, {kinds['sta'][name]:.2f}, where cells are grouped by {name}.")  # fmt: skip
    return " ".join(parts)


def _stated(score: Score) -> str:
    return f"{score.value:.2f} ({score.ci_low:.2f} to {score.ci_high:.2f})"


def _trains_in_words(table: pd.DataFrame) -> str:
    """Which train is nearest, and where the published inference or the Poisson twin wins."""
    trains = table.drop(
        [name for name in table.index if name in spike_trains.REFERENCES or ": rate" in name]
    )
    best = trains["correlation"].idxmax()
    text = f"Of the inferred trains *{best}* is nearest to the recorded: correlation {trains['correlation'][best]:.2f} at {trains['count_ratio'][best]:.2f} of the spikes"  # fmt: skip
    others = []
    for key, name in (
        ("greedy", "the published greedy inference"),
        ("twin", "the rounded Poisson twin"),
    ):
        if f"over_{key}" in trains and np.isfinite(gap := trains.loc[best, f"over_{key}"]):
            low, high = trains.loc[best, [f"over_{key}_low", f"over_{key}_high"]]
            sure = "" if low > 0 else ", which chance may make"
            others.append(f"{gap:+.2f} ({low:.2f} to {high:.2f}) over {name}{sure}")
    text += f", {' and '.join(others)}." if others else "."
    if len(sharp := trains["schreiber_10"]) and sharp.idxmax() != best:
        text += f" By Schreiber's measure at 10 bins *{sharp.idxmax()}* is nearer ({sharp.max():.3f} against {sharp[best]:.3f})."  # fmt: skip
    return text
