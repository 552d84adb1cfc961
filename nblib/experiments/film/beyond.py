"""Beyond a label's score (11): what leaks, labels written late, units and regions.

Everything here fits decoders again, so each part is done where it is asked for alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, BadParameter
from nblib.core.markup import in_markdown
from nblib.evaluate import importance, states, stats
from nblib.evaluate.result import Result, Row
from nblib.experiments.film import decoding, events, forecast
from nblib.experiments.film.decoding import CHOICE, CHOSEN, CLOCK, OVER
from nblib.prepare.continuous import film
from nblib.prepare.decoder_inputs import Samples

if TYPE_CHECKING:
    from nblib.experiments.film.decoding import Film

    Variant = tuple[
        dict[str, Any], Film, decoding.Params
    ]  # what names it, the film, and how to decode it

MOVED_ROUND = "labels moved round the film, decoders fitted again"
LEAST_MOVE_S = 60.0
LAG_WIDTH_S = 0.4  # of the window that the lag scan moves
LATENCY_S = 0.3  # usual in the medial temporal lobe
LATENCIES_S = (-0.2, 0.8)  # a peak outside is no latency
UNSURE_S = 0.5  # half of an interval so wide says nothing of labels a second late
LEAST_LAGS = 3  # through two any tent goes


def extended(result: Result, data: Film, params: decoding.Params) -> Result:
    """A result of 11 with what else is asked for.

    p by new fits (`n_refits`), scores of events (`tolerance_s`) and of forecasts (`horizons_s`), and
    tables: leak (`leak`), lags (`lags_s`), units and regions (`importance`), forecast; each empty where
    it is not asked for.
    """
    tables = {
        "leak": leak_curve(data, params), "lags": lag_scan(data, params),
        "units": units(data, params), "regions": regions(data, params),
    }  # fmt: skip
    forecasts, tables["forecast"] = forecast.forecast(data, params)
    rows = with_new_fits(result.rows, data, params) + events.events(data, params) + forecasts
    return replace(result, rows=rows, tables=result.tables | tables)


def scored(
    variants: Iterable[Variant], metric: str, decoders: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[states.Answers]]:
    """A score of decoders, all unless some are named, in each variant of a film.

    Returns a row each (what names the variant, model, value, ci_low, ci_high) and the answers behind it.
    """
    rows, answers, k = [], [], states.METRICS.index(metric)
    for name, data, params in variants:
        of_all, _ = decoding.judged(data, params)
        for model in decoders or [model for model in of_all if model]:
            answer = of_all[model]
            low, high = answer.interval()[:, k]
            ends = {"value": answer.values[k], "ci_low": low, "ci_high": high}
            rows.append({**name, "model": model, **ends})
            answers.append(answer)
    return pd.DataFrame(rows), answers


def leak_curve(data: Film, params: decoding.Params) -> pd.DataFrame:
    """kappa of every decoder and of the clock for each buffer [s], with its interval; buffer 0 deals
    the roles of the split to bins at random, which is what the others are to be seen beside."""
    folds, n_bins = range(len(data.roles)), data.trial[-1] + 1

    def variants() -> Iterator[Variant]:
        for buffer_s in params.leak:
            if buffer_s == 0:  # scattered bins are no segments to smooth in
                roles = np.array([film.random_roles(data.roles[fold], fold) for fold in folds])
                unsmoothed = params.model_copy(update={"smooth": False})
                yield {"buffer_s": buffer_s}, replace(data, roles=roles), unsmoothed
                continue
            settings = data.settings.model_copy(update={"gap_s": buffer_s, "n_parts": 0})
            dealt = [film.segment_roles(n_bins, data.width_s, fold, settings) for fold in folds]
            roles = np.array([role[data.trial] for role, _ in dealt])
            part = replace(data, roles=roles, segment=dealt[0][1][data.trial])
            yield {"buffer_s": buffer_s}, part, params

    return scored(variants(), "kappa")[0]


def lag_scan(data: Film, params: decoding.Params) -> pd.DataFrame:
    """AUROC from 0.4 s of counts, so long after the label (lag_s), with interval; of the first decoder that
    sees what it is given.

    peak_s, peak_low, peak_high: where the curve peaks, and its interval. Labels hold for
    seconds, so the top is flat and its highest point says little; a tent is fitted to all of it.
    """
    if not params.lags_s:
        return pd.DataFrame()
    name = next((name for name in params.models if name not in decoding.SEEN), "logistic")
    width_s = data.width_s
    wide = max(1, round(LAG_WIDTH_S / width_s))  # bins; as many at each lag
    first = np.unique([round(lag / width_s - wide / 2) for lag in params.lags_s])
    if len(first) < LEAST_LAGS:
        raise BadParameter(
            f"lags_s = {params.lags_s}: a peak needs {LEAST_LAGS} lags or more, each a bin of {width_s:.3g} s or "
            "more from the next; try [-1, -0.5, 0, 0.5, 1]."
        )

    def variants() -> Iterator[Variant]:
        for start in first:
            windows = [[float(start * width_s), float((start + wide) * width_s)]]
            changes = {"windows": windows, "models": [name], "smooth": False}
            lag_s = (start + wide / 2) * width_s
            yield {"lag_s": lag_s}, data, params.model_copy(update=changes)

    table, answers = scored(variants(), "auroc", [name])
    lags = table["lag_s"].to_numpy()
    (peak,) = tent_peak(lags, table[["value"]].to_numpy())
    curves = zip(*(answer.left_out for answer in answers), strict=True)  # of segments, of folds
    peaks = [tent_peak(lags, np.array(units)[:, :, 3]) for units in curves]
    half = states.half_width(peaks, answers[0].per_train)
    return table.assign(peak_s=peak, peak_low=peak - half, peak_high=peak + half)


def tent_peak(lags: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Peak (curve,) of the tent, as steep on both sides, that fits values (lag, curve) best."""
    peaks = np.arange(lags[0], lags[-1], 1e-3)
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
    if (lags["lag_s"].iloc[[0, -1]] - scan.peak_s).abs().min() < LAG_WIDTH_S / 2:
        return f"{text}, where the scan ends, so labels may be late or early or tell nothing: take lags that reach further."
    if scan.peak_high < LATENCIES_S[0] or scan.peak_low > LATENCIES_S[1]:
        return f"{text}: **the labels look {abs(off):.1f} s too {'late' if off > 0 else 'early'}.**"
    unsure = scan.peak_high - scan.peak_s > UNSURE_S
    if unsure or not LATENCIES_S[0] <= scan.peak_s <= LATENCIES_S[1]:
        return f"{text}: too wide a range to say whether the labels are late."
    return f"{text}, as a latency may be: the labels look aligned."


