"""Splits keep presentations whole, keep their gaps, and learn nothing from test rows."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import SplitSettings
from nblib.data.counts_dataset import build
from nblib.data.trials import labelling
from nblib.prepare import binning, split_roles, stored_splits, train_statistics


def counts_of(n_trials=200, n_classes=4, n_units=6, seed=0, start=None, label=None):
    """Binned counts with random labels, trials 0.25 s long, back to back by default."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(2, (n_trials, 3, n_units)).astype(np.uint8)
    start = np.arange(n_trials) * 0.25 if start is None else np.asarray(start, float)
    label = rng.permutation(np.arange(n_trials) % n_classes) if label is None else label
    units = pd.DataFrame(index=pd.Index(np.arange(n_units), name="unit_id"))
    edges = binning.presentation_edges(start, start + 0.25, 3)
    attrs = {
        "recording": "r",
        "subject": "s",
        "label_name": "frame",
        "classes": json.dumps(labelling.as_text(label)),
        "binning": "{}",
        "source": "x",
    }
    return build(counts, np.arange(n_trials), label, edges, units, attrs=attrs)


ALL = [
    SplitSettings(),
    SplitSettings(n_folds=5, gap_s=0.5),
    SplitSettings(split="random"),
    SplitSettings(split="random", n_folds=4),
    SplitSettings(split="random", stratified=True),
    SplitSettings(split="random", stratified=True, n_folds=3),
]


@pytest.mark.parametrize("asked", ALL, ids=lambda s: f"{s.split}-{s.n_folds}-{s.stratified}")
def test_every_presentation_has_one_role_a_fold_and_is_tested_once(asked):
    binned = counts_of()
    split = split_roles.make_split(binned, asked)
    assert not split.duplicated(["fold", "trial"]).any()
    assert (split.groupby("fold").trial.nunique() == 200).all()
    tested = split[split.role == "test"].trial
    if asked.n_folds > 1:
        assert sorted(tested) == list(range(200))
    else:
        assert len(tested) == 40
    for _, fold in split.groupby("fold"):
        assert set(fold[fold.role == "train"].label) == set(fold.label)
        assert (fold.role == "val").sum() >= 10


@pytest.mark.parametrize("gap_s", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("n_folds", [1, 4])
def test_gaps_hold_in_time(gap_s, n_folds):
    split = split_roles.make_split(counts_of(400), SplitSettings(gap_s=gap_s, n_folds=n_folds))
    for _, fold in split.groupby("fold"):
        for a, b in (("train", "test"), ("train", "val"), ("val", "test")):
            x, y = fold[fold.role == a], fold[fold.role == b]
            apart = np.maximum(
                y.start_s.to_numpy()[None] - x.stop_s.to_numpy()[:, None],
                x.start_s.to_numpy()[:, None] - y.stop_s.to_numpy()[None],
            )
            assert apart.min() >= gap_s - 1e-9


@pytest.mark.parametrize("fraction", [0.15, 0.4, 0.7])
def test_a_stratified_split_keeps_fractions_and_shares(fraction):
    binned = counts_of(400)
    asked = SplitSettings(
        split="random", stratified=True, test_fraction=fraction, val_fraction=0.25
    )
    split = split_roles.make_split(binned, asked)
    share = split["role"].value_counts() / len(split)
    assert share["test"] == pytest.approx(fraction, abs=0.01)
    assert share["val"] == pytest.approx(0.25 * (1 - fraction), abs=0.01)
    test = split[split.role == "test"].label.value_counts()
    assert test.max() - test.min() <= 2
    assert not set(split[split.role == "test"].group) & set(split[split.role != "test"].group)


def test_what_cannot_be_dealt_is_refused():
    asked = SplitSettings(split="random", stratified=True, n_folds=50)
    with pytest.raises(BadParameter, match="cannot deal 60 presentations"):
        split_roles.make_split(counts_of(60), asked)


def test_blocked_roles_are_contiguous_and_in_order():
    split = split_roles.make_split(counts_of(), SplitSettings(gap_s=0.5))
    runs = split.sort_values("start_s").role
    order = runs[runs != runs.shift()].tolist()
    assert order == ["train", "gap", "val", "gap", "test"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 20), min_size=30, max_size=80), st.sampled_from(["blocked", "random"]))
