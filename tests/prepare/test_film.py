"""A film's bins, the published split to the index, and windows of context."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nblib.core import errors, params
from nblib.data import movie, recording
from nblib.prepare import split_roles, stored_splits, train_statistics
from nblib.prepare.continuous import film
from nblib.report.audit import checks

# base, gap, segment of a part, and bins that teach, validate and judge; 80 ms, n = 59,080, fold 1.
PLANS = {
    4: (59, 1001, 100, 100, 29_500, 5_900, 5_900),
    8: (36, 1641, 150, 178, 30_024, 6_408, 6_408),
    12: (26, 2272, 200, 254, None, None, None),
    16: (21, 2813, 250, 312, 30_156, 6_552, 6_552),
    20: (17, 3475, 300, 395, None, None, None),
    24: (14, 4220, 350, 494, None, None, None),
    28: (12, 4923, 400, 584, None, None, None),
    32: (11, 5370, 450, 624, 30_492, 6_864, 6_864),
    36: (10, 5908, 500, 681, None, None, None),
    40: (9, 6564, 550, 762, None, None, None),
    44: (8, 7385, 600, 877, 30_648, 7_016, 7_016),
}


def settings(buffer_s, **given):
    return params.SplitSettings(split="segments", n_folds=5, gap_s=float(buffer_s), **given)


@pytest.mark.parametrize("buffer_s", PLANS)
def test_the_published_plan(buffer_s):
    parts, base, gap, segment, train, val, test = PLANS[buffer_s]
    assert film.plan(59_080, 0.08, settings(buffer_s)) == (parts, base, gap, segment)
    for fold in range(5):
        role, group = film.segment_roles(59_080, 0.08, fold, settings(buffer_s))
        sizes = {name: int((role == name).sum()) for name in ("train", "val", "test", "gap")}
        assert sizes["test"] == sizes["val"] == parts * segment
        # Three segments of a part teach, and the gaps inside that part between two that do.
        assert sizes["train"] == parts * (3 * segment + 2 * gap)
        if test:
            assert (sizes["train"], sizes["val"], sizes["test"]) == (train, val, test)
        for k in range(parts):
            first = k * base + fold * (segment + gap)
            assert np.flatnonzero((role == "test") & (group == k * 5 + fold)).tolist() == list(
                range(first, first + segment)
            )


@pytest.mark.parametrize("buffer_s", PLANS)
def test_the_plan_of_pairs_of_bins(buffer_s):
    """One bin less, as forecasts have it: other numbers at three buffers."""
    n, other = 59_079, {24: (14, 4219, 350, 493), 36: (10, 5907, 500, 681), 44: (8, 7384, 600, 876)}
    plan = film.plan(n, 0.08, settings(buffer_s))
    assert plan == other.get(buffer_s, PLANS[buffer_s][:4])
    parts, _, gap, segment = plan
    sizes = {24: (30_506, 6_902), 36: (30_430, 6_810), 44: (30_624, 7_008)}
    for fold in range(5):
        role, _ = film.segment_roles(n, 0.08, fold, settings(buffer_s))
        n_train, n_test = (role == "train").sum(), (role == "test").sum()
        assert (n_train, n_test) == sizes.get(
            buffer_s, (parts * (3 * segment + 2 * gap), parts * segment)
        )


def test_first_and_last_bins_at_32_s():
    role, _ = film.segment_roles(59_080, 0.08, 0, settings(32))

    def run(name):
        at = np.flatnonzero(role[:5370] == name)
        return at[0], at[-1], len(at)

    assert run("test") == (0, 623, 624) and run("val") == (1074, 1697, 624)
    assert run("train") == (2148, 4919, 2772) and role[5370] == "test"


@pytest.mark.parametrize(("width", "n", "segment"), [(0.04, 118_161, 1248), (0.2, 23_632, 249), (0.48, 9_846, 104), (1.0, 4_726, 49)])  # fmt: skip
def test_other_widths_at_32_s(width, n, segment):
    assert film.plan(n, width, settings(32))[3] == segment


@pytest.mark.parametrize(("k", "n", "stop_s"), [(1, 118_161, 4763.16), (2, 59_080, 4763.12), (5, 23_632, 4763.12), (12, 9_846, 4762.8), (25, 4_726, 4762.72)])  # fmt: skip
def test_bins_of_the_published_window(k, n, stop_s):
    """Frames 918 to 119,078 of the whole film, 36.72 s on; what is left at its end makes no bin."""
    number = np.arange(918, 119_079)
    ns = number * 40_000_000 + 5
    shown = pd.DataFrame(
        {"frame": number, "start": ns, "stop": ns + 41_000_000, "after_pause": False}
    )
    marks = {"on": (np.arange(119_079) % 3 == 0).astype(np.int8)}
    session = recording.Recording(
        id="p", subject="p", path=None, units=pd.DataFrame(index=[0]), spike_index=np.array([0, 0]),
        intervals={"frames": movie.frame_table(shown, marks, 25.0, "film")}, trials="frames", label="on",
    )  # fmt: skip
    asked = params.BinSettings(binning="frames", frames_per_bin=k)
    bins, edges = film.bins_of_frames(session, asked)
    assert len(bins) == n and bins["frame"][0] == 918
    assert np.allclose([edges[0, 0] / 1e9, edges[-1, 1] / 1e9], [36.72, stop_s], atol=1e-9)
    assert (edges[1:, 0] == edges[:-1, 1]).all() and np.allclose(bins["exposure_s"], 0.041 * k)
    assert np.array_equal(bins["label"], marks["on"][918 : 918 + n * k : k])


def test_the_rule_for_other_lengths_is_the_table_from_24_s_on():
    far = {b: film.plan(59_080, 0.08, settings(b, n_parts=0))[0] for b in PLANS if b >= 24}
    for buffer_s, parts in far.items():
        gap = film.plan(59_080, 0.08, settings(buffer_s))[2]
        assert max(1, round(59_080 / (5 * 2.39 * gap))) == parts
    with pytest.raises(errors.BadParameter, match="leaves no bin between gaps"):
        film.plan(600, 0.08, settings(32))


@pytest.mark.parametrize("buffer_s", PLANS)
def test_judges_and_teachers_are_apart(buffer_s):
    """Between two roles, at least buffer and context; so no context reaches another's within the buffer."""
    past, future = 3.0, 1.0
    for fold in range(5):
        role, _ = film.segment_roles(59_080, 0.08, fold, settings(buffer_s))
        used = np.flatnonzero(role != "gap")
        for judge, others in (("test", ("train", "val")), ("val", ("train",))):
            at, there = used[role[used] == judge], used[np.isin(role[used], others)]
            after = there[np.minimum(np.searchsorted(there, at), len(there) - 1)]
            before = there[np.maximum(np.searchsorted(there, at) - 1, 0)]
            apart = np.r_[(after - at - 1)[after > at], (at - before - 1)[before < at]].min() * 0.08
            assert apart >= buffer_s + past + future - 1e-9