def regions(data: Film, params: decoding.Params) -> pd.DataFrame:
    """kappa of the chosen decoder from each region alone and without it, as many folds.

    area, kind ("all", "alone", "without"), n_units, value, ci_low, ci_high; less, less_low, less_high: how
    much less it is than with all units, on the same segments.
    """
    if not params.importance:
        return pd.DataFrame()
    kept = {("", "all"): np.ones(len(data.areas), bool)}
    for area in sorted(set(data.areas.tolist()) - {""}):
        kept[area, "alone"], kept[area, "without"] = data.areas == area, data.areas != area
    variants = (
        ({"area": area, "kind": kind, "n_units": keep.sum()}, replace(data, counts=data.counts[:, keep]), params)
        for (area, kind), keep in kept.items() if keep.any()
    )  # fmt: skip
    table, answers = scored(variants, "kappa", [CHOSEN])
    table[["less", "less_low", "less_high"]] = [answers[0].over(answer) for answer in answers]
    return table


def units(data: Film, params: decoding.Params) -> pd.DataFrame:
    """What the first decoder reads from each unit, in the first fold (see `importance.by_unit`)."""
    if not params.importance:
        return pd.DataFrame()
    fold = (params.folds or [0])[0]
    decoder, x = decoding.fitted(params.models[0], data, fold, params)
    at = data.rows(fold, "test")
    rises = importance.by_unit(
        decoder, Samples(x["test"], data.y[at], data.trial[at]), most=len(at), group=data.segment[at],
        n_bootstrap=params.n_bootstrap, seed=params.seed,
    )  # fmt: skip
    return pd.concat([pd.DataFrame({"unit": data.unit_ids, "area": data.areas}), rises], axis=1)


