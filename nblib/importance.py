"""What carries the answer: the units and bins without which a fitted decoder does worse.

Permutation importance (Breiman 2001, Machine Learning 45:5; Fisher, Rudin and Dominici 2019, JMLR
20:177): the values of one unit are exchanged between test presentations, the fitted decoder is
asked again, and its log-loss rises by what it had read from that unit. Nothing is trained again.
Units that tell the same thing stand in for each other, so a low value does not mean no
information. Shapes: B presentations, T bins, N units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from nblib import metrics, stats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nblib.models.base import Decoder
    from nblib.windows import Samples

ROWS_AT_ONCE = 8192  # presentations in one forward pass: several permuted units together
REPEATS = 1  # presentations are many; a second order of each unit adds little


def sample(samples: Samples, most: int, seed: int) -> np.ndarray:
    """Rows of at most so many presentations, evenly at random, in order."""
    if len(samples) <= most:
        return np.arange(len(samples))
    rng = np.random.default_rng([seed, 5])
    return np.sort(rng.choice(len(samples), most, replace=False))


def by_unit(
    decoder: Decoder, samples: Samples, *, most: int = 300, n_bootstrap: int = 1000, seed: int = 0,
    group: np.ndarray | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Rise of the log-loss when one unit's values change places between presentations.

    Returns one row a unit, in the order of the samples: rise [nats], ci_low, ci_high (95 %,
    bootstrap over presentations). most: presentations looked at; group (B,): those that hang together.
    """
    rows = sample(samples, most, seed)
    x, y = samples.x[rows], samples.y[rows]
    rng = np.random.default_rng([seed, 4])
    orders = [rng.permutation(len(y)) for _ in range(REPEATS)]
    base = _log_p(decoder.predict_log_proba(x), y)
    linear = hasattr(decoder, "weight") and hasattr(decoder, "bias")
    permuted = _linear(decoder, x, y, orders) if linear else _any(decoder, x, y, orders)
    return _table([base - log_p for log_p in permuted], rows, group, n_bootstrap, seed)


def by_bin(
    decoder: Decoder, samples: Samples, *, most: int = 300, n_bootstrap: int = 1000, seed: int = 0,
    group: np.ndarray | None = None,
) -> pd.DataFrame:  # fmt: skip
    """As `by_unit` for the bins of a presentation: all units of one bin change places together."""
    rows = sample(samples, most, seed)
    x, y = samples.x[rows], samples.y[rows]
    rng = np.random.default_rng([seed, 4])
    orders = [rng.permutation(len(y)) for _ in range(REPEATS)]
    base = _log_p(decoder.predict_log_proba(x), y)
    rises = []
    for t in range(x.shape[1]):
        log_p = np.zeros(len(y))
        for order in orders:
            changed = x.copy()
            changed[:, t] = x[order, t]
            log_p += _log_p(decoder.predict_log_proba(changed), y) / REPEATS
        rises.append(base - log_p)
    return _table(rises, rows, group, n_bootstrap, seed)


def _log_p(log_proba: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A certain error counts as so many nats, not as infinitely many (see `metrics.scores`).
    return np.maximum(log_proba[np.arange(len(y)), y], -metrics.WORST)


def _any(decoder: Decoder, x: np.ndarray, y: np.ndarray, orders: list) -> Iterator[np.ndarray]:
    """Log-probability of the truth with each unit permuted, (B,), mean over orders."""
    n, n_units = len(y), x.shape[2]
    together = max(1, ROWS_AT_ONCE // (n * len(orders)))
    for first in range(0, n_units, together):
        units = range(first, min(first + together, n_units))
        block = np.tile(x, (len(units) * len(orders), 1, 1))
        for i, (unit, order) in enumerate((u, o) for u in units for o in orders):
            block[i * n : (i + 1) * n, :, unit] = x[order, :, unit]
        log_p = _log_p(decoder.predict_log_proba(block), np.tile(y, len(units) * len(orders)))
        yield from log_p.reshape(len(units), len(orders), n).mean(axis=1)


def _linear(decoder, x: np.ndarray, y: np.ndarray, orders: list) -> Iterator[np.ndarray]:
    """As `_any`: the scores of a linear decoder change by the unit's own weights alone."""
    n, n_bins, n_units = x.shape
    scores = x.reshape(n, -1).astype(np.float64) @ decoder.weight + decoder.bias  # (B, C)
    weight = decoder.weight.reshape(n_bins, n_units, -1)
    rows = np.arange(n)
    for unit in range(n_units):
        own = x[:, :, unit].astype(np.float64) @ weight[:, unit]  # (B, T) @ (T, C)
        log_p = np.zeros(n)
        for order in orders:
            changed = scores - own + own[order]
            log_p += np.maximum(
                changed[rows, y] - logsumexp(changed, axis=1), -metrics.WORST
            ) / len(orders)
        yield log_p


def _table(
    rises: list[np.ndarray], rows: np.ndarray, group: np.ndarray | None, n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Mean rise with its interval; rises: (B,) each, of the presentations `rows`."""
    table = np.array(rises)  # (units or bins, B)
    group = None if group is None else group[rows]
    # Log-probabilities are cut at -WORST (see `_log_p`), so no mean of rises lies further out.
    bounds = {"least": -metrics.WORST, "most": metrics.WORST}
    low, high = stats.mean_interval(
        table, group=group, n_bootstrap=n_bootstrap, seed=seed, **bounds
    )
    return pd.DataFrame({"rise": table.mean(axis=1), "ci_low": low, "ci_high": high})
