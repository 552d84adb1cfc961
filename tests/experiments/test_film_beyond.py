"""Labels written late, cuts as events, units and regions, and p by new fits."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from drawn_film import drawn

from nblib.core.errors import BadInput, BadParameter
from nblib.evaluate import stats
from nblib.evaluate.result import Result
from nblib.experiments.film import beyond, decoding, events, forecast

FEW = {"n_permutations": 20, "n_bootstrap": 100}
N_FILMS, N_QUIET = 20, 200
LAGS = np.arange(-2.0, 1.61, 0.6).round(2).tolist()


def asked(**given):
    return decoding.Params(**{"models": ["ridge"], **FEW, **given})


def test_a_tent_finds_the_peak_of_a_flat_curve():
    lags = np.arange(-2, 2.01, 0.25)
    curves = np.column_stack([0.8 - 0.05 * abs(lags - at) for at in (-0.7, 0.26, 1.0)])
    noise = np.random.default_rng(0).normal(0, 0.002, curves.shape)
    assert np.allclose(beyond.tent_peak(lags, curves + noise), [-0.7, 0.26, 1.0], atol=0.06)


def test_a_late_label_is_told_in_words():
    scan = pd.DataFrame([{"lag_s": 0.0, "peak_s": -0.7, "peak_low": -0.9, "peak_high": -0.5}])
    assert "the labels look 1.0 s too late" in beyond.lag_in_words(scan)
    scan[["peak_s", "peak_low", "peak_high"]] = 1.3, 1.0, 1.5
    assert "the labels look 1.0 s too early" in beyond.lag_in_words(scan)
    scan[["peak_s", "peak_low", "peak_high"]] = 0.3, 0.1, 0.5
    assert "look aligned" in beyond.lag_in_words(scan)
    for wide in ((0.3, -0.4, 1.0), (1.3, 0.7, 1.9)):  # labels a second late would look the same
        scan[["peak_s", "peak_low", "peak_high"]] = wide
        assert "too wide a range to say" in beyond.lag_in_words(scan)
    scan[["lag_s", "peak_s", "peak_low", "peak_high"]] = 2.0, 1.96, 1.96, 1.96
    assert "where the scan ends" in beyond.lag_in_words(scan)
    assert beyond.lag_in_words(scan.iloc[:0]) == ""


def test_peaks_lie_apart_and_in_their_segment():
    odds, segment = np.full(200, -9.0), np.repeat([0, 1], 100)
    odds[[20, 22, 60, 150]] = 3.0
    (first, high), (second, _) = events._peaks(odds, segment, 3)
    assert first[high > 0.5].tolist() == [21, 60] and 50 in second
    assert high[0] > 1.8 and np.diff(first).min() > 6


def test_lags_and_tolerances_that_tell_nothing_are_refused():
    data, _ = drawn(0, 6000, gap_s=4.0)
    for lags in ([0.0], [0.0, 0.5], [0.0, 0.001, 0.002]):
        with pytest.raises(BadParameter, match="a peak needs 3 lags or more"):
            beyond.lag_scan(data, asked(lags_s=lags))
    with pytest.raises(BadParameter, match="tolerance_s = 60 s: no segment is long enough"):
        events.events(data, asked(tolerance_s=60.0, folds=[0]))


def test_answers_that_are_all_alike_find_no_event(monkeypatch):
    data, _ = drawn(0, 6000, gap_s=4.0, label="cut")
    monkeypatch.setattr(
        decoding,
        "log_odds",
        lambda name, film, fold, params: [
            np.zeros(film.rows(fold, role).size) for role in ("val", "test")
        ],
    )
    assert {row.score.value for row in events.events(data, asked(tolerance_s=0.24))} == {0.0}


@pytest.mark.parametrize("all_right", [True, False])
def test_a_share_of_none_or_all_of_few_events_is_no_certainty(monkeypatch, all_right):
    """As wide as of so many independent events, or segments where these are fewer."""
    data, _ = drawn(0, 6000, gap_s=4.0, label="cut")
    said = np.where(data.y == 1, 6.0, -6.0)
    said = said if all_right else np.roll(said, 12)
    monkeypatch.setattr(
        decoding,
        "log_odds",
        lambda name, film, fold, params: [said[film.rows(fold, r)] for r in ("val", "test")],
    )
    monkeypatch.setattr(
        events, "_rates", lambda counts: np.full((*counts.shape[:-1], 3), all_right * 1.0)
    )
    rows = events.events(data, asked(tolerance_s=0.16))
    n_segments = len(np.unique(data.segment[data.roles[0] == "test"])) * 5
    for row in rows:
        n = min(row.score.n, n_segments)
        low, high = stats.binomial_interval(n * all_right, n)
        assert row.score.value == all_right
        wide = row.score.ci_high - row.score.ci_low
        assert wide == pytest.approx(high - low, rel=0.3) and wide > 0.05


def test_a_random_score_of_nothing_is_not_explained():
    data, few = drawn(1, 6000, gap_s=4.0)[0], asked(smooth=False, folds=[0, 1])
    result = decoding.decode(data, few)
    for by_chosen, said in ((-0.01, False), (0.0, False), (0.5, True)):
        leak = pd.DataFrame(
            {"buffer_s": 0, "model": ["clock", "chosen"], "value": [0.9, by_chosen]}
        )
        words = beyond.in_words(replace(result, tables=result.tables | {"leak": leak}))
        assert "the clock alone 0.90" in words and ("needs no neuron" in words) == said


def test_events_of_a_state_are_its_beginnings():
    """As cuts on which it appears: a state that lasts has as many events as spells."""
    data, _ = drawn(0, 6000, signal=1.0, gap_s=4.0)
    rows = events.events(data, asked(tolerance_s=0.24, folds=[0]))
    at = data.rows(0, "test")
    begins = np.flatnonzero(np.diff(data.y) == 1) + 1
    assert {row.metric: row.score.n for row in rows}["event f1"] == np.isin(begins, at).sum()


@pytest.mark.parametrize(("late", "least", "most"), [(0, 0.95, 1.0), (3, 0.9, 1.0), (9, 0.0, 0.3)])
def test_who_knows_the_events_finds_them_within_reach(monkeypatch, late, least, most):
    data, _ = drawn(0, 6000, gap_s=4.0, label="cut")
    said = np.roll(np.where(data.y == 1, 4.0, -9.0), late)

    def told(name, film, fold, params):
        return [said[film.rows(fold, role)] for role in ("val", "test")]

    monkeypatch.setattr(decoding, "log_odds", told)
    rows = events.events(data, asked(tolerance_s=0.24))
    scores = {row.metric: row.score for row in rows}
    assert f"by chance {scores['event f1'].chance:.2f}." in events.in_words(rows)
    precision, f1 = scores["event precision"], scores["event f1"]
    assert least <= precision.value <= most and f1.chance < 0.25
    assert (f1.p < 0.05 and f1.value > 0.8) == (late <= 3)


def test_chance_of_events_is_of_all_folds_together_as_the_score_is(monkeypatch):
    """Of folds that find more and less, the mean of their F1 is not the F1 of both."""
    data, _ = drawn(0, label="cut", gap_s=8.0)

    class Still:
        def integers(self, high, size):
            return np.zeros(size, int)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Still())
    for row in events.events(data, asked(tolerance_s=0.24, folds=[0, 3])):
        assert row.score.chance == pytest.approx(row.score.value) and row.score.p == 1


def test_nothing_is_done_that_is_not_asked_for(monkeypatch):
    """Nor is memory taken for it: running means of 2,286 units are 3 GB."""
    monkeypatch.delattr(forecast, "running_means")
    result = beyond.extended(Result([]), drawn(0, 3000)[0], asked())
    assert events.in_words(result.rows) == ""
    assert result.rows == [] and all(table.empty for table in result.tables.values())


def test_the_region_that_carries_the_label_is_told_from_the_others():
    data, units = drawn(1, signal=1.5, gap_s=8.0)
    carried = (units["rate_hz"] * units["weights"][:, 0] ** 2).argsort()
    data.areas[:] = "H"
    data.areas[carried[-10:]] = "A"
    few = asked(importance=True, folds=[0, 2, 4], smooth=False)
    table = beyond.regions(data, few).set_index(["area", "kind"])
    assert table.loc[("A", "alone"), "value"] > table.loc[("A", "without"), "value"] + 0.1
    assert table.loc[("A", "without"), "less_low"] > 0 and table.loc[("", "all"), "less"] == 0
    assert table["n_units"].tolist() == [40, 10, 30, 30, 10]
    units = beyond.units(data, few).sort_values("rise", ascending=False)
    assert (units["area"].head(3) == "A").all() and len(units) == 40


def test_p_by_new_fits_knows_a_signal_from_none():
    few = asked(n_refits=19, folds=[0], smooth=False, windows=[[-1.0, 1.0]])
    for signal, found in ((1.2, True), (0.0, False)):
        data, _ = drawn(2, signal=signal, gap_s=8.0)
        rows = beyond.with_new_fits(decoding.decode(data, few).rows, data, few)
        kappa = next(row.score for row in rows if row.what == "ridge: kappa")
        assert kappa.null == beyond.MOVED_ROUND and (kappa.p <= 0.05) == found


def test_too_few_moves_are_refused_not_counted_as_many(monkeypatch):
    """A p of fewer new fits than were asked for would be another p."""
    data, _ = drawn(2, gap_s=8.0)
    few = asked(n_refits=2, folds=[0], smooth=False, windows=[[0.0, 0.5]])
    rows = decoding.decode(data, few).rows

    def all_alike(moved, params):
        raise BadInput("it never changes in train bins")

    monkeypatch.setattr(decoding, "judged", all_alike)
    with pytest.raises(BadInput, match="n_refits = 2: only 0 of 20 moves"):
        beyond.with_new_fits(rows, data, few)


@pytest.mark.slow
def test_labels_that_are_late_are_found_and_those_that_are_not_left_alone():
    """20 films of 53 minutes, few units that tell much, each with labels as they are and 0.96 s late."""
    few = asked(models=["nearest_mean"], lags_s=LAGS)
    off, said = [], []
    for seed in range(N_FILMS):
        data, units = drawn(seed, 40_000, 12, 2.5, gap_s=16.0)
        late = replace(data, y=np.r_[np.zeros(12, int), data.y[:-12]])
        scans = [beyond.lag_scan(film, few) for film in (data, late)]
        latency = np.median(units["latency"]) * 0.08 + 0.04
        off.append([scan["peak_s"][0] - latency for scan in scans])
        said.append([beyond.lag_in_words(scan) for scan in scans])
        print(seed, np.round(off[-1], 2), said[-1][1][-50:], flush=True)
    (aligned, moved), (of_aligned, of_moved) = np.transpose(off), np.transpose(said)
    assert (np.abs(aligned) <= 0.16).mean() >= 0.8
    assert ((moved >= -1.2) & (moved <= -0.8)).mean() >= 0.8
    assert not any("too late" in words or "too early" in words for words in of_aligned)
    told = [re.search(r"labels look (\S+) s too late", words) for words in of_moved]
    assert sum(0.8 <= float(found[1]) <= 1.2 for found in told if found) >= 0.8 * N_FILMS


@pytest.mark.slow
def test_cuts_are_found_as_events():
    """Cuts come every 4 s, so peaks moved round meet one in eight: chance is no small number."""
    scores = []
    for seed in range(5):
        data, _ = drawn(seed, 59_080, 60, label="cut")
        few = asked(models=["logistic"], tolerance_s=0.24)
        scores.append({row.metric: row.score for row in events.events(data, few)})
        f1 = scores[-1]["event f1"]
        print(seed, round(f1.value, 3), round(f1.chance / f1.value, 2), flush=True)
    holds = [f1.value >= 0.20 and f1.chance <= f1.value / 2
             for f1 in (of["event f1"] for of in scores)]  # fmt: skip
    assert sum(holds) >= 4, holds
    assert all(
        score.p <= 0.05 and score.chance < score.ci_low for of in scores for score in of.values()
    )


@pytest.mark.slow
def test_selective_units_are_among_the_first():
    first = []
    for seed in range(3):
        data, units = drawn(seed, 30_000, 60)
        rank = beyond.units(data, asked(models=["logistic"], importance=True))["rise"].rank(
            ascending=False
        )
        most = np.argsort(-units["rate_hz"] * units["weights"][:, 0] ** 2)[:2]
        first.append(rank[most].max())
        print(seed, rank[most].tolist(), flush=True)
    assert max(first) <= 6


@pytest.mark.slow
def test_the_published_network_leaks_as_a_clock_does():
    data, _ = drawn(0, 20_000)
    few = asked(models=["lstm_20"], leak=[0.0, 32.0], folds=[0], smooth=False, max_epochs=15)
    leak = beyond.leak_curve(data, few).set_index(["buffer_s", "model"])["value"]
    assert leak[0, "lstm_20"] >= 0.90 and leak[32, "lstm_20"] <= leak[0, "lstm_20"] - 0.40
    assert leak[0, "clock"] >= 0.95


@pytest.mark.slow
def test_a_linear_decoder_of_one_bin_hides_the_leak():
    """LinearLabel moves by .08 at most where the clock falls from .95 to nothing: it cannot tell the time."""
    data, _ = drawn(0, 59_080, 60)
    few = asked(models=["linear_label"], leak=[0.0, 32.0], smooth=False, folds=[0])
    leak = beyond.leak_curve(data, few).set_index(["buffer_s", "model"])["value"]
    assert abs(leak[0, "linear_label"] - leak[32, "linear_label"]) <= 0.08
    assert leak[0, "clock"] >= 0.95 and abs(leak[32, "clock"]) <= 0.15


@pytest.mark.slow
def test_p_by_new_fits_calls_few_films_without_signal_significant():
    """20 minutes, one fold, drift of 25 s in all units, 200 films: 1 to 9 % of them."""
    few = asked(models=["nearest_mean"], n_refits=19, folds=[0], smooth=False, windows=[[0.0, 1.0]])
    p = []
    for seed in range(N_QUIET):
        data, _ = drawn(seed, n_units=10, signal=0.0)
        if len(np.unique(data.y[data.rows(0, "test")])) < 2:
            continue
        rows = beyond.with_new_fits(decoding.decode(data, few).rows, data, few)
        p.append(next(row.score.p for row in rows if row.what == "nearest_mean: kappa"))
    called = np.mean(np.array(p) <= 0.05)
    print(f"{called:.3f} of {len(p)} films")
    assert len(p) >= 150 and 0.01 <= called <= 0.09
