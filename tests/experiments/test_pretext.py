"""Samplers of the pretext tasks, property by property, on recordings of uneven length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.core.errors import BadInput, BadParameter
from nblib.experiments import pretext, subjects

SEED = st.integers(0, 2**31)


def timeline(lengths=(60, 40, 80), hop=3.0, drop=(), window=None):
    """Windows of several recordings, their starts offset; `drop` leaves some windows out. They last
    `window` seconds, `hop` unless told otherwise."""
    record = np.repeat(np.arange(len(lengths)), lengths)
    start = np.concatenate([7.0 * i + hop * np.arange(n) for i, n in enumerate(lengths)])
    keep = ~np.isin(np.arange(len(record)), drop)
    names = tuple(f"m{i}" for i in range(len(lengths)))
    return pretext.Timeline(np.flatnonzero(keep), record[keep], start[keep], names, window or hop)


LINES = [timeline(), timeline(drop=(5, 6, 7, 70, 71, 130)), timeline(lengths=(45,), hop=1.5)]
# Windows that share samples with their neighbours, as many as a hop of a half or a third makes.
OVERLAPPING = [
    timeline(lengths=(120, 90), hop=1.5, window=3.0, drop=(5, 6, 70, 130)),
    timeline(lengths=(150,), hop=1.0, window=3.0),
    timeline(lengths=(150,), hop=2.0, window=3.0),
]


def apart(line, a, b):
    return np.abs(line.start_s[a] - line.start_s[b])


@settings(max_examples=40, deadline=None)
@given(seed=SEED, which=st.integers(0, 2), pos=st.sampled_from([3.0, 9.0, 30.0]), neg=st.sampled_from([9.0, 30.0, 45.0]))  # fmt: skip
def test_relative_positioning(seed, which, pos, neg):
    line = LINES[which]
    pairs, y = pretext.draw_rp(line, 200, pos, neg, np.random.default_rng(seed))
    a, b = pairs.T
    assert (a != b).all() and (line.record[a] == line.record[b]).all()
    assert y.sum() == 100
    assert (apart(line, a, b)[y == 1] <= pos + 1e-6).all()
    assert (apart(line, a, b)[y == 0] > neg).all()


@settings(max_examples=40, deadline=None)
@given(seed=SEED, which=st.integers(0, 2), pos=st.sampled_from([9.0, 30.0]), neg=st.sampled_from([6.0, 20.0]))  # fmt: skip
def test_temporal_shuffling(seed, which, pos, neg):
    line = LINES[which]
    triplets, y = pretext.draw_ts(line, 200, pos, neg, np.random.default_rng(seed))
    first, middle, last = triplets.T
    assert (line.record[first] == line.record[middle]).all() and (line.record[first] == line.record[last]).all()  # fmt: skip
    t0, t1 = (f(line.start_s[first], line.start_s[last]) for f in (np.minimum, np.maximum))
    t = line.start_s[middle]
    assert (t1 - t0 <= pos + 1e-6).all() and (t1 > t0).all() and y.sum() == 100
    between = y == 1
    assert (t0[between] < t[between]).all() and (t[between] < t1[between]).all()
    far = ~between
    assert ((t[far] < t0[far] - neg + 1e-6) | (t[far] > t1[far] + neg - 1e-6)).all()
    forwards = line.start_s[first] < line.start_s[last]
    assert 40 < forwards.sum() < 160  # both orders


@settings(max_examples=40, deadline=None)
@given(seed=SEED, which=st.integers(0, 2), same=st.booleans())
def test_contrastive_predictive_coding(seed, which, same):
    line = LINES[which]
    context, told = pretext.draw_cpc(line, 50, 4, 3, 6, same, np.random.default_rng(seed))
    assert context.shape == (50, 4) and told.shape == (50, 3, 7)
    run = np.concatenate([context, told[:, :, 0]], axis=1)  # the context and what follows it
    step = np.diff(line.start_s[run], axis=1)
    np.testing.assert_allclose(step, step[0, 0])
    assert (line.record[run] == line.record[run[:, :1]]).all()
    others = told[:, :, 1:].reshape(50, -1)
    assert all(not set(run[i]) & set(others[i]) for i in range(50))
    if same:
        assert (line.record[others] == line.record[run[:, :1]]).all()
    elif len(set(line.record)) > 1:
        assert (line.record[others] != line.record[run[:, :1]]).any()


def share(line, a, b):
    """Whether two windows hold a sample in common, positions of any shape."""
    return (line.record[a] == line.record[b]) & (apart(line, a, b) < line.window_s - 1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=SEED, which=st.integers(0, 2), same=st.booleans())
def test_windows_that_share_samples_never_stand_together(seed, which, same):
    line, rng = OVERLAPPING[which], np.random.default_rng(seed)
    context, told = pretext.draw_cpc(line, 50, 4, 3, 6, same, rng)
    run = np.concatenate([context, told[:, :, 0]], axis=1)
    for i in range(run.shape[1] - 1):
        assert not share(line, run[:, [i]], run[:, i + 1 :]).any()
    steps = np.diff(line.start_s[run], axis=1)
    np.testing.assert_allclose(steps, steps[0, 0])
    others = told[:, :, 1:].reshape(50, -1)
    assert not share(line, run[:, :, None], others[:, None, :]).any()
    pairs, y = pretext.draw_rp(line, 200, 9.0, 2.0, rng)
    assert not share(line, *pairs.T).any() and (apart(line, *pairs.T)[y == 1] <= 9 + 1e-6).all()
    triplets, _ = pretext.draw_ts(line, 200, 9.0, 2.0, rng)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert not share(line, triplets[:, a], triplets[:, b]).any()


def test_every_window_can_be_drawn_and_draws_differ():
    line = timeline()
    seen = set()
    for i in range(20):
        pairs, _ = pretext.draw_rp(line, 500, 30.0, 60.0, np.random.default_rng(i))
        seen |= set(pairs.ravel().tolist())
    assert seen == set(range(len(line.row)))
    one, two = (pretext.draw_rp(line, 50, 30.0, 60.0, np.random.default_rng(i))[0] for i in (0, 1))
    assert not np.array_equal(one, two)
    again = pretext.draw_rp(line, 50, 30.0, 60.0, np.random.default_rng(0))[0]
    np.testing.assert_array_equal(one, again)


def test_near_partners_are_uniform():
    """All windows within tau of an inner anchor are equally likely, itself never."""
    line = timeline(lengths=(41,))
    counts = np.zeros(41)
    for i in range(60):
        pairs, y = pretext.draw_rp(line, 2000, 9.0, 60.0, np.random.default_rng(i))
        for a, b in pairs[y == 1]:
            if a == 5:
                counts[b] += 1
    near = counts[[2, 3, 4, 6, 7, 8]]
    assert counts[5] == 0 and counts.sum() == near.sum()
    assert near.min() > 0.7 * near.mean()


def test_a_recording_too_short_for_tau_neg_is_named():
    line = timeline(lengths=(60, 10))
    with pytest.raises(BadInput, match=r"recording 'm1' lasts 27 s and holds 10 windows: .*tau_neg_s = 60 s"):  # fmt: skip
        pretext.draw_rp(line, 10, 9.0, 60.0, np.random.default_rng(0))
    with pytest.raises(BadInput, match=r"'m1'.*tau_neg_s = 60 s"):
        pretext.draw_ts(line, 10, 9.0, 60.0, np.random.default_rng(0))
    with pytest.raises(BadInput, match=r"no run of 8 \+ 4 windows"):
        pretext.draw_cpc(line, 10, 8, 4, 2, True, np.random.default_rng(0))


def test_folds_hold_every_subject_once():
    mice = np.repeat([f"m{i:02d}" for i in range(12)], 5)
    folds = subjects.subject_folds(mice, 5, 0)
    assert sorted(np.concatenate(folds)) == sorted(set(mice))
    assert {len(f) for f in folds} == {2, 3}
    assert [f.tolist() for f in folds] != [f.tolist() for f in subjects.subject_folds(mice, 5, 1)]
    for n in (1, 13):
        with pytest.raises(BadParameter, match="12 subjects"):
            subjects.subject_folds(mice, n, 0)
    with pytest.raises(BadParameter, match="fewer than three"):
        subjects.subject_folds(mice[:20], 2, 0)


def test_test_subjects_never_teach_unless_asked():
    from types import SimpleNamespace

    parts = [SimpleNamespace(subject=f"m{i // 2}", recording=f"r{i}") for i in range(16)]
    cohort = SimpleNamespace(parts=parts)
    test = np.array(["m0", "m5"])
    train, val = subjects.teachers(cohort, test, "train_subjects", 0)
    of = [{parts[i].subject for i in rows} for rows in (train, val)]
    assert not of[0] & of[1] and not (of[0] | of[1]) & set(test) and len(of[0] | of[1]) == 6
    train, val = subjects.teachers(cohort, test, "all_subjects", 0)
    assert len(train) + len(val) == 16


def test_pairs_come_in_both_orders():
    pairs, y = pretext.draw_rp(LINES[0], 2000, 9.0, 30.0, np.random.default_rng(0))
    for of in (y == 1, y == 0):
        forwards = (pairs[of, 0] < pairs[of, 1]).mean()
        assert 0.4 < forwards < 0.6


def test_samples_are_fresh_each_epoch_and_fixed_where_they_choose():
    torch = pytest.importorskip("torch")
    from nblib.models.stagernet import DrawnBatches

    x = torch.arange(180.0).reshape(180, 1, 1)

    def draw(rng):
        pairs, y = pretext.draw_rp(LINES[0], 16, 9.0, 30.0, rng)
        return pairs, y

    def epochs(**options):
        batches = DrawnBatches(x, draw, 3, 0, **options)
        found = []
        for epoch in (0, 1, 0):
            batches.set_epoch(epoch)
            found.append([windows[index].flatten().tolist() for (windows, index), _ in batches])
        return found

    first, second, again = epochs()
    assert first == again != second and len({str(batch) for batch in first}) == 3
    first, second, again = epochs(fixed=True)
    assert first == second == again


def test_the_heads_are_those_of_the_paper():
    """By hand, on an embedder that passes a window's two numbers on."""
    torch = pytest.importorskip("torch")
    from nblib.models.stagernet import PretextNet

    class Through(torch.nn.Module):
        config = {"embedding": 2}

        def forward(self, x):
            return x

    h = torch.tensor([[1.0, 2.0], [4.0, 0.0], [0.0, 5.0]])
    net = PretextNet(Through(), "ts")
    with torch.no_grad():
        net.head.weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0]]))
        net.head.bias.zero_()
        score = net((h, torch.tensor([[0, 1, 2]])))
    # |h1 - h2| = (3, 2), |h2 - h3| = (4, 5)
    assert score.tolist() == [[0.0, 3 + 20 + 400 + 5000]]
    net = PretextNet(Through(), "cpc", n_context=2, n_ahead=1)
    with torch.no_grad():
        state = net.context(h[None, :2])[0][0, 1]  # after the last window of the context
        expected = state @ net.ahead[0] @ h[[2, 0]].T
        found = net((h, torch.tensor([[0, 1, 2, 0]])))
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
