"""The masked network and the linear models under it: nothing hidden can matter, nothing is told in advance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nblib.models.multimodal import fitting, linear, masks, poisson
from nblib.models.settings import FitSettings
from nblib.prepare.sessions import Session, scaled, shuffled

K, T, N = 60, 8, 6
FAST = FitSettings(max_epochs=2, batch_size=16, learning_rate=1e-2, device="cpu", progress=False)
SHAPE = {"width": 16, "layers": 1, "heads": 2}


def make_session(seed, n_units=N, train=36):
    """Signals and a choice that drive the counts."""
    rng = np.random.default_rng(seed)
    choice, speed = rng.integers(0, 2, K), rng.normal(size=(K, T, 2)).astype(np.float32)
    drive = speed @ rng.normal(0, 0.6, (2, n_units)) + (2 * choice - 1)[:, None, None] * rng.normal(
        0, 0.5, n_units
    )
    counts = rng.poisson(np.exp(drive)).astype(np.float32)
    role = np.repeat(["train", "val", "test"], [train, 44 - train, 16])
    return Session(
        name=f"s{seed}", counts=counts, x=scaled(counts, np.arange(train)), signals=speed, mean=np.zeros(2),
        scale=np.ones(2), variables=choice[:, None], role=role, trial=np.arange(K),
        area=np.array(["a", "b"] * n_units)[:n_units], unit_ids=np.arange(n_units), signal_names=("wheel", "whisker"),
        classes={"choice": np.array([-1.0, 1.0])}, bin_s=0.02, split_hash="", left_out=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def sessions():
    return [make_session(0), make_session(1, n_units=5)]


@pytest.fixture(scope="module")
def branch(sessions):
    return fitting.fit_branch(sessions)


@pytest.fixture(scope="module")
def fitted(sessions, branch):
    return fitting.fit(sessions, branch, FAST, SHAPE, fitting.CHANCES)


# --- masks ---------------------------------------------------------------------------------------


def drawn(scheme, seed, session):
    hidden = fitting.nothing(session)
    masks.SCHEMES[scheme](hidden, np.random.default_rng(seed))
    return hidden


@pytest.mark.parametrize("scheme", masks.SCHEMES)
def test_a_variable_is_hidden_whole_or_not_at_all_and_something_is_asked(scheme, sessions):
    asked = 0
    for seed in range(200):
        hidden = drawn(scheme, seed, sessions[0])
        assert hidden.variables.shape == (1,), "no time in it, so no part of it"
        assert hidden.spikes.shape == (T, N) and hidden.signals.shape == (T, 2)
        asked += hidden.spikes.any() or hidden.signals.any() or hidden.variables.any()
    assert asked > 150


def test_schemes_hide_what_they_say(sessions):
    for seed in range(50):
        assert drawn("encode", seed, sessions[0]).spikes.all()
        decode = drawn("decode", seed, sessions[0])
        assert decode.signals.all() and decode.variables.all() and not decode.spikes.any()
        causal = drawn("causal", seed, sessions[0])
        first = causal.spikes.any(axis=1).argmax()
        assert causal.spikes[first:].all() and not causal.spikes[:first].any()
        assert (causal.signals == causal.spikes[:, :1]).all()
        neuron = drawn("neuron", seed, sessions[0]).spikes
        assert (neuron == neuron[0]).all() and neuron.any() and not neuron.all()
        inside = sessions[0].area == "a"
        region = drawn("region", seed, sessions[0]).spikes[0]
        assert region[inside].all() or region[~inside].all()
        whole = drawn("modality", seed, sessions[0])
        assert all((m == m[:1]).all() for m in (whole.spikes, whole.signals))


# --- the network ----------------------------------------------------------------------------------


def batch(fitted, session, hidden, k=0):
    rows = np.arange(8)
    same = {
        n: np.repeat(getattr(hidden, n)[None], 8, axis=0)
        for n in ("spikes", "signals", "variables")
    }
    return fitting.batch_of(fitted.data[k], k, rows, same)


def flat(answers):
    rates, signals, variables = answers
    return [rates, signals, *variables]


@pytest.mark.parametrize("scheme", masks.SCHEMES)
def test_what_is_hidden_cannot_matter(scheme, sessions, fitted):
    for seed in range(5):
        part = batch(fitted, sessions[0], drawn(scheme, seed, sessions[0]))
        noise = torch.Generator().manual_seed(seed)
        other = dict(part)
        for name in ("x", "signals"):
            mask = part[f"hide_{name.replace('x', 'spikes') if name == 'x' else name}"]
            other[name] = torch.where(mask, torch.randn(mask.shape, generator=noise), part[name])
        other["variables"] = torch.where(
            part["hide_variables"], 1 - part["variables"], part["variables"]
        )
        # What linear models say may follow what is hidden of what they read: it must not be used then.
        if part["hide_spikes"].any():
            for name in ("linear_signals", "linear_0"):
                other[name] = part[name] + 1
        if part["hide_signals"].any() or part["hide_variables"].any():
            other["linear_rates"] = part["linear_rates"] + 1
        with torch.inference_mode():
            for one, two in zip(flat(fitted.net(part)), flat(fitted.net(other)), strict=True):
                assert torch.equal(one, two)


def test_a_causal_network_sees_no_later_bin(sessions):
    branch = fitting.fit_branch(sessions, causal=True)
    fitted = fitting.fit(sessions, branch, FAST, SHAPE | {"causal": True}, fitting.CHANCES)
    hidden = fitting.nothing(sessions[0])
    hidden.behaviour()
    part = batch(fitted, sessions[0], hidden)
    later = dict(part) | {"x": part["x"].clone()}
    later["x"][:, 5:] = 9
    with torch.inference_mode():
        (_, one, _), (_, two, _) = fitted.net(part), fitted.net(later)
    assert torch.equal(one[:, :5], two[:, :5]) and not torch.equal(one[:, 5:], two[:, 5:])
    changed = sessions[0].x.copy()
    changed[:, 5:] = 9
    fit, val = sessions[0].rows("train"), sessions[0].rows("val")
    later_signals = sessions[0].signals.copy()
    later_signals[:, 5:] = 9
    other = replace(sessions[0], x=changed, signals=later_signals)
    for features in (
        lambda one: poisson.behaviour(one, causal=True), lambda one: poisson.behaviour(one, ["wheel"], True),
        lambda one: linear.lagged(one.x, poisson._around(2, True)),
    ):  # fmt: skip
        np.testing.assert_array_equal(features(sessions[0])[:, :5], features(other)[:, :5])
    assert not np.array_equal(
        poisson.behaviour(sessions[0])[:, :5], poisson.behaviour(other)[:, :5]
    )
    lags = linear.lagged(sessions[0].x, range(3))
    np.testing.assert_array_equal(lags[:, :5], linear.lagged(changed, range(3))[:, :5])
    assert linear.lagged_ridge(sessions[0], fit, val, True).shape == (K, T, 2)


def test_an_untrained_network_says_what_the_linear_models_say(sessions, branch):
    fitted = fitting.fit(
        sessions, branch, replace(FAST, max_epochs=1, learning_rate=1e-12), SHAPE, fitting.CHANCES
    )
    hidden = fitting.nothing(sessions[0])
    hidden.behaviour()
    _, signals, variables = fitting.ask(fitted, sessions, lambda one: _decode(one))[0]
    np.testing.assert_allclose(signals, branch.signals[0], atol=1e-4)
    np.testing.assert_allclose(variables[0], branch.variables[0][0], atol=1e-3)


def _decode(one):
    hidden = fitting.nothing(one)
    hidden.behaviour()
    return hidden


def test_one_seed_gives_one_network_and_a_step_leaves_other_sessions_alone(
    sessions, branch, fitted
):
    again = fitting.fit(sessions, branch, FAST, SHAPE, fitting.CHANCES)
    one, two = fitted.net.state_dict(), again.net.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = fitting.fit(sessions, branch, replace(FAST, seed=1), SHAPE, fitting.CHANCES)
    assert not torch.equal(one["time"], other.net.state_dict()["time"])
    net = fitted.net
    net.zero_grad()
    loss, _ = fitting.nats(
        net, batch(fitted, sessions[0], drawn("encode", 0, sessions[0])), torch.arange(8)
    )
    loss.backward()
    assert net.units_out[0].weight.grad is not None and net.units_out[1].weight.grad is None
    net.zero_grad()


def test_a_session_with_one_trial_works(sessions, branch):
    alone = replace(
        sessions[1], role=np.where(sessions[1].role == "train", "gap", sessions[1].role)
    )
    role = alone.role.copy()
    role[:6] = "train"
    few = [sessions[0], replace(alone, role=role)]
    batches = fitting.TrialBatches(
        [fitting.tensors(one, branch, k, torch.device("cpu")) for k, one in enumerate(few)], few, "train",
        replace(FAST, batch_size=5), fitting.CHANCES,
    )  # fmt: skip
    sizes = [len(rows) for _, rows in batches]
    assert sum(sizes) == 42 == batches.n and 1 in sizes and len(sizes) == len(batches)


def test_losses_are_those_of_the_formulas(sessions, fitted):
    part = batch(fitted, sessions[0], _decode(sessions[0]))
    with torch.inference_mode():
        _, signals, (log,) = fitted.net(part)
        loss, _ = fitting.nats(fitted.net, part, torch.arange(8))
    error = ((signals - part["signals"]) / part["spread"]) ** 2 / 2
    cross = -log[torch.arange(8), part["variables"][:, 0]]
    assert loss.item() == pytest.approx(
        ((error.sum() + cross.sum()) / (8 * (2 * T + 1))).item(), rel=1e-5
    )


# --- linear models --------------------------------------------------------------------------------


def test_the_branch_of_a_train_trial_did_not_see_it(sessions):
    seen = []

    def spy(fits, choose):
        seen.append(set(fits[0]))
        return [np.full(K, len(seen))]

    fits = [sessions[0].rows("train")]
    (answers,) = fitting.crossed(spy, fits, fits)
    for trial in range(K):
        assert (trial in seen[answers[trial] - 1]) == (trial in fits[0] and answers[trial] == 1)
    assert set(answers[fits[0]]) == {2, 3, 4, 5, 6}


def test_kernel_ridge_is_ridge():
    rng = np.random.default_rng(0)
    x, y, fit = rng.normal(size=(30, 12)), rng.normal(size=(30, 3)), np.arange(20)
    x0, y0 = x[fit] - x[fit].mean(axis=0), y[fit] - y[fit].mean(axis=0)
    weights = np.linalg.solve(x0.T @ x0 + linear.PENALTIES[0] * np.eye(12), x0.T @ y0)
    expected = y[fit].mean(axis=0) + (x - x[fit].mean(axis=0)) @ weights
    np.testing.assert_allclose(linear.kernel_ridge(x, y, fit)[0], expected, atol=1e-8)


def test_lags_look_back_and_ahead_by_so_many_bins():
    x = np.arange(1.0, 6)[None, :, None]
    made = linear.lagged(x, [-1, 0, 2])[0]
    assert made[:, 0].tolist() == [2, 3, 4, 5, 0] and made[:, 2].tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("decoder", [linear.flat_ridge, linear.lagged_ridge])
def test_test_trials_teach_nothing(decoder, sessions):
    one = sessions[0]
    fit, val, test = (one.rows(role) for role in ("train", "val", "test"))
    counts, signals = one.counts.copy(), one.signals.copy()
    counts[test], signals[test] = 50, 9
    other = replace(one, counts=counts, x=scaled(counts, fit), signals=signals)
    before, after = decoder(one, fit, val), decoder(other, fit, val)
    np.testing.assert_allclose(before[val], after[val], rtol=1e-4, atol=1e-5)


def test_linear_models_find_what_is_there_and_nothing_in_shuffled_behaviour(sessions):
    one = sessions[0]
    fit, val, test = (one.rows(role) for role in ("train", "val", "test"))

    def explained(session):
        answer, course = linear.lagged_ridge(session, fit, val), linear.mean_course(session, fit)
        errors = (((a - session.signals)[test] ** 2).sum() for a in (answer, course))
        return 1 - np.divide(*errors)

    assert explained(one) > 0.15 > 0.1 > explained(shuffled(one, 0))
    right = linear.logistic(one, fit, val, 0)[test].argmax(axis=1) == one.variables[test, 0]
    assert right.mean() > 0.7
    rate, psth = poisson.encode(one, fit, val), poisson.psth(one, fit)
    gain = poisson.log_likelihood(one.counts[test], rate[test]) - poisson.log_likelihood(
        one.counts[test], psth
    )
    assert gain.sum() / one.counts[test].sum() > 0.05