def with_new_fits(rows: list[Row], data: Film, params: decoding.Params) -> list[Row]:
    """The same scores, p against labels moved round the film by a minute or more and decoders fitted anew.

    Raises BadInput where too few moves leave both labels in train and test bins.
    """
    if not params.n_refits:
        return rows
    rng, n, null = np.random.default_rng([params.seed, 6]), len(data.y), []
    least = min(round(LEAST_MOVE_S / data.width_s), n // 4)
    for _ in range(10 * params.n_refits):
        moved = replace(data, y=np.roll(data.y, rng.integers(least, n - least)))
        with contextlib.suppress(BadInput):  # train or test bins all alike: another move
            null.append(decoding.judged(moved, params)[0])
        if len(null) == params.n_refits:
            break
    else:
        raise BadInput(
            f"label {data.label_name!r}, n_refits = {params.n_refits}: only {len(null)} of {10 * params.n_refits} "
            "moves round the film left both labels in train and test bins. Leave n_refits out, or take more folds."
        )
    renewed = []
    for row in rows:
        k = states.METRICS.index(row.metric)
        drawn = np.array([answers[row.of["model"]].values[k] for answers in null])
        p = stats.permutation_p(row.score.value, drawn)
        renewed.append(replace(row, score=replace(row.score, p=p, null=MOVED_ROUND)))
    return renewed


def headline(result: Result) -> str:
    """The answer of 11 in a line: kappa of the chosen decoder, beside the clock and the best possible."""
    kappas = {row.of["model"]: row for row in result.rows if row.metric == "kappa"}
    score, best = kappas[CHOSEN].score, kappas[CHOSEN].best
    known = f", the best possible decoder {best.value:.2f}" if best is not None else ""
    return (
        f"**κ = {score.value:.2f}** ({score.ci_low:.2f} to {score.ci_high:.2f}) of *{in_markdown(result.about['label_name'])}*; "
        f"a clock that reads no spike {kappas[CLOCK].score.value:.2f}{known}, chance 0."
    )


def in_words(result: Result) -> str:
    """The decoder that validation chose, beside clock and oracle, and what a random split would say."""
    kappas = {row.of["model"]: row for row in result.rows if row.metric == "kappa"}
    of_clock, score, best = kappas[CLOCK].score.value, kappas[CHOSEN].score, kappas[CHOSEN].best
    chosen = result.tables["effective"].set_index("decoder").loc[CHOSEN]
    more, low, high = chosen[list(OVER)]
    verdict = "" if low > 0 else ": the spikes may add nothing to it"
    by_fold = result.tables["answers"].drop_duplicates([CHOICE, "fold"])[CHOICE].value_counts()
    choice = " and ".join(f"{name} in {n} of {by_fold.sum()} folds" for name, n in by_fold.items())
    text = (
        f"**Result.** Of *{in_markdown(result.about['label_name'])}*, the decoder that validation bins choose "
        f"({choice}) tells κ = {score.value:.2f} (95 % interval {score.ci_low:.2f} to "
        f"{score.ci_high:.2f}, p = {score.p:.2g} by {score.null}) on {score.n:,} test bins worth "
        f"{chosen['n_effective']:,.0f} independent ones; a clock that reads no spike tells {of_clock:.2f}, "
        f"{abs(more):.2f} {'less' if more >= 0 else 'more'} (the difference lies between {low:+.2f} and {high:+.2f}){verdict}."
    )
    if best is not None:
        text += f" The best possible decoder, which knows the truth, reaches {best.value:.2f}."
    leak = result.tables.get("leak", pd.DataFrame())
    if len(leak) and 0 in (at_random := leak.set_index(["buffer_s", "model"])["value"]).index:
        by_clock, by_chosen = at_random[0, CLOCK], at_random[0, CHOSEN]
        text += (
            f" With bins dealt at random the chosen decoder would score κ = {by_chosen:.2f}, and the "
            f"clock alone {by_clock:.2f}"
        )
        if by_chosen > 0:  # there is a score to explain
            share = min(1, max(0, by_clock / by_chosen))
            text += f": {share:.0%} of such a score needs no neuron"
        text += "."
    return text + events.in_words(result.rows) + " It is one viewing of one film."
