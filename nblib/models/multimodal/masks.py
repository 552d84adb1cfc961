"""What is hidden from the masked network and asked of it: schemes that are drawn for each trial anew.

A scheme is a function that sets entries of a trial's `Hidden` to True; a new one is a line in `SCHEMES`. A
variable of a trial is hidden whole or not at all: it has no time, so there is no part of it to hide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nblib.core.errors import BadParameter

if TYPE_CHECKING:
    from nblib.prepare.sessions import Session

SHARE = (0.1, 0.5)  # of bins, entries or units that are hidden, drawn for each trial


@dataclass
class Hidden:
    """What is hidden of one trial: spikes (T, N), signals (T, S), variables (Q,); areas (N,) of its units."""

    spikes: np.ndarray
    signals: np.ndarray
    variables: np.ndarray
    areas: np.ndarray

    @classmethod
    def nothing(cls, n_bins: int, areas: np.ndarray, n_signals: int, n_variables: int) -> Hidden:
        shape = (n_bins, len(areas)), (n_bins, n_signals), n_variables
        return cls(*(np.zeros(s, bool) for s in shape), areas)

    def behaviour(self) -> None:
        """Hide all signals and variables."""
        self.signals[:] = self.variables[:] = True

    def some_behaviour(self, rng: np.random.Generator, chance: float = 0.5) -> None:
        """Hide each signal, and each variable, with this chance."""
        self.signals[:, rng.random(self.signals.shape[1]) < chance] = True
        self.variables |= rng.random(len(self.variables)) < chance


def nothing(session: Session) -> Hidden:
    """A trial of a session of which nothing is hidden."""
    n_signals, n_variables = session.signals.shape[2], session.variables.shape[1]
    return Hidden.nothing(session.counts.shape[1], session.area, n_signals, n_variables)


def encode(hidden: Hidden, rng: np.random.Generator) -> None:
    """All spikes; in a third of the trials some of the behaviour too, so that each alone is trained for."""
    hidden.spikes[:] = True
    if rng.random() < 1 / 3:
        hidden.some_behaviour(rng)


def decode(hidden: Hidden, rng: np.random.Generator) -> None:
    """All behaviour."""
    hidden.behaviour()


def temporal(hidden: Hidden, rng: np.random.Generator) -> None:
    """A share of the bins, of spikes and signals alike."""
    bins = rng.random(len(hidden.spikes)) < rng.uniform(*SHARE)
    hidden.spikes[bins] = hidden.signals[bins] = True
    hidden.variables |= rng.random(len(hidden.variables)) < 0.5


def random(hidden: Hidden, rng: np.random.Generator) -> None:
    """A share of all entries, each for itself."""
    share = rng.uniform(*SHARE)
    hidden.spikes |= rng.random(hidden.spikes.shape) < share
    hidden.signals |= rng.random(hidden.signals.shape) < share
    hidden.variables |= rng.random(len(hidden.variables)) < share


def causal(hidden: Hidden, rng: np.random.Generator) -> None:
    """All that comes from some bin on."""
    first = rng.integers(1, len(hidden.spikes))
    hidden.spikes[first:] = hidden.signals[first:] = True
    hidden.variables[:] = True


def neuron(hidden: Hidden, rng: np.random.Generator) -> None:
    """A share of the units, one at least; behaviour in half of the trials."""
    n = hidden.spikes.shape[1]
    hidden.spikes[:, rng.choice(n, max(1, round(n * rng.uniform(*SHARE))), replace=False)] = True
    if rng.random() < 0.5:
        hidden.behaviour()


def region(hidden: Hidden, rng: np.random.Generator) -> None:
    """All units of an area, to be told from the others; or some of them, from the rest of it alone."""
    inside = hidden.areas == rng.choice(np.unique(hidden.areas))
    if rng.random() < 0.5:
        hidden.spikes[:, inside] = True
    else:
        hidden.spikes[:, ~inside] = True
        hidden.spikes[:, inside & (rng.random(len(inside)) < 0.5)] = True
    if rng.random() < 0.5:
        hidden.behaviour()


def modality(hidden: Hidden, rng: np.random.Generator) -> None:
    """Spikes, signals and variables, each whole or not, some of them at least."""
    hidden.some_behaviour(rng)
    hidden.spikes[:] = rng.random() < 0.5 or not (hidden.signals.any() or hidden.variables.any())


SCHEMES: dict[str, Callable[[Hidden, np.random.Generator], None]] = {
    "encode": encode, "decode": decode, "temporal": temporal, "random": random, "causal": causal,
    "neuron": neuron, "region": region, "modality": modality,
}  # fmt: skip


def draw(
    n_trials: int, like: Hidden, chances: Mapping[str, float], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Masks of some trials, a scheme for each: spikes (B, T, N), signals (B, T, S), variables (B, Q).

    like: a trial of which nothing is hidden; chances: scheme -> how often, on any scale. Raises
    BadParameter for a scheme that hides a variable in part.
    """
    names, weight = list(chances), np.array(list(chances.values()), float)
    trials = []
    for name in rng.choice(names, n_trials, p=weight / weight.sum()):
        hidden = Hidden.nothing(
            len(like.spikes), like.areas, like.signals.shape[1], len(like.variables)
        )
        SCHEMES[name](hidden, rng)
        if np.shape(hidden.variables) != like.variables.shape:
            raise BadParameter(f"scheme '{name}' hides a variable in part; it has no time, so whole or not at all.")  # fmt: skip
        trials.append(hidden)
    return {
        name: np.stack([getattr(one, name) for one in trials])
        for name in ("spikes", "signals", "variables")
    }
