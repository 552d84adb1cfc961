"""What is asked of a model of several sessions: each task, what is hidden for it, and what is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from nblib.models.multimodal import masks

if TYPE_CHECKING:
    from nblib.models.multimodal.model import Map
    from nblib.prepare.sessions import Session

NETWORK = "masked network"  # the name of its row beside the linear models
BEHAVIOUR, UNITS, AREAS = "spikes from behaviour", "a fifth of the units", "units of each area"
GIVEN = ", behaviour given"  # after the name of a task of imputation
OTHERS = "all others"  # areas than the one that is asked for
EVERY = 5  # of the units, hidden at once
LEAST = 1e-3  # spikes a bin; no rate is less


@dataclass(frozen=True)
class Task:
    """One task. kind: "signal" or "variable", where other behaviour is `shown` beside spikes, or counts of units:
    "encode", of all from the behaviour `shown`, "impute", of some from all others, or of those of one area from
    those of another or `OTHERS`, `areas`; of `units` by their positions where these are named."""

    name: str
    kind: str
    shown: tuple[str, ...] = ()
    areas: tuple[str, str] | None = None
    units: tuple[int, ...] = ()

    @property
    def of_counts(self) -> bool:
        """Whether it asks for expected counts."""
        return self.kind in ("encode", "impute")

    def groups(self, session: Session) -> list[np.ndarray]:
        """Positions of units that are asked for together."""
        everyone = np.arange(len(session.area))
        if self.kind == "encode":
            return [everyone]
        if self.units:
            return [np.array(self.units)]
        if self.areas is not None:
            return [self._pair(session)[0]]
        if self.name == UNITS:
            return [everyone[::EVERY]]
        return [everyone[session.area == area] for area in np.unique(session.area)]

    def seen(self, session: Session, group: np.ndarray) -> np.ndarray:
        """Positions of the units that a group is told from."""
        if self.areas is not None:
            return self._pair(session)[1]
        return np.setdiff1d(np.arange(len(session.area)), group)

    def _pair(self, session: Session) -> tuple[np.ndarray, np.ndarray]:
        """Units to be told, and those that tell; every second unit where it is one area."""
        targets, predictors = (np.flatnonzero(session.area == area) for area in self.areas)
        if self.areas[1] == OTHERS:
            predictors = np.flatnonzero(session.area != self.areas[0])
        if self.areas[0] == self.areas[1]:
            return targets[::2], targets[1::2]
        return targets, predictors

    def hidden(self, session: Session, group: np.ndarray) -> masks.Hidden:
        """What is hidden where a group of units is asked for."""
        seen = self.seen(session, group)
        return masks.hide(session, np.setdiff1d(np.arange(len(session.area)), seen), self.shown)

    def truth(self, session: Session) -> np.ndarray:
        """What is true of all trials: a signal (K, T), classes (K,), or counts (K, T, n) of the groups."""
        if self.of_counts:
            return session.counts[..., np.concatenate(self.groups(session))]
        return self.pick(session.signals, session.variables.T, session)

    def pick(self, signals: np.ndarray, variables: Sequence, session: Session) -> np.ndarray:
        """What belongs to this task, of signals (K, T, S) and of something of each variable."""
        if self.kind == "signal":
            return signals[..., session.signal_names.index(self.name)]
        return variables[list(session.classes).index(self.name)]

    def linear(self, maps: Mapping[str, list[Map]], session: Session) -> np.ndarray:
        """What linear models, by the name of their task, answer to all trials (see `truth`; of a variable
        log-probabilities); of several their mean."""
        mean = None
        for n, model in enumerate(maps[self.name], 1):
            if self.kind == "impute":
                groups = self.groups(session)
                predicted = [
                    model(session, self.seen(session, group))[..., group] for group in groups
                ]
                answer = np.concatenate(predicted, axis=-1)
            elif self.kind == "encode":
                answer = model(session)
            else:
                answer = model(session, shown=self.shown)
            mean = answer if mean is None else self.mixed(mean, answer, 1 / n)
        return mean

    def at_rest(self, session: Session, rest: Mapping[str, np.ndarray]) -> np.ndarray:
        """The answer to all trials where none is looked at; rest: what is said then, by task."""
        if self.of_counts:
            answer = rest[BEHAVIOUR][:, np.concatenate(self.groups(session))]
        else:
            answer = rest[self.name]
        return np.broadcast_to(answer, (len(session.role), *answer.shape))

    def loss(self, session: Session, answer: np.ndarray) -> float:
        """Loss of an answer to all trials: squared error of a signal (K, T), minus the log-likelihood of a
        variable (K, C) or of counts (K, T, n)."""
        truth = self.truth(session)
        if self.kind == "signal":
            return float(((answer - truth) ** 2).sum())
        if self.kind == "variable":
            of_class = answer[np.arange(len(truth)), truth]
            return float((logsumexp(answer, axis=1) - of_class).sum())
        return float((answer - truth * np.log(answer)).sum())

    def mixed(self, linear: np.ndarray, network: np.ndarray, weight: float) -> np.ndarray:
        """Between two answers, by the weight of the network: their mean, of counts that of their logarithms. Of no
        weight, the linear answer to the last digit: what rounding makes of it is no better."""
        if weight == 0:
            return linear
        if not self.of_counts:
            return (1 - weight) * linear + weight * network
        logs = [np.log(np.maximum(answer, LEAST)) for answer in (linear, network)]
        return np.exp((1 - weight) * logs[0] + weight * logs[1])


def decoding(session: Session) -> list[Task]:
    """Each signal and variable, from spikes."""
    signals = [Task(name, "signal") for name in session.signal_names]
    return signals + [Task(name, "variable") for name in session.classes]


def encoding(session: Session) -> list[Task]:
    """Spikes from all behaviour, and where it is several from each signal and variable alone."""
    names = session.behaviour
    alone = names if len(names) > 1 else ()
    tasks = [Task(f"spikes from {name}", "encode", (name,)) for name in alone]
    return [Task(BEHAVIOUR, "encode", names), *tasks]


def by_folds(session: Session) -> list[Task]:
    """What linear models are chosen for by folds of all known trials."""
    return [*decoding(session), encoding(session)[0]]


IMPUTING = (Task(UNITS, "impute"), Task(AREAS, "impute"))  # from all other units
