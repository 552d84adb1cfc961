"""What is hidden from the masked network and asked of it: schemes that are drawn for each trial anew.

A scheme is a function that sets entries of a trial's `Hidden` to True; a new one is a line in `SCHEMES`. A
variable of a trial is hidden whole or not at all: it has no time, so there is no part of it to hide.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nblib.core.errors import BadParameter

if TYPE_CHECKING:
    from nblib.prepare.sessions import Session

LEAST_HIDDEN, MOST_HIDDEN = 0.1, 0.5  # share of bins, entries or units, drawn for each trial
CHANCES = {
    "decode": 3.0,
    "encode": 2.0,
    "neuron": 1.0,
    "region": 0.5,
    "temporal": 0.5,
    "random": 0.5,
    "causal": 0.25,
    "modality": 0.5,
}
PARTS = ("spikes", "signals", "variables")


@dataclass
class Hidden:
    """What is hidden of one trial: spikes (T, N), signals (T, S), variables (Q,); areas (N,) of its units;
    most: the largest share that is hidden of what is hidden in part."""

    spikes: np.ndarray
    signals: np.ndarray
    variables: np.ndarray
    areas: np.ndarray
    most: float = MOST_HIDDEN

    def share(self, rng: np.random.Generator) -> float:
        """A share to hide."""
        return rng.uniform(min(LEAST_HIDDEN, self.most), self.most)

    def behaviour(self) -> None:
        """Hide all signals and variables."""
        self.signals[:] = self.variables[:] = True

    def some_behaviour(self, rng: np.random.Generator) -> None:
        """Hide each signal, and each variable, with a chance of a half."""
        self.signals[:, rng.random(self.signals.shape[1]) < 0.5] = True
        self.variables |= rng.random(len(self.variables)) < 0.5


def hide(
    session: Session, units: np.ndarray | slice = slice(0), shown: Collection[str] = ()
) -> Hidden:
    """Hide these units of a session's trials, and all behaviour but the signals and variables `shown`."""
    n_bins, n_units = session.counts.shape[1:]
    spikes = np.zeros((n_bins, n_units), bool)
    spikes[:, units] = True
    signals = np.array([name not in shown for name in session.signal_names], bool)
    variables = np.array([name not in shown for name in session.classes], bool)
    return Hidden(spikes, np.tile(signals, (n_bins, 1)), variables, session.area)


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
    bins = rng.random(len(hidden.spikes)) < hidden.share(rng)
    hidden.spikes[bins] = hidden.signals[bins] = True
    hidden.variables |= rng.random(len(hidden.variables)) < 0.5


def random(hidden: Hidden, rng: np.random.Generator) -> None:
    """A share of all entries, each for itself."""
    share = hidden.share(rng)
    for mask in (hidden.spikes, hidden.signals, hidden.variables):
        mask |= rng.random(mask.shape) < share


def causal(hidden: Hidden, rng: np.random.Generator) -> None:
    """All that comes from some bin on."""
    n_bins = len(hidden.spikes)
    first = rng.integers(min(1, n_bins - 1), n_bins)
    hidden.spikes[first:] = hidden.signals[first:] = True
    hidden.variables[:] = True


def neuron(hidden: Hidden, rng: np.random.Generator) -> None:
    """A share of the units, one at least; behaviour in half of the trials."""
    n = hidden.spikes.shape[1]
    hidden.spikes[:, rng.choice(n, max(1, round(n * hidden.share(rng))), replace=False)] = True
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
    scheme.__name__: scheme
    for scheme in (encode, decode, temporal, random, causal, neuron, region, modality)
}


@dataclass(frozen=True)
class Mix:
    """How often each scheme hides, on any scale, and the largest share of what it hides in part."""

    chances: Mapping[str, float] = field(default_factory=lambda: CHANCES)
    most: float = MOST_HIDDEN

    def draw(
        self, n_trials: int, session: Session, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Masks of some trials, a scheme for each: spikes (B, T, N), signals (B, T, S), variables (B, Q).

        Raises BadParameter for a scheme that hides a variable in part.
        """
        names, weight = list(self.chances), np.array(list(self.chances.values()), float)
        blank, trials = hide(session, shown=session.behaviour), []
        blank.most = self.most
        for name in rng.choice(names, n_trials, p=weight / weight.sum()):
            hidden = deepcopy(blank)
            SCHEMES[name](hidden, rng)
            if np.shape(hidden.variables) != blank.variables.shape:
                raise BadParameter(
                    f"scheme '{name}' hides a variable in part; it has no time, so whole or not at all."
                )
            trials.append(hidden)
        return {part: np.stack([getattr(one, part) for one in trials]) for part in PARTS}
