"""Linear models and the masked network, fitted to all sessions of a recipe together."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, distributed
from torch.nn import functional

from nblib.models import training
from nblib.models.multimodal import linear, masks, poisson
from nblib.models.multimodal.model import Map, Multimodal, batch_of, tensors_of
from nblib.models.multimodal.network import MaskedNetwork
from nblib.models.multimodal.tasks import (
    AREAS,
    BEHAVIOUR,
    UNITS,
    Task,
    decoding,
    encoding,
    imputing,
    of_area,
)
from nblib.models.settings import FitSettings, pick_device, reproducible
from nblib.prepare.sessions import Session

GLM, PSTH, NOTHING = "Poisson GLM", "PSTH", "mean course"
AT_REST = {"signal": NOTHING, "variable": "prior", "encode": PSTH, "impute": PSTH}
FOLDS = 5  # of the train trials, for what the branch says of them
CHANCES = {"decode": 3.0, "encode": 2.0, "neuron": 1.0, "region": 0.5, "temporal": 0.5, "random": 0.5,
           "causal": 0.25, "modality": 0.5}  # fmt: skip
JUDGED = {"decode": 1.0}  # on validation trials, whose loss chooses the epoch
MAX_EPOCHS = 60

Rows = list[np.ndarray]  # trials of each session
Maps = list[dict[str, Map]]  # of each session, the model of each task
TrialAnswers = list[np.ndarray]  # of each session, for all of its trials
Fit = Callable[[Rows, Rows], Maps]  # trials that teach and that choose -> models


def crossed(fit: Fit, sessions: list[Session], fits: Rows, choose: Rows, answers: list[dict[str, np.ndarray]]) -> None:  # fmt: skip
    """Answer the trials `fits` anew, in place, by models of the other contiguous folds of them, or a network
    on top would learn to trust them too much. answers: of each session, to all trials, by task."""
    for fold in range(FOLDS):
        held = [np.array_split(rows, FOLDS)[fold] for rows in fits]
        left = [np.setdiff1d(rows, out) for rows, out in zip(fits, held, strict=True)]
        for of, one, by_task, rows in zip(fit(left, choose), sessions, answers, held, strict=True):
            for task, answer in by_task.items():
                answer[rows] = of[task](one)[rows]


def each(sessions: list[Session], fit: Callable[..., dict[str, Map]], **more: Any) -> Fit:
    """Models of one session as those of all."""
    return lambda fits, choose: [fit(*part, **more) for part in zip(sessions, fits, choose, strict=True)]  # fmt: skip


def candidates(sessions: list[Session], causal: bool, factors: dict[str, np.ndarray] | None) -> dict[str, Fit]:  # fmt: skip
    """Linear models by name, for the tasks that each can do; causal ones alone where they have to be.
    factors: those of other sessions; None: of these, where they are several."""
    made, signals = {}, sessions[0].signal_names
    if signals and not causal:
        made |= {"ridge": each(sessions, linear.flat_ridge), "lagged ridge": each(sessions, linear.lagged_ridge)}  # fmt: skip
    if signals:
        made["causal ridge"] = each(sessions, linear.lagged_ridge, causal=True)
    if sessions[0].classes:
        made["logistic"] = each(sessions, linear.logistic)
    asked = [task.name for task in decoding(sessions[0]) if task.kind == "variable" or not causal]

    def shared(fits: Rows, choose: Rows) -> Maps:
        known = factors or {task: linear.factors(sessions, fits, task) for task in asked}
        return [
            {task: linear.through(*part, task, known[task]) for task in asked}
            for part in zip(sessions, fits, choose, strict=True)
        ]

    if asked and (len(sessions) > 1 or factors):
        made["shared map"] = shared
    return made | {GLM: each(sessions, lambda *part: {BEHAVIOUR: poisson.encode(*part, causal=causal)})}  # fmt: skip


def glm_of(session: Session, task: Task, causal: bool) -> Map:
    """The Poisson regression that answers a task, of whose units there is one group."""
    fit, choose = session.rows("train"), session.rows("val")
    if task.kind == "encode":
        return poisson.encode(session, fit, choose, task.shown, causal)
    (units,) = task.groups(session)
    return poisson.impute(session, fit, choose, units, causal, task.seen(session, units))


@dataclass(frozen=True)
class Branch:
    """The linear models that the network starts from. answers: for each task, by the name of the model, what
    it says of all trials of each session (see `Task.truth`; of a variable log-probabilities), first what is
    said where no trial is looked at; chosen: the name that validation prefers; maps: of each session, the
    model of each task; rest: of each session, what is said where a trial is not looked at, by task; factors:
    of each signal and variable, see `linear.factors`; none of a session alone."""

    answers: dict[Task, dict[str, TrialAnswers]]
    chosen: dict[Task, str]
    maps: Maps
    rest: list[dict[str, np.ndarray]]
    factors: dict[str, np.ndarray]

    def best(self, k: int) -> dict[str, np.ndarray]:
        """What the chosen models say of all trials of session k, by task."""
        return {task.name: self.answers[task][name][k] for task, name in self.chosen.items()}


def fit_branch(
    sessions: list[Session], causal: bool = False, factors: dict[str, np.ndarray] | None = None,
    whole: bool = False,
) -> Branch:  # fmt: skip
    """Fit on train trials; these are answered by models without them. Validation trials choose.

    factors: of each signal and variable, as other sessions taught them (see `linear.factors`). whole: also
    what the network does not start from, spikes from one signal or variable and units from others.
    """
    fits, choose = ([one.rows(role) for one in sessions] for role in ("train", "val"))
    first, models = sessions[0], {}
    answers: dict[Task, dict[str, TrialAnswers]] = {task: {} for task in (*decoding(first), encoding(first)[0])}  # fmt: skip
    fit_of = candidates(sessions, causal, factors)
    for name, fit in fit_of.items():
        models[name] = fit(fits, choose)
        for task, by in answers.items():
            if task.name in models[name][0]:
                by[name] = [np.array(of[task.name](one)) for of, one in zip(models[name], sessions, strict=True)]  # fmt: skip
    chosen = {}
    for task, by in answers.items():
        losses = {name: sum(map(task.loss, sessions, said)) for name, said in by.items()}
        chosen[task] = min(losses, key=losses.__getitem__)
    for name in dict.fromkeys(chosen.values()):
        mine = [task for task in chosen if chosen[task] == name]
        parts = [{task.name: answers[task][name][k] for task in mine} for k in range(len(sessions))]
        crossed(fit_of[name], sessions, fits, choose, parts)
    maps = [{task.name: models[name][k][task.name] for task, name in chosen.items()} for k in range(len(sessions))]  # fmt: skip
    for one, of in zip(sessions, maps, strict=True) if whole else ():
        of |= {
            task.name: glm_of(one, task, causal) for task in (*encoding(one)[1:], *imputing(one))
        }
    for task in (*encoding(first)[1:], Task(UNITS, "impute"), Task(AREAS, "impute")) if whole else ():  # fmt: skip
        glm = []
        for one, of in zip(sessions, maps, strict=True):
            names = map(of_area, np.unique(one.area)) if task.name == AREAS else [task.name]
            glm.append(np.concatenate([of[name](one) for name in names], axis=-1))
        answers[task], chosen[task] = {GLM: glm}, GLM
    rest = [linear.at_rest(*part) | {BEHAVIOUR: poisson.psth(*part)} for part in zip(sessions, fits, strict=True)]  # fmt: skip
    for task, by in answers.items():
        answers[task] = {AT_REST[task.kind]: list(map(task.at_rest, sessions, rest))} | by
    if factors is None:
        several = decoding(first) if len(sessions) > 1 else []
        factors = {task.name: linear.factors(sessions, fits, task.name) for task in several}
    return Branch(answers, chosen, maps, rest, factors)


class TrialBatches:
    """Batches of trials, each of one session, with masks drawn for the same (seed, epoch) alike.

    fixed: in the order of the trials and with the same masks in every epoch.
    """

    pieces = 1  # a step takes its batch whole

    def __init__(
        self, data: list[dict[str, Tensor]], sessions: list[Session], role: str, settings: FitSettings,
        chances: dict[str, float], fixed: bool = False,
    ):  # fmt: skip
        self.data, self.sessions, self.settings, self.chances = data, sessions, settings, chances
        self.rows = [one.rows(role) for one in sessions]
        self.n = sum(map(len, self.rows))
        self.fixed, self.epoch = fixed, 0

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

    def __len__(self) -> int:
        return sum(-(-len(rows) // self.settings.batch_size) for rows in self.rows)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        rng = np.random.default_rng([self.settings.seed, 0 if self.fixed else self.epoch, 12])
        size, plan = self.settings.batch_size, []
        for k, rows in enumerate(self.rows):
            order = rows if self.fixed else rng.permutation(rows)
            plan += [(k, order[at : at + size]) for at in range(0, len(rows), size)]
        mine, of = training.share()
        for i in range(len(plan)) if self.fixed else rng.permutation(len(plan)):
            k, rows = plan[i]
            hidden = masks.draw(len(rows), self.sessions[k], self.chances, rng)
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
    data = []
    for k, one in enumerate(sessions):
        data.append(tensors_of(one, branch.best(k), branch.rest[k], device))
        error = (data[k]["linear_signals"] - data[k]["signals"])[one.rows("train")]
        off = error - error.mean(dim=(0, 1), keepdim=True)
        spread = off.square().mean(dim=(0, 1), keepdim=True).sqrt()  # how far off linear models are
        data[k]["spread"] = spread.expand(len(one.x), 1, -1)
    with reproducible(settings.seed, settings.threads):
        net = MaskedNetwork(
            [one.counts.shape[2] for one in sessions], first.counts.shape[1], len(first.signal_names),
            [len(c) for c in first.classes.values()], **shape,
        )  # fmt: skip
    if compiled:
        net.mixed = torch.compile(net.mixed, dynamic=True)  # batches differ in length
    train = TrialBatches(data, sessions, "train", settings, chances)
    val = TrialBatches(data, sessions, "val", settings, JUDGED, fixed=True)
    learn = partial(training.fit, net, train, val, folder=folder, loss=nats, processes=processes)
    if taught is not None:
        net.take_over(taught.net)
        net.train_only_sessions(True)
        history = learn(settings=settings, stage="stitch")
        net.train_only_sessions(False)
        settings = replace(settings, learning_rate=settings.learning_rate / 10)
    if taught is None or how == "full":
        history = learn(settings=settings)
    trust = dict.fromkeys((*first.behaviour, BEHAVIOUR), 1.0)
    return Multimodal(net, sessions, branch.rest, branch.maps, trust, branch.factors), history
