"""When will a cell fire, and which cells are of a kind (13)?

One step ahead, given all before: `lnp`, `glm`, and `net`, one network for all cells. Further ahead, where
nothing after t0 is known: `intensity`, `distance` and `chain` (see `nblib.models.encoders.network`).

Shapes: S steps, C cells, T bins, L bins ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core import params as P
from nblib.core.errors import BadParameter
from nblib.evaluate import spike_trains
from nblib.evaluate.result import Result, Row
from nblib.experiments.spikes import kinds, trains
from nblib.prepare.continuous import STEP, stream
from nblib.prepare.encoding import history
from nblib.prepare.encoding.history import Inputs
from nblib.road.stage_registry import StageParams

if TYPE_CHECKING:
    from nblib.evaluate.scores import Score
    from nblib.models.encoders.network import Predictor
    from nblib.prepare.continuous.stream import Stream

NOW, AHEAD = ("lnp", "glm", "net"), ("intensity", "distance", "chain")
BITS = "bits/spike"
AT_ONCE = 256  # steps that a network is asked at once
SECONDS_SHOWN = 4.0
SHARES = (0.0, 0.003, 0.01, 0.03, 0.1)  # of the constant rate, tried in a model one step ahead
# By head: how a network is fitted.
FITS = {
    "now": {"max_epochs": 12, "batch_size": 256, "learning_rate": 4e-3},
    "ahead": {"max_epochs": 8, "batch_size": 128, "learning_rate": 4e-3},
}


class Params(P.Fit, StageParams):
    """Parameters of 13: which models, how cells are told apart, how far ahead."""

    recipe: str = Field("retina_demo", description="recipe in params/recipes, or a path to one")
    recording: str = Field("r1", description="recording id of that recipe, a string")
    encoders: list[Literal["lnp", "glm", "net", "intensity", "distance", "chain"]] = Field(
        [*NOW, *AHEAD], min_length=1, description="models to fit"
    )
    cell_code: Literal["none", "embedding", "vae", "token", "hypernetwork"] = Field(
        "embedding", description="how networks tell cells apart"
    )
    history: bool = Field(True, description="networks see the cell's own spikes")
    latent: int = Field(24, ge=1, le=200, description="dimensions of a cell's code [count]")
    horizon_ms: float = Field(
        80.0, ge=8, le=190, description="how far ahead trains are predicted [ms]"
    )
    steps_an_epoch: int = Field(
        6000, ge=64, description="train steps drawn an epoch; half of them ahead [count]"
    )
    n_kinds: int = Field(8, ge=2, description="kinds of cells, where they are not known [count]")
    perplexity: float = Field(12.0, ge=2, description="neighbours that t-SNE keeps near [count]")
    n_bootstrap: int = Field(1000, ge=100, le=100_000, description="bootstrap draws [count]")


@dataclass(frozen=True)
class SpikeData:
    """A stream, what encoders read of it, the parameters, and how many bins lie ahead."""

    stream: Stream
    inputs: Inputs
    params: Params
    ahead: int

    def starts(self, role: str) -> np.ndarray:
        """Steps at which windows of a role begin, one behind the other."""
        steps = self.inputs.steps[role]
        runs = np.split(steps, np.flatnonzero(np.diff(steps) != 1) + 1)
        return np.concatenate([run[:: self.ahead // STEP] for run in runs])

    def windows(self, role: str) -> np.ndarray:
        """Recorded trains of these windows, one behind the other: (C, T)."""
        return trains.joined(self.inputs.ahead(self.starts(role), self.ahead))

    def ask(self, model: Predictor, steps: np.ndarray, question: Callable) -> np.ndarray:
        """What a network answers at steps, (S, ...); question: (model, what it sees, spikes) -> tensor."""
        import torch

        answers = []
        with torch.no_grad():
            for first in range(0, len(steps), AT_ONCE):
                seen = model.batch(self.inputs, steps[first : first + AT_ONCE])
                answers.append(question(model, *seen).numpy())
        return np.concatenate(answers)

    def table(self) -> pd.DataFrame:
        """Steps, seconds and spikes of each role."""
        return pd.DataFrame([
            {"role": role, "steps": len(at), "seconds": len(at) * STEP * self.stream.bin_s,
             "spikes": int(self.inputs.spikes[at].sum())}
            for role, at in self.inputs.steps.items()
        ])  # fmt: skip


def load(split: Path, counts: Path, recipe: P.Recipe, params: Params) -> SpikeData:
    """The recording as encoders read it; raises what `stream.load` and `inputs_of` raise."""
    return data_of(stream.load(split, counts, recipe, params.recording), params)


def data_of(loaded: Stream, params: Params) -> SpikeData:
    """A stream as encoders read it. BadParameter for bins too wide for the horizon."""
    ahead = round(params.horizon_ms / 1e3 / loaded.bin_s / STEP) * STEP
    if not ahead:
        raise BadParameter(
            f"horizon_ms = {params.horizon_ms:g}: less than {STEP} bins of {loaded.bin_s * 1e3:g} ms."
        )
    return SpikeData(loaded, history.inputs_of(loaded, ahead * loaded.bin_s), params, ahead)


def fit_network(data: SpikeData, head: str) -> Predictor:
    """A network with one head, fitted to train steps and stopped by validation steps."""
    import torch

    from nblib.models.encoders import network
    from nblib.models.settings import FitSettings

    params, now = data.params, head == "now"
    settings = FitSettings.of(
        params, FITS["now" if now else "ahead"], weight_decay=0.05, patience=4, progress=False
    )
    rules = {"code": params.cell_code, "history": params.history, "latent": params.latent}
    with torch.random.fork_rng():
        torch.manual_seed(params.seed)
        model = network.Predictor(data.inputs, head, n_bins=data.ahead, **rules)
    drawn, every = params.steps_an_epoch // (1 if now else 2), 1 if now else data.ahead // STEP
    network.train(model, data.inputs, settings, per_epoch=drawn, every=every)
    return model


def log_hazard_now(
    data: SpikeData, name: str, models: dict[str, Predictor]
) -> tuple[np.ndarray, float]:
    """Log of spikes a bin in all bins of test steps, given all before each, (C, T); and the share of the
    constant rate in it, which validation chooses: no model is as sure of silence as it says."""
    inputs, said = data.inputs, {}
    if name not in models:
        from nblib.models.encoders import glm

        weights = glm.fit_cells(inputs, name == "glm", data.params.seed)
    for role in ("val", "test"):
        steps = inputs.steps[role]
        if name in models:
            said[role] = by_cell(data.ask(models[name], steps, lambda model, x, _: model(*x)))
        else:
            said[role] = by_cell(glm.log_hazard(inputs, weights, steps))
    spikes = by_cell(inputs.spikes[inputs.steps["val"]])
    likely = [
        spike_trains.bernoulli(mixed(said["val"], inputs.rate, share), spikes).sum()
        for share in SHARES
    ]
    share = SHARES[int(np.argmax(likely))]
    return mixed(said["test"], inputs.rate, share), share


def mixed(log_hazard: np.ndarray, rate: np.ndarray, share: float) -> np.ndarray:
    """Log of a hazard (C, T) of which a share is the constant rate (C,)."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(log_hazard + np.log1p(-share), np.log(rate * share)[:, None])


