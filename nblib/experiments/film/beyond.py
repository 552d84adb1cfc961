"""Beyond a label's score (11): labels written late, cuts as events, units and regions, new fits.

Everything here fits decoders again, so each part is done where it is asked for alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.signal import find_peaks

from nblib.core.errors import BadInput
from nblib.evaluate import importance, states, stats
from nblib.evaluate.result import Result, Row
from nblib.evaluate.scores import Score
from nblib.experiments.film import decoding
from nblib.prepare.decoder_inputs import ROLES, Samples

if TYPE_CHECKING:
    from nblib.experiments.film.decoding import Film

MOVED_ROUND = "labels moved round the film, decoders fitted again"
LEAST_MOVE_S = 60.0
LAG_WIDTH_S = 0.4  # of the window that the lag scan moves
LATENCY_S = 0.3  # usual in the medial temporal lobe
LATENCIES_S = (-0.2, 0.8)  # a peak outside is no latency
EVENT = "event f1"
VAL_DRAWS = 10  # of events moved round, where a height is chosen


def extended(result: Result, data: Film, params: decoding.Params) -> Result:
    """A result of 11 with what else is asked for.

    p by new fits (`n_refits`), scores of events (`tolerance_s`), and tables: lags (`lags_s`), units and
    regions (`importance`), each empty where it is not asked for.
    """
    tables = {
        "lags": lag_scan(data, params), "units": units(data, params), "regions": regions(data, params),
    }  # fmt: skip
    rows = with_new_fits(result.rows, data, params) + events(data, params)
    return replace(result, rows=rows, tables=result.tables | tables)


def with_new_fits(rows: list[Row], data: Film, params: decoding.Params) -> list[Row]:
    """The same scores, p against labels moved round the film by a minute or more and decoders fitted anew.

    Raises BadInput where too few moves leave both labels in train and test bins.
    """
    if not params.n_refits:
        return rows
    rng, n = np.random.default_rng([params.seed, 6]), len(data.y)
    least = min(round(LEAST_MOVE_S / data.width_s), n // 4)
    null: list[dict[str, np.ndarray]] = []
    for _ in range(10 * params.n_refits):
        moved = replace(data, y=np.roll(data.y, rng.integers(least, n - least)), best=None)
        with contextlib.suppress(BadInput):  # train or test bins all alike: another move
            answers, _ = decoding.judged(moved, params)
            null.append({name: answer.scores(answer.y) for name, answer in answers.items()})
        if len(null) == params.n_refits:
            break
    else:
        raise BadInput(
            f"label {data.label_name!r}, n_refits = {params.n_refits}: only {len(null)} of {10 * params.n_refits} "
            "moves round the film left both labels in train and test bins. Leave n_refits out, or take more folds."
        )
    renewed = []
    for row in rows:
        if row.metric in states.METRICS:
            metric = states.METRICS.index(row.metric)
            drawn = np.array([scores[row.of["model"]][metric] for scores in null])
            p = stats.permutation_p(row.score.value, drawn)
            row = replace(row, score=replace(row.score, p=p, null=MOVED_ROUND))
        renewed.append(row)
    return renewed


def lag_scan(data: Film, params: decoding.Params) -> pd.DataFrame:
    """AUROC of the first decoder from 0.4 s of counts, so long after the label (lag_s), with interval.

    peak_s, peak_low, peak_high: where the curve peaks, and its interval over segments. Labels hold for
    seconds, so the top is flat and its highest point says little; a tent is fitted to all of it.
    """
    if not params.lags_s:
        return pd.DataFrame(columns=["lag_s", "value", "ci_low", "ci_high", "peak_s"])
    name, answers = params.models[0], []
    wide = max(1, round(LAG_WIDTH_S / data.width_s))  # bins; as many at each lag
    first = np.unique([round(lag / data.width_s - wide / 2) for lag in params.lags_s])
    lags = (first + wide / 2) * data.width_s
    for start in first:
        window = [float(start * data.width_s), float((start + wide) * data.width_s)]
        asked = params.model_copy(update={"windows": [window], "models": [name], "smooth": False})
        answers.append(decoding.judged(data, asked)[0][name])
    value = np.array([answer.scores(answer.y)[3] for answer in answers])
    drawn = np.array([a.redrawn(params.n_bootstrap, params.seed)[:, 3] for a in answers])
    half = answers[0].half_width(drawn.std(axis=1))
    peak, *peaks = tent_peak(lags, np.column_stack([value, drawn]))
    low, high = np.quantile(peaks, [stats.TAIL, 1 - stats.TAIL])
    return pd.DataFrame({
        "lag_s": lags, "value": value, "ci_low": value - half, "ci_high": value + half,
        "peak_s": peak, "peak_low": low, "peak_high": high,
    })  # fmt: skip


def tent_peak(lags: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Peak (curve,) of the tent, as steep on both sides, that fits values (lag, curve) best."""
    peaks = np.arange(lags[0], lags[-1] + 0.01, 0.02)
    tents = -np.abs(lags - peaks[:, None])  # (peak, lag)
    tents -= tents.mean(axis=1, keepdims=True)
    tents /= np.linalg.norm(tents, axis=1, keepdims=True)
    return peaks[(tents @ (values - values.mean(axis=0))).argmax(axis=0)]


def lag_in_words(lags: pd.DataFrame) -> str:
    """Whether the labels look late or early, and by how much; "" without a scan."""
    if lags.empty:
        return ""
    scan = lags.iloc[0]
    text = (
        f" Spikes tell most {scan.peak_s:.2f} s after the label (95 % interval {scan.peak_low:.2f} to "
        f"{scan.peak_high:.2f})"
    )
    off = LATENCY_S - scan.peak_s
    if scan.peak_high < LATENCIES_S[0] or scan.peak_low > LATENCIES_S[1]:
        return f"{text}: **the labels look {abs(off):.1f} s too {'late' if off > 0 else 'early'}.**"
    return f"{text}, as a latency may be: the labels look aligned."


