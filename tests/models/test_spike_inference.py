"""Spike trains from distances, against every train that there is; the chain, against the same."""

import itertools
import time

import h5py
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from nblib.core.errors import BadParameter
from nblib.evaluate import spike_trains
from nblib.models.encoders import chain, inference, references
from nblib.models.encoders.inference import Trains, squared_error
from nblib.prepare.encoding import history
from nblib.prepare.encoding.distance import SPIKE_BIN, distances


def every_train(length, refractory=1):
    """All trains (n, L) whose spikes lie far enough apart."""
    trains = np.array(list(itertools.product([0, 1], repeat=length)))
    apart = [np.diff(np.flatnonzero(train)).min(initial=length) >= refractory for train in trains]
    return trains[apart]


@pytest.mark.parametrize("block", [3, 4096])
def test_the_best_train_log_z_and_probabilities_are_those_of_all_trains(block, monkeypatch):
    monkeypatch.setattr(inference, "BLOCK", block)
    rng, wide = np.random.default_rng(block), 0
    for _ in range(100):
        length, K = rng.integers(4, 13), rng.integers(1, 7)
        wide += length > 2 * K + 2  # a gap may be so wide that bins are far from any spike
        refractory, per_spike = int(rng.integers(1, min(4, 2 * K + 1))), rng.normal() / 2
        cost = rng.gamma(1.0, 1.0, (length, K + 1))
        problem = Trains(cost, per_spike=per_spike, refractory=refractory)
        trains = every_train(length, refractory)
        away = distances(trains, K)
        energy = cost[np.arange(length), away].sum(axis=1) + per_spike * trains.sum(axis=1)
        assert problem.energy(trains[-1]) == pytest.approx(energy[-1], abs=1e-9)
        least, train = problem.least()
        assert [least, problem.energy(train)] == pytest.approx([energy.min()] * 2, abs=1e-9)
        p, log_z = problem.probabilities()
        weight = np.exp(-energy)
        assert [log_z, problem.log_z()] == pytest.approx([np.log(weight.sum())] * 2, abs=1e-9)
        assert np.abs(p - weight @ trains / weight.sum()).max() < 1e-9
        count = trains.sum(axis=1)
        best, chosen = problem.by_count(count.max())
        assert chosen.sum(axis=1).tolist() == list(range(count.max() + 1))
        for n, of_count in enumerate(best):
            assert of_count == pytest.approx(energy[count == n].min(), abs=1e-9)
            assert problem.energy(chosen[n]) == pytest.approx(of_count, abs=1e-9)
    assert wide > 20


def test_no_spike_may_be_best():
    cost = np.zeros((20, 4))
    cost[:, :3] = 1
    assert Trains(cost).least()[0] == 0 and Trains(cost).least()[1].sum() == 0


def test_windows_with_a_past_and_a_free_end_are_those_of_all_trains():
    """The last known spike forbids bins and shapes no distance."""
    rng = np.random.default_rng(0)
    for turn in range(100):
        length, past = int(rng.integers(5, 10)), int(rng.integers(0, 3))
        refractory, since = int(rng.integers(1, 4)), int(rng.integers(1, 5))
        K, seen, weight = length + 5, np.exp(rng.normal(1, 1, length)), rng.uniform(0.3, 1, length)
        start = past + max(0, refractory - since)
        rules = {"per_spike": 0.1, "refractory": refractory, "start": start, "free_end": True}
        cost = squared_error(seen, K, log=bool(turn % 2), weight=weight)
        problem, courses = Trains(cost, length, **rules), {}
        for train in every_train(length - past, refractory):
            spikes = np.flatnonzero(train) + past
            for beyond in [*range(length, length + K - 1), 10**6]:
                following = np.append(spikes, beyond)
                if np.diff(following, prepend=past - since).min() < refractory:
                    continue
                away = np.abs(np.arange(length)[:, None] - following).min(axis=1)
                away = np.where(away == 0, SPIKE_BIN, np.minimum(away, K))
                error = np.log(away / seen) if turn % 2 else away - seen
                energy = weight @ error**2 + 0.1 * len(spikes)
                courses[away.tobytes()] = energy, np.pad(train, (past, 0))
        energy, held = (np.array(values) for values in zip(*courses.values(), strict=True))
        assert problem.least()[0] == pytest.approx(energy.min(), abs=1e-9)
        share = np.exp(energy.min() - energy)
        p, log_z = problem.probabilities()
        assert log_z == pytest.approx(np.log(share.sum()) - energy.min(), abs=1e-9)
        assert np.abs(p - share @ held / share.sum()).max() < 1e-9


