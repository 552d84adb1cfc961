"""Samples per role, and batches that stay where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import SplitSettings
from nblib.prepare.decoder_inputs import DeviceBatches, Samples, role_samples, shuffle_labels
from nblib.prepare.split_roles import make_split
from nblib.prepare.train_statistics import fit_statistics

SETTINGS = SplitSettings(gap_s=0.0, n_folds=1)


def recording(n=60, n_bins=2, n_units=4, seed=0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % 3) * 10 - 1  # -1, 9, 19
    counts = rng.poisson(2.0, (n, n_bins, n_units)).astype(np.uint8)
    start = np.arange(n) * 0.25
    return xr.Dataset(
        {"counts": (("trial", "time", "unit"), counts)},
        coords={
            "trial": 100 + 2 * np.arange(n), "unit": np.arange(n_units) * 7,
            "label": ("trial", label), "start_s": ("trial", start),
            "stop_s": ("trial", start + 0.25),
            "exposure_s": (("trial", "time"), np.full((n, n_bins), 0.25 / n_bins)),
        },
        attrs={"recording": "r", "subject": "s", "label_name": "frame", "classes": '["-1", "9", "19"]'},
    )  # fmt: skip


def samples_of(binned, fold=0, settings=SETTINGS):
    split = make_split(binned, settings)
    stats = fit_statistics(binned, split, fold, settings)
    return role_samples(binned, split, stats, fold), split, stats


def test_roles_hold_their_own_presentations():
    binned = recording()
    samples, split, stats = samples_of(binned)
    assert set(samples) == {"train", "val", "test"}
    for role, s in samples.items():
        rows = split[split["role"] == role]
        assert s.trial.tolist() == sorted(rows["trial"])  # in time order
        assert stats.classes[s.y].tolist() == rows.sort_values("trial")["label"].tolist()
        counts = binned["counts"].sel(trial=s.trial).to_numpy()
        np.testing.assert_allclose(s.x, (counts - stats.mean) / stats.scale, rtol=1e-5)
        assert s.x.dtype == np.float32 and s.y.dtype == np.int64
        assert s.x.flags["C_CONTIGUOUS"]
    train = samples["train"].x.reshape(-1, 4)
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=0, ddof=1), 1, atol=1e-5)


def test_the_order_of_the_split_s_rows_does_not_matter():
    binned = recording()
    samples, split, stats = samples_of(binned)
    mixed = role_samples(binned, split.sample(frac=1, random_state=0), stats, 0)
    for role, s in samples.items():
        assert (mixed[role].trial == s.trial).all() and (mixed[role].y == s.y).all()
        assert (mixed[role].x == s.x).all()


def test_folds_are_kept_apart():
    binned = recording()
    settings = SplitSettings(gap_s=0.0, n_folds=3)
    tested = [samples_of(binned, fold, settings)[0]["test"].trial for fold in range(3)]
    assert sorted(np.concatenate(tested)) == binned["trial"].to_numpy().tolist()
    with pytest.raises(BadParameter, match=r"fold = 3.*\[0, 1, 2\]"):
        split = make_split(binned, settings)
        role_samples(binned, split, fit_statistics(binned, split, 0, settings), 3)
    with pytest.raises(BadInput, match="fold 1 was asked with the statistics of fold 0"):
        role_samples(binned, split, fit_statistics(binned, split, 0, settings), 1)


def test_poisoned_test_rows_leave_training_as_it_was():
    binned = recording()
    clean, split, _ = samples_of(binned)
    poisoned = binned.copy(deep=True)
    held = np.isin(binned["trial"], split.loc[split["role"] == "test", "trial"])
    poisoned["counts"][held] = 255
    dirty, _, _ = samples_of(poisoned)
    for role in ("train", "val"):
        for name in ("x", "y", "trial"):
            a, b = getattr(clean[role], name), getattr(dirty[role], name)
            assert a.tobytes() == b.tobytes()
    assert (dirty["test"].x != clean["test"].x).any()


def test_a_split_of_other_counts_is_refused():
    binned = recording()
    _, split, stats = samples_of(binned)
    with pytest.raises(BadInput, match="trial 100 of the split is not in"):
        role_samples(binned.isel(trial=slice(1, None)), split, stats, 0)
    with pytest.raises(BadInput, match="labels of the split differ"):
        role_samples(
            binned.assign_coords(label=("trial", np.roll(binned["label"], 1))), split, stats, 0
        )


def test_a_label_that_training_never_saw_is_refused():
    binned = recording()
    _, split, stats = samples_of(binned)
    fewer = replace(stats, classes=stats.classes[:2])
    with pytest.raises(BadInput, match="19"):
        role_samples(binned, split, fewer, 0)


def test_misshapen_samples_are_refused():
    with pytest.raises(BadInput, match="samples need"):
        Samples(np.zeros((3, 2)), np.zeros(3), np.zeros(3))
    with pytest.raises(BadInput, match="samples need"):
        Samples(np.zeros((3, 2, 1)), np.zeros(2), np.zeros(3))


def test_shuffled_labels_stay_in_their_role():
    samples, _, _ = samples_of(recording())
    shuffled = shuffle_labels(samples, seed=4)
    for role, s in samples.items():
        assert np.bincount(shuffled[role].y).tolist() == np.bincount(s.y).tolist()
        assert shuffled[role].x is s.x
        assert (shuffled[role].y != s.y).any(), f"{role} kept its labels"
    again = shuffle_labels(samples, seed=4)
    assert (again["train"].y == shuffled["train"].y).all()
    assert (shuffle_labels(samples, seed=5)["train"].y != shuffled["train"].y).any()


def batches(n=10, size=4, **kwargs):
    x = np.arange(n, dtype=np.float32).reshape(n, 1, 1)
    return DeviceBatches(x, np.arange(n), size, **kwargs)


def order(data) -> list[int]:
    return [int(i) for _, y in data for i in y]


def test_an_epoch_shows_each_sample_once_with_its_label():
    data = batches(shuffle=True, seed=1)
    assert len(data) == 3
    parts = list(data)
    assert [len(y) for _, y in parts] == [4, 4, 2]  # nothing is dropped
    assert all((x[:, 0, 0] == y).all() for x, y in parts)
    assert sorted(order(data)) == list(range(10))


def test_the_order_depends_on_seed_and_epoch_alone():
    data = batches(40, shuffle=True, seed=1)
    first = order(data)
    torch.manual_seed(5)
    assert order(data) == first
    data.set_epoch(1)
    second = order(data)
    assert second != first
    fresh = batches(40, shuffle=True, seed=1)
    fresh.set_epoch(1)
    assert order(fresh) == second
    assert order(batches(40, shuffle=True, seed=2)) not in (first, second)
    swapped = batches(40, shuffle=True, seed=0)  # (0, 1) is not (1, 0)
    swapped.set_epoch(1)
    assert order(swapped) != first


def test_the_epoch_may_be_set_until_the_first_batch():
    data = batches(40, shuffle=True, seed=1)
    iterator = iter(data)
    data.set_epoch(3)
    late = [int(i) for _, y in iterator for i in y]
    assert late == order(data)


def test_unshuffled_batches_keep_their_order():
    assert order(batches(shuffle=False)) == list(range(10))


def test_bad_batches_are_refused():
    with pytest.raises(BadParameter, match="batch_size"):
        batches(size=0, shuffle=False)
    with pytest.raises(BadInput, match="one label a sample"):
        DeviceBatches(np.zeros((3, 1, 1)), np.zeros(2), 1, shuffle=False)
    with pytest.raises(BadInput, match="one label a sample"):
        batches(0, shuffle=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_batches_live_on_the_device():
    data = batches(shuffle=True, seed=1, device="cuda")
    assert all(x.is_cuda and y.is_cuda for x, y in data)
    assert order(data) == order(batches(shuffle=True, seed=1))
