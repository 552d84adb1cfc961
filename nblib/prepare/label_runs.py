"""Which presentations of a split hang together in time, because their labels come in runs."""

from __future__ import annotations

import numpy as np
import pandas as pd

RUNS_AND_RANDOM = (
    "Labels come in runs and the split is random: neighbours in time can give the answer away, "
    "whatever the units say. Take `split: blocked`."
)


def label_block(labels: np.ndarray, seed: int = 0) -> int:
    """How many presentations in a row have labels that depend on each other; 1 = random order.

    labels (n,) in the order of time. They come in runs when equal labels lie close together (1 to
    10 apart) more often than in each of 1,000 random orders. The block ends at the first distance
    at which equal labels are as frequent as anywhere, within two standard errors.
    """
    labels = np.unique(labels, return_inverse=True)[1]
    n, count = len(labels), np.bincount(labels)
    if n < 3 or len(count) == 1:
        return 1
    anywhere = (count * (count - 1)).sum() / (n * (n - 1))
    lags = np.arange(1, min(10, n - 1) + 1)

    def closeness(rows: np.ndarray) -> np.ndarray:
        same = np.stack([(rows[:, lag:] == rows[:, :-lag]).mean(axis=1) for lag in lags], axis=1)
        return (np.cumsum(same - anywhere, axis=1) / np.sqrt(lags)).max(axis=1)

    observed, rng = closeness(labels[None])[0], np.random.default_rng([seed, 6])
    for _ in range(20):  # the first 50 orders mostly suffice
        if (closeness(rng.permuted(np.tile(labels, (50, 1)), axis=1)) >= observed).any():
            return 1
    for lag in range(2, n // 4 + 1):
        error = np.sqrt(anywhere * (1 - anywhere) / (n - lag))
        if (labels[lag:] == labels[:-lag]).mean() < anywhere + 2 * error:
            return lag
    return max(2, n // 4)


def time_blocks(split: pd.DataFrame) -> tuple[int, pd.Series]:
    """What hangs together when presentations judge: block length, and trial -> number of its group.

    The length is that of `label_block`: 1 where labels come in random order, and then a group
    holds the presentations that overlap in time. Where labels come in runs, groups that follow each
    other are joined into blocks of at least that length.
    """
    part = split[split["fold"] == split["fold"].min()].sort_values("start_s", kind="stable")
    length = label_block(part["label"].to_numpy())
    in_group = int(part["group"].value_counts().median())  # of a film, whole segments
    return length, part.set_index("trial")["group"] // -(-length // in_group)


def sentence(split: pd.DataFrame, kind: str) -> str:
    """A sentence where labels come in runs, with a warning where its `kind` (blocked, random) is random."""
    length = time_blocks(split)[0]
    if length == 1:
        return ""
    if kind == "random":
        return f" **{RUNS_AND_RANDOM}**"
    return f" Labels come in runs: those of about {length} presentations in a row depend on each other."
