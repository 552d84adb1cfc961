"""Behaviour told by an encoding model: of trials that were seen, which would have given such counts?

Behaviour of trials that teach, of any session, is taken to be all that there is, each trial as likely. A Poisson
regression says which counts it gives here, Bayes' rule how likely it is behind those that came, and the answer
is the mean over all. Beside regression from counts it knows which signals and variables go together, and when.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import logsumexp, softmax

from nblib.models.multimodal import linear, poisson
from nblib.prepare.sessions import Session

PENALTY = 300.0  # of the regression
MOST = 1000  # trials that are remembered
GAINS, GAIN_SD = np.array([-0.4, -0.2, 0.0, 0.2, 0.4]), 0.3  # of all units in a trial; logarithms
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

    def evidence(self, session: Session) -> np.ndarray:
        """Log-likelihood of the counts of each trial of a session, under each gain and behaviour: (G, K, J)."""
        flat, log = (a.reshape(len(a), -1) for a in (session.counts, self.log_rate))
        gain = GAINS[:, None, None]
        more = gain * flat.sum(axis=1)[:, None] - np.exp(gain) * np.exp(log).sum(axis=1)
        return flat @ log.T + more - 0.5 * (gain / GAIN_SD) ** 2


@dataclass(frozen=True)
class RecalledMap:
    """What is remembered of a signal or variable, `task`, by how likely it is; sure: factor on log-likelihoods."""

    memory: Memory
    task: str
    sure: float

    def __call__(self, session: Session) -> np.ndarray:
        """What it answers to all trials of a session: a signal (K, T), log-probabilities (K, C)."""
        share = softmax(logsumexp(self.sure * self.memory.evidence(session), axis=0), axis=1)
        known = self.memory.trials
        if self.task in session.signal_names:
            return share @ known.signal(self.task)
        return linear.log_shares(share @ known.one_hot(self.task))


def seen(sessions: list[Session], rows: list[np.ndarray], others: Seen | None = None) -> Seen:
    """Behaviour in the trials `rows` of each session, and that which others have seen, `MOST` trials of it."""
    parts = [] if others is None else [others]
    parts += [(one.signals[at], one.variables[at]) for one, at in zip(sessions, rows, strict=True)]
    signals, variables = map(np.concatenate, zip(*parts, strict=True))
    kept = np.unique(np.linspace(0, len(signals) - 1, MOST).astype(int))
    return signals[kept], variables[kept]


def by_encoding(
    session: Session, rows: np.ndarray, remembered: Seen, causal: bool, *basis: np.ndarray
) -> Iterator[dict[str, RecalledMap]]:
    """Each signal and variable through a regression of the counts in the trials `rows`, ever more sure of it.

    basis: directions of behaviour that units follow (see `poisson.factors`), where sessions share them.
    """
    path = poisson.encode(session, rows, session.behaviour, causal, *basis)
    encoder = poisson.at_penalty(path, PENALTY)
    signals, variables = remembered
    n = len(signals)
    trials = replace(
        session,
        counts=np.zeros((n, session.counts.shape[1], 0), np.float32),
        signals=signals,
        variables=variables,
        role=np.repeat("train", n),
        trial=np.arange(n),
    )
    memory = Memory(trials, encoder)
    for sure in SURENESS:
        yield {task: RecalledMap(memory, task, sure) for task in session.behaviour}
