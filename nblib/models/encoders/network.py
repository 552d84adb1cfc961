"""One network that predicts the spikes of all cells: a shared look at the stimulus, a code a cell.

A head says what is predicted. `now`: the log hazard of each of the next 8 bins, given all before each.
Of the bins ahead, nothing later than the first known: `intensity`, the log of spikes a bin, bins by
themselves (the Poisson twin of the distance network); `distance`, the log of the distance to the nearest
spike, as published; `chain`, a score a bin and one for the interval between spikes, which together are a
distribution over trains, fitted through its exact likelihood.

Shapes: S steps, C cells, L bins ahead, Z the dimensions of a code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nblib.core.errors import BadParameter
from nblib.models import FitSettings
from nblib.models.encoders import chain, glm
from nblib.models.training import fit
from nblib.prepare.continuous import STEP
from nblib.prepare.encoding.distance import SPIKE_BIN, distances
from nblib.prepare.encoding.history import AGE, LAGS, LONGEST, N_AGES, RECENT, TAUS, Inputs

CODES = ("none", "embedding", "vae", "token", "hypernetwork")
HEADS = ("now", "intensity", "distance", "chain")
PAST = 32  # bins before t0 that `distance` tells too, as published
DOUBT = 60.0  # spikes that the mean rate counts for, where hazards are counted
LOG_DISTANCE = np.log(np.r_[SPIKE_BIN, 1.0 : LONGEST + 1]).astype(np.float32)  # by whole distance
KL = 1e-3  # what a nat of the codes of `vae` costs, a step and cell
HIGHEST = 1.0  # log of spikes a bin
DROPPED = 0.1  # share of what is seen that is left out at a time, in training
MOST_DRIVE = 6.0  # log of what a stimulus may multiply the hazard of a cell with
FINER = 6.0  # by which the learning rate falls at last
WIDTH, HIDDEN = 48, 96  # of what is seen, and of the layers after
RANK = 8  # of the layer that `hypernetwork` writes for each cell


class EncoderNet(nn.Module):
    """(stimulus (S, channel, LAGS), recent spikes (S, C, features) or None) -> (S, C, n_out).

    code: how cells differ. none: by their mean alone; embedding: a code scales and shifts what is seen;
    vae: the same with a code drawn about its mean; token: the code asks the tokens of the stimulus
    (attention); hypernetwork: the code writes a layer. One number a cell is read from what is seen at
    once; several through two layers more.
    """

    def __init__(
        self, n_cells: int, n_channels: int, n_out: int, n_recent: int, code: str, latent: int
    ):
        super().__init__()
        self.code, self.kl = code, torch.zeros(())
        self.see = nn.Conv1d(n_channels, 32, 31, stride=4)
        n_seen = (LAGS - 31) // 4 + 1
        self.mix = nn.Linear(32 * n_seen, WIDTH)
        self.again = nn.Linear(WIDTH, WIDTH)
        self.z = nn.Embedding(n_cells, latent)
        nn.init.normal_(self.z.weight, 0, 0.3)
        if code == "vae":
            self.log_sd = nn.Parameter(torch.full((n_cells, latent), -2.0))
        if code == "token":
            self.place = nn.Parameter(0.02 * torch.randn(n_seen, WIDTH))
            self.token, self.ask = nn.Linear(32, WIDTH), nn.Linear(latent, WIDTH)
            layer = {"d_model": WIDTH, "nhead": 4, "dim_feedforward": 2 * WIDTH, "dropout": 0.0}
            self.among = nn.TransformerEncoderLayer(**layer, batch_first=True, norm_first=True)
            self.look = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        if code == "hypernetwork":
            self.write = nn.Linear(latent, 2 * WIDTH * RANK)
            nn.init.normal_(self.write.weight, 0, 0.02)
        if code != "none":
            self.scale, self.shift = nn.Linear(latent, WIDTH), nn.Linear(latent, WIDTH)
        self.deep = n_out > 1
        if self.deep:
            self.inner = nn.Linear(WIDTH + n_recent, HIDDEN)
            self.deeper = nn.Linear(HIDDEN, HIDDEN)
            self.read = None if code == "none" else nn.Linear(latent, HIDDEN)
            self.out = nn.Linear(HIDDEN, n_out)
        else:  # the weights of what is seen, a cell
            self.out = nn.Linear(1 if code == "none" else latent, WIDTH)
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
        z = self.codes()  # (C, Z)
        # A product of matrices takes half the time of a convolution of so few channels.
        parts = stimulus.unfold(2, *self.see.kernel_size, *self.see.stride).transpose(1, 2)
        seen = functional.linear(parts.flatten(2), self.see.weight.flatten(1), self.see.bias)
        seen = functional.gelu(seen.transpose(1, 2).contiguous())  # (S, 32, tokens)
        h = functional.gelu(self.mix(functional.dropout(seen.flatten(1), DROPPED, self.training)))
        h = self.again(functional.dropout(h, DROPPED, self.training))
        h = h[:, None].expand(-1, len(z), -1)  # (S, C, width)
        if self.code == "token":
            tokens = self.among(self.token(seen.transpose(1, 2)) + self.place)
            query = self.ask(z).expand(len(seen), -1, -1)
            h = h + self.look(query, tokens, tokens, need_weights=False)[0]
        if self.code == "hypernetwork":
            up, down = self.write(z).reshape(len(z), 2, -1, RANK).unbind(1)
            h = h + torch.einsum("scr,cwr->scw", torch.einsum("scw,cwr->scr", h, up), down)
        if self.code != "none":
            h = torch.addcmul(self.shift(z), h, 1 + self.scale(z))
        y = functional.gelu(h)
        if not self.deep:
            of_cell = self.out(torch.ones(len(z), 1) if self.code == "none" else z)
            return (y * of_cell).sum(dim=2, keepdim=True)
        y = functional.gelu(self.inner(y if recent is None else torch.cat([y, recent], dim=2)))
        y = y + functional.gelu(self.deeper(y))
        return self.out(y if self.read is None else y * (1 + self.read(z)))


class Predictor(nn.Module):
    """A network and its head: what it starts from, its loss, and its answers.

    linear: of `now`, a model of each cell alone (`glm.fit_cells`) whose log hazard the network adds to; of
    it, the gain of the stimulus alone is learnt.

    With history, what it sees is (stimulus, recent spikes (S, C, features), ages (S, C, bins)), the last
    the group of the time since the last spike before each bin, which `intensity` and `distance` do without;
    `now` sees traces for recent spikes.
    """

    def __init__(
        self,
        inputs: Inputs,
        head: str,
        *,
        n_bins: int = 0,
        code: str = "embedding",
        history: bool = True,
        latent: int = 24,
        linear: dict[str, np.ndarray] | None = None,
    ):
        super().__init__()
        if head not in HEADS or code not in CODES:
            raise BadParameter(
                f"head = {head!r}, code = {code!r}: expected {', '.join(HEADS)} and {', '.join(CODES)}."
            )
        self.head, self.history = head, history
        self.n_bins = STEP if head == "now" else n_bins
        n_out = {"now": 1, "distance": PAST + n_bins}.get(head, n_bins)
        n_recent = N_AGES + len(TAUS) + RECENT if history and head != "now" else 0
        n_channels = inputs.stimulus.shape[1]
        self.net = EncoderNet(inputs.n_cells, n_channels, n_out, n_recent, code, latent)
        base = torch.tensor(np.log(inputs.rate)[:, None].repeat(n_out, axis=1))
        if head == "distance":
            train = inputs.steps["train"]
            base = self.log_distance(inputs, train[:: max(1, len(train) // 500)]).mean(dim=0)
        if linear is not None:
            base = torch.tensor(linear["bias"])
        self.register_buffer("base", base.float())  # decay of weights draws towards it
        self.level = nn.Parameter(torch.zeros_like(self.base), requires_grad=linear is None)
        if head in ("now", "chain") and history:
            # From how likely a spike is so long after another, in train; learnt from there on.
            self.register_buffer("start", torch.tensor(log_hazards(inputs), dtype=torch.float32))
            self.age = nn.Parameter(torch.zeros_like(self.start))
            self.traces = nn.Parameter(torch.zeros(inputs.n_cells, len(TAUS)))
        self.linear = linear
        if linear is not None:
            known = {name: torch.tensor(values) for name, values in linear.items()}
            self.register_buffer("filters", known["filters"].flatten(1))
            self.register_buffer("ceiling", known["ceiling"][:, 0])
            self.gain = nn.Parameter(torch.ones(inputs.n_cells))
            if history:
                self.start = known["age"]
                self.traces = nn.Parameter(known["traces"], requires_grad=False)
                self.age.requires_grad_(False)
        self.spikes_a_step = float(inputs.rate.sum() * self.n_bins)

    def batch(self, inputs: Inputs, steps: np.ndarray) -> tuple[tuple[Tensor, ...], Tensor]:
        """What the network sees at some steps, and what it is held against."""
        x = [inputs.shown(steps)]
        if self.history and self.head == "now":
            x += [inputs.traces[steps], inputs.age(steps)]
        elif self.history:
            x.append(inputs.recent(steps))
            if self.head == "chain":
                x.append(inputs.age_ahead(steps, self.n_bins))
        x = tuple(torch.from_numpy(values) for values in x)
        if self.head == "distance":
            return x, self.log_distance(inputs, steps)
        return x, torch.from_numpy(inputs.ahead(steps, self.n_bins))

    def lessons(self, inputs: Inputs, steps: np.ndarray) -> Callable:
        """Batches of some of these steps to be taught by, as `batch` has them; where the network adds to a
        model of each cell, of how many spikes that one expects whatever the stimulus, and how many came."""
        if self.linear is None:
            return lambda part: self.batch(inputs, part)
        counts = np.zeros((len(inputs.stimulus), 2, inputs.n_cells), np.float32)
        counts[:, 1] = inputs.spikes.sum(axis=1)
        blind = self.linear | {"filters": 0 * self.linear["filters"]}
        for part in np.array_split(steps, 1 + len(steps) // 4096):
            counts[part, 0] = np.exp(glm.log_hazard(inputs, blind, part)).sum(axis=2)
        return lambda part: (
            (torch.from_numpy(inputs.shown(part)),),
            torch.from_numpy(counts[part]),
        )

    def log_distance(self, inputs: Inputs, steps: np.ndarray) -> Tensor:
        """Log of the bins to the nearest spike at or after the first bin of steps: (S, C, PAST + L)."""
        spikes = inputs.ahead(steps, self.n_bins + LONGEST)
        after = distances(spikes, LONGEST)[..., : self.n_bins]
        past = np.minimum(after[..., :1] + np.arange(PAST, 0, -1), LONGEST)
        both = np.concatenate([past, after], axis=2)
        return torch.from_numpy(LOG_DISTANCE[both])

    def forward(self, *x: Tensor) -> Tensor:
        """The head's numbers (S, C, n_out); of `now` the log hazard of each bin, (S, C, 8)."""
        if self.head != "now":
            return self.net(x[0], x[1] if self.history else None) + self.base + self.level
        out = self.of_stimulus(x[0]) + self.base + self.level
        if not self.history:
            return out.expand(-1, -1, STEP)
        return out + (x[1] * self.traces).sum(dim=2, keepdim=True) + self.after_spike(x[2])

    def of_stimulus(self, stimulus: Tensor) -> Tensor:
        """What the stimulus before a step adds to the log hazard of `now`, (S, C, 1)."""
        out = self.net(stimulus)
        if self.linear is None:
            return out
        alone = torch.minimum(stimulus.flatten(1) @ self.filters.T, self.ceiling)
        return (out + (self.gain * alone)[..., None]).clamp(max=MOST_DRIVE)

    def after_spike(self, ages: Tensor) -> Tensor:
        """What the time since the last spike adds to the log hazard, (S, C, bins)."""
        table = (self.start + self.age).expand(len(ages), -1, -1)
        return table.gather(2, ages)

    def scores(self, x: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """The scores that `nblib.models.encoders.chain` takes."""
        out = self(*x).clamp(max=HIGHEST)
        if self.history:
            first = self.after_spike(x[2])
            between = (self.start + self.age)[:, torch.from_numpy(AGE[1 : self.n_bins + 1])]
        else:
            first, between = torch.zeros_like(out), torch.zeros_like(self.base)
        return out.flatten(0, 1), first.flatten(0, 1), between

    def log_likelihood(self, x: tuple[Tensor, ...], y: Tensor) -> Tensor:
        """Of the spikes y (S, C, bins) under each head that is a distribution: (S, C) [nats]."""
        if self.head == "chain":
            return chain.log_likelihood(*self.scores(x), y.flatten(0, 1)).reshape(y.shape[:2])
        hazard = self(*x).clamp(max=HIGHEST).exp()
        *which, at = (y > 0).nonzero(as_tuple=True)  # few, so the logarithm is taken of them alone
        fired = torch.expm1(hazard[*which, at]).clamp(min=1e-30).log()
        return (-hazard.sum(dim=2)).index_put(which, fired, accumulate=True)

    def loss(self, _: nn.Module, x: tuple[Tensor, ...], y: Tensor) -> tuple[Tensor, None]:
        """Nats a spike, or squared error of log distances, with what codes cost."""
        if self.head == "distance":
            value = functional.mse_loss(self(*x), y)
        elif self.linear is not None:
            more, (expected, came) = self.of_stimulus(*x)[..., 0], y.unbind(1)
            value = (expected * more.exp() - came * more).sum() / (len(y) * self.spikes_a_step)
        else:
            value = -self.log_likelihood(x, y).sum() / (len(y) * self.spikes_a_step)
        return value + KL * self.net.kl if self.training else value, None

    def probabilities(self, x: tuple[Tensor, ...]) -> Tensor:
        """Probability of a spike in each of the bins ahead, (S, C, L), of `chain` and `intensity`."""
        if self.head == "intensity":
            return -torch.expm1(-self(*x).clamp(max=HIGHEST).exp())
        return chain.probabilities(*self.scores(x)).reshape(len(x[0]), *self.base.shape)

    def samples(self, x: tuple[Tensor, ...], rng: np.random.Generator) -> Tensor:
        """A train of the bins ahead for each step and cell, (S, C, L), of `chain`."""
        return chain.samples(*self.scores(x), rng).reshape(len(x[0]), *self.base.shape)


def log_hazards(inputs: Inputs) -> np.ndarray:
    """How much likelier a spike is so long after the last one than on the mean, log (C, N_AGES), in train."""
    steps, rate = inputs.steps["train"], inputs.rate[:, None]
    n, hit = np.zeros((2, inputs.n_cells * N_AGES))
    for part in np.array_split(steps, 1 + len(steps) // 4096):
        group = (AGE[inputs.since[part]] + N_AGES * np.arange(inputs.n_cells)).ravel()
        n += np.bincount(group, minlength=len(n))
        hit += np.bincount(group, inputs.spikes[part].ravel(), minlength=len(n))
    n, hit = n.reshape(-1, N_AGES), hit.reshape(-1, N_AGES)
    return np.log((hit + DOUBT * rate) / (n + DOUBT) / rate)


class StepBatches:
    """Batches of steps for `fit`: `n` of them an epoch, in the order that (seed, epoch) says.

    batch: from steps to what a network sees and is held against. Steps of validation (n = 0) come in
    order, all of them, and are kept from one epoch to the next.
    """

    pieces = 1

    def __init__(self, batch: Callable, steps: np.ndarray, size: int, n: int = 0, seed: int = 0):
        self.batch, self.steps, self.size = batch, steps, size
        self.drawn, self.seed, self.epoch, self.kept = n, seed, 0, []
        self.n = min(n, len(steps)) or len(steps)

    def __len__(self) -> int:
        return -(-self.n // self.size)

    def set_epoch(self, epoch: int) -> None:
        """Choose what the next pass draws."""
        self.epoch = epoch

    def fingerprint(self) -> str:
        """What a resumed run must share."""
        return f"{len(self.steps)} {self.steps[0]} {self.steps[-1]} {self.seed}"

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        if self.drawn:
            rng = np.random.default_rng([self.seed, self.epoch, 44])
            yield from self._of(rng.permutation(self.steps)[: self.n])
        else:
            self.kept = self.kept or list(self._of(self.steps))
            yield from self.kept

    def _of(self, steps: np.ndarray) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        for first in range(0, self.n, self.size):
            yield self.batch(steps[first : first + self.size])


def train(
    model: Predictor, inputs: Inputs, settings: FitSettings, *, per_epoch: int, every: int
) -> None:
    """Fit on train steps, `per_epoch` of them drawn an epoch, and stop by every so many of the validation
    steps; then once more in smaller steps, from the best on, for half as long."""
    steps, val, size = inputs.steps["train"], inputs.steps["val"][::every], settings.batch_size
    again = {"max_epochs": -(-settings.max_epochs // 2), "seed": settings.seed + 1}
    finer = replace(settings, learning_rate=settings.learning_rate / FINER, **again)
    batch = model.lessons(inputs, np.concatenate([steps, val]))
    judge = StepBatches(batch, val, size)
    for part in (settings, finer):
        batches = StepBatches(batch, steps, size, per_epoch, part.seed)
        fit(model, batches, judge, part, loss=model.loss, stage=f"fit_{model.head}")
