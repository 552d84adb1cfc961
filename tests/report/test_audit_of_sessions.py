"""The audit of a model of several sessions: every fault that is put in is found, a sound model has none."""

from dataclasses import replace

import numpy as np
import pytest
from experiments.test_multimodal import on_disk
from models.test_masked_network import FAST, SHAPE, make_session

from nblib.core import recipes
from nblib.data import counts_dataset
from nblib.models.multimodal import fitting, linear, masks, poisson, recall
from nblib.models.multimodal.branch import SEEN, at_rest, fit_branch
from nblib.models.multimodal.network import MaskedNetwork
from nblib.models.multimodal.tasks import UNITS
from nblib.prepare import stored_splits, train_statistics
from nblib.prepare.sessions import root_scaling
from nblib.report.audit import sessions as audit


def fitted(causal):
    sessions = [make_session(0), make_session(1, n_units=5)]
    branch = fit_branch(sessions, causal)
    shape = SHAPE | {"causal": causal}
    return sessions, fitting.fit(sessions, branch, FAST, shape, masks.Mix())[0]


@pytest.fixture(scope="module")
def sound():
    return fitted(causal=False)


@pytest.fixture(scope="module")
def causal():
    return fitted(causal=True)


def found(model, sessions, new=(), causal=False):
    return [*audit.faults(model, sessions, list(new), causal)]


def test_sound_models_have_no_fault(sound, causal):
    assert found(*reversed(sound), new=["s7"]) == []
    assert found(*reversed(causal), causal=True) == []


def test_scaling_over_test_trials_is_found(sound):
    sessions, model = sound
    whole = root_scaling(sessions[0].counts, np.arange(len(sessions[0].counts)))
    stored = [replace(model.sessions[0], roots=whole), model.sessions[1]]
    assert found(replace(model, sessions=stored), sessions) == ["s0: its counts are scaled otherwise than by its train trials"]  # fmt: skip
    stored = [model.sessions[0], replace(model.sessions[1], mean=model.sessions[1].mean + 0.1)]
    assert found(replace(model, sessions=stored), sessions) == ["s1: its signals are scaled otherwise than by its train trials"]  # fmt: skip


def test_statistics_of_signals_over_test_trials_are_found(home, tmp_path):
    recipe = recipes.find_recipe("task_tiny").model_copy(update={"recordings": ["t1"]})
    (split,), (counts,) = on_disk(recipe, tmp_path)
    assert [*audit.statistics(split, counts, 0)] == []
    roles, (fitted,) = stored_splits.load(split)
    binned = counts_dataset.load(counts)
    whole = train_statistics.signal_statistics(binned, np.arange(binned.sizes["trial"]))
    stored_splits.save(split, roles, [replace(fitted, signals=whole)])
    assert [*audit.statistics(split, counts, 0)] == [
        f"t1: 04 scaled {name} otherwise than by its train trials" for name in ("wheel", "whisker")
    ]


def test_a_variable_that_is_hidden_in_part_is_found(sound, monkeypatch):
    sessions, model = sound
    whole = MaskedNetwork.forward

    def in_part(self, batch):
        """A token of the choice stays visible."""
        rates, signals, variables = whole(self, batch)
        return rates, signals, [log + 0.1 * batch["variables"][:, :1] for log in variables]

    monkeypatch.setattr(MaskedNetwork, "forward", in_part)
    assert found(model, sessions) == [f"{name}: behaviour that is hidden moves what is said of it" for name in ("s0", "s1")]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (lambda batch: batch["counts"], "spikes that are hidden move the rates told from"),
        (lambda batch: batch["variables"][:, :1, None], "moves what is said of units from"),
    ],
)
def test_hidden_spikes_and_behaviour_that_move_rates_are_found(sound, monkeypatch, more, what):
    sessions, model = sound
    whole = MaskedNetwork.forward

    def not_hidden(self, batch):
        rates, signals, variables = whole(self, batch)
        return rates + 0.1 * more(batch), signals, variables

    monkeypatch.setattr(MaskedNetwork, "forward", not_hidden)
    (first, second) = found(model, sessions)
    assert what in first and what in second


