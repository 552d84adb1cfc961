"""When will a cell fire, and which cells are of a kind (13)?

One step ahead, given all before: `lnp`, `glm`, and `net`, one network for all cells. Further ahead, where
nothing after t0 is known: `intensity`, `distance` and `chain` (see `nblib.models.encoders.network`).

Shapes: S steps, C cells, T bins, L bins ahead.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
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
from nblib.models.encoders import glm
from nblib.prepare.continuous import STEP, stream
from nblib.prepare.encoding import history
from nblib.prepare.encoding.history import Inputs
from nblib.road.stage_registry import StageParams

if TYPE_CHECKING:
    from nblib.models.encoders.network import Predictor
    from nblib.prepare.continuous.stream import Stream

NOW, AHEAD = ("lnp", "glm", "net"), ("intensity", "distance", "chain")
BITS = "bits/spike"
AT_ONCE = 64  # steps that a network is asked at once
SECONDS_SHOWN = 4.0
SHARES = (0.0, 0.003, 0.01, 0.03, 0.1)  # of the constant rate, tried in a model one step ahead
FIT_NOW = {
    "max_epochs": 12,
    "batch_size": 1024,
    "learning_rate": 4e-3,
    "weight_decay": 1.0,
    "patience": 4,
}
FIT_AHEAD = {
    "max_epochs": 8,
    "batch_size": 32,
    "learning_rate": 4e-3,
    "weight_decay": 0.3,
    "patience": 2,
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
    linear_start: bool = Field(True, description="net adds to the glm (or lnp) of each cell")
    latent: int = Field(24, ge=1, le=200, description="dimensions of a cell's code [count]")
    horizon_ms: float = Field(
        80.0, ge=8, le=190, description="how far ahead trains are predicted [ms]"
    )
    steps_an_epoch: int = Field(
        24_000, ge=64, description="train steps drawn an epoch; a quarter of them ahead [count]"
    )
    n_kinds: int = Field(8, ge=2, description="kinds of cells, where they are not known [count]")
    perplexity: float = Field(12.0, ge=2, description="neighbours that t-SNE keeps near [count]")
    n_bootstrap: int = Field(1000, ge=100, le=100_000, description="bootstrap draws [count]")

    @property
    def draws(self) -> dict[str, int]:
        """How intervals over cells are drawn."""
        return {"n_bootstrap": self.n_bootstrap, "seed": self.seed}


@dataclass(frozen=True)
class SpikeData:
    """A stream, what encoders read of it, the parameters, and how many bins lie ahead."""

    stream: Stream
    inputs: Inputs
    params: Params
    ahead: int

    @cached_property
    def lnp(self) -> dict[str, np.ndarray]:
        """A model of each cell alone, of the stimulus (see `glm.fit_cells`)."""
        return glm.fit_cells(self.inputs)

    @cached_property
    def glm(self) -> dict[str, np.ndarray]:
        """The same that also knows the cell's spikes."""
        return glm.with_history(self.inputs, self.lnp)

    @cached_property
    def disturbed(self) -> tuple[np.ndarray, SpikeData, SpikeData]:
        """A test step (1,) of a stretch around it, the data of that stretch, and the same with noise for all
        that comes after the first bin of the step."""
        steps = self.starts("test")
        near, step = self.inputs.around(int(steps[len(steps) // 2]))
        rng = np.random.default_rng(self.params.seed)
        both = near, near.with_noise_from(step, rng)
        return np.array([step]), *(replace(self, inputs=inputs) for inputs in both)

    def starts(self, role: str) -> np.ndarray:
        """Steps at which windows of a role begin, one behind the other."""
        return np.concatenate([run[:: self.ahead // STEP] for run in self.runs(role)])

    def runs(self, role: str) -> list[np.ndarray]:
        """Steps of a role, each stretch of them that lies without a gap."""
        steps = self.inputs.steps[role]
        return np.split(steps, np.flatnonzero(np.diff(steps) != 1) + 1)

    def spikes(self, role: str) -> np.ndarray:
        """Recorded spikes of all steps of a role, (C, T)."""
        return trains.joined(self.inputs.ahead(self.inputs.steps[role], STEP))

    def windows(self, role: str) -> np.ndarray:
        """Recorded spikes of its windows, one behind the other, (C, T)."""
        return trains.joined(self.inputs.ahead(self.starts(role), self.ahead))

    @cached_property
    def truth(self) -> np.ndarray | None:
        """Log-likelihood of test spikes (C,) under the true intensity [nats]; None where it is not known."""
        if self.stream.log_intensity is None:
            return None
        bins = self.inputs.steps["test"][:, None] * STEP + np.arange(STEP)
        likely = self.stream.log_intensity(bins.ravel()).T
        return spike_trains.bernoulli(likely, self.spikes("test"))

    def ask(
        self, model: Predictor, steps: np.ndarray, question: Callable | None = None
    ) -> np.ndarray:
        """What a network answers at steps, (S, ...); question: (model, what it sees, spikes) -> tensor."""
        return np.concatenate(list(self.answers(model, steps, question)))

    def answers(
        self, model: Predictor, steps: np.ndarray, question: Callable | None = None
    ) -> Iterator[np.ndarray]:
        """The same, some steps at a time: what is said of all bins is many times what was recorded."""
        import torch

        question = question or (lambda model, seen, _: model(*seen))
        for first in range(0, len(steps), AT_ONCE):
            seen = model.batch(self.inputs, steps[first : first + AT_ONCE])
            with torch.no_grad():
                answer = question(model, *seen).numpy()
            yield answer

    def table(self) -> pd.DataFrame:
        """Steps, seconds and spikes of each role; and how many more there were, in a bin with another one of
        their cell, which counts for one here."""
        steps, bin_s = self.inputs.steps, self.stream.bin_s
        counts = self.stream.counts.reshape(self.inputs.spikes.shape)
        columns = {
            "role": steps.keys(),
            "steps": [len(at) for at in steps.values()],
            "seconds": [len(at) * STEP * bin_s for at in steps.values()],
            "spikes": [int(self.inputs.spikes[at].sum()) for at in steps.values()],
        }
        more = [
            int(counts[at].sum()) - n
            for at, n in zip(steps.values(), columns["spikes"], strict=True)
        ]
        columns["not told apart"] = more
        return pd.DataFrame(columns)


def load(split: Path, counts: Path, recipe: P.Recipe, params: Params) -> SpikeData:
    """The recording as encoders read it; raises what `stream.load` and `inputs_of` raise."""
    return data_of(stream.load(split, counts, recipe, params.recording), params)


def data_of(loaded: Stream, params: Params) -> SpikeData:
    """A stream as encoders read it. BadParameter for bins too wide or too narrow for the horizon."""
    ahead = round(params.horizon_ms / 1e3 / loaded.bin_s / STEP) * STEP
    least, most = (1e3 * n * loaded.bin_s for n in (STEP, history.LONGEST))
    if not STEP <= ahead <= history.LONGEST:
        raise BadParameter(
            f"horizon_ms = {params.horizon_ms:g}: expected {least:g} to {most:g} ms, {STEP} to {history.LONGEST} bins "
            f"of {loaded.bin_s * 1e3:g} ms."
        )
    return SpikeData(loaded, history.inputs_of(loaded, ahead * loaded.bin_s), params, ahead)


def fit_network(data: SpikeData, head: str) -> Predictor:
    """A network with one head, fitted to train steps and stopped by validation steps."""
    import torch

    from nblib.models import FitSettings
    from nblib.models.encoders import network

    params, now = data.params, head == "now"
    defaults = FIT_NOW if now else FIT_AHEAD
    # Threads that share the work of so few windows wait for each other longer than they work.
    threads = params.threads or int(not now)
    settings = FitSettings.of(params, defaults, progress=False, threads=threads)
    rules = {"code": params.cell_code, "history": params.history, "latent": params.latent}
    with torch.random.fork_rng():
        torch.manual_seed(params.seed)
        if now and params.linear_start:
            rules["linear"] = data.glm if params.history else data.lnp
        model = network.Predictor(data.inputs, head, n_bins=data.ahead, **rules)
    drawn, every = params.steps_an_epoch // (1 if now else 4), 1 if now else data.ahead // STEP
    network.train(model, data.inputs, settings, per_epoch=drawn, every=every)
    return model


def give_back() -> None:
    """Free memory goes back to the system, where the C library can do so."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def log_hazard_now(data: SpikeData, name: str, model: Predictor | None) -> tuple[np.ndarray, float]:
    """Log of spikes a bin in all bins of test steps, given all before each, (C, T); and the share of the
    constant rate in it, which validation chooses: no model is as sure of silence as it says."""
    inputs = data.inputs

    def said(role: str) -> np.ndarray:
        steps = inputs.steps[role]
        if model is None:
            weights = getattr(data, name)
            parts = np.array_split(steps, 1 + len(steps) // AT_ONCE)
            return np.concatenate([glm.log_hazard(inputs, weights, part) for part in parts])
        return data.ask(model, steps)

    val, spikes = said("val"), data.spikes("val")
    likely = [spike_trains.bernoulli(mixed(val, inputs.rate, s), spikes).sum() for s in SHARES]
    share = SHARES[int(np.argmax(likely))]
    return np.stack([*mixed(said("test"), inputs.rate, share)]), share


def mixed(log_hazard: np.ndarray, rate: np.ndarray, share: float) -> Iterator[np.ndarray]:
    """Of one cell after the other the log (T,) of a hazard (S, C, bins) of which a share is the constant
    rate (C,)."""
    for of_cell, of_rate in zip(log_hazard.swapaxes(0, 1), rate, strict=True):
        known = of_cell.ravel() + math.log1p(-share)
        yield np.logaddexp(known, math.log(of_rate * share)) if share else known


def predict(data: SpikeData) -> Result:
    """Fit the models that are asked for, score them on test blocks, infer trains, group the cells.

    Tables: cells (bits a spike of each model and unit); calibration (of the last model one step ahead);
    trains (see `trains.scored`); kinds (see `kinds.agreement`); plane (a row a unit). Arrays: averages
    (spike-triggered), codes (of cells), stretch (some seconds of trains of one cell), network_* (weights).
    """
    params, rows, tables, arrays, bits, shares = data.params, [], {}, {}, {}, {}
    networks = [name for name in dict.fromkeys(params.encoders) if name not in ("lnp", "glm")]
    models = {name: fit_network(data, "now" if name == "net" else name) for name in networks}
    for name in NOW:
        if name in params.encoders:
            said, shares[name] = log_hazard_now(data, name, models.get(name))
            spikes = data.spikes("test")
            nats = spike_trains.bernoulli(said, spikes), data.truth
            row, bits[name] = score_bits(data, name, "one step ahead", spikes, *nats)
            rows.append(row)
            for of_cell in said:  # of every bin and cell: made a probability where it lies
                of_cell[:] = -np.expm1(-np.exp(of_cell))
            tables["calibration"] = spike_trains.calibration(said, spikes).assign(model=name)
            del said
            give_back()
    ahead = {name: models[name] for name in AHEAD if name in models}
    for name in (name for name in ahead if name != "distance"):
        nats = data.ask(models[name], data.starts("test"), lambda m, x, y: m.log_likelihood(x, y))
        task, spikes = f"{params.horizon_ms:g} ms ahead", data.windows("test")
        row, bits[name] = score_bits(data, name, task, spikes, nats.sum(axis=0))
        rows.append(row)
    inferred, tables["choices"] = trains.inferred(data, ahead)
    give_back()
    scores, tables["trains"] = trains.scored(inferred, data)
    rows += scores
    arrays["stretch"] = stretch(inferred, data)
    del inferred
    give_back()
    scores, grouped, tables["kinds"], tables["plane"] = kinds.grouped(data, models.get("net"))
    rows += scores
    unit = data.stream.units.index.rename("unit")
    tables["cells"] = pd.DataFrame(bits, index=unit).reset_index()
    tables["windows"] = windows_table(data)
    for name, model in models.items():
        arrays[f"network_{name}"] = {key: x.numpy() for key, x in model.state_dict().items()}
    about = {
        "split_hash": data.stream.split_hash,
        "n_test": int(data.spikes("test").sum()),
        "n_units": len(unit),
        "horizon_s": data.ahead * data.stream.bin_s,
        "context_s": history.context_s(data.stream.bin_s),
        "share_of_constant": shares,
        "change_after_t0": {name: change_after_t0(data, model) for name, model in models.items()},
        "change_outside_train": change_outside_train(data),
    }
    return Result(rows, about, tables, arrays | grouped)


def score_bits(
    data: SpikeData,
    name: str,
    task: str,
    spikes: np.ndarray,
    nats: np.ndarray,
    truth: np.ndarray | None = None,
) -> tuple[Row, np.ndarray]:
    """Bits a spike, pooled over spikes, with the interval over cells; and those of each cell (C,).

    nats, truth: log-likelihood of each cell (C,), of the model and of the true intensity.
    """
    draws = {"weight": spikes.sum(axis=1), **data.params.draws}
    known = [x for x in (nats, truth) if x is not None]
    bits = [spike_trains.bits_per_spike(x, spikes, data.inputs.rate) for x in known]
    scores = [spike_trains.over_cells(of, BITS, **draws) for of in bits]
    row = Row(f"{name}, {task}", *scores, of={"model": name, "variant": task}, metric=BITS)
    return row, bits[0]


def windows_table(data: SpikeData) -> pd.DataFrame:
    """What the steps of each role see and predict: a row a stretch of steps one behind the other, with its
    role, the time from which they see, at which the first begins, and up to which they predict [s]."""
    bin_s, rows = data.stream.bin_s, []
    for role in data.inputs.steps:
        for run in data.runs(role):
            first, last = data.stream.number[run[[0, -1]] * STEP]
            seen = first - history.CONTEXT_STEPS * STEP
            until = last + max(STEP, data.ahead)
            rows.append((role, *(number * bin_s for number in (seen, first, until))))
    return pd.DataFrame(rows, columns=["role", "sees_from_s", "first_s", "until_s"])


def change_after_t0(data: SpikeData, model: Predictor) -> float:
    """By how much the answers at a test step change where all stimulus and spikes after the first bin of
    it are replaced by noise: 0, or something of the future is seen."""
    step, *both = data.disturbed
    known, changed = (x.ask(model, step) for x in both)
    if model.head == "now":  # its later bins know the spikes of the first
        known, changed = known[..., 0], changed[..., 0]
    return float(np.abs(known - changed).max())


def change_outside_train(data: SpikeData) -> float:
    """By how much the scaled stimulus of train steps and the rates of cells change where all stimulus and
    spikes outside of train are replaced by noise: 0, or something was scaled by more than train."""
    stream, rng = data.stream, np.random.default_rng(data.params.seed)
    few = replace(stream, counts=stream.counts[:, :2], units=stream.units.iloc[:2])
    outside = np.ones((len(stream.number), 1), bool)
    outside[stream.windows("train")] = False
    noise = 9 * rng.random(stream.stimulus.shape, np.float32)
    noisy = replace(
        few,
        counts=np.where(outside, rng.random(few.counts.shape) < 0.2, few.counts),
        stimulus=np.where(outside, noise, stream.stimulus),
    )
    one, other = (history.inputs_of(x, data.ahead * stream.bin_s) for x in (few, noisy))
    steps = np.flatnonzero(~outside[::STEP, 0])
    changes = one.stimulus[steps] - other.stimulus[steps], one.rate - other.rate
    return float(max(np.abs(change).max() for change in changes))


def stretch(inferred: dict[str, np.ndarray], data: SpikeData) -> dict[str, np.ndarray]:
    """The busiest seconds of a cell that fires more than most: trains and rates by name."""
    recorded = inferred[trains.RECORDED]
    cell = recorded.sum(axis=1).argsort()[len(recorded) * 3 // 4]
    n = min(round(SECONDS_SHOWN / data.stream.bin_s), recorded.shape[1])
    first = np.convolve(recorded[cell], np.ones(n), "valid").argmax()
    shown = slice(first, first + n)
    return {name: train[cell, shown].astype(np.float32) for name, train in inferred.items()}


def in_words(result: Result) -> str:
    """The result in sentences: who predicts best, whose trains are nearest, what groups the cells."""
    bits = {row.of["model"]: row for row in result.rows if row.metric == BITS}
    said, parts = {}, []
    for name, row in bits.items():
        score = row.score
        said[name] = f"`{name}` {score.value:.2f} ({score.ci_low:.2f} to {score.ci_high:.2f})"
    if now := [said[name] for name in NOW if name in said]:
        parts.append(f"One step ahead, over a constant rate: {', '.join(now)} bits a spike.")
    if best := [row.best.value for row in bits.values() if row.best]:
        parts.append(f"The simulated truth itself reaches {best[0]:.2f}.")
    if further := [said[name] for name in AHEAD if name in said]:
        ahead_ms = result.about["horizon_s"] * 1e3
        parts.append(f"With nothing known of the {ahead_ms:.0f} ms ahead: {', '.join(further)}.")
    parts += [trains.in_words(result.tables["trains"]), kinds.in_words(result.tables["kinds"])]
    return " ".join(["**Result.**", *filter(None, parts)])
