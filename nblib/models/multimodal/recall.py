"""Behaviour told by an encoding model: of trials that were seen, which would have given such counts?

Behaviour of trials that teach, of any session, is taken to be all that there is, each trial as likely. A Poisson
regression says which counts it gives here, Bayes' rule how likely it is behind those that came, and the answer
is the mean over all. Beside regression from counts it knows which signals and variables go together, and when.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import softmax

from nblib.models.multimodal import linear, poisson
from nblib.prepare.sessions import Session

MOST = 1000  # trials that are remembered
MOST_FEATURES = 200  # of behaviour
GAINS, GAIN_SD = np.array([-0.4, -0.2, 0.0, 0.2, 0.4]), 0.3  # of all units in a trial; logarithms
OF_OTHERS = 0.5  # of the gain that some units show, how much all others do
ANOTHER = -1e6  # log-likelihood of a trial of another class than the one that is shown
SURENESS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)  # factors on log-likelihoods

Seen = tuple[np.ndarray, np.ndarray]  # of some trials: signals (J, T, S) and variables (J, Q)


@dataclass(frozen=True)
class Memory:
    """Behaviour that was seen, as if in trials of a session, and what the counts of its units follow."""

    trials: Session
    encoder: poisson.PoissonMap

    @cached_property
    def log_rate(self) -> np.ndarray:
        """Logarithms of the counts that are expected of each trial (J, T, N)."""
        return np.log(self.encoder(self.trials)).astype(np.float32)

    def evidence(self, session: Session, seen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Log-likelihood of the counts of the units `seen` in each trial of a session, under each gain and
        behaviour: (G, K, J)."""
        flat, log = (a[..., seen].reshape(len(a), -1) for a in (session.counts, self.log_rate))
        gain = GAINS[:, None, None]
        more = gain * flat.sum(axis=1)[:, None] - np.exp(gain) * np.exp(log).sum(axis=1)
        return flat @ log.T + more - 0.5 * (gain / GAIN_SD) ** 2


@dataclass(frozen=True)
class RecalledMap:
    """What is remembered of a signal or variable, `task`, or what it lets expect of counts, by how likely it is;
    sure: factor on log-likelihoods."""

    memory: Memory
    task: str
    sure: float

    def __call__(
        self,
        session: Session,
        seen: np.ndarray | slice = slice(None),
        shown: Collection[str] = (),
    ) -> np.ndarray:
        """What it answers to all trials of a session, from the units `seen` and the variables that are `shown`: a
        signal (K, T), log-probabilities (K, C), or expected counts of all units (K, T, N)."""
        known, evidence = self.memory.trials, self.sure * self.memory.evidence(session, seen)
        for q in (q for q, name in enumerate(session.classes) if name in shown):
            evidence += np.where(session.variables[:, [q]] == known.variables[:, q], 0, ANOTHER)
        share = softmax(evidence, axis=(0, 2))  # (G, K, J)
        if self.task not in session.behaviour:
            share = np.tensordot(np.exp(OF_OTHERS * GAINS), share, 1)
            return np.tensordot(share, np.exp(self.memory.log_rate), 1)
        share = share.sum(axis=0)
        if self.task in session.signal_names:
            return share @ known.signal(self.task)
        return linear.log_shares(share @ known.one_hot(self.task))


def is_able(session: Session) -> bool:
    """Whether behaviour has a course over the trial, and is few enough numbers to tell how weights on them vary."""
    return bool(session.signal_names) and poisson.n_features(session) <= MOST_FEATURES


def seen(sessions: list[Session], rows: list[np.ndarray], others: Seen | None = None) -> Seen:
    """Behaviour in the trials `rows` of each session, and that which others have seen, `MOST` trials of it."""
    parts = [] if others is None else [others]
    parts += [(one.signals[at], one.variables[at]) for one, at in zip(sessions, rows, strict=True)]
    signals, variables = map(np.concatenate, zip(*parts, strict=True))
    kept = np.unique(np.linspace(0, len(signals) - 1, MOST).astype(int))
    return signals[kept], variables[kept]


def remember(session: Session, encoder: poisson.PoissonMap, behaviour: Seen) -> Memory:
    """Behaviour as if in trials of a session, whose counts follow it by this encoder."""
    signals, variables = behaviour
    n = len(signals)
    trials = replace(
        session,
        counts=np.zeros((n, session.counts.shape[1], 0), np.float32),
        signals=signals,
        variables=variables,
        role=np.repeat("train", n),
        trial=np.arange(n),
    )
    return Memory(trials, encoder)
