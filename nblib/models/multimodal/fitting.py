"""Linear models and the masked network, fitted to all sessions of a recipe together."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax
from torch import Tensor, distributed
from torch.nn import functional

from nblib.models import training
from nblib.models.multimodal import linear, masks, poisson
from nblib.models.multimodal.model import BEHAVIOUR, Map, Multimodal, batch_of, on_device
from nblib.models.multimodal.network import MaskedNetwork
from nblib.models.settings import FitSettings, pick_device, reproducible
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
TrialAnswers = list[np.ndarray]  # of each session, for all of its trials
Fit = Callable[
    [Rows, Rows], list[Map]
]  # trials that teach and that choose -> a model of each session


def crossed(fit: Fit, sessions: list[Session], fits: Rows, choose: Rows) -> tuple[list[Map], TrialAnswers]:  # fmt: skip
    """Models of the trials `fits`, and their answers to all trials: to those in `fits` by models of the
    other contiguous folds of them, or a network on top would learn to trust them too much."""
    maps = fit(fits, choose)
    answers = [np.array(model(one)) for model, one in zip(maps, sessions, strict=True)]
    for fold in range(FOLDS):
        held = [np.array_split(rows, FOLDS)[fold] for rows in fits]
        left = [np.setdiff1d(rows, out) for rows, out in zip(fits, held, strict=True)]
        for model, one, answer, rows in zip(fit(left, choose), sessions, answers, held, strict=True):  # fmt: skip
            answer[rows] = model(one)[rows]
    return maps, answers


def each(sessions: list[Session], fit: Callable[..., Map], *more: Any) -> Fit:
    """A model of one session as one of all."""
    return lambda fits, choose: [
        fit(one, f, c, *more) for one, f, c in zip(sessions, fits, choose, strict=True)
    ]


def of_signals(sessions: list[Session], causal: bool) -> dict[str, Fit]:
    """Linear models of all signals of a session, by name; causal ones alone where they have to be."""
    before = {"causal ridge": each(sessions, linear.lagged_ridge, True)}
    around = {"ridge": each(sessions, linear.flat_ridge), "lagged ridge": each(sessions, linear.lagged_ridge)}  # fmt: skip
    return before if causal else around | before


def of_task(sessions: list[Session], task: str, factors: np.ndarray | None, causal: bool) -> dict[str, Fit]:  # fmt: skip
    """Linear models of one signal or variable, by name. factors: those of other sessions; None: of these."""
    made: dict[str, Fit] = {}
    if task in (names := list(sessions[0].classes)):
        made["logistic"] = each(sessions, linear.logistic, names.index(task))
    elif causal:
        return made

    def shared(fits: Rows, choose: Rows) -> list[Map]:
        maps = linear.factors(sessions, fits, task) if factors is None else factors
        return each(sessions, linear.through, task, maps)(fits, choose)

    alone = len(sessions) == 1 and factors is None
    return made if alone else made | {"shared map": shared}


@dataclass(frozen=True)
class Branch:
    """The linear models that the network starts from. tried: for each signal and variable, by the name of
    the model, what it is in each session; chosen: the name that validation prefers; maps: of each session,
    the model of each task; said: of each session, what they say of every trial (see `model.said_by`);
    factors: of each signal and variable, see `linear.factors`; none of a session alone."""

    tried: dict[str, dict[str, list[Map]]]
    chosen: dict[str, str]
    maps: list[dict[str, Map]]
    said: list[dict[str, np.ndarray]]
    factors: dict[str, np.ndarray]


def fit_branch(
    sessions: list[Session], causal: bool = False, factors: dict[str, np.ndarray] | None = None
) -> Branch:
    """Fit on train trials; these are answered by models without them. Validation trials choose.

    factors: of each signal and variable, as other sessions taught them (see `linear.factors`).
    """
    fits, choose = ([one.rows(role) for one in sessions] for role in ("train", "val"))
    signals, variables = sessions[0].signal_names, list(sessions[0].classes)
    tried: dict[str, dict[str, list[Map]]] = {task: {} for task in (*signals, *variables)}
    answers: dict[str, dict[str, TrialAnswers]] = {task: {} for task in tried}
    for name, fit in of_signals(sessions, causal).items() if signals else ():
        maps, said = crossed(fit, sessions, fits, choose)
        for s, signal in enumerate(signals):
            tried[signal][name] = [m.of_signal(s) for m in maps]
            answers[signal][name] = [a[..., s] for a in said]
    for task in tried:
        for name, fit in of_task(sessions, task, (factors or {}).get(task), causal).items():
            tried[task][name], answers[task][name] = crossed(fit, sessions, fits, choose)
    chosen = {
        task: min(
            by,
            key=lambda name: sum(
                validation_loss(one, task, a) for one, a in zip(sessions, by[name], strict=True)
            ),
        )
        for task, by in answers.items()
    }
    glm, rates = crossed(each(sessions, poisson.encode, (), causal), sessions, fits, choose)
    maps, said = [], []
    for k, one in enumerate(sessions):
        maps.append({t: tried[t][name][k] for t, name in chosen.items()} | {BEHAVIOUR: glm[k]})
        best = {task: answers[task][name][k] for task, name in chosen.items()}
        signals = [best[s] for s in one.signal_names]
        said.append({f"linear_{q}": best[v] for q, v in enumerate(one.classes)} | {
            "linear_signals": np.stack(signals, axis=-1) if signals else one.signals,
            "linear_rates": np.log(rates[k]),
        })  # fmt: skip
    if factors is None:
        several = tried if len(sessions) > 1 else ()
        factors = {task: linear.factors(sessions, fits, task) for task in several}
    return Branch(tried, chosen | {BEHAVIOUR: "Poisson GLM"}, maps, said, factors)


def validation_loss(session: Session, task: str, answer: np.ndarray, units: np.ndarray | None = None) -> float:  # fmt: skip
    """Loss in validation trials of an answer (K, …) of a session: squared error of a signal, or minus the
    log-likelihood of a variable, or of the counts of `units`."""
    val = session.rows("val")
    if units is not None:
        return -float(poisson.log_likelihood(session.counts[val][..., units], answer[val]).sum())
    if task in session.signal_names:
        s = session.signal_names.index(task)
        return float(((answer[val] - session.signals[val, :, s]) ** 2).sum())
    y = session.variables[val, list(session.classes).index(task)]
    return float((np.logaddexp.reduce(answer[val], axis=1) - answer[val, y]).sum())


def known_of(session: Session, said: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the network has of a session as a whole: course (T, S), log PSTH (T, N), how far off linear
    models are (S,), and log shares (C,) of each variable, of train trials."""
    fit = session.rows("train")
    known = {
        "course": session.signals[fit].mean(axis=0), "psth": np.log(poisson.psth(session, fit)),
        "spread": (said["linear_signals"] - session.signals)[fit].std(axis=(0, 1)),
    }  # fmt: skip
    return known | {
        f"prior_{q}": log_softmax(linear.prior(session, fit, q).bias)
        for q in range(len(session.classes))
    }


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
        mine, of = training.share()
        for k, rows, chances in self._plan(rng):
            hidden = masks.draw(len(rows), masks.nothing(self.sessions[k]), chances, rng)
            part = {name: mask[mine::of] for name, mask in hidden.items()}
            yield batch_of(self.data[k], k, rows[mine::of], part), torch.from_numpy(rows)


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
    if (of := training.share()[1]) > 1:  # the mean over processes is that of the whole batch
        distributed.all_reduce(n)
        total = total * of
    return total / n.clamp(min=1), None