@pytest.mark.parametrize("n", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_samples_come_as_often_as_they_are_likely(n):
    rng = np.random.default_rng(1)
    for _ in range(3):
        problem = Trains(rng.gamma(1.0, 1.0, (11, 4)), refractory=2, per_spike=0.3)
        often = problem.samples(n, seed=3).mean(axis=0)
        assert np.abs(often - problem.probabilities()[0]).max() < 4 / np.sqrt(n)


@pytest.mark.slow
def test_probabilities_of_noisy_true_distances_hold():
    """Six million bins of a train of known rate, distances with a log-normal error of known spread: what is
    said and what comes lie within 2 % in every group. Few events differ by more than that by chance alone."""
    K, rate, refractory, spread = 200, 0.005, 2, 1.0
    rng, said, came = np.random.default_rng(0), [], []
    for _ in range(60):
        train = np.zeros(100_000, np.uint8)
        at = np.cumsum(rng.geometric(rate, 1000) + refractory - 1)
        train[at[at < len(train)]] = 1
        true = np.maximum(distances(train, K), SPIKE_BIN)
        seen = true * np.exp(rng.normal(0, spread, len(train)))
        cost = squared_error(seen, K, weight=0.5 / spread**2)
        # A spike is as likely as the rate, and the bins that it keeps free say nothing more.
        per_spike = -np.log(rate) + refractory * np.log1p(-rate)
        rules = {"per_spike": per_spike, "refractory": refractory}
        said.append(Trains(cost, len(train), **rules).probabilities()[0])
        came.append(train)
    p, spikes = np.concatenate(said), np.concatenate(came)
    group = np.minimum((10 * p).astype(int), 9)
    n = np.bincount(group)
    assert n.min() > 3000
    gap = (np.bincount(group, spikes) - np.bincount(group, p)) / n
    assert np.abs(gap).max() < 0.02, gap.round(4)


@pytest.mark.parametrize("refractory", [0, 7])
def test_an_impossible_refractory_time_is_refused(refractory):
    with pytest.raises(BadParameter, match="expected 1 to 6 bins"):
        Trains(np.ones((9, 4)), refractory=refractory)


def test_distances_count_bins_with_several_spikes_and_none():
    rng = np.random.default_rng(2)
    spikes = rng.poisson(0.1, (40, 60))
    spikes[0] = 0
    at = np.arange(60)
    for row, near in zip(spikes, distances(spikes, 9), strict=True):
        spike = np.flatnonzero(row)
        assert near.tolist() == [min([9, *(abs(s - t) for s in spike)]) for t in at]
    assert (distances(spikes, 9) == distances(spikes.T, 9, axis=0).T).all()
    published = np.random.default_rng(3).random((60, 714_000), np.float32) < 0.003
    began = time.process_time()
    distances(published, 200)
    assert time.process_time() - began < 1


def noisy(true, spread, smooth=False):
    """Distances with a log-normal error, as a network says them; smooth: over 6 bins, half in the past."""
    error = np.random.default_rng(0).standard_normal(true.shape)
    if smooth:
        error = gaussian_filter1d(error, 6, axis=1)
        error *= np.where(np.arange(true.shape[1]) < references.PAST, 0.5, 1) / error.std()
    return np.clip(true * np.exp(spread * error), 0.25, 200)


def energies(seen, trains):
    """Least energy of each window by the published cost, and the energy of some trains: (W, 2)."""
    weight = np.linspace(1, references.LAST_WEIGHT, seen.shape[1])
    rules = {"start": references.PAST, "free_end": True}
    of_windows = []
    for row, train in zip(seen, trains, strict=True):
        cost = squared_error(row, references.LONGEST, log=False, weight=weight)
        problem = Trains(cost, len(row), **rules)
        of_windows.append((problem.least()[0], problem.energy(train)))
    return np.array(of_windows)


def test_the_exact_train_costs_no_more_than_the_published_and_less_now_and_then():
    rng = np.random.default_rng(4)
    spikes = (rng.random((150, 430)) < 0.02).astype(int)
    spikes[:, :32] = 0
    true = np.maximum(distances(spikes, 198)[:, :128], SPIKE_BIN)
    seen, since = noisy(true, 0.6), np.full(150, 300)
    published = references.greedy(seen, since)
    exact = references.least_energy(seen, since, refractory=1, log=False)
    least, reached = energies(seen, published).T
    assert (least <= reached + 1e-9).all() and (least < reached - 1e-9).mean() > 0.05
    log_exact = references.least_energy(seen, since)
    wrong = [
        np.abs(train[:, 32:].astype(int) - spikes[:, 32:128]).sum()
        for train in (log_exact, published, exact)
    ]
    assert wrong[0] < wrong[1]
    stuck = references.by_gradient(seen[:20], 4, steps=30)
    assert (stuck.sum(axis=1) <= 4).all() and not stuck[:, :32].any()


def test_a_window_longer_than_published_is_inferred_to_its_end():
    """A spike is taken for certain 100 bins after t0, or beyond a longer window, never inside it."""
    spikes = (np.random.default_rng(9).random((60, 450)) < 0.02).astype(np.uint8)
    spikes[:, : references.PAST] = 0
    seen = noisy(np.maximum(distances(spikes, references.LONGEST)[:, :224], SPIKE_BIN), 0.3)
    found, ahead = references.greedy(seen, np.full(60, 300)), slice(132, 224)
    assert 0.85 < found[:, ahead].sum() / spikes[:, ahead].sum() < 1.15
    assert spike_trains.schreiber(*(x[:, ahead].reshape(1, -1) for x in (found, spikes)), 2) > 0.85


def test_windows_together_are_each_by_itself():
    """A spike 1 bin before t0 forbids the first bin after it."""
    seen = np.exp(np.random.default_rng(8).uniform(0, 4, (12, 128)))
    since = np.tile([1, 2, 300], 4)
    seen[:, 32] = SPIKE_BIN  # each would fire at once
    together = references.least_energy(seen, since, -0.5)
    weight = np.linspace(1, references.LAST_WEIGHT, 128)
    for row, last, train in zip(seen, since, together, strict=True):
        rules = {"start": 32 + (last == 1), "free_end": True, "refractory": 2, "per_spike": -0.5}
        alone = Trains(squared_error(row, references.LONGEST, weight=weight), 128, **rules)
        assert (alone.least()[1] == train).all() and train[32] == (last > 1)


@pytest.fixture(scope="module")
def published_windows(real_data):
    """720 windows of six published cells: spikes, those before t0 left out; bins since the last one; true
    distances."""
    with h5py.File(real_data("chicken_retina.nwb")) as file:
        trains = np.split(file["units/spike_times"][:], file["units/spike_times_index"][:-1])
    trains = [trains[cell] for cell in np.argsort([len(train) for train in trains])[5::10]]
    past, stride, n = references.PAST, 80, 120
    spikes = np.zeros((6, 400 + n * stride + 500), np.uint8)
    for row, train in zip(spikes, trains, strict=True):
        at = (train * 17852.767845719834 / 18).astype(int)
        row[at[at < len(row)]] = 1
    t0 = 400 + stride * np.arange(n)
    bins = t0[:, None] + np.arange(-past, 96 + 300)
    seen = spikes[:, bins].reshape(6 * n, -1)
    since = history.since_last(spikes.T[:, None])[t0, 0].T.reshape(-1).astype(int)
    seen[:, :past] = 0  # spikes before t0 shape no distance
    return seen, since, np.maximum(distances(seen, references.LONGEST)[:, :128], SPIKE_BIN)


@pytest.mark.parametrize(("noise", "bar"), [(0.0, 1.0), (0.3, 0.97), (0.6, 0.87), (1.0, 0.75)])
def test_published_cells_are_found_under_smooth_noise(published_windows, noise, bar):
    """By the cosine of trains at 2 bins; and no greedy train has less energy than the exact one, by its own
    cost."""
    spikes, since, true = published_windows
    seen = noisy(true, noise, smooth=True)
    found = references.least_energy(seen, since)
    ahead = slice(references.PAST, references.PAST + 80)
    pair = (train[:, ahead].reshape(6, -1) for train in (found, spikes))
    assert spike_trains.schreiber(*pair, 2).mean() >= bar - 1e-9
    least, reached = energies(seen, references.greedy(seen, since)).T
    assert (least <= reached + 1e-9).all() and (least < reached - 1e-9).mean() > 0.05


def test_a_second_of_windows_takes_milliseconds():
    """Wide limits: the bench measures what is promised."""
    seen = np.exp(np.random.default_rng(5).uniform(0, 5, (500, 128)))
    since = np.full(500, 300)
    references.least_energy(seen[:2], since[:2])
    began = time.process_time()
    references.least_energy(seen, since)
    assert time.process_time() - began < 5e-3 * 500 * 0.08


def test_the_train_expected_to_be_most_like_stands_where_spikes_are_likely():
    p = np.zeros((2, 400))
    p[0, [50, 300]] = 0.9
    trains = references.best_expected(p, 5.0)
    assert np.flatnonzero(trains[0]).tolist() == [50, 300] and trains[1].sum() == 0


def test_each_spike_of_it_stands_where_it_adds_most():
    p = np.random.default_rng(6).gamma(0.3, 0.1, (1, 500))
    width, chosen = 5 * np.sqrt(2), []
    bins = np.arange(500)
    kernel = np.exp(-0.5 * ((bins[:, None] - bins) / width) ** 2)
    kernel[np.abs(bins[:, None] - bins) > int(4 * width)] = 0
    kernel /= np.exp(-0.5 * (np.arange(-int(4 * width), int(4 * width) + 1) / width) ** 2).sum()
    field = gaussian_filter1d(p[0], width, mode="constant")
    for _ in range(round(p.sum())):
        likeness = [
            -np.inf if t in chosen else field[[*chosen, t]].sum() / np.sqrt(kernel[np.ix_([*chosen, t], [*chosen, t])].sum())
            for t in bins
        ]  # fmt: skip
        chosen.append(int(np.argmax(likeness)))
    assert np.flatnonzero(references.best_expected(p, 5.0)[0]).tolist() == sorted(chosen)


def test_no_window_tells_where_the_spikes_of_another_stand():
    """What is said of the next window knows the spikes of this one: in another order of the windows, each
    holds the spikes that it held."""
    p = np.random.default_rng(7).gamma(0.3, 0.1, (2, 12, 40))
    order = np.random.default_rng(8).permutation(12)
    here, there = (
        references.best_expected(x.reshape(2, -1), 20.0, 40).reshape(p.shape)
        for x in (p, p[:, order])
    )
    assert here.any() and (here[:, order] == there).all()


# --- the chain -----------------------------------------------------------------------------------


def scores(seed=0, windows=6, cells=3, length=6):
    generator = torch.Generator().manual_seed(seed)
    shapes = (windows, length), (windows, length), (cells, length)
    return [
        torch.randn(*s, dtype=torch.float64, generator=generator, requires_grad=True)
        for s in shapes
    ]


def test_the_chain_is_a_distribution_and_its_gradient_what_is_expected():
    bins, first, between = scores()
    trains = torch.from_numpy(every_train(6))
    log_p = torch.stack(
        [chain.log_likelihood(bins, first, between, train.repeat(6, 1)) for train in trains]
    )
    assert log_p.exp().sum(dim=0).detach().numpy() == pytest.approx(1, abs=1e-9)
    p = chain.probabilities(bins, first, between)
    assert torch.allclose(log_p.exp().T @ trains.double(), p, atol=1e-9)
    assert torch.autograd.gradcheck(chain.log_z, (bins, first, between))
    # The gradient of the likelihood is what happened less what was expected.
    log_p[5].sum().backward()
    assert torch.allclose(bins.grad, trains[5].double() - p, atol=1e-9)


def test_windows_shared_out_to_threads_are_those_of_one(monkeypatch):
    """Parts hold whole rounds of cells, so each window keeps the intervals of its own."""
    known = chain.probabilities(*scores(3, windows=15))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert torch.equal(chain.probabilities(*scores(3, windows=15)), known)


def test_without_scores_of_intervals_bins_are_by_themselves():
    bins, first, between = scores(1)
    p = chain.probabilities(bins, 0 * first, 0 * between)
    assert torch.allclose(p, torch.sigmoid(bins), atol=1e-12)


def test_trains_are_drawn_from_the_chain():
    few = [x.detach() for x in scores(2, 3, 3, 5)]
    bins, first = (x.repeat(20_000, 1) for x in few[:2])
    drawn = chain.samples(bins, first, few[2], np.random.default_rng(0)).reshape(20_000, 3, 5)
    p = chain.probabilities(*few)
    assert (drawn.double().mean(dim=0) - p).abs().max() < 4 / np.sqrt(20_000)
    pair = (drawn[..., 1] & drawn[..., 3]).double().mean(dim=0)
    trains = torch.from_numpy(every_train(5))
    log_p = torch.stack([chain.log_likelihood(*few, train.repeat(3, 1)) for train in trains])
    both = log_p.exp()[(trains[:, 1] & trains[:, 3]) == 1].sum(dim=0)
    assert (pair - both).abs().max() < 4 / np.sqrt(20_000)