def test_overlapping_presentations_never_part(starts, how):
    """Presentations that share time share spikes: they must not sit on two sides."""
    binned = counts_of(len(starts), n_classes=2, start=np.round(starts, 2))
    try:
        split = split_roles.make_split(binned, SplitSettings(split=how, gap_s=0.0))
    except (BadInput, BadParameter):
        return  # too few groups, or a class without training rows: refused, not leaked
    kept = split[split.role != "gap"].sort_values("start_s")
    a = kept.iloc[:-1].reset_index(drop=True)
    b = kept.iloc[1:].reset_index(drop=True)
    overlap = a.stop_s - b.start_s > 1e-9
    assert (a.role[overlap] == b.role[overlap]).all()


def test_the_hash_tells_splits_apart():
    binned = counts_of()
    one = stored_splits.split_hash(split_roles.make_split(binned, SplitSettings()))
    assert one == stored_splits.split_hash(split_roles.make_split(binned, SplitSettings()))
    assert one != stored_splits.split_hash(split_roles.make_split(binned, SplitSettings(gap_s=2.0)))
    shuffled = split_roles.make_split(binned, SplitSettings(split="random", split_seed=1))
    assert stored_splits.split_hash(shuffled) != stored_splits.split_hash(
        split_roles.make_split(binned, SplitSettings(split="random", split_seed=2))
    )


def test_refusals():
    with pytest.raises(BadInput, match="one class only"):
        split_roles.make_split(counts_of(label=np.zeros(200, int)), SplitSettings())
    with pytest.raises(BadParameter, match=r"too few for 8 fold.*binning: event_window"):
        split_roles.make_split(counts_of(6, 2), SplitSettings(n_folds=8))
    late = np.r_[np.zeros(150, int), np.arange(50) % 2 + 1]
    with pytest.raises(BadInput, match="no training presentation"):
        split_roles.make_split(counts_of(label=late), SplitSettings())
    with pytest.raises(BadInput, match="no presentations are left"):
        split_roles.make_split(counts_of(), SplitSettings(gap_s=100.0))


def test_variables_need_no_label_beside_them():
    binned = counts_of(label=np.full(200, ""))
    binned.attrs["label_name"] = ""
    with pytest.raises(
        BadInput,
        match=r"no label .* and no variables; name `signals` or `variables`, or set `label`",
    ):
        split_roles.make_split(binned, SplitSettings())
    binned.attrs["binning"] = json.dumps({"variables": ["choice"]})
    assert {*split_roles.make_split(binned, SplitSettings()).role} >= {"train", "val", "test"}


@pytest.mark.parametrize("asked", ALL, ids=lambda s: f"{s.split}-{s.n_folds}-{s.stratified}")
def test_poisoned_test_trials_change_nothing_on_the_train_side(asked, tmp_path):
    """Test, validation and gap counts at the type's maximum: every stored byte stays the same."""
    binned = counts_of()
    split = split_roles.make_split(binned, asked)
    for fold in range(asked.n_folds):
        roles = (
            split[split.fold == fold]
            .set_index("trial")
            .role.reindex(binned.trial.values)
            .to_numpy()
        )
        poisoned = binned.copy(deep=True)
        poisoned.counts.values[roles != "train"] = np.iinfo(np.uint8).max
        again = split_roles.make_split(poisoned, asked)
        assert stored_splits.split_hash(again) == stored_splits.split_hash(split)
        files = []
        for name, data in (("clean", binned), ("poisoned", poisoned)):
            folder = tmp_path / f"{name}{fold}"
            folder.mkdir()
            stored_splits.save(
                folder, split, [train_statistics.fit_statistics(data, split, fold, asked)]
            )
            files.append({p.name: p.read_bytes() for p in folder.iterdir()})
        assert files[0] == files[1]
        shown = poisoned.label.values.copy()
        shown[roles != "train"] = shown.max() + 1  # labels, too
        changed = poisoned.assign_coords(label=("trial", shown))
        clean = train_statistics.fit_statistics(binned, split, fold, asked)
        assert (
            train_statistics.fit_statistics(changed, split, fold, asked).classes == clean.classes
        ).all()
        # and the check can fail: poison one train trial
        poisoned.counts.values[np.flatnonzero(roles == "train")[0]] = 255
        statistics = train_statistics.fit_statistics(poisoned, split, fold, asked)
        assert not np.array_equal(statistics.mean, clean.mean)


