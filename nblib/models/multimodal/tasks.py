"""What is asked of a model of several sessions: each task, what is hidden for it, and what is true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from nblib.models.multimodal import masks
from nblib.prepare.sessions import Session

BEHAVIOUR, UNITS, AREAS = "spikes from behaviour", "a fifth of the units", "units of each area"
EVERY = 5  # of the units, hidden at once
LEAST = 1e-3  # spikes a bin; no rate is less


@dataclass(frozen=True)
class Task:
    """One task. kind: "signal", "variable", or counts of units: "encode", of all from the behaviour `shown`,
    "impute", of some from all others, or of those of one area from those of another, `areas`."""

    name: str
    kind: str
    shown: tuple[str, ...] = ()
    areas: tuple[str, str] | None = None

    @property
    def of_counts(self) -> bool:
        """Whether it asks for expected counts."""
        return self.kind in ("encode", "impute")

    def groups(self, session: Session) -> list[np.ndarray]:
        """Positions of units that are asked for together."""
        everyone = np.arange(len(session.unit_ids))
        if self.kind == "encode":
            return [everyone]
        if self.name == UNITS:
            return [everyone[::EVERY]]
        if self.areas is not None:
            return [self._pair(session)[0]]
        return [everyone[session.area == area] for area in np.unique(session.area) if self.name in (AREAS, of_area(area))]  # fmt: skip

    def seen(self, session: Session, group: np.ndarray) -> np.ndarray:
        """Positions of the units that a group is told from."""
        return self._pair(session)[1] if self.areas else np.setdiff1d(np.arange(len(session.area)), group)  # fmt: skip

    def _pair(self, session: Session) -> tuple[np.ndarray, np.ndarray]:
        """Units to be told, and those that tell; every second unit where it is one area."""
        told, tell = (np.flatnonzero(session.area == area) for area in self.areas)
        return (told[::2], told[1::2]) if self.areas[0] == self.areas[1] else (told, tell)

    def hidden(self, session: Session, group: np.ndarray) -> masks.Hidden:
        """What is hidden where a group of units is asked for."""
        seen = self.seen(session, group)
        return masks.hide(session, np.setdiff1d(np.arange(len(session.area)), seen), self.shown)

    def truth(self, session: Session) -> np.ndarray:
        """What is true of all trials: a signal (K, T), classes (K,), or counts (K, T, n) of the groups."""
        if self.of_counts:
            return session.counts[..., np.concatenate(self.groups(session))]
        return self.pick(session.signals, session.variables.T, session)

    def pick(self, signals: np.ndarray, variables: list[np.ndarray], session: Session) -> np.ndarray:  # fmt: skip
        """What belongs to this task, of signals (K, T, S) and of something of each variable."""
        if self.kind == "signal":
            return signals[..., session.signal_names.index(self.name)]
        return variables[list(session.classes).index(self.name)]

    def at_rest(self, session: Session, rest: dict[str, np.ndarray]) -> np.ndarray:
        """The answer to all trials where none is looked at; rest: what is said then, by task."""
        answer = rest[BEHAVIOUR][:, np.concatenate(self.groups(session))] if self.of_counts else rest[self.name]  # fmt: skip
        return np.broadcast_to(answer, (len(session.role), *answer.shape))

    def loss(self, session: Session, answer: np.ndarray) -> float:
        """Loss in validation trials of an answer to all trials: squared error of a signal (K, T), minus the
        log-likelihood of a variable (K, C) or of counts (K, T, n)."""
        val = session.rows("val")
        truth, answer = self.truth(session)[val], answer[val]
        if self.kind == "signal":
            return float(((answer - truth) ** 2).sum())
        if self.kind == "variable":
            return float((logsumexp(answer, axis=1) - answer[np.arange(len(val)), truth]).sum())
        return float((answer - truth * np.log(answer)).sum())

    def mixed(self, linear: np.ndarray, network: np.ndarray, weight: float) -> np.ndarray:
        """Between two answers, by the weight of the network: their mean, of counts that of their logarithms."""
        if not self.of_counts:
            return (1 - weight) * linear + weight * network
        logs = [np.log(np.maximum(answer, LEAST)) for answer in (linear, network)]
        return np.exp((1 - weight) * logs[0] + weight * logs[1])


def from_one(name: str) -> str:
    """What telling spikes from one signal or variable is called."""
    return f"spikes from {name}"


def of_area(area: str) -> str:
    """What telling the units of an area from all others is called."""
    return f"units of {area or 'no area'}"


def decoding(session: Session) -> list[Task]:
    """Each signal and variable, from spikes."""
    return [Task(s, "signal") for s in session.signal_names] + [Task(v, "variable") for v in session.classes]  # fmt: skip


def encoding(session: Session) -> list[Task]:
    """Spikes from all behaviour, and where it is several from each signal and variable alone."""
    names = session.behaviour
    alone = [Task(from_one(name), "encode", (name,)) for name in names] if len(names) > 1 else []
    return [Task(BEHAVIOUR, "encode", names), *alone]


def imputing(session: Session) -> list[Task]:
    """A fifth of the units, and those of each area, from all others."""
    return [Task(name, "impute") for name in (UNITS, *map(of_area, np.unique(session.area)))]