def events(data: Film, params: decoding.Params) -> list[Row]:
    """F1 of the label's beginnings, found as peaks of the first decoder's answers within `tolerance_s`.

    How high a peak must be is chosen by F1 over chance on validation bins. Chance and p: the events found are moved round
    within each segment. Interval over segments.
    """
    if not params.tolerance_s:
        return []
    reach, name, counted = round(params.tolerance_s / data.width_s), params.models[0], []
    rng, null = np.random.default_rng([params.seed, 7]), np.zeros(params.n_permutations)
    for fold in params.folds or range(len(data.roles)):
        rows = {role: data.rows(fold, role) for role in ROLES}
        val, test = decoding.log_odds(name, data, rows, params)
        heights = np.quantile(val, [0.8, 0.9, 0.95, 0.97, 0.98, 0.99])
        of_val = data, rows["val"], val
        over_chance = [
            _f1(_hits(*of_val, height, reach))
            - np.mean([_f1(_hits(*of_val, height, reach, rng)) for _ in range(VAL_DRAWS)])
            for height in heights
        ]
        height = heights[int(np.argmax(over_chance))]
        counted.append(_hits(data, rows["test"], test, height, reach))
        for draw in range(params.n_permutations):
            null[draw] += _f1(_hits(data, rows["test"], test, height, reach, rng))
    counts, null = np.concatenate(counted), null / len(counted)
    weights = stats.bootstrap_weights(len(counts), params.n_bootstrap, rng)
    low, high = np.quantile(
        [_f1(w[:, None] * counts) for w in weights], [stats.TAIL, 1 - stats.TAIL]
    )
    p = stats.permutation_p(_f1(counts), null)
    numbers = _f1(counts), float(low), float(high), float(null.mean()), p, int(counts[:, 2].sum())
    score = Score(*numbers, null="events moved round within segments")
    of = {"model": name, "variant": f"events of {data.label_name}"}
    return [Row(f"{name}: {EVENT}", score, of=of, metric=EVENT)]


def _hits(
    data: Film, rows: np.ndarray, odds: np.ndarray, height: float, reach: int,
    rng: np.random.Generator | None = None,
) -> np.ndarray:  # fmt: skip
    """Events of each segment of some bins (segment, 3): found and true, found, true."""
    counts = []
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(data.segment[rows])) + 1):
        found, _ = find_peaks(odds[part], height=height, distance=reach + 1)
        if rng is not None:
            found = np.sort((found + rng.integers(len(part))) % len(part))
        true = np.flatnonzero(np.diff(data.y[rows[part]], prepend=0) == 1)
        both, waiting = 0, list(true)
        for at in found:  # each finds the first that is left and near
            waiting = [event for event in waiting if event >= at - reach]
            if waiting and waiting[0] <= at + reach:
                both, waiting = both + 1, waiting[1:]
        counts.append((both, len(found), len(true)))
    return np.array(counts)


def _f1(counts: np.ndarray) -> float:
    both, found, true = counts.sum(axis=0)
    return float(2 * both / max(found + true, 1))


def units(data: Film, params: decoding.Params) -> pd.DataFrame:
    """What the first decoder reads from each unit, in the first fold (see `importance.by_unit`)."""
    if not params.importance:
        return pd.DataFrame(columns=["unit", "area", "rise", "ci_low", "ci_high"])
    rows = {role: data.rows((params.folds or [0])[0], role) for role in ROLES}
    decoder, x = decoding.fitted(params.models[0], data, rows, params)
    at = rows["test"]
    rises = importance.by_unit(
        decoder, Samples(x["test"], data.y[at], data.trial[at]), most=len(at), group=data.segment[at],
        n_bootstrap=params.n_bootstrap, seed=params.seed,
    )  # fmt: skip
    return pd.concat([pd.DataFrame({"unit": data.unit_ids, "area": data.areas}), rises], axis=1)


def regions(data: Film, params: decoding.Params) -> pd.DataFrame:
    """kappa of the chosen decoder from each region alone and without it, as many folds.

    area, kind ("all", "alone", "without"), n_units, value, ci_low, ci_high; less, less_low, less_high: how
    much less it is than with all units, on the same segments.
    """
    table = []
    whole = decoding.judged(data, params)[0][decoding.CHOSEN] if params.importance else None
    names = sorted(set(data.areas.tolist()) - {""}) if params.importance else []
    for area, kind in [("", "all"), *((a, k) for a in names for k in ("alone", "without"))]:
        if whole is None:
            break
        keep = {"all": data.areas == data.areas, "alone": data.areas == area}.get(
            kind, data.areas != area
        )
        if not keep.any():
            continue
        part = replace(data, counts=data.counts[:, keep], best=None)
        answer = whole if kind == "all" else decoding.judged(part, params)[0][decoding.CHOSEN]
        half = answer.half_width(answer.redrawn(params.n_bootstrap, params.seed)[:, 0].std())
        value = answer.scores(answer.y)[0]
        less = states.kappa_difference(whole, answer, params.n_bootstrap, params.seed)
        table.append((area, kind, keep.sum(), value, value - half, value + half, *less))
    columns = [
        "area",
        "kind",
        "n_units",
        "value",
        "ci_low",
        "ci_high",
        "less",
        "less_low",
        "less_high",
    ]
    return pd.DataFrame(table, columns=columns)