def test_a_mean_course_that_knows_test_trials_is_found(sound):
    sessions, model = sound
    one = sessions[0]
    rest = [at_rest(one, np.arange(len(one.role))), model.rest[1]]
    fault = "s0: what is said without a look is not of the trials that may teach"
    assert found(replace(model, rest=rest), sessions) == [fault]


def test_a_new_session_that_taught_is_found(sound):
    sessions, model = sound
    assert found(model, sessions, new=["s1"]) == [
        "s1: it is new to the model, and taught it",
        "s1: behaviour of 44 trials that do not teach is remembered",
    ]
    assert "no recording of the recipe" in found(model, sessions[:1])[0]


def test_behaviour_of_test_trials_that_is_remembered_is_found(sound):
    sessions, model = sound
    one, two = sessions
    test = one.rows("test")[:3]

    def remembering(rows):
        (encoder,), _ = poisson.encode_together([one], [one.known])
        memory = recall.remember(one, encoder, recall.seen(sessions, [rows, two.known]))
        wheel = [recall.RecalledMap(memory, "wheel", 1.0)]
        return replace(model, maps=[model.maps[0] | {"wheel": wheel}, model.maps[1]])

    fault = "s0: behaviour of 3 trials that do not teach is remembered"
    assert found(remembering(one.known), sessions) == []
    assert found(remembering([*one.known, *test]), sessions) == [fault]
    seen = recall.seen(sessions, [np.append(one.known, test), two.known])
    factors = model.factors | dict(zip(SEEN, seen, strict=True))
    assert found(replace(model, factors=factors), sessions) == [fault]
    # A trial that stands still is like others that do: what is remembered may be theirs.
    signals = one.signals.copy()
    signals[[one.known[0], test[0]]], variables = 0, one.variables.copy()
    variables[test[0]] = variables[one.known[0]]
    still = [replace(one, signals=signals, variables=variables), two]
    seen = recall.seen(still, [one.known, two.known])
    of_still = {"factors": dict(zip(SEEN, seen, strict=True))}
    of_still["rest"] = [at_rest(one, one.known) for one in still]
    assert found(replace(model, **of_still), still) == []


def test_one_session_under_two_names_that_teaches_and_judges_is_found(sound):
    sessions, _ = sound
    one = sessions[0]
    later = replace(one, name="s9", role=np.roll(one.role, -10))  # other roles, so another scale
    again = replace(later, mean=later.mean + 1, signals=later.signals - 1 / later.scale)
    again = replace(again, scale=2 * again.scale, signals=again.signals / 2)
    (first, second) = audit._twice([one, sessions[1], again.at(slice(5, None))], [])
    assert first == "s0: 10 of 16 test trials are trials of s9 that teach"
    assert second == "s9: 10 of 16 test trials are trials of s0 that teach"
    assert [*audit._twice([one, again], ["s9"])] == [second]
    assert [*audit._twice([one, replace(one, name="s9")], [])] == [], "they teach and judge alike"


def test_a_causal_model_that_sees_the_future_is_found(sound, causal):
    sessions, model = sound
    assert {what.split(": ")[1] for what in found(model, sessions, causal=True)} == {
        "it is causal, but later bins move its signals",
        "it is causal, but later bins move its rates",
    }
    _, before = causal
    one = sessions[0]
    *_, maps = linear.flat_ridge(one, one.known)
    both_ways = maps["wheel"]
    maps = [before.maps[0] | {"wheel": [both_ways]}, before.maps[1]]
    assert found(replace(before, maps=maps), sessions, causal=True) == ["s0: it is causal, but later bins move its signals"]  # fmt: skip
    for name, path in (
        ("spikes from wheel", poisson.encode(one, one.known, ("wheel",))),
        (UNITS, poisson.impute(one, one.known)),  # with courses over the whole trial
    ):
        *_, both_ways = path
        maps = [before.maps[0] | {name: [both_ways]}, before.maps[1]]
        assert found(replace(before, maps=maps), sessions, causal=True) == ["s0: it is causal, but later bins move its rates"]  # fmt: skip