def by_cell(values: np.ndarray) -> np.ndarray:
    """(S, bins, C) as (C, S * bins)."""
    return values.reshape(-1, values.shape[2]).T


def predict(data: SpikeData) -> Result:
    """Fit the models that are asked for, score them on test blocks, infer trains, group the cells.

    Tables: cells (bits a spike of each model and unit); calibration (of the last model one step ahead);
    trains (see `trains.scored`); kinds (see `kinds.agreement`); plane (a row a unit). Arrays: averages
    (spike-triggered), codes (of cells), stretch (some seconds of trains of one cell).
    """
    inputs, params = data.inputs, data.params
    test = by_cell(inputs.spikes[inputs.steps["test"]])
    best, rows, tables, arrays = None, [], {}, {}
    if data.stream.log_intensity is not None:
        truth = data.stream.log_intensity.reshape(-1, STEP, inputs.n_cells)[inputs.steps["test"]]
        best = spike_trains.bernoulli(by_cell(truth), test)
    models = {name: fit_network(data, "now" if name == "net" else name)
              for name in dict.fromkeys(params.encoders) if name not in ("lnp", "glm")}  # fmt: skip
    cells, shares = {}, {}
    for name in [name for name in NOW if name in params.encoders]:
        said, shares[name] = log_hazard_now(data, name, models)
        row, cells[name] = score_bits(
            name, "one step ahead", spike_trains.bernoulli(said, test), test, data, best
        )
        rows.append(row)
        tables["calibration"] = spike_trains.calibration(-np.expm1(-np.exp(said)), test).assign(
            model=name
        )
    ahead = {name: models[name] for name in AHEAD if name in models}
    for name in [name for name in ahead if name != "distance"]:
        nats = data.ask(
            models[name], data.starts("test"), lambda model, x, y: model.log_likelihood(x, y)
        )
        row, cells[name] = score_bits(
            name, f"{params.horizon_ms:g} ms ahead", nats.sum(axis=0), data.windows("test"), data
        )
        rows.append(row)
    if ahead:
        found, tables["choices"] = trains.inferred(data, ahead)
        more, tables["trains"] = trains.scored(found, data)
        rows += more
        arrays["stretch"] = stretch(found, data)
    grouped, tables["kinds"], tables["plane"] = kinds.grouped(data, models.get("net"))
    tables["cells"] = pd.DataFrame(
        cells, index=data.stream.units.index.rename("unit")
    ).reset_index()
    tables["windows"] = windows_table(data)
    about = {
        "split_hash": data.stream.split_hash, "n_test": int(test.sum()), "n_units": inputs.n_cells,
        "horizon_s": data.ahead * data.stream.bin_s, "context_s": history.context_s(data.stream.bin_s),
        "share_of_constant": shares, "change_after_t0": {name: change_after_t0(data, model) for name, model in models.items()},
    }  # fmt: skip
    files = [model.stored(name) for name, model in models.items()]
    return Result(rows, about, tables, arrays | grouped, files)


