"""The masked network and the linear models under it: nothing hidden can matter, nothing is told in advance."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax

from nblib import cli, models
from nblib.core.errors import BadInput, BadParameter, CorruptArtifact, NblibError
from nblib.experiments.multimodal import answers, judge
from nblib.models import FitSettings, training
from nblib.models.multimodal import courses, fitting, linear, masks, model, poisson, recall
from nblib.models.multimodal.branch import KINDS, SEEN, crossed, fit_branch, recalling, stacked
from nblib.models.multimodal.network import OF_SESSION, MaskedNetwork, Shape
from nblib.models.multimodal.tasks import (
    AREAS,
    BEHAVIOUR,
    GIVEN,
    IMPUTING,
    UNITS,
    Task,
    by_folds,
    decoding,
    encoding,
)
from nblib.prepare.sessions import Session, root_scaling, shuffled

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
    role, roots = (
        np.repeat(["train", "val", "test"], [train, 44 - train, 16]),
        root_scaling(counts, np.arange(train)),
    )
    return Session(
        name=f"s{seed}", counts=counts, roots=roots, signals=speed, mean=np.array([1.0, 0]),
        scale=np.array([2.0, 1]), variables=choice[:, None], role=role, trial=np.arange(K),
        area=np.array(["a", "b"] * n_units)[:n_units], unit_ids=np.arange(n_units), signal_names=("wheel", "whisker"),
        classes={"choice": np.array([-1.0, 1.0])}, bin_s=0.02, split_hash="", left_out=0,
    )  # fmt: skip


def log_likelihood(counts, rate):
    """Poisson log-likelihood, less what only the counts decide [nats]."""
    return counts * np.log(rate) - rate


@pytest.fixture(scope="module")
def sessions():
    return [make_session(0), make_session(1, n_units=5)]


@pytest.fixture(scope="module")
def branch(sessions):
    return fit_branch(sessions)


@pytest.fixture(scope="module")
def causal_branch(sessions):
    return fit_branch(sessions, causal=True)


def fit(sessions, branch, settings=FAST, **shape):
    return fitting.fit(sessions, branch, settings, SHAPE | shape, masks.Mix())[0]


@pytest.fixture(scope="module")
def fitted(sessions, branch):
    return fit(sessions, branch)


def data_of(fitted, k, session):
    return model.tensors_of(session, fitted.rest[k], torch.device("cpu"))


# --- masks ---------------------------------------------------------------------------------------


def drawn(scheme, seed, session):
    hidden = masks.hide(session, shown=session.behaviour)
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


def test_a_scheme_that_hides_a_variable_in_some_bins_is_refused(sessions, monkeypatch):
    def in_part(hidden, rng):
        hidden.variables = rng.random((T, 1)) < 0.3

    monkeypatch.setitem(masks.SCHEMES, "in_part", in_part)
    with pytest.raises(BadParameter, match="'in_part' hides a variable in part"):
        masks.Mix({"in_part": 1.0}).draw(3, sessions[0], np.random.default_rng(0))


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
    same = {part: np.repeat(getattr(hidden, part)[None], 8, axis=0) for part in masks.PARTS}
    return model.batch_of(data_of(fitted, k, session), k, rows, same)


def flat(answers):
    rates, signals, variables = answers
    return [rates, signals, *variables]


@pytest.fixture(scope="module", params=["transformer", "gru", "causal transformer", "causal gru"])
def network(request, fitted):
    """A network of each layout, whose weights matter: the heads of a new one are 0."""
    if request.param == "transformer":
        return fitted.net
    *causal, trunk = request.param.split()
    shape = {**fitted.net.config, "causal": bool(causal), "trunk": trunk}
    torch.manual_seed(0)
    net = MaskedNetwork(Shape(**shape)).eval()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return net


@pytest.mark.parametrize("scheme", masks.SCHEMES)
def test_what_is_hidden_cannot_matter(scheme, sessions, fitted, network):
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
        with torch.inference_mode():
            said = flat(network(part))
            for one, two in zip(said, flat(network(other)), strict=True):
                assert torch.equal(one, two)
            if not part["hide_spikes"].all():  # what is visible does matter
                other = part | {"x": part["x"] + ~part["hide_spikes"]}
                assert not torch.equal(said[1], network(other)[1])


@pytest.mark.parametrize("trunk", ["transformer", "gru"])
def test_a_causal_network_sees_no_later_bin(sessions, causal_branch, trunk):
    fitted = fit(sessions, causal_branch, causal=True, trunk=trunk)
    hidden = masks.hide(sessions[0])
    part = batch(fitted, sessions[0], hidden)
    later = dict(part) | {"x": part["x"].clone()}
    later["x"][:, 5:] = 9
    with torch.inference_mode():
        (_, one, _), (_, two, _) = fitted.net(part), fitted.net(later)
    assert torch.equal(one[:, :5], two[:, :5]) and not torch.equal(one[:, 5:], two[:, 5:])
    changed = sessions[0].counts.copy()
    changed[:, 5:] = 9
    later_signals = sessions[0].signals.copy()
    later_signals[:, 5:] = 9
    other = replace(sessions[0], counts=changed, signals=later_signals)
    none = np.zeros((T, N))
    for features in (
        poisson.PoissonMap(none, ("wheel", "choice"), causal=True).features,
        poisson.PoissonMap(none, loading=np.eye(N), noise=np.ones(N), causal=True).features,
    ):
        np.testing.assert_array_equal(features(sessions[0])[:, :5], features(other)[:, :5])
    both_ways = poisson.PoissonMap(none, ("wheel",)).features
    assert not np.array_equal(both_ways(sessions[0])[:, :5], both_ways(other)[:, :5])
    for of_signal in weakest(linear.lagged_ridge(sessions[0], sessions[0].known, 0.0)).values():
        np.testing.assert_array_equal(of_signal(sessions[0])[:, :5], of_signal(other)[:, :5])


def test_an_untrained_network_says_what_is_said_without_a_look(sessions, branch):
    fitted = fit(sessions, branch, replace(FAST, max_epochs=1, learning_rate=1e-12))
    rates, signals, (choice,) = fitted.network(0, sessions[0], masks.hide(sessions[0]))
    rest = branch.rest[0]
    np.testing.assert_allclose(rates[3], rest[BEHAVIOUR], rtol=1e-4)
    for s, name in enumerate(sessions[0].signal_names):
        np.testing.assert_allclose(signals[3, :, s], rest[name], atol=1e-4)
    np.testing.assert_allclose(choice[3], log_softmax(rest["choice"]), atol=1e-4)


def test_the_rate_of_learning_falls_to_nothing_and_then_the_last_epoch_counts(
    sessions, branch, monkeypatch
):
    step, rates = training.Step.training_step, []

    def noted(self, *epoch):
        step(self, *epoch)
        rates.append(self.optimizers().param_groups[0]["lr"])

    monkeypatch.setattr(training.Step, "training_step", noted)
    settings = replace(FAST, max_epochs=12, patience=1, anneal=True)
    _, history = fitting.fit(sessions, branch, settings, SHAPE, masks.Mix())
    assert history["val_loss"].argmin() < 11 == history.attrs["best_epoch"]
    falling = FAST.learning_rate * (1 + np.cos(np.pi * np.arange(12) / 12)) / 2
    np.testing.assert_allclose(rates, falling)


def test_test_trials_neither_teach_nor_stop_the_training(sessions, branch, monkeypatch):
    class Spy(fitting.TrialBatches):
        def __init__(self, data, sessions, role, *how, **more):
            super().__init__(data, sessions, role, *how, **more)
            for session, rows in zip(sessions, self.rows, strict=True):
                seen.update(session.role[rows].tolist())

    seen: set[str] = set()
    monkeypatch.setattr(fitting, "TrialBatches", Spy)
    fit(sessions, branch)
    assert seen == {"train", "val"}


def test_one_seed_gives_one_network_and_a_step_leaves_other_sessions_alone(
    sessions, branch, fitted
):
    again = fit(sessions, branch)
    one, two = fitted.net.state_dict(), again.net.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = fit(sessions, branch, replace(FAST, seed=1))
    assert not torch.equal(one["time"], other.net.state_dict()["time"])
    net = fitted.net
    net.zero_grad()
    part = batch(fitted, sessions[0], drawn("encode", 0, sessions[0]))
    loss, _ = fitting.nats(net, part | {"width": torch.ones(8, 1, 2)}, torch.arange(8))
    loss.backward()
    assert net.units_out[0].weight.grad is not None and net.units_out[1].weight.grad is None
    net.zero_grad()


TWO = """
from dataclasses import replace
from functools import partial
from pathlib import Path
import numpy as np
from models.test_masked_network import FAST, SHAPE, make_session
from nblib.models import training
from nblib.models.multimodal import fitting, masks
from nblib.models.multimodal.branch import fit_branch

