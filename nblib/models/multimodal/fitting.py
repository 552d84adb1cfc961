"""Linear models and the masked network, fitted to all sessions of a recipe together."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from nblib.core.tensors import write_network
from nblib.models import training
from nblib.models.multimodal import linear, masks, poisson
from nblib.models.multimodal.network import MaskedNetwork
from nblib.models.settings import FitSettings, pick_device
from nblib.prepare.sessions import Session

FOLDS = 5  # of the train trials, for what the branch says of them
CHANCES = {"decode": 3.0, "encode": 2.0, "neuron": 1.0, "region": 0.5, "temporal": 0.5, "random": 0.5,
           "causal": 0.25, "modality": 0.5}  # fmt: skip
JUDGED = ("decode",)  # on validation trials, whose loss chooses the epoch
DEFAULTS = {
    "max_epochs": 60,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "patience": 15,
}

Rows = list[np.ndarray]  # trials of each session
Answers = list[np.ndarray]  # of each session, for all of its trials


def crossed(answer: Callable[[Rows, Rows], Answers], fits: Rows, choose: Rows) -> Answers:
    """Answers whose trials in `fits` did not take part in what answers them: contiguous folds of them.

    A network on top of answers that have seen their own trials would learn to trust them too much.
    """
    whole = [np.array(a) for a in answer(fits, choose)]
    for fold in range(FOLDS):
        held = [np.array_split(fit, FOLDS)[fold] for fit in fits]
        left = [np.setdiff1d(fit, out) for fit, out in zip(fits, held, strict=True)]
        for a, part, rows in zip(whole, answer(left, choose), held, strict=True):
            a[rows] = part[rows]
    return whole


def each(sessions: list[Session], fit: Callable[..., np.ndarray], *more: Any) -> Callable[[Rows, Rows], Answers]:  # fmt: skip
    """A model of one session as one of all."""
    return lambda fits, choose: [
        fit(one, f, c, *more) for one, f, c in zip(sessions, fits, choose, strict=True)
    ]


def decoders(sessions: list[Session], causal: bool) -> dict[str, Callable[[Rows, Rows], Answers]]:
    """Linear models of the signals by name; causal ones alone where they have to be."""
    before = {"causal ridge": each(sessions, linear.lagged_ridge, True)}
    around = {"ridge": each(sessions, linear.flat_ridge), "lagged ridge": each(sessions, linear.lagged_ridge)}  # fmt: skip
    if len(sessions) > 1:
        around["shared map"] = lambda fits, choose: linear.shared_signals(sessions, fits, choose)
    return before if causal else around | before


def classifiers(sessions: list[Session], q: int) -> dict[str, Callable[[Rows, Rows], Answers]]:
    """Linear models of variable q by name."""
    alone = {"logistic": each(sessions, linear.logistic, q)}
    if len(sessions) == 1:
        return alone
    return alone | {
        "shared map": lambda fits, choose: linear.shared_variable(sessions, fits, choose, q)
    }


@dataclass(frozen=True)
class Branch:
    """What linear models say of every trial: signals (K, T, S), log-probabilities (K, C) of each variable,
    log rates (K, T, N) of each session; who: which model was chosen for each, by its error in validation."""

    signals: Answers
    variables: list[Answers]
    rates: Answers
    who: dict[str, str]


def fit_branch(sessions: list[Session], causal: bool = False) -> Branch:
    """The linear models that the network starts from; train trials are answered by models without them."""
    fits, choose = ([one.rows(role) for one in sessions] for role in ("train", "val"))
    made = {name: crossed(fit, fits, choose) for name, fit in decoders(sessions, causal).items()}
    signals, who = [np.zeros_like(one.signals) for one in sessions], {}
    for s, signal in enumerate(sessions[0].signal_names):
        errors = {
            name: sum(((a - one.signals)[val][..., s] ** 2).sum() for a, one, val in zip(answers, sessions, choose, strict=True))
            for name, answers in made.items()
        }  # fmt: skip
        who[signal] = min(errors, key=errors.__getitem__)
        for into, answer in zip(signals, made[who[signal]], strict=True):
            into[..., s] = answer[..., s]
    variables = []
    for q, variable in enumerate(sessions[0].classes):
        tried = {n: crossed(fit, fits, choose) for n, fit in classifiers(sessions, q).items()}
        losses = {
            name: -sum(a[val, one.variables[val, q]].sum() for a, one, val in zip(answers, sessions, choose, strict=True))
            for name, answers in tried.items()
        }  # fmt: skip
        who[variable] = min(losses, key=losses.__getitem__)
        variables.append(tried[who[variable]])
    rates = [np.log(a) for a in crossed(each(sessions, poisson.encode, None, causal), fits, choose)]
    return Branch(signals, variables, rates, who | {"spikes": "Poisson GLM"})


class TrialBatches:
    """Batches of trials, each of one session, with masks drawn for the same (seed, epoch) alike.

    scheme: hide by this one alone, in the order of the trials and the same in every epoch.
    """

    pieces = 1  # a step takes its batch whole

    def __init__(
        self, data: list[dict[str, Tensor]], sessions: list[Session], role: str, settings: FitSettings,
        chances: dict[str, float], fixed: bool = False,
    ):  # fmt: skip
        self.data, self.sessions, self.settings, self.chances = data, sessions, settings, chances
        self.rows = [one.rows(role) for one in sessions]
        self.fixed, self.epoch = fixed, 0
        times = len(chances) if fixed else 1
        self.n = sum(map(len, self.rows)) * times

    def set_epoch(self, epoch: int) -> None:
        """Choose what the next pass draws."""
        self.epoch = epoch

    def fingerprint(self) -> str:
        """8 hex digits of the counts and signals."""
        crc = zlib.crc32(repr((self.settings.seed, self.chances, self.n)).encode())
        for one in self.sessions:
            for values in (one.counts, one.signals, one.variables):
                crc = zlib.crc32(np.ascontiguousarray(values), crc)
        return f"{crc:08x}"

    def _plan(self, rng: np.random.Generator) -> list[tuple[int, np.ndarray, dict[str, float]]]:
        """(session, trials, schemes) of each batch."""
        size, plan = self.settings.batch_size, []
        for k, rows in enumerate(self.rows):
            order = rows if self.fixed else rng.permutation(rows)
            alone = [{name: 1.0} for name in self.chances] if self.fixed else [self.chances]
            plan += [
                (k, order[at : at + size], one) for one in alone for at in range(0, len(rows), size)
            ]
        return plan if self.fixed else [plan[i] for i in rng.permutation(len(plan))]

    def __len__(self) -> int:
        return len(self._plan(np.random.default_rng(0)))

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        rng = np.random.default_rng([self.settings.seed, 0 if self.fixed else self.epoch, 12])
        for k, rows, chances in self._plan(rng):
            hidden = masks.draw(len(rows), nothing(self.sessions[k]), chances, rng)
            yield batch_of(self.data[k], k, rows, hidden), torch.from_numpy(rows)


def nothing(session: Session) -> masks.Hidden:
    """A trial of a session of which nothing is hidden."""
    return masks.Hidden.nothing(session.counts.shape[1], session.area, session.signals.shape[2], session.variables.shape[1])  # fmt: skip


def tensors(session: Session, branch: Branch, k: int, device: torch.device) -> dict[str, Tensor]:
    """What the network takes of a session (see `MaskedNetwork.forward`), on the device."""
    fit = session.rows("train")
    arrays = {
        "x": session.x, "counts": session.counts, "signals": session.signals, "variables": session.variables,
        "linear_signals": branch.signals[k], "linear_rates": branch.rates[k],
        "course": session.signals[fit].mean(axis=0), "psth": np.log(poisson.psth(session, fit)),
        "spread": (branch.signals[k] - session.signals)[fit].std(axis=(0, 1)),
    }  # fmt: skip
    for q, answers in enumerate(branch.variables):
        arrays[f"linear_{q}"] = answers[k]
        arrays[f"prior_{q}"] = linear.prior(session, fit, q)[0]
    made = {name: torch.as_tensor(np.ascontiguousarray(a)) for name, a in arrays.items()}
    return {n: (t.float() if t.is_floating_point() else t).to(device) for n, t in made.items()}


WHOLE = ("course", "psth", "spread")  # of a session, not a trial


def batch_of(data: dict[str, Tensor], k: int, rows: np.ndarray, hidden: dict[str, np.ndarray]) -> dict[str, Any]:  # fmt: skip
    """Some trials of session k, with what is hidden of them."""
    device = data["x"].device
    at = torch.from_numpy(np.asarray(rows)).to(device)
    batch = {n: v if n in WHOLE or n.startswith("prior") else v[at] for n, v in data.items()}
    masked = {f"hide_{name}": torch.from_numpy(m).to(device) for name, m in hidden.items()}
    return batch | masked | {"session": k}


def nats(net: MaskedNetwork, batch: dict[str, Any], rows: Tensor) -> tuple[Tensor, None]:
    """Loss of what is hidden [nats per hidden number]: Poisson, Gaussian about as wide as the branch is off,
    and cross-entropy. A variable of a trial is one number."""
    rates, signals, variables = net(batch)
    no_spikes, no_signals = batch["hide_spikes"], batch["hide_signals"]
    spikes = ((rates.exp() - batch["counts"] * rates) * no_spikes).sum()
    error = (signals - batch["signals"]) / batch["spread"]
    total = spikes + 0.5 * (error**2 * no_signals).sum()
    n = no_spikes.sum() + no_signals.sum()
    for q, log in enumerate(variables):
        asked = batch["hide_variables"][:, q]
        loss = functional.nll_loss(log, batch["variables"][:, q], reduction="none")
        total, n = total + (loss * asked).sum(), n + asked.sum()
    return total / n.clamp(min=1), None


@dataclass(frozen=True)
class Fitted:
    """A network, what it takes of each session, and how its training went."""

    net: MaskedNetwork
    data: list[dict[str, Tensor]]
    history: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Write network.json and network.safetensors."""
        write_network(folder / "network.json", self.net, folder / "network.safetensors")