def score_bits(
    name: str, variant: str, nats: np.ndarray, spikes: np.ndarray, data: SpikeData, best: np.ndarray | None = None
) -> tuple[Row, np.ndarray]:  # fmt: skip
    """Bits a spike, pooled over spikes, with the interval over cells; and those of each cell (C,).

    nats, best: log-likelihood of each cell (C,), of the model and of the truth.
    """
    share = (
        spikes.sum(axis=1) * len(spikes) / spikes.sum()
    )  # mean of bits * share: the pooled value
    draws = {"n_bootstrap": data.params.n_bootstrap, "seed": data.params.seed}
    bits = spike_trains.bits_per_spike(nats, spikes, data.inputs.rate)
    score = spike_trains.over_cells(bits * share, BITS, **draws)
    if best is not None:
        best = spike_trains.bits_per_spike(best, spikes, data.inputs.rate)
        best = spike_trains.over_cells(best * share, BITS, **draws)
    return Row(f"{name}, {variant}", score, best, {"model": name, "variant": variant}, BITS), bits


def windows_table(data: SpikeData) -> pd.DataFrame:
    """What the steps of each role see and predict: a row a stretch of steps one behind the other, with its
    role, the time from which they see, at which the first begins, and up to which they predict [s]."""
    bin_s, rows = data.stream.bin_s, []
    for role, steps in data.inputs.steps.items():
        for run in np.split(steps, np.flatnonzero(np.diff(steps) != 1) + 1):
            first, last = data.stream.number[run[[0, -1]] * STEP]
            back = min(history.CONTEXT_STEPS, data.inputs.after_seam[run[0]]) * STEP
            rows.append({"role": role, "sees_from_s": (first - back) * bin_s, "first_s": first * bin_s,
                         "until_s": (last + max(STEP, data.ahead)) * bin_s})  # fmt: skip
    return pd.DataFrame(rows)


def change_after_t0(data: SpikeData, model: Predictor) -> float:
    """By how much the answers at some test steps change where all stimulus and spikes after the first
    bin of a step are replaced by noise: 0, or something of the future is seen."""
    rng, steps = np.random.default_rng(data.params.seed), data.starts("test")
    step = int(steps[len(steps) // 2])
    ask = lambda model, x, _: model(*x)[:, :1] if model.head == "now" else model(*x)  # noqa: E731
    noisy = data.inputs.with_noise_from(step, rng)
    answers = [
        replace(data, inputs=seen).ask(model, np.array([step]), ask)
        for seen in (data.inputs, noisy)
    ]
    return float(np.abs(answers[0] - answers[1]).max())


def stretch(found: dict[str, np.ndarray], data: SpikeData) -> dict[str, np.ndarray]:
    """The busiest seconds of a cell that fires more than most: trains and rates by name."""
    recorded = found[trains.RECORDED]
    cell = recorded.sum(axis=1).argsort()[len(recorded) * 3 // 4]
    n = min(round(SECONDS_SHOWN / data.stream.bin_s), recorded.shape[1])
    first = np.convolve(recorded[cell], np.ones(n), "valid").argmax()
    return {
        name: train[cell, first : first + n].astype(np.float32) for name, train in found.items()
    }


def in_words(result: Result) -> str:
    """The result in sentences: who predicts best, whose trains are nearest, what groups the cells."""
    parts, bits = [], {row.of["model"]: row for row in result.rows if row.metric == BITS}
    if now := [name for name in NOW if name in bits]:
        said = ", ".join(f"`{name}` {_stated(bits[name].score)}" for name in now)
        parts.append(f"One step ahead, over a constant rate: {said} bits a spike.")
        if (best := bits[now[0]].best) is not None:
            parts.append(f"The simulated truth itself reaches {best.value:.2f}.")
    if further := [name for name in AHEAD if name in bits]:
        said = ", ".join(f"`{name}` {_stated(bits[name].score)}" for name in further)
        parts.append(
            f"With nothing known of the {result.about['horizon_s'] * 1e3:.0f} ms ahead: {said}."
        )
    if "trains" in result.tables:
        parts.append(trains.in_words(result.tables["trains"]))
    parts.append(kinds.in_words(result.tables["kinds"]))
    return "**Result.** " + " ".join(parts)


def _stated(score: Score) -> str:
    return f"{score.value:.2f} ({score.ci_low:.2f} to {score.ci_high:.2f})"