def test_five_folds_test_every_segment_once():
    tested = [
        film.segment_roles(59_080, 0.08, fold, settings(32))[0] == "test" for fold in range(5)
    ]
    assert np.sum(tested, axis=0).max() == 1 and np.sum(tested) == 11 * 5 * 624


def binned(n=1500, label=None, recording="p1", **attrs):
    label = np.arange(n) // 20 % 2 if label is None else label
    attrs = {
        "recording": recording,
        "subject": recording,
        "label_name": "on",
        "classes": json.dumps(["0", "1"]),
    } | attrs
    start = np.arange(n) * 0.08
    return xr.Dataset(
        {"counts": (("trial", "time", "unit"), np.random.default_rng(0).poisson(1, (n, 1, 3)).astype(np.uint8))},
        coords={"trial": np.arange(n), "unit": np.arange(3), "label": ("trial", label), "start_s": ("trial", start),
                "stop_s": ("trial", start + 0.08), "exposure_s": (("trial", "time"), np.full((n, 1), 0.08)),
                "name": ["on"], "annotation": (("trial", "name"), label[:, None].astype(np.int8))},
        attrs=attrs,
    )  # fmt: skip


SMALL = {"gap_s": 1.0, "context_s": [0.4, 0.4], "n_parts": 4}


def test_a_split_of_segments_is_one_for_all_patients():
    small = params.SplitSettings(split="segments", n_folds=5, **SMALL)
    one, other = (split_roles.make_split(binned(recording=who), small) for who in ("p1", "p2"))
    assert one["role"].tolist() == other["role"].tolist()
    assert stored_splits.split_hash(one) == stored_splits.split_hash(other)
    tested = one[one["role"] == "test"]
    assert tested.groupby("group").size().shape == (20,) and not tested["trial"].duplicated().any()
    assert not list(checks.role_faults(one, 1.8))