def fit(
    sessions: list[Session], branch: Branch, settings: FitSettings, shape: dict[str, Any],
    chances: dict[str, float], folder: Path | None = None,
) -> Fitted:  # fmt: skip
    """Train on the train trials of all sessions; validation trials choose the epoch, for all tasks at once."""
    first, (device, _) = sessions[0], pick_device(settings)
    data = [tensors(one, branch, k, device) for k, one in enumerate(sessions)]
    with training.reproducible(settings.seed, settings.threads):
        net = MaskedNetwork(
            [one.counts.shape[2] for one in sessions], first.counts.shape[1], len(first.signal_names),
            [len(c) for c in first.classes.values()], **shape,
        )  # fmt: skip
    train = TrialBatches(data, sessions, "train", settings, chances)
    val = TrialBatches(data, sessions, "val", settings, dict.fromkeys(JUDGED, 1.0), fixed=True)
    history = training.fit(net, train, val, settings, folder, loss=nats)
    data = [{name: value.cpu() for name, value in part.items()} for part in data]
    return Fitted(net, data, history)


@torch.inference_mode()
def ask(fitted: Fitted, sessions: list[Session], hide: Callable[[Session], masks.Hidden]) -> list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]]:  # fmt: skip
    """Rates (K, T, N), signals (K, T, S), log-probabilities of each session, all trials hidden alike."""
    answers = []
    for k, one in enumerate(sessions):
        hidden, rows = hide(one), np.arange(len(one.role))
        same = {
            name: np.repeat(getattr(hidden, name)[None], len(rows), axis=0)
            for name in ("spikes", "signals", "variables")
        }
        rates, signals, variables = fitted.net(batch_of(fitted.data[k], k, rows, same))
        answers.append((rates.exp().numpy(), signals.numpy(), [v.numpy() for v in variables]))
    return answers
