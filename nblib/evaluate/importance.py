"""What carries the answer: the units and bins without which a fitted decoder does worse.

Permutation importance (Breiman 2001, Machine Learning 45:5; Fisher, Rudin and Dominici 2019, JMLR
20:177): the values of one unit are exchanged between test presentations, the fitted decoder is
asked again, and its log-loss rises by what it had read from that unit. Nothing is trained again.
Units that tell the same thing stand in for each other, so a low value does not mean no
information. Shapes: B presentations, T bins, N units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from nblib.evaluate import stats
from nblib.evaluate.scores import WORST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nblib.models.base import Decoder
    from nblib.prepare.decoder_inputs import Samples

ROWS_AT_ONCE = 8192  # presentations in one forward pass: several permuted units together


def sample(samples: Samples, most: int, seed: int) -> np.ndarray:
    """Rows of at most so many presentations, evenly at random, in order."""
    if len(samples) <= most:
        return np.arange(len(samples))
    rng = np.random.default_rng([seed, 5])
    return np.sort(rng.choice(len(samples), most, replace=False))


def by_unit(decoder: Decoder, samples: Samples, **settings: Any) -> pd.DataFrame:
    """Rise of the log-loss when one unit's values change places between presentations.

    Returns one row a unit, in the order of the samples: rise [nats], ci_low, ci_high (95 %,
    bootstrap over presentations). Settings: most, presentations looked at; n_bootstrap; seed;
    group (B,), presentations that hang together.
    """
    units = [np.s_[:, :, unit] for unit in range(samples.x.shape[2])]
    return _rises(units, decoder, samples, **settings)


def by_bin(decoder: Decoder, samples: Samples, **settings: Any) -> pd.DataFrame:
    """As `by_unit` for the bins of a presentation: all units of one bin change places together."""
    bins = [np.s_[:, t] for t in range(samples.x.shape[1])]
    return _rises(bins, decoder, samples, **settings)


def _rises(
    parts: list[tuple],
    decoder: Decoder,
    samples: Samples,
    *,
    most: int = 300,
    n_bootstrap: int = 1000,
    seed: int = 0,
    group: np.ndarray | None = None,
) -> pd.DataFrame:
    """Mean rise with its interval for each part of x (B, T, N), an index."""
    rows = sample(samples, most, seed)
    x, y = samples.x[rows], samples.y[rows]
    order = np.random.default_rng([seed, 4]).permutation(len(y))
    base = _log_p(decoder.predict_log_proba(x), y)
    linear = hasattr(decoder, "weight") and hasattr(decoder, "bias")
    permuted = (_linear if linear else _any)(decoder, parts, x, y, order)
    rises = np.array([base - log_p for log_p in permuted])  # (parts, B)
    # Log-probabilities are cut at -WORST (see `_log_p`), so no mean of rises lies further out.
    low, high = stats.mean_interval(
        rises, group=None if group is None else group[rows], n_bootstrap=n_bootstrap, seed=seed,
        least=-WORST, most=WORST,
    )  # fmt: skip
    return pd.DataFrame({"rise": rises.mean(axis=1), "ci_low": low, "ci_high": high})


def _log_p(log_proba: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A certain error counts as so many nats, not as infinitely many (see `scores.decoding_scores`).
    return np.maximum(log_proba[np.arange(len(y)), y], -WORST)


def _any(
    decoder: Decoder, parts: list[tuple], x: np.ndarray, y: np.ndarray, order: np.ndarray
) -> Iterator[np.ndarray]:
    """Log-probability of the truth with each part permuted, (B,)."""
    together, permuted = max(1, ROWS_AT_ONCE // len(y)), x[order]
    for some in (parts[i : i + together] for i in range(0, len(parts), together)):
        blocks = np.repeat(x[None], len(some), axis=0)  # (parts, B, T, N)
        for block, part in zip(blocks, some, strict=True):
            block[part] = permuted[part]
        log_proba = decoder.predict_log_proba(blocks.reshape(-1, *x.shape[1:]))
        yield from _log_p(log_proba, np.tile(y, len(some))).reshape(len(some), -1)


def _linear(
    decoder: Any, parts: list[tuple], x: np.ndarray, y: np.ndarray, order: np.ndarray
) -> Iterator[np.ndarray]:
    """As `_any`: the scores of a linear decoder change by the part's own weights alone."""
    n, n_bins, n_units = x.shape
    scores = x.reshape(n, -1).astype(np.float64) @ decoder.weight + decoder.bias  # (B, C)
    weight = decoder.weight.reshape(n_bins, n_units, -1)
    for part in parts:
        share = x[part].astype(np.float64) @ weight[part[1:]]
        yield _log_p(log_softmax(scores - share + share[order], axis=1), y)