def test_what_has_no_label_has_no_role():
    """Yet the split is that of every other label: what was dealt is known, and hashed."""
    label = np.where(np.arange(1500) % 97 < 5, 99, np.arange(1500) // 20 % 2)
    small = params.SplitSettings(split="segments", n_folds=5, **SMALL)
    split = split_roles.make_split(binned(label=label), small)
    assert set(split.loc[split["label"] == 99, "role"]) == {"gap"}
    other = split_roles.make_split(binned(), small)
    assert (split["role"] != other["role"]).any() and split["dealt"].equals(other["role"])
    assert stored_splits.split_hash(split) == stored_splits.split_hash(other)
    wider = split_roles.make_split(binned(), small.model_copy(update={"gap_s": 1.5}))
    assert stored_splits.split_hash(wider) != stored_splits.split_hash(other)
    assert set(
        train_statistics.fit_statistics(
            binned(label=label), split, 0, params.SplitSettings()
        ).classes
    ) == {0, 1}


def test_leaks_are_found():
    film_counts = binned()
    with pytest.raises(errors.BadParameter, match="split = 'random' on the frames of a film"):
        split_roles.make_split(film_counts, params.SplitSettings(split="random"))
    small = params.SplitSettings(split="segments", n_folds=5, **SMALL)
    split = split_roles.make_split(film_counts, small)
    assert any("lie within 5 s of test" in fault for fault in checks.role_faults(split, 5.0))
    dealt = split.assign(
        role=split.groupby("fold")["role"].transform(lambda r: film.random_roles(r.to_numpy(), 0))
    )
    assert any("have several roles" in fault for fault in checks.role_faults(dealt, 1.8))
    plain = film_counts.drop_vars(["annotation", "name"])
    with pytest.raises(errors.BadParameter, match="split = 'segments' is for films"):
        split_roles.make_split(plain, small)


def test_the_label_of_most_frames_where_none_is_known():
    assert film._label(np.full((2, 3), 99, np.int8), "majority").tolist() == [99, 99, 99]


def test_counts_around_a_bin():
    counts = np.array([[0], [1], [2], [4], [8]])
    x = film.around(counts, np.arange(5), np.array([0, 2, 4]), [[0.0, 0.08], [-0.16, 0.08]], 0.08)
    assert x.shape == (3, 2, 1)
    assert np.allclose(x[:, 0, 0], [0, 2, 8])
    assert np.allclose(x[:, 1, 0], [0, 3 / 3**0.5, 14 / 3**0.5])  # what is left of it at the begin
    x = film.around(counts, np.arange(5), np.array([1]), [[0.0, 0.01], [-0.01, 0.03]], 0.08)
    assert x[0, :, 0].tolist() == [1, 1]  # no window is without a bin
    seam = np.array([0, 1, 2, 9, 10])  # no bin sees further back for bins that are missing
    x = film.around(counts, seam, np.array([2, 3, 4]), [[-0.16, 0.08]], 0.08)
    assert np.allclose(x[:, 0, 0], [3 / 3**0.5, 4, 12 / 2**0.5])