def fit(
    sessions: list[Session], branch: Branch, settings: FitSettings, shape: dict[str, Any],
    chances: dict[str, float], folder: Path | None = None, taught: Multimodal | None = None, how: str = "full",
    compiled: bool = False, processes: int = 1,
) -> tuple[Multimodal, pd.DataFrame]:  # fmt: skip
    """Train on the train trials of all sessions; validation trials choose the epoch, for all tasks at once.

    taught: a model of other sessions to begin with; then the layers of the sessions alone are trained
    (how = "stitch"), and after them everything at a tenth of the rate ("full"). compiled: by
    `torch.compile`, which takes a minute once. processes: that share each batch. Returns the model, which
    trusts its network fully, and the history of the last training.
    """
    first, (device, _) = sessions[0], pick_device(settings)
    known = [known_of(one, said) for one, said in zip(sessions, branch.said, strict=True)]
    parts = zip(sessions, known, branch.said, strict=True)
    data = [on_device(*part, device) for part in parts]
    with reproducible(settings.seed, settings.threads):
        net = MaskedNetwork(
            [one.counts.shape[2] for one in sessions], first.counts.shape[1], len(first.signal_names),
            [len(c) for c in first.classes.values()], **shape,
        )  # fmt: skip
    if compiled:
        net.mixed = torch.compile(net.mixed, dynamic=True)  # batches differ in length
    train = TrialBatches(data, sessions, "train", settings, chances)
    val = TrialBatches(data, sessions, "val", settings, dict.fromkeys(JUDGED, 1.0), fixed=True)
    if taught is not None:
        net.take_over(taught.net)
        net.train_only_sessions(True)
        history = training.fit(
            net, train, val, settings, folder, loss=nats, stage="stitch", processes=processes
        )
        net.train_only_sessions(False)
        settings = replace(settings, learning_rate=settings.learning_rate / 10)
    if taught is None or how == "full":
        history = training.fit(net, train, val, settings, folder, loss=nats, processes=processes)
    trust = dict.fromkeys((*first.signal_names, *first.classes, BEHAVIOUR), 1.0)
    return Multimodal(net, sessions, known, branch.maps, trust, branch.factors), history