def test_statistics_by_hand():
    binned = counts_of()
    binned.counts.values[:, :, 2] = 0  # silent
    binned.counts.values[:, :, 4] = 7  # never varies
    split = split_roles.make_split(binned, SplitSettings())
    s = train_statistics.fit_statistics(binned, split, 0, SplitSettings())
    np.testing.assert_array_equal(s.unit_ids, [0, 1, 3, 5])
    assert s.dropped.set_index("unit").reason.to_dict() == {
        2: "silent in train",
        4: "zero variance in train",
    }
    place = train_statistics.train_rows(binned, split, 0)
    rows = binned.counts.values[place][:, :, s.unit_ids].reshape(-1, 4).astype(float)
    np.testing.assert_allclose(s.mean, rows.mean(0))
    np.testing.assert_allclose(s.scale, rows.std(0, ddof=1))
    np.testing.assert_allclose(s.correlation, np.corrcoef(rows.T), atol=1e-5)
    x = s.transform(binned.counts.values[place], binned.unit.values)
    assert x.dtype == np.float32 and x.shape == (len(place), 3, 4)
    np.testing.assert_allclose(x.reshape(-1, 4).std(0, ddof=1), 1, atol=1e-4)


def test_twenty_thousand_units_need_little_memory():
    import tracemalloc

    binned = counts_of(n_trials=60, n_units=20_000)
    asked = SplitSettings(gap_s=0.5)
    split = split_roles.make_split(binned, asked)
    tracemalloc.start()
    fitted = train_statistics.fit_statistics(binned, split, 0, asked)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(fitted.unit_ids) == 20_000 and fitted.correlation.shape == (0, 0)
    assert peak < 500e6  # each with each takes 3,200 MB


def test_a_gap_is_exact_to_the_nanosecond():
    """Trials of 10 around a test trial from 100 to 110: a gap of 20 leaves them, one of less does not."""
    for stop_before, start_after in ((80, 130), (81, 130), (80, 129)):
        start = np.array([stop_before - 10, 100, start_after])
        role = np.array(["train", "test", "train"])
        role = split_roles._with_gaps(role, start, start + 10, 20)
        expected = ["train" if stop_before <= 80 else "gap", "test", "train" if start_after >= 130 else "gap"]  # fmt: skip
        assert role.tolist() == expected


