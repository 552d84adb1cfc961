"""The beginnings of a label, such as cuts of a film, found as events (11)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from scipy.signal import find_peaks
from scipy.special import expit

from nblib.core.errors import BadParameter
from nblib.data.movie import NO_LABEL
from nblib.evaluate import states, stats
from nblib.evaluate.result import Row
from nblib.evaluate.scores import Score
from nblib.experiments.film import decoding
from nblib.prepare.decoder_inputs import ROLES

if TYPE_CHECKING:
    from nblib.experiments.film.decoding import Film

EVENTS = ("event precision", "event recall", "event f1")
RESPONSE_S = (0.16, 0.48)  # after an event, when units answer it
SOUGHT = 0.75  # peaks for every event: fewer are surer, but find less


def events(data: Film, params: decoding.Params) -> list[Row]:
    """Precision, recall and F1 of the label's beginnings, found as peaks of how many are expected within
    `tolerance_s` by the first decoder, which reads the counts of a response (RESPONSE_S).

    A peak must be so high that validation bins hold three for every four beginnings in as many train bins;
    their labels are not looked at. Chance and p: the events found are moved round within each segment.
    Intervals are of shares: exact ones (Clopper and Pearson) at the number of independent events that vary as
    the score does over segments and folds, so that none or all is no certainty.
    """
    if not params.tolerance_s:
        return []
    reach, name = round(params.tolerance_s / data.width_s), params.models[0]
    begins = (data.y == 1) & (np.roll(data.y, 1) != 1)
    data = replace(data, y=np.where(data.y == NO_LABEL, NO_LABEL, begins))
    first, stop = RESPONSE_S
    window = [first, max(stop, first + data.width_s)]
    params = params.model_copy(update={"windows": [window]})
    rng, folds = np.random.default_rng([params.seed, 7]), params.folds or range(len(data.roles))
    counted, by_luck = [], np.zeros((params.n_permutations, 3))
    for fold in folds:
        train, val, test = (data.rows(fold, role) for role in ROLES)
        of_val, of_test = decoding.log_odds(name, data, fold, params)
        if 2 * reach >= np.bincount(data.segment[test]).max():
            raise BadParameter(
                f"tolerance_s = {params.tolerance_s:g} s: no segment is long enough to tell an event from its "
                "neighbours; take less."
            )
        heights = np.concatenate([high for _, high in _peaks(of_val, data.segment[val], reach)])
        n_wanted = max(1, round(SOUGHT * data.y[train].mean() * len(val)))
        least = np.sort(heights)[-n_wanted:].min(initial=np.inf)  # answers may be all alike
        counted.append([])
        truth = np.split(data.y[test], np.flatnonzero(np.diff(data.segment[test])) + 1)
        for y, (at, high) in zip(truth, _peaks(of_test, data.segment[test], reach), strict=True):
            # An event is near one peak at most, as these lie further apart.
            near = maximum_filter1d(y, 2 * reach + 1, mode="constant")
            predicted, n = at[high >= least], len(y)
            counted[-1].append([near[predicted].sum(), len(predicted), y.sum()])
            moves = rng.integers(n, size=(params.n_permutations, 1))
            by_luck[:, 0] += near[(predicted + moves) % n].sum(axis=1)
    counts = np.concatenate(counted)  # (segment, 3)
    by_luck[:, 1:] = counts[:, 1:].sum(axis=0)
    null = _rates(by_luck)
    of_folds, total = np.array([np.sum(part, axis=0) for part in counted]), counts.sum(axis=0)
    value, left_out = _rates(total), [_rates(total - parts) for parts in (counts, of_folds)]
    n_test, n_train = (sum(len(data.rows(fold, r)) for fold in folds) for r in ("test", "train"))
    variance = states.variance(left_out, len(folds) * n_test / n_train)
    least_n = np.minimum([total[1], total[2], (total[1] + total[2]) / 2], len(counts))
    of = {"model": name, "variant": f"events of {data.label_name}"}
    rows = []
    for k, metric in enumerate(EVENTS):
        spread = variance[k] if least_n[k] else np.inf  # none found: nothing is known
        ends = stats.effective_interval(value[k], spread, least_n[k], len(counts) - 1)
        p = stats.permutation_p(value[k], null[:, k])
        numbers = value[k], *ends, null[:, k].mean(), p
        score = Score(*map(float, numbers), int(total[2]), null="events moved round within segments")  # fmt: skip
        rows.append(Row(f"{name}: {metric}", score, of=of, metric=metric))
    return rows


def _peaks(odds: np.ndarray, segment: np.ndarray, reach: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Bins of each segment at which answers (B,) expect the most events within reach, and how many."""
    wide = 2 * reach + 1
    for part in np.split(expit(odds), np.flatnonzero(np.diff(segment)) + 1):
        expected = wide * uniform_filter1d(part, wide, mode="nearest")
        at, of = find_peaks(expected, height=0, distance=wide)
        yield at, of["peak_heights"]


def _rates(counts: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 (..., 3) of events counted (..., 3): found and true, found, true."""
    both, predicted, true = np.moveaxis(counts, -1, 0)
    rates = both / np.maximum([predicted, true, (predicted + true) / 2], 0.5)
    return np.moveaxis(rates, 0, -1)


def in_words(rows: list[Row]) -> str:
    """How many beginnings are found, beside chance; "" where none were searched."""
    scores = {row.metric: row.score for row in rows}
    if EVENTS[0] not in scores:
        return ""
    precision, recall, f1 = (scores[name] for name in EVENTS)
    return (
        f" Of {f1.n:,} beginnings in test bins {recall.value:.0%} are found; {precision.value:.0%} of what is found is one: "
        f"F1 = {f1.value:.2f} (95 % interval {f1.ci_low:.2f} to {f1.ci_high:.2f}), by chance {f1.chance:.2f}."
    )
