"""One network that predicts the spikes of all cells: a shared look at the stimulus, a code a cell.

A head says what is predicted. `now`: the log hazard of each of the next 8 bins, given all before each.
Of the bins ahead, nothing later than the first known: `intensity`, the log of spikes a bin, bins by
themselves (the Poisson twin of the distance network); `distance`, the log of the distance to the nearest
spike, as published; `chain`, a score a bin and one for the interval between spikes, which together are a
distribution over trains, fitted through its exact likelihood.

Shapes: S steps, C cells, L bins ahead, Z the dimensions of a code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nblib.core.errors import BadParameter
from nblib.models.encoders import chain
from nblib.models.settings import FitSettings
from nblib.models.training import fit
from nblib.prepare.continuous import STEP
from nblib.prepare.encoding.distance import SPIKE_BIN, distances
from nblib.prepare.encoding.history import AGE, LAGS, LONGEST, N_AGES, RECENT, TAUS, Inputs

CODES = ("none", "embedding", "vae", "token", "hypernetwork")
HEADS = ("now", "intensity", "distance", "chain")
PAST = 32  # bins before t0 that `distance` tells too, as published
DOUBT = 60.0  # spikes that the mean rate counts for, where hazards are counted
KL = 1e-3  # what a nat of the codes of `vae` costs, a step and cell
HIGHEST = 1.0  # log of spikes a bin
FINER = 6.0  # by which the learning rate falls at last
RANK = 8  # of the layer that `hypernetwork` writes for each cell


class EncoderNet(nn.Module):
    """(stimulus (S, channel, LAGS), recent spikes (S, C, features) or None) -> (S, C, n_out).

    code: how cells differ. none: by their mean alone; embedding: a code scales and shifts what is seen;
    vae: the same with a code drawn about its mean; token: the code asks the tokens of the stimulus
    (attention); hypernetwork: the code writes a layer.
    """

    def __init__(
        self, n_cells: int, n_channels: int, n_out: int, n_recent: int = 0, *,
        code: str = "embedding", latent: int = 24, width: int = 48, hidden: int = 96,
    ):  # fmt: skip
        super().__init__()
        self.code, self.kl = code, torch.zeros(())
        self.see = nn.Conv1d(n_channels, 32, 31, stride=4)
        n_seen = (LAGS - 31) // 4 + 1
        self.mix = nn.Linear(32 * n_seen, width)
        self.z = nn.Embedding(n_cells, latent)
        nn.init.normal_(self.z.weight, 0, 0.3)
        if code == "vae":
            self.log_sd = nn.Parameter(torch.full((n_cells, latent), -2.0))
        if code == "token":
            self.place = nn.Parameter(0.02 * torch.randn(n_seen, width))
            self.token, self.ask = nn.Linear(32, width), nn.Linear(latent, width)
            layer = {"d_model": width, "nhead": 4, "dim_feedforward": 2 * width, "dropout": 0.0}
            self.among = nn.TransformerEncoderLayer(**layer, batch_first=True, norm_first=True)
            self.look = nn.MultiheadAttention(width, 4, batch_first=True)
        if code == "hypernetwork":
            self.write = nn.Linear(latent, 2 * width * RANK)
            nn.init.normal_(self.write.weight, 0, 0.02)
        coded = code in ("embedding", "vae", "token", "hypernetwork")
        self.scale = nn.Linear(latent, width) if coded else None
        self.shift = nn.Linear(latent, width) if coded else None
        self.read = nn.Linear(latent, hidden) if coded else None
        self.inner = nn.Linear(width + n_recent, hidden)
        self.deeper = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, n_out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def codes(self) -> Tensor:
        """A code a cell (C, Z); drawn in training where the code is `vae`."""
        z = self.z.weight
        if self.code == "vae":
            variance = (2 * self.log_sd).exp()
            self.kl = 0.5 * (z.square() + variance - 2 * self.log_sd - 1).sum(dim=1).mean()
            if self.training:
                z = z + self.log_sd.exp() * torch.randn_like(z)
        return z

    def forward(self, stimulus: Tensor, recent: Tensor | None = None) -> Tensor:
        seen, z = functional.gelu(self.see(stimulus)), self.codes()  # (S, 32, tokens), (C, Z)
        h = self.mix(seen.flatten(1))[:, None].expand(-1, len(z), -1)  # (S, C, width)
        if self.code == "token":
            tokens = self.among(self.token(seen.transpose(1, 2)) + self.place)
            asked = self.ask(z).expand(len(seen), -1, -1)
            h = h + self.look(asked, tokens, tokens, need_weights=False)[0]
        if self.code == "hypernetwork":
            up, down = self.write(z).reshape(len(z), 2, -1, RANK).unbind(1)
            h = h + torch.einsum("scr,cwr->scw", torch.einsum("scw,cwr->scr", h, up), down)
        if self.scale is not None:
            h = h * (1 + self.scale(z)) + self.shift(z)
        h = functional.gelu(h)
        y = functional.gelu(self.inner(h if recent is None else torch.cat([h, recent], dim=2)))
        y = y + functional.gelu(self.deeper(y))
        return self.out(y if self.read is None else y * (1 + self.read(z)))


class Predictor(nn.Module):
    """A network and its head: what it starts from, its loss, and its answers."""

    def __init__(
        self, inputs: Inputs, head: str, *, n_bins: int = 0, code: str = "embedding", history: bool = True, **size: Any
    ):  # fmt: skip
        super().__init__()
        if head not in HEADS or code not in CODES:
            raise BadParameter(
                f"head = {head!r}, code = {code!r}: expected {', '.join(HEADS)} and {', '.join(CODES)}."
            )
        self.head, self.history, self.n_bins = head, history, n_bins
        n_out = {"now": 1, "intensity": n_bins, "distance": PAST + n_bins, "chain": n_bins}[head]
        n_recent = N_AGES + len(TAUS) + RECENT if history and head != "now" else 0
        self.net = EncoderNet(
            inputs.n_cells, inputs.stimulus.shape[1], n_out, n_recent, code=code, **size
        )
        rate = np.log(inputs.rate)[:, None].repeat(n_out, axis=1)
        self.base = nn.Parameter(torch.tensor(rate, dtype=torch.float32))
        train = inputs.steps["train"]
        if head == "distance":
            some = train[:: max(1, len(train) // 500)]
            self.base.data = self.log_distance(inputs, some).mean(dim=0)
        if head in ("now", "chain") and history:
            # From how likely a spike is so long after another, in train; learnt from there on.
            self.register_buffer("start", torch.tensor(log_hazards(inputs), dtype=torch.float32))
            self.age = nn.Parameter(torch.zeros_like(self.start))
            self.traces = nn.Parameter(torch.zeros(inputs.n_cells, len(TAUS)))
        self.spikes_a_step = float(inputs.rate.sum() * (n_bins or STEP))

    # --- batches ---------------------------------------------------------------------------------

    def batch(self, inputs: Inputs, steps: np.ndarray) -> tuple[tuple[Tensor, ...], Tensor]:
        """What the network sees at some steps, and what it is held against."""
        x = [torch.from_numpy(inputs.shown(steps))]
        if self.head == "now":
            if self.history:
                x += [torch.from_numpy(inputs.traces[steps]), torch.from_numpy(inputs.age(steps))]
            return tuple(x), torch.from_numpy(inputs.spikes[steps])
        if self.history:
            x.append(torch.from_numpy(inputs.recent(steps)))
            if self.head == "chain":
                x.append(torch.from_numpy(inputs.age(steps, self.n_bins)))
        if self.head == "distance":
            return tuple(x), self.log_distance(inputs, steps)
        return tuple(x), torch.from_numpy(inputs.ahead(steps, self.n_bins).copy())

    def log_distance(self, inputs: Inputs, steps: np.ndarray) -> Tensor:
        """Log of the bins to the nearest spike at or after the first bin of steps: (S, C, PAST + L)."""
        spikes = inputs.ahead(np.minimum(steps, len(inputs.stimulus) - 60), self.n_bins + LONGEST)
        after = distances(spikes, LONGEST)[..., : self.n_bins].astype(np.float32)
        past = np.minimum(
            distances(spikes, LONGEST, future=True)[..., :1] + np.arange(PAST, 0, -1), LONGEST
        )
        both = np.concatenate([past, after], axis=2)
        return torch.from_numpy(np.log(np.where(both == 0, SPIKE_BIN, both)).astype(np.float32))

    # --- what is said ----------------------------------------------------------------------------

    def forward(self, *x: Tensor) -> Tensor:
        """The head's numbers (S, C, n_out); of `now` the log hazard of each bin, (S, 8, C)."""
        if self.head != "now":
            recent = x[1] if self.history else None
            return self.net(x[0], recent) + self.base
        out = (self.net(x[0]) + self.base)[..., 0]
        if not self.history:
            return out[:, None].expand(-1, STEP, -1)
        out = out + (x[1] * self.traces).sum(dim=2)
        table = self.start + self.age
        return out[:, None] + table[torch.arange(len(table)), x[2]]

    def log_likelihood(self, x: tuple[Tensor, ...], y: Tensor) -> Tensor:
        """Of the spikes y under each head that is a distribution: (S, C) [nats]."""
        out = self(*x).clamp(max=HIGHEST)
        if self.head == "chain":
            return chain.log_likelihood(*self.chain_scores(out, x), y.flatten(0, 1)).reshape(
                out.shape[:2]
            )
        hazard = out.exp()
        fired = torch.where(y > 0, torch.log(-torch.expm1(-hazard).clamp(max=-1e-30)), -hazard)
        return fired.sum(dim=1 if self.head == "now" else 2)

    def loss(self, _: nn.Module, x: tuple[Tensor, ...], y: Tensor) -> tuple[Tensor, None]:
        """Nats a spike, or squared error of log distances, with what codes cost."""
        if self.head == "distance":
            value = functional.mse_loss(self(*x), y)
        else:
            value = -self.log_likelihood(x, y).sum() / (len(y) * self.spikes_a_step)
        return value + KL * self.net.kl if self.training else value, None

    def stored(self, name: str) -> Saved:
        """Its weights, to be stored with a result."""
        return Saved(name, self)

    # --- the chain: a distribution over the trains of L bins -------------------------------------

    def intervals(self, x: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Scores of an interval of 1 to L bins between two spikes (C, L), and of the first spike in each
        bin, by how long the last one is past then (S, C, L)."""
        if not self.history:
            zero = self.base.new_zeros(1)
            return zero.expand(len(self.base), self.n_bins), zero.expand(
                len(x[0]), *self.base.shape
            )
        table = self.start + self.age
        gap = torch.from_numpy(AGE[1 : self.n_bins + 1])
        cell = torch.arange(len(table))[:, None]
        return table[:, gap], table[cell, x[2]]

    def chain_scores(self, out: Tensor, x: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """The scores that `nblib.models.encoders.chain` takes."""
        between, first = self.intervals(x)
        return out.flatten(0, 1), first.flatten(0, 1), between

    def probabilities(self, x: tuple[Tensor, ...]) -> Tensor:
        """Probability of a spike in each of the bins ahead, (S, C, L), of `chain` and `intensity`."""
        out = self(*x).clamp(max=HIGHEST)
        if self.head == "intensity":
            return -torch.expm1(-out.exp())
        return chain.probabilities(*self.chain_scores(out, x)).reshape(out.shape)

    def samples(self, x: tuple[Tensor, ...], seed: int) -> Tensor:
        """A train of the bins ahead for each step and cell, (S, C, L), of `chain`."""
        out = self(*x).clamp(max=HIGHEST)
        return chain.samples(*self.chain_scores(out, x), seed).reshape(out.shape)


def log_hazards(inputs: Inputs) -> np.ndarray:
    """How much likelier a spike is so long after the last one than on the mean, log (C, N_AGES), in train."""
    steps, tables = inputs.steps["train"], []
    for cell in range(inputs.n_cells):
        age, fired = (
            AGE[inputs.since[steps, :, cell]].ravel(),
            inputs.spikes[steps, :, cell].ravel(),
        )
        n, hit = np.bincount(age, minlength=N_AGES), np.bincount(age, fired, minlength=N_AGES)
        tables.append(np.log((hit + DOUBT * inputs.rate[cell]) / (n + DOUBT) / inputs.rate[cell]))
    return np.array(tables)


class Saved(NamedTuple):
    """Weights of a network as a file of a result."""

    name: str
    model: Predictor

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        weights = {key: value.contiguous() for key, value in self.model.state_dict().items()}
        save_file(weights, folder / f"network_{self.name}.safetensors")


class StepBatches:
    """Batches of steps for `fit`: `n` of them an epoch, in the order that (seed, epoch) says.

    Steps of validation come in order, all of them.
    """

    pieces = 1

    def __init__(
        self,
        model: Predictor,
        inputs: Inputs,
        steps: np.ndarray,
        size: int,
        n: int = 0,
        seed: int = 0,
    ):
        self.model, self.inputs, self.steps, self.size = model, inputs, steps, size
        self.drawn, self.seed, self.epoch = n, seed, 0
        self.n = min(n, len(steps)) or len(steps)

    def __len__(self) -> int:
        return -(-self.n // self.size)

    def set_epoch(self, epoch: int) -> None:
        """Choose what the next pass draws."""
        self.epoch = epoch

    def fingerprint(self) -> str:
        """What a resumed run must share."""
        return f"{len(self.steps)} {self.steps[0]} {self.steps[-1]} {self.inputs.rate.sum()} {self.seed}"

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        steps = self.steps
        if self.drawn:
            rng = np.random.default_rng([self.seed, self.epoch, 44])
            steps = rng.permutation(steps)[: self.n]
        for first in range(0, self.n, self.size):
            yield self.model.batch(self.inputs, steps[first : first + self.size])


def train(
    model: Predictor, inputs: Inputs, settings: FitSettings, *, per_epoch: int, every: int
) -> None:
    """Fit on train steps, `per_epoch` of them drawn an epoch, and stop by every so many of the validation
    steps; then once more in smaller steps, from the best on, for half as long."""
    steps, val, size = inputs.steps["train"], inputs.steps["val"][::every], settings.batch_size
    finer = replace(
        settings, learning_rate=settings.learning_rate / FINER, max_epochs=-(-settings.max_epochs // 2),
        seed=settings.seed + 1,
    )  # fmt: skip
    judge = StepBatches(model, inputs, val, size)
    for part in (settings, finer):
        batches = StepBatches(model, inputs, steps, size, min(per_epoch, len(steps)), part.seed)
        fit(model, batches, judge, part, loss=model.loss, stage=f"fit_{model.head}")