def test_runs_of_labels_are_told_from_a_random_order():
    rng = np.random.default_rng(0)
    assert all(
        stored_splits.label_block(rng.integers(0, k, 150)) == 1
        for k in (2, 3, 30)
        for _ in range(10)
    )
    scenes = np.concatenate([rng.permutation(40) for _ in range(20)])
    assert stored_splits.label_block(scenes) == 1  # each shown once before any is shown again
    assert stored_splits.label_block(np.tile([0, 1], 50)) == 1
    assert 8 <= stored_splits.label_block(np.repeat(rng.integers(0, 4, 30), 10)) <= 12
    assert stored_splits.label_block(np.repeat(np.array(list("abab")), 25)) >= 10
    likely = np.where(np.arange(400) // 50 % 2, 0.8, 0.2)
    assert stored_splits.label_block(rng.random(400) < likely) > 5  # no run is pure
    assert (
        stored_splits.label_block(np.repeat([0, 1], 50)) == 25
    )  # no distance at which they are mixed
    assert (
        stored_splits.label_block(np.array(["a"] * 9))
        == stored_splits.label_block(np.array(["a", "b"]))
        == 1
    )


def test_labels_in_runs_are_told_and_a_random_split_of_them_is_warned_of():
    runs = counts_of(label=np.repeat(np.arange(20) % 4, 10)[:200])
    mixed = counts_of()
    for binned, how, says in (
        (mixed, "random", ""), (mixed, "blocked", ""),
        (runs, "blocked", "Labels come in runs"), (runs, "random", "Take `split: blocked`"),
    ):  # fmt: skip
        split = split_roles.make_split(binned, SplitSettings(split=how))
        words = split_roles.runs_in_words(split, how)
        assert (says in words) if says else words == ""
        assert ("Take `split: blocked`" in words) == (says.startswith("Take"))
    length, group = stored_splits.time_blocks(split)
    assert 8 <= length <= 10 and (group.value_counts() <= length).all()
    assert group.is_monotonic_increasing and len(group) == 200
    at = np.arange(
        200
    )  # presentations that overlap two by two: a block is at least as long as a run
    rows = {"fold": 0, "trial": at, "start_s": at * 1.0, "label": at // 9 % 4, "group": at // 2}
    length, group = stored_splits.time_blocks(pd.DataFrame(rows))
    assert length % 2 and (group.value_counts().iloc[:-1] == length + 1).all()
    length, group = stored_splits.time_blocks(split_roles.make_split(mixed, SplitSettings()))
    assert length == 1 and group.is_unique


def test_the_labs_z_limits():
    binned = counts_of()
    split = split_roles.make_split(binned, SplitSettings())
    trial = train_statistics.train_rows(binned, split, 0)[0]
    binned.counts.values[trial, 0, 1] = 250
    s = train_statistics.fit_statistics(binned, split, 0, SplitSettings(highest_value=15.0))
    assert s.dropped.unit.tolist() == [1]
    assert "above 15" in s.dropped.reason.iloc[0]
    with pytest.raises(BadInput, match="no unit passes"):
        train_statistics.fit_statistics(binned, split, 0, SplitSettings(lowest_value=1e6))


def test_a_least_rate_is_one_of_train_trials_alone():
    binned = counts_of()
    split = split_roles.make_split(binned, SplitSettings())
    train = train_statistics.train_rows(binned, split, 0)
    test = np.setdiff1d(np.arange(binned.sizes["trial"]), train)
    binned.counts.values[..., 1] = 0
    binned.counts.values[train[0], 0, 1], binned.counts.values[test, :, 1] = 1, 9
    rate = binned.counts.values[train].mean((0, 1)) / binned.exposure_s.values[train].mean()
    limit = SplitSettings(least_rate_hz=float(rate[[0, 2, 3, 4, 5]].min()))
    s = train_statistics.fit_statistics(binned, split, 0, limit)
    assert s.dropped["unit"].tolist() == [1]
    assert s.dropped["reason"].iloc[0].startswith("fires less than")


@pytest.mark.parametrize(
    "label", [np.arange(200) % 3, (np.arange(200) % 4) * 45.5, np.array(list("abcd") * 50)]
)
def test_labels_and_statistics_survive_storage(label, tmp_path):
    binned = counts_of(label=label)
    split = split_roles.make_split(binned, SplitSettings())
    s = train_statistics.fit_statistics(binned, split, 0, SplitSettings())
    stored_splits.save(tmp_path, split, [s])
    again, (t,) = stored_splits.load(tmp_path)
    assert stored_splits.split_hash(again) == stored_splits.split_hash(split)
    codes = t.encode(binned.label.values)
    np.testing.assert_array_equal(t.classes[codes], label)
    with pytest.raises(BadInput, match="not among"):
        t.encode(np.array(["zzz" if label.dtype.kind == "U" else 99], label.dtype))
    with pytest.raises(BadInput, match="not in these counts"):
        t.transform(binned.counts.values[:, :, :2], binned.unit.values[:2])


def test_a_file_of_statistics_that_lacks_an_array_is_refused_by_name(tmp_path):
    binned = counts_of()
    split = split_roles.make_split(binned, SplitSettings())
    stored_splits.save(tmp_path, split, train_statistics.fit_folds(binned, split, SplitSettings()))
    with h5py.File(tmp_path / stored_splits.STATISTICS_FILE, "r+") as file:
        del file["fold0/scale"]
    with pytest.raises(BadInput, match=r"statistics.h5: there is no 'fold0/scale'.*--force"):
        stored_splits.load(tmp_path)


def test_every_fold_is_fitted():
    settings, counts = SplitSettings(n_folds=3, gap_s=0.0), counts_of()
    fitted = train_statistics.fit_folds(counts, split_roles.make_split(counts, settings), settings)
    assert [s.fold for s in fitted] == [0, 1, 2]