plain = fitting.nats

def seen(net, batch, rows):
    rank, of = training.share()
    Path(f"{rank} of {of}, {len(batch['x'])} of {len(rows)}").touch()
    return plain(net, batch, rows)

fitting.nats = seen
sessions = [make_session(0), make_session(1, n_units=5)]
branch = fit_branch(sessions)
shape = SHAPE | {"dropout": 0.0, "input_dropout": 0.0, "trunk": "transformer"}  # its random numbers are each process's own
for n in (1, 2):
    settings = replace(FAST, max_epochs=4)
    _, history = fitting.fit(sessions, branch, settings, shape, masks.Mix(), processes=n)
    np.save(f"{n}.npy", history[["train_loss", "val_loss"]].to_numpy())
"""


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path):
    tests = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent)])
    environment = os.environ | {"PYTHONPATH": path}
    subprocess.run(
        [sys.executable, "-c", TWO], check=True, cwd=tmp_path, env=environment, timeout=240
    )
    names = {file.name for file in tmp_path.iterdir()}
    assert {"0 of 1, 16 of 16", "0 of 2, 8 of 16", "1 of 2, 8 of 16"} <= names
    one, two = (np.load(tmp_path / f"{n}.npy") for n in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.slow
def test_a_training_that_was_killed_ends_with_the_weights_of_an_unbroken_one(
    sessions, branch, tmp_path, monkeypatch
):
    plain, calls = fitting.nats, []

    def counted(net, batch, rows):
        calls.append(1)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return plain(net, batch, rows)

    how = sessions, branch, replace(FAST, max_epochs=4, anneal=True), SHAPE, masks.Mix()
    whole, history = fitting.fit(*how)
    monkeypatch.setattr(fitting, "nats", counted)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fitting.fit(*how, tmp_path)
    resumed, same = fitting.fit(*how, tmp_path)
    assert len(calls) < 25 + 4 * 8, "it went on, it did not begin again"
    pd.testing.assert_frame_equal(same, history)
    for name, weight in whole.net.state_dict().items():
        assert torch.equal(weight, resumed.net.state_dict()[name]), name


def test_with_all_hidden_no_trial_is_told_from_another(sessions, branch):
    trained = fit(sessions, branch, replace(FAST, max_epochs=20))
    *_, (choice,) = trained.network(0, sessions[0], masks.hide(sessions[0], slice(None)))
    assert (choice == choice[0]).all()


def test_it_trains_compiled_and_in_bfloat16(sessions, branch, monkeypatch):
    compiling, asked = torch.compile, []

    def traced(function, **more):  # without the C++ compiler, which takes minutes
        asked.append(more)
        return compiling(function, **more | {"backend": "eager"})

    monkeypatch.setattr(torch, "compile", traced)
    settings = replace(FAST, precision="bf16-mixed")
    model, history = fitting.fit(
        sessions, branch, settings, SHAPE | {"trunk": "transformer"}, masks.Mix(), compiled=True
    )
    assert asked and np.isfinite(history["train_loss"]).all()
    hidden = masks.hide(sessions[0])
    plain = fit(sessions, branch, trunk="transformer")
    one, two = (m.network(0, sessions[0], hidden)[1] for m in (model, plain))
    np.testing.assert_allclose(one, two, atol=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("how", [{}, {"compiled": True}], ids=["float32", "compiled, bfloat16"])
def test_a_gpu_teaches_what_the_processor_teaches(how, sessions, branch, fitted):
    rules = {"device": "cuda", "precision": "bf16-mixed" if how else "32"}
    shape = SHAPE | {"dropout": 0.0, "input_dropout": 0.0, "trunk": "transformer"}
    there, here = (
        fitting.fit(sessions, branch, replace(FAST, **rule), shape, masks.Mix(), **compiled)
        for rule, compiled in ((rules, how), ({}, {}))
    )
    losses = ["train_loss", "val_loss"]
    close = {"rtol": 2e-2 if how else 1e-4}
    np.testing.assert_allclose(there[1][losses], here[1][losses], **close)
    hidden = masks.hide(sessions[0])
    told = [model.network(0, sessions[0], hidden)[1] for model, _ in (there, here)]
    np.testing.assert_allclose(*told, atol=0.1 if how else 1e-3)


@pytest.mark.parametrize(
    ("size", "layers", "weights"),
    [("small", 5, 2.6e6), ("medium", 16, 8.4e6), ("large", 22, 11.6e6)],
)
def test_each_size_is_a_file_of_parameters_that_can_be_built_and_takes_steps(
    size, layers, weights, sessions, branch, monkeypatch
):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # it takes minutes
    file = Path(__file__).resolve().parents[2] / "params" / "sizes" / f"{size}.yml"
    given = cli.gather("12_multimodal", [["recipe", "task_tiny"]], str(file))
    asked = judge.Params(**given | {"device": "cpu", "max_epochs": 1, "batch_size": K})
    asked.check()
    assert (asked.precision, asked.compiled, asked.layers) == ("bf16-mixed", True, layers)
    how = asked.fit_settings, asked.shape, asked.mix
    model, history = fitting.fit(sessions, branch, *how, compiled=asked.compiled)
    assert np.isfinite(history[["train_loss", "val_loss"]]).all(axis=None)
    named = model.net.named_parameters()
    shared = sum(weight.numel() for name, weight in named if not name.startswith(OF_SESSION))
    assert shared == pytest.approx(weights, rel=0.02)


def test_a_session_with_one_trial_works(sessions, fitted):
    alone = replace(
        sessions[1], role=np.where(sessions[1].role == "train", "gap", sessions[1].role)
    )
    role = alone.role.copy()
    role[:6] = "train"
    few = [sessions[0], replace(alone, role=role)]
    batches = fitting.TrialBatches(
        [data_of(fitted, k, one) for k, one in enumerate(few)], few, "train",
        replace(FAST, batch_size=5), masks.Mix(),
    )  # fmt: skip
    sizes = [len(rows) for _, rows in batches]
    assert sum(sizes) == 42 == batches.n and 1 in sizes and len(sizes) == len(batches)


def test_a_session_of_one_bin_works():
    one = make_session(0)
    one = replace(one, counts=one.counts[:, :1], signals=one.signals[:, :1])
    mix = masks.Mix({"causal": 1.0, "decode": 1.0})
    network, _ = fitting.fit([one], fit_branch([one]), FAST, SHAPE, mix)
    assert np.isfinite(network.decode(one.counts)["wheel"]).all()
    assert (network.encode(own_units(one)) > 0).all()


def test_losses_are_those_of_the_formulas(sessions, fitted):
    part = batch(fitted, sessions[0], masks.hide(sessions[0]))
    part["width"] = torch.full((8, 1, 2), 0.7)
    with torch.inference_mode():
        _, signals, (log,) = fitted.net(part)
        loss, _ = fitting.nats(fitted.net, part, torch.arange(8))
    error = ((signals - part["signals"]) / part["width"]) ** 2 / 2
    cross = -log[torch.arange(8), part["variables"][:, 0]]
    assert loss.item() == pytest.approx(
        ((error.sum() + cross.sum()) / (8 * (2 * T + 1))).item(), rel=1e-5
    )


# --- a stored model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    fitted.save(folder)
    return models.load(folder)


def own_units(session):
    return {"wheel": 2 * session.signals[..., 0] + 1, "whisker": session.signals[..., 1], "choice": session.classes["choice"][session.variables[:, 0]]}  # fmt: skip


def test_a_stored_model_says_what_it_said_before(sessions, fitted, loaded):
    for k, one in enumerate(sessions):
        for hidden in (masks.hide(one), drawn("encode", 3, one), drawn("neuron", 1, one)):
            for before, after in zip(flat(fitted.network(k, one, hidden)), flat(loaded.network(k, one, hidden)), strict=True):  # fmt: skip
                np.testing.assert_array_equal(before, after)
        known = own_units(one)
        for before, after in (
            (fitted.decode(one.counts, session=one.name), loaded.decode(one.counts, session=one.name)),
            ({"": fitted.encode(known, one.name)}, {"": loaded.encode(known, one.name)}),
        ):  # fmt: skip
            for name in before:
                np.testing.assert_array_equal(before[name], after[name])


def test_decoding_is_the_network_on_scaled_counts_in_the_units_of_the_signal(sessions, loaded):
    one = sessions[1]
    said = loaded.decode(one.counts, session="s1")
    _, signals, (log,) = loaded.network(1, one, masks.hide(one))
    np.testing.assert_allclose(said["wheel"], 2 * signals[..., 0] + 1, rtol=1e-5)
    np.testing.assert_allclose(said["choice"], np.exp(log), rtol=1e-5)
    trusted_less = replace(loaded, trust=loaded.trust | {"wheel": 0.0})
    linear_alone = trusted_less.decode(one.counts, session="s1")["wheel"]
    said = Task("wheel", "signal").linear(loaded.maps[1], one)
    np.testing.assert_allclose(linear_alone, 2 * said + 1, rtol=1e-5)


def test_what_is_given_is_used_and_not_told(sessions, loaded):
    one, known = sessions[0], own_units(sessions[0])
    alone, told = (loaded.decode(one.counts, g, "s0") for g in ({}, {"choice": known["choice"]}))
    assert set(alone) == {"wheel", "whisker", "choice"} and set(told) == {"wheel", "whisker"}
    other = loaded.decode(one.counts, {"choice": -known["choice"]}, "s0")
    assert not np.array_equal(told["wheel"], other["wheel"])
    rates = loaded.encode({"choice": known["choice"]}, "s0")
    assert rates.shape == one.counts.shape and (rates > 0).all()
    hidden = np.array([0, 5])
    spoilt = one.counts.copy()
    spoilt[..., hidden] = 9
    for given in ({}, {"wheel": known["wheel"]}):
        first, second = (loaded.impute(c, hidden, given, "s0") for c in (one.counts, spoilt))
        assert first.shape == (K, T, 2)
        np.testing.assert_array_equal(first, second)
    for units in ([-1], [6], [1, 1], [], [[0, 1]], [0.0], np.arange(6) == 5):
        with pytest.raises(BadInput, match=r"units: .*expected positions from 0 to 5, each once"):
            loaded.impute(one.counts, units, {}, "s0")


def test_a_signal_that_stands_still_where_a_model_is_taught_is_no_loss_that_is_not_finite(sessions):
    one = sessions[0]
    still = replace(one, signals=one.signals * np.array([1, 0], np.float32))
    told = fit([still], fit_branch([still])).decode(still.counts)
    np.testing.assert_allclose(told["whisker"], 0, atol=0.5)


def test_units_are_told_better_where_behaviour_is_given_and_it_is_that_of_the_trial(
    sessions, fitted
):
    def chosen(one):
        branch = fit_branch([one], whole=True)
        alone = replace(fitted, sessions=[one], maps=branch.maps, rest=branch.rest)
        return answers.of_network(alone, [one], branch)

    one, hidden, test = make_session(0, train=24), np.array([0, 5]), sessions[0].rows("test")
    known, model = own_units(one), chosen(one)
    assert model.trust[UNITS + GIVEN] >= 0.2
    linear_alone = replace(model, trust=model.trust | {UNITS: 0.0, AREAS: 0.0})
    assert chosen(shuffled(one, 0)).trust[UNITS + GIVEN] <= 0.1
    assert not any(chosen(sessions[0]).trust.values()), "eight trials are too few to choose by"
    area = np.flatnonzero(one.area == one.area[0])
    first, second = (linear_alone.impute(one.counts, of) for of in (area, area[::-1]))
    np.testing.assert_array_equal(first, second[..., ::-1])
    counts, likely = one.counts[test][..., hidden], []
    for given in ({}, known, {name: np.roll(of, 1, axis=0) for name, of in known.items()}):
        rate = linear_alone.impute(one.counts, hidden, given)[test]
        likely.append(log_likelihood(counts, rate).sum() / counts.sum())
    alone, told, of_others = likely
    assert told > alone + 0.02 > of_others + 0.02


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m, one: m.decode(one.counts), "session = '': this model knows s0, s1"),
        (lambda m, one: m.decode(one.counts, session="s7"), "this model knows s0, s1"),
        (lambda m, one: m.decode(one.counts[:, :3], session="s0"), "counts: (60, 3, 6) given"),
        (lambda m, one: m.decode(one.counts - 1, session="s0"), "counts: -1 at (0, "),
        (lambda m, one: m.decode(one.counts / 2, session="s0"), "expected whole numbers, as 03 left them"),
        (lambda m, one: m.decode(one.counts, {"pupil": 1}, "s0"), "no 'pupil'; this model knows wheel"),
        (lambda m, one: m.decode(one.counts, {"wheel": np.ones((60, 2))}, "s0"), "wheel: (60, 2) given"),
        (lambda m, one: m.decode(one.counts, {"choice": np.zeros(60)}, "s0"), "each of [-1.0, 1.0]"),
        (lambda m, one: m.encode({}, "s0"), "nothing to tell spikes from"),
        (lambda m, one: m.decode(3, session="s0"), "counts: a int given, an array of trials"),
        (lambda m, one: m.decode(one.counts[:0], session="s0"), "an array of trials expected"),
        (lambda m, one: m.impute(one, [0], session="s0"), "counts: a Session given, an array"),
        (lambda m, one: m.encode({"choice": 1}, "s0"), "choice: a int given, an array of trials"),
        (lambda m, one: m.encode({"choice": np.array(["left"], object)}, "s0"), "choice: expected 1 values, each of [-1.0, 1.0]"),
        (lambda m, one: m.encode({"wheel": np.array(["a"])}, "s0"), "wheel: (1,) given, finite"),
    ],
)  # fmt: skip
def test_what_a_stored_model_cannot_take_is_refused(ask, message, sessions, loaded):
    with pytest.raises(NblibError, match=re.escape(message)):
        ask(loaded, sessions[0])


def test_maps_of_a_session_that_is_read_back_share_what_they_remember(sessions):
    one, arrays = sessions[0], {}
    of = weakest(recalled(one, one.known))
    wheel, choice = model.restored(model.plain([of["wheel"], of["choice"]], arrays), arrays)
    assert wheel.memory is choice.memory and (wheel.task, choice.task) == ("wheel", "choice")
    np.testing.assert_array_equal(wheel(one), of["wheel"](one))


def test_damaged_files_are_refused(loaded, tmp_path):
    loaded.save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"width": 16', '"width": 8'))
    with pytest.raises(CorruptArtifact, match=r"weights\.safetensors does not fit config\.json"):
        models.load(tmp_path)
    loaded.save(tmp_path)
    config.write_text(config.read_text().replace(f'"format": {model.FORMAT}', '"format": 3'))
    with pytest.raises(CorruptArtifact, match="of format 3, here 5; run 12 again"):
        models.load(tmp_path)


def test_each_block_is_compiled_while_it_is_taught_and_not_after(sessions, branch, monkeypatch):
    calls = []

    def compile_(function, **more):
        assert more == {"dynamic": True}
        return lambda *x, **how: calls.append(function.__self__) or function(*x, **how)

    monkeypatch.setattr(torch, "compile", compile_)
    for compiled, n_blocks in ((False, 0), (True, 2)):
        shape = SHAPE | {"layers": 2, "trunk": "transformer"}
        model, _ = fitting.fit(sessions, branch, FAST, shape, masks.Mix(), compiled=compiled)
        assert len(set(calls)) == n_blocks
        calls.clear()
        model.network(0, sessions[0], masks.hide(sessions[0]))
        assert not calls


# --- a further session ----------------------------------------------------------------------------


def test_a_further_session_begins_with_what_others_taught(sessions, branch, fitted):
    new = [make_session(2, n_units=7)]
    through = fit_branch(new, factors=branch.factors)
    named = {"wheel", "whisker", "choice", BEHAVIOUR}
    assert set(branch.factors) == named | {KINDS + "choice", *SEEN}
    assert {"ridge", "shared map"} <= set(through.answers[Task("wheel", "signal")])

    def tuned(how):
        more = {"taught": fitted, "how": how}
        return fitting.fit(new, through, FAST, SHAPE, masks.Mix(), **more)[0].net

    stitch, full = tuned("stitch").state_dict(), tuned("full").state_dict()
    for name, weight in fitted.net.state_dict().items():
        if not name.startswith(OF_SESSION):
            assert torch.equal(stitch[name], weight), "stitched: what is shared stays as it was"
    assert not torch.equal(full["time"], stitch["time"])
    assert stitch["session"].shape == (1, 16) and stitch["units_in.0.weight"].shape == (16, 14)
    assert all(p.requires_grad for p in tuned("stitch").parameters())


def test_factors_of_others_are_read_through_the_units_of_a_session(sessions, branch):
    one = sessions[0]
    factors = {task: branch.factors[task] for task in ("wheel", "choice")}
    maps, test = weakest(linear.through(one, one.known, factors)), one.rows("test")
    for of in maps.values():
        basis = np.linalg.svd(of.weight.reshape(-1, T, N).transpose(2, 0, 1).reshape(N, -1))[1]
        assert (basis[linear.N_FACTORS :] < 1e-4 * basis[0]).all(), "as many directions as factors"
    assert (maps["choice"](one)[test].argmax(axis=1) == one.variables[test, 0]).mean() > 0.7
    wheel = one.signals[test, :, 0].ravel()
    assert np.corrcoef(maps["wheel"](one)[test].ravel(), wheel)[0, 1] > 0.3


def test_spikes_of_a_further_session_are_told_through_what_units_of_others_follow(branch):
    new = make_session(2, n_units=7)
    told = fit_branch([new], factors=branch.factors).answers[
        Task(BEHAVIOUR, "encode", new.behaviour)
    ]
    rate = told["shared GLM"][0][new.rows("test")]
    gain = log_likelihood(new.counts[44:], rate)
    gain -= log_likelihood(new.counts[44:], poisson.psth(new, new.known))
    assert gain.sum() / new.counts[44:].sum() > 0.05
    (of,), _ = poisson.encode_together([new], [new.known], prior=branch.factors[BEHAVIOUR])
    np.testing.assert_allclose(rate, of(new.at(new.rows("test"))), rtol=1e-5)


def test_behaviour_of_other_sessions_is_recalled_in_a_further_one(branch):
    new = make_session(2, n_units=7)
    together = partial(poisson.encode_together, [new])
    path = recalling([new], decoding(new), branch.factors, together)
    (maps,), *_ = path([new.known])
    signals = np.concatenate([branch.factors[SEEN[0]], new.signals[new.known]])
    np.testing.assert_array_equal(maps["wheel"][0].memory.trials.signals, signals)


# --- linear models --------------------------------------------------------------------------------


def of_all_signals(maps, session):
    """What the maps of all signals answer: (K, T, S)."""
    return np.stack([maps[name](session) for name in session.signal_names], axis=-1)


def weakest(path):
    """The last of a path: what the weakest penalty gives."""
    return [*path][-1]


def test_the_branch_of_a_known_trial_did_not_see_it_and_the_best_path_and_penalty_are_kept(
    sessions,
):
    one, taught = sessions[0], []
    task, truth = Task("wheel", "signal"), sessions[0].signals[..., 0]

    def spy(rows, offs):
        (known,) = rows
        taught.append(set(known))
        for off in offs:

            def answer(part, shown=(), off=off):
                return part.signals[..., 0] + off + 0.01 * (taught[-1] == set(one.known))

            yield [{"wheel": [answer]}]

    known, folds = one.known, [[rows] for rows in np.array_split(one.known, 5)]
    offs = (0.4, 0.2), (0.5, 0.45, 0.1, 0.3), (0.6, 0.3, 0.2)  # the third of the second is the best
    paths = [partial(spy, offs=of_path) for of_path in offs]
    _, said = crossed(paths, sessions[:1], [task], [known], folds)
    for (rows,), seen in zip(folds, taught, strict=False):
        assert seen == set(known) - set(rows)
    off = said[task][0] - truth
    np.testing.assert_allclose(off[known], 0.1, atol=1e-6)
    np.testing.assert_allclose(off[one.rows("test")], 0.11, atol=1e-6)


def test_a_stack_is_the_mean_of_those_whose_errors_are_not_the_same(sessions):
    one, rng, task = sessions[0], np.random.default_rng(0), Task("wheel", "signal")
    truth = one.signals[..., 0]
    by = {
        name: [truth + rng.normal(0, off, truth.shape)]
        for name, off in (("bad", 3), ("a", 0.5), ("b", 0.4))
    }
    names, mean = stacked(task, [one], [one.known], by)
    assert names == ["b", "a"]
    np.testing.assert_allclose(mean[0], (by["a"][0] + by["b"][0]) / 2)
    branch = fit_branch([one])
    for asked in by_folds(one):
        fold, said = (
            branch.answers[asked][branch.chosen[asked]][0],
            asked.linear(branch.maps[0], one),
        )
        np.testing.assert_allclose(
            fold[one.rows("test")], said[one.rows("test")], rtol=1e-4, atol=1e-5
        )


def test_weights_of_the_ridge_are_as_alike_in_time_as_is_believed(sessions):
    one, rows = sessions[0], sessions[0].rows("train")
    x, y = linear.smoothed(one.x).reshape(K, -1).astype(float), one.signals.astype(float)
    x0, y0 = x[rows] - x[rows].mean(axis=0), y[rows] - y[rows].mean(axis=0)
    t = np.arange(y.shape[1])
    alike = np.exp(
        -np.abs(t - t[:, None]) / linear.ALIKE
    )  # the prior's covariance of weights, over bins
    prior = np.kron(x0 @ x0.T, alike)  # of what is said of trials and bins
    for penalty, maps in zip(linear.PENALTIES, linear.flat_ridge(one, rows), strict=True):
        solved = np.linalg.solve(prior + penalty * np.eye(len(prior)), y0.reshape(len(prior), -1))
        said = np.kron((x - x[rows].mean(axis=0)) @ x0.T, alike) @ solved
        answer = y[rows].mean(axis=0) + said.reshape(y.shape)
        np.testing.assert_allclose(of_all_signals(maps, one), answer, atol=1e-4)


@pytest.mark.parametrize("width", linear.WIDTHS)
def test_the_lagged_ridge_reads_components_in_the_bins_around(sessions, width):
    one, rows = sessions[0], sessions[0].rows("train")
    z = linear.smoothed(one.x, width)
    x = linear.lagged(z @ linear.directions(z[rows], 40), range(-8, 9))
    course = one.signals[rows].mean(axis=0)
    flat, target = x[rows].reshape(-1, x.shape[2]), (one.signals - course)[rows].reshape(-1, 2)
    for penalty, maps in zip(linear.PENALTIES, linear.lagged_ridge(one, rows, width), strict=True):
        weights = np.linalg.solve(flat.T @ flat + penalty * np.eye(x.shape[2]), flat.T @ target)
        np.testing.assert_allclose(of_all_signals(maps, one), course + x @ weights, atol=1e-4)


def test_any_units_are_told_from_any_others_by_one_model():
    rng, units = np.random.default_rng(0), np.arange(10)
    one = make_session(3, n_units=10)
    state = rng.normal(size=(K, T, 2))
    counts = rng.poisson(np.exp(state @ rng.normal(0, 0.8, (2, 10)))).astype(np.float32)
    one = replace(one, counts=counts, roots=root_scaling(counts, one.known))
    model, test = weakest(poisson.impute(one, one.known)), one.rows("test")
    null = log_likelihood(counts[test], poisson.psth(one, one.known))
    for hidden in (units[:1], units[::2], units[5:]):
        seen = np.setdiff1d(units, hidden)
        gain = log_likelihood(counts[test], model(one, seen)[test]) - null
        assert gain[..., hidden].sum() / counts[test][..., hidden].sum() > 0.05
        spoilt = counts.copy()
        spoilt[..., hidden] = 9
        other = replace(one, counts=spoilt)
        np.testing.assert_array_equal(model(one, seen), model(other, seen))


def test_courses_of_factors_are_the_posterior_mean_and_follow_behaviour(sessions):
    one, rows, seen = sessions[0], sessions[0].known, np.array([0, 2, 3])
    fitted = courses.fit(one, rows)
    told = fitted(one, seen)
    by_bump = np.kron(fitted.loading[:, seen], fitted.bumps.T)  # (R * B, n * T)
    noise = np.repeat(fitted.noise[seen], T)
    prior = np.linalg.inv(fitted.precision)
    x = (one.x[..., seen] - fitted.mean[:, seen]).swapaxes(1, 2).reshape(K, -1)
    of_x = by_bump.T @ prior @ by_bump + np.diag(noise)
    heights = x @ np.linalg.solve(of_x, by_bump.T @ prior)
    n_bumps = fitted.bumps.shape[1]
    factors = np.einsum("krb,tb->ktr", heights.reshape(K, -1, n_bumps), fitted.bumps)
    np.testing.assert_allclose(told, factors, atol=1e-5)
    spoilt = one.counts.copy()
    spoilt[..., np.setdiff1d(np.arange(N), seen)] = 9
    np.testing.assert_array_equal(fitted(replace(one, counts=spoilt), seen), told)
    test = one.rows("test")
    counts, signals = one.counts.copy(), one.signals.copy()
    counts[test], signals[test] = 50, 9
    other = courses.fit(replace(one, counts=counts, signals=signals), rows)
    np.testing.assert_allclose(other.loading, fitted.loading)
    assert next(poisson.impute(one, rows, causal=True)).courses is None, "they see all bins"


def test_each_step_makes_courses_of_factors_more_likely(sessions, monkeypatch):
    one = replace(
        sessions[0], signals=np.zeros((K, T, 0)), variables=np.zeros((K, 0), int), classes={}
    )
    rows, likely = one.known, []
    for steps in (1, 2, 4, 20):
        monkeypatch.setattr(courses, "STEPS", steps)
        fitted = courses.fit(one, rows)
        by_bump = np.kron(fitted.loading, fitted.bumps.T)  # (R * B, N * T)
        of_x = by_bump.T @ np.linalg.inv(fitted.precision) @ by_bump
        of_x += np.diag(np.repeat(fitted.noise, T))
        x = (one.x[rows] - fitted.mean).swapaxes(1, 2).reshape(len(rows), -1)
        off = (x * np.linalg.solve(of_x, x.T).T).sum()
        likely.append(-0.5 * (off + len(rows) * np.linalg.slogdet(of_x)[1]))
    assert (np.diff(likely) > 0).all(), likely


def test_lags_look_back_and_ahead_by_so_many_bins():
    x = np.arange(1.0, 6)[None, :, None]
    made = linear.lagged(x, [-1, 0, 2])[0]
    assert made[:, 0].tolist() == [2, 3, 4, 5, 0] and made[:, 2].tolist() == [0, 0, 1, 2, 3]


def test_means_are_of_the_bins_around_that_there_are_or_of_those_before():
    x = np.array([1.0, 3, 5, 9])[None, :, None]
    around, before = (linear.averaged(x, (0, 1, 9), causal)[0].T for causal in (False, True))
    np.testing.assert_allclose(around, [[1, 3, 5, 9], [2, 3, 17 / 3, 7], [4.5] * 4])
    np.testing.assert_allclose(before, [[1, 3, 5, 9], [1, 2, 4, 7], [1, 2, 3, 4.5]])


def test_units_of_an_area_are_fitted_to_what_other_areas_tell(sessions):
    one, rows = sessions[0], sessions[0].known
    inside = one.area == "a"
    together, apart = (weakest(poisson.impute(one, rows, False, by)) for by in (False, True))
    np.testing.assert_array_equal(together.loading, apart.loading)
    features = apart.features(one.at(rows), np.flatnonzero(~inside))
    scaled = np.clip((features - apart.mean) / apart.scale, -poisson.MOST, poisson.MOST)
    log = apart.offset + scaled @ apart.weight
    slope = np.einsum("ktd,ktn->dn", scaled, np.exp(log) - one.counts[rows])[:, inside]
    off = slope + poisson.PENALTIES[-1] * apart.weight[:, inside]
    assert np.abs(off).max() < 0.05 * np.abs(slope).max(), "it is the optimum of these features"


@pytest.mark.parametrize(("n_bins", "n_targets"), [(3, 9), (12, 2)])
def test_weights_of_units_are_ridge_through_the_maps(n_bins, n_targets):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, n_bins, 5)), rng.normal(size=(20, n_targets))
    maps = rng.normal(size=(2, n_bins, n_targets))
    read = np.einsum("ktn,rtd->kdnr", x, maps).reshape(y.size, -1)
    plain = np.linalg.solve(read.T @ read + 3 * np.eye(10), read.T @ y.ravel())
    weights = linear.unit_weights(x, y, maps, 3.0)
    np.testing.assert_allclose(weights, plain.reshape(5, 2), rtol=1e-8)


def test_behaviour_is_recalled_by_the_rule_of_bayes(sessions):
    one = sessions[0]
    remembered, sure = recall.seen([one], [one.known]), weakest(recalled(one, one.known))
    trials, encoder = sure["wheel"].memory.trials, sure["wheel"].memory.encoder
    rate = encoder(trials)[None, None] * np.exp(recall.GAINS)[:, None, None, None, None]
    log = log_likelihood(one.counts[:, None], rate).sum(axis=(3, 4))  # (G, K, J)
    log -= 0.5 * (recall.GAINS[:, None, None] / recall.GAIN_SD) ** 2
    joint = np.exp(log - log.max(axis=(0, 2), keepdims=True))
    joint /= joint.sum(axis=(0, 2), keepdims=True)
    share = joint.sum(axis=0)
    answer = {name: of(one) for name, of in sure.items()}
    np.testing.assert_allclose(answer["wheel"], share @ trials.signals[..., 0], atol=1e-3)
    of_class = np.exp(answer["choice"])
    np.testing.assert_allclose(of_class[:, 1], share @ trials.variables[:, 0], atol=2e-3)
    test = one.rows("test")
    assert (of_class[test].argmax(axis=1) == one.variables[test, 0]).mean() > 0.65
    few = recall.seen(sessions, [o.known for o in sessions], remembered)
    assert len(few[0]) == len(few[1]) == 3 * len(one.known)
    same = trials.variables[:, 0] == one.variables
    given = share * same / (share * same).sum(axis=1, keepdims=True)
    told = sure["wheel"](one, shown=("choice", "whisker"))
    np.testing.assert_allclose(told, given @ trials.signals[..., 0], atol=1e-3)
    assert sure["wheel"](replace(one, variables=one.variables + 7), shown=("choice",)).std() > 0
    # Units that are not seen do not matter, and follow half of the gain of those that are.
    told, half = replace(sure["wheel"], task=UNITS), np.exp(0.5 * recall.GAINS)
    expected = np.einsum("g,gkj,jtn->ktn", half, joint, encoder(trials))
    np.testing.assert_allclose(told(one), expected, rtol=2e-3)
    seen, hidden = np.arange(1, one.counts.shape[2]), one.counts.copy()
    hidden[..., 0] = 9
    np.testing.assert_array_equal(told(one, seen), told(replace(one, counts=hidden), seen))


def recalled(session, rows):
    (encoder,), _ = poisson.encode_together([session], [rows])
    memory = recall.remember(session, encoder, recall.seen([session], [rows]))
    for sure in recall.SURENESS:
        yield {name: recall.RecalledMap(memory, name, sure) for name in session.behaviour}


@pytest.mark.parametrize(
    "decoder", [linear.flat_ridge, linear.lagged_ridge, linear.logistic, linear.by_rates, recalled]
)
def test_test_trials_teach_nothing(decoder, sessions):
    one, known, test = sessions[0], sessions[0].known, sessions[0].rows("test")
    counts, signals, variables = one.counts.copy(), one.signals.copy(), one.variables.copy()
    counts[test], signals[test], variables[test] = 50, 9, 0
    roots = root_scaling(counts, one.rows("train"))
    other = replace(one, counts=counts, roots=roots, signals=signals, variables=variables)
    before, after = (weakest(decoder(s, known)) for s in (one, other))
    for name, of in before.items():
        np.testing.assert_allclose(of(one)[known], after[name](other)[known], rtol=1e-4, atol=1e-5)


def test_linear_models_find_what_is_there_and_nothing_in_shuffled_behaviour(sessions):
    one, test = sessions[0], sessions[0].rows("test")

    def explained(session, branch):
        wheel = Task("wheel", "signal")
        answer = branch.answers[wheel]["lagged ridge"][0]
        course = session.signals[session.known, :, 0].mean(axis=0)
        truth = session.signals[..., 0]
        return 1 - np.divide(*(((a - truth)[test] ** 2).sum() for a in (answer, course)))

    branch, mixed_up = fit_branch([one]), shuffled(one, 0)
    assert explained(one, branch) > 0.15 > 0.1 > explained(mixed_up, fit_branch([mixed_up]))
    choice = branch.answers[Task("choice", "variable")]["logistic"][0][test].argmax(axis=1)
    assert (choice == one.variables[test, 0]).mean() > 0.65
    rate = branch.answers[Task(BEHAVIOUR, "encode", one.behaviour)]["Poisson GLM"][0][test]
    gain = log_likelihood(one.counts[test], rate)
    gain -= log_likelihood(one.counts[test], poisson.psth(one, one.known))
    assert gain.sum() / one.counts[test].sum() > 0.05


def test_units_that_follow_the_same_of_behaviour_say_so_of_each_other():
    def loss(maps):
        return sum(
            encoding(o)[0].loss(o.at(test), m(o.at(test))) for o, m in zip(three, maps, strict=True)
        )

    three = []
    for seed in range(3):
        one, rng = make_session(seed), np.random.default_rng(seed)
        drive = one.signals[..., :1] * rng.uniform(0.3, 0.9, N)
        counts = rng.poisson(0.1 * np.exp(drive - drive.mean(axis=0))).astype(np.float32)
        three.append(replace(one, counts=counts))
    known, test = [one.known for one in three], three[0].rows("test")
    together, prior = poisson.encode_together(three, known)
    alone = [poisson.encode(one, one.known, one.behaviour) for one in three]
    rest, *penalties = map(loss, zip(*alone, strict=True))
    assert rest - loss(together) > 1.2 * (rest - min(penalties)) > 0
    # Under a prior that is given, each unit is at the mode of its posterior.
    one = replace(three[0], counts=three[0].counts[..., ::-1].copy())
    (of,), same = poisson.encode_together([one], known[:1], prior=prior)
    assert same is prior and of.scale is prior.scale
    part, precision = one.at(one.known), np.linalg.inv(prior.covariance)
    slope = np.einsum("ktd,ktn->dn", of.scaled(part), part.counts - of(part))
    pull = precision @ (of.weight - prior.mean[:, None])
    np.testing.assert_allclose(slope, pull, atol=0.01 * np.abs(pull).max())


def test_how_weights_vary_between_units_is_learnt():
    one, rng = make_session(0, n_units=40), np.random.default_rng(0)
    weight = rng.normal(0.3, 0.3, 40)  # of both signals, in their own bin
    rate = 0.5 * np.exp(one.signals.sum(axis=-1, keepdims=True) * weight)
    one = replace(one, counts=rng.poisson(rate).astype(np.float32))
    _, prior = poisson.encode_together([one], [one.known])
    mean, variance = np.abs(prior.mean), np.diag(prior.covariance)
    now = np.array([0, 1]) * (2 * poisson.BEHAVIOUR_LAGS + 1) + poisson.BEHAVIOUR_LAGS
    assert mean[now].min() > 0.15 > 0.1 > np.delete(mean, now).max()
    assert variance[now].min() > 0.02 > 0.01 > np.delete(variance, now).max()
    assert prior.covariance[tuple(now)] > 0.8 * variance[now].min(), "units follow both alike"


def test_a_prior_and_what_it_says_of_a_fold_did_not_see_it(sessions, branch):
    known, one = [of.known for of in sessions], sessions[0]
    told = branch.answers[encoding(one)[0]]["shared GLM"][0]
    for i, fold in enumerate(np.array_split(one.known, 5)):
        folds = [np.array_split(rows, 5)[i] for rows in known]
        maps, _ = poisson.encode_together(sessions, [*map(np.setdiff1d, known, folds)])
        np.testing.assert_allclose(told[fold], maps[0](one.at(fold)), rtol=1e-5)
    test, (maps, prior) = one.rows("test"), poisson.encode_together(sessions, known)
    np.testing.assert_allclose(told[test], maps[0](one.at(test)), rtol=1e-5)
    np.testing.assert_array_equal(prior.mean, branch.factors[BEHAVIOUR].mean)


def test_a_variable_that_is_given_says_which_behaviour_is_recalled(sessions, loaded):
    one = sessions[0]
    wheel = weakest(recalled(one, one.known))["wheel"]
    maps = [loaded.maps[0] | {"wheel": [wheel]}, *loaded.maps[1:]]
    by_recall = replace(loaded, maps=maps, trust=loaded.trust | {"wheel": 0.0})
    given = {"choice": own_units(one)["choice"]}
    told = by_recall.decode(one.counts, given, "s0")["wheel"]
    np.testing.assert_allclose(told, 2 * wheel(one, shown=("choice",)) + 1, atol=1e-5)
    assert np.abs(told - by_recall.decode(one.counts, session="s0")["wheel"]).max() > 0.1


def test_units_are_not_recalled_from_later_bins_where_causal(sessions):
    names = [set(fit_branch(sessions, c, whole=True).answers[IMPUTING[0]]) for c in (False, True)]
    assert names[0] - names[1] >= {"Bayes by GLM"} and "Poisson GLM" in names[1]


def test_behaviour_of_too_many_features_is_not_recalled(sessions, monkeypatch):
    monkeypatch.setattr(recall, "MOST_FEATURES", poisson.n_features(sessions[0]) - 1)
    branch = fit_branch(sessions)
    new = fit_branch([make_session(2)], factors=branch.factors)
    assert BEHAVIOUR not in branch.factors
    for told in (branch, new):
        names = {name for by in told.answers.values() for name in by}
        assert not {"Bayes by GLM", "shared GLM"} & names


def test_spikes_that_follow_a_curve_of_a_signal_are_told_by_waves_and_not_by_a_line(sessions):
    one, rng = sessions[0], np.random.default_rng(0)
    log = np.minimum(one.signals[..., :1] ** 2 - 2, 1)
    rate = np.broadcast_to(np.exp(log), one.counts.shape)
    counts = rng.poisson(rate).astype(np.float32)
    one = replace(one, counts=counts, roots=root_scaling(counts, one.rows("train")))
    task, teach, test = encoding(one)[0], one.known, one.rows("test")
    line, curve = (
        min(task.loss(one.at(test), model(one.at(test))) for model in fit(one, teach, task.shown))
        for fit in (poisson.encode, partial(poisson.encode, curved=True))
    )
    best = task.loss(one.at(test), rate[test])
    rest = task.loss(one.at(test), np.broadcast_to(poisson.psth(one, teach), counts[test].shape))
    assert rest - curve > 0.1 * (rest - best) > 2 * (rest - line)
