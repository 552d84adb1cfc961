"""Searches: validation alone chooses, nothing is done twice, the winner is tested once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest

from nblib import evaluation, reports, results, runner, searched, store, sweep, tuning
from nblib.cli import main
from nblib.errors import BadInput, BadParameter, MissingInput, NblibError
from nblib.search import Search, Study

pytestmark = pytest.mark.xdist_group("search")  # the data root is made once
FIXED = {
    "recipe": "tiny", "recording": "tiny", "model": "lstm", "importance": 0, "max_epochs": 3,
    "model_params": {"hidden": 8, "dropout": 0.0, "input_dropout": 0.0}, "n_permutations": 100, "n_bootstrap": 100,
}  # fmt: skip
SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "batch_size": {"choices": [16, 64]}}  # fmt: skip


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A data root with the tiny recording in one and five bins, made once."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLIB_HOME", str(folder))
        runs = sweep.with_roads([("04_split", {"recipe": "tiny", "n_bins": n}) for n in (1, 5)])
        assert not any(o.code for o in runner.run_many(runs, 2, progress=False))
    return folder


@pytest.fixture
def home(road, tmp_path, monkeypatch):
    """A copy of that data root."""
    monkeypatch.setenv("NBLIB_HOME", str(shutil.copytree(road, tmp_path / "home")))
    return tmp_path / "home"


def study(**given) -> Study:
    return Study("s", Search(**{"trials": 4, "space": SPACE, **given}), FIXED)


def work(own: Study, indices=None) -> Study:
    """Do the trials here, one after the other."""
    todo = tuning.begin(own)
    for i in todo if indices is None else indices:
        assert tuning.attempt_trial(str(own.folder()), i).code == 0
    return own


def told(own: Study):
    return [(i, t.params, t.value) for i, t in sorted(tuning.ended(own).items())]


# --- refused before anything runs ----------------------------------------------------------------

BLOCK = """\
sweep: s
params: {recipe: tiny, recording: tiny, model: lstm}
search:
  trials: 4
  space: {learning_rate: {low: 0.001, high: 0.1}}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("trials: 4", "trials: 4\n  objective: test_accuracy", "makes their score worthless; choose val_accuracy or val_loss"),
        ("trials: 4", "trials: 4\n  objective: f1", "search.objective = 'f1'"),
        ("trials: 4", "trails: 4", "trails"),
        ("trials: 4", "trials: 0", "search.trials = 0"),
        ("trials: 4", "pruner: hyper", "search.pruner = 'hyper'"),
        ("low: 0.001, high: 0.1", "low: 0.1, high: 0.1", "low = 0.1 must lie below high = 0.1"),
        ("low: 0.001, high: 0.1", "low: 0, high: 0.1, log: true", "above 0 for log"),
        ("low: 0.001, high: 0.1", "low: 0.1", "give choices, or low and high"),
        ("low: 0.001, high: 0.1", "choices: [1.0], low: 0.1", "not both"),
        ("low: 0.001, high: 0.1", "low: -1.0, high: 0.1", "learning_rate = -1.0"),
        ("learning_rate", "learning_rte", "did you mean learning_rate"),
        ("learning_rate: {low: 0.001, high: 0.1}", "model_params.hiden: {choices: [8]}", "model_params of lstm: unknown hiden"),
        ("learning_rate: {low: 0.001, high: 0.1}", "model_params.hidden: {choices: [8.5]}", "hidden = 8.5 must be of type int"),
        ("learning_rate: {low: 0.001, high: 0.1}", "n_bins: {low: 1, high: 5}", "n_bins changes what stages 01-04 make, so it needs choices"),
        ("{learning_rate: {low: 0.001, high: 0.1}}", "{}", "search.space"),
        ("trials: 4", "sampler: grid", "a grid needs choices"),
        ("trials: 4", "each: {fold: []}", "each.fold is empty"),
        ("trials: 4", "params: {learning_rate: 0.1}", "learning_rate is fixed and searched"),
        ("trials: 4", "notebook: 07_few_shot", "search.notebook = '07_few_shot'"),
    ],
)  # fmt: skip
def test_a_faulty_search_is_refused(home, tmp_path, capsys, old, new, said):
    path = tmp_path / "s.yml"
    path.write_text(BLOCK.replace(old, new))
    before = sorted(store.artifacts())
    assert main(["sweep", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error and str(path) in error
    assert sorted(store.artifacts()) == before and not store.searches_dir().exists()


def test_settings_that_change_the_split_are_refused(home):
    """Trials on other validation presentations could not be compared."""
    runs = sweep.with_roads([("04_split", {"recipe": "tiny", "gap_s": g}) for g in (0.5, 2.0)])
    runner.run_many([r for r in runs if not runner.plan(*r).committed], 2, progress=False)
    with pytest.raises(BadInput, match="different splits"):
        tuning.begin(study(space={"gap_s": {"choices": [0.5, 2.0]}}))


# --- trials --------------------------------------------------------------------------------------


def test_no_trial_looks_at_test_presentations(home, monkeypatch):
    """With the test presentations replaced by noise of a million every trial is what it was."""
    load = evaluation.load_data
    clean = told(work(study()))

    def poisoned(stage):
        data = load(stage)
        noise = np.full_like(data.test.x, np.nan)
        return replace(data, test=replace(data.test, x=noise, y=data.test.y[::-1].copy()))

    monkeypatch.setattr(evaluation, "load_data", poisoned)
    shutil.rmtree(store.searches_dir())
    assert told(work(study())) == clean and len(clean) == 4


def test_a_trial_that_looked_at_the_test_would_be_seen(home, monkeypatch):
    """The test above, tested: judged on test presentations, trials change with them."""
    load = evaluation.load_data

    def leaking(stage):
        data = load(stage)
        return replace(data, val=data.test)

    clean = told(work(study()))
    monkeypatch.setattr(evaluation, "load_data", leaking)
    shutil.rmtree(store.searches_dir())
    assert told(work(study())) != clean


def test_trials_are_proposed_by_seed_and_index(home):
    first = told(work(study(trials=6)))
    shutil.rmtree(store.searches_dir())
    assert told(work(study(trials=6))) == first
    assert len({str(params) for _, params, _ in first}) == 6
    assert told(work(study(trials=6, seed=1)))[0][1] != first[0][1]


def test_what_is_done_is_not_done_again(home):
    own = work(study())
    assert tuning.begin(own) == []
    more = study(trials=6)
    assert more.folder() == own.folder() and tuning.begin(more) == [4, 5]
    assert "done already" in tuning.attempt_trial(str(own.folder()), 2).message
    assert study(seed=1).folder() != own.folder() != study(objective="val_loss").folder()
    assert Study("s", own.search, {**FIXED, "max_epochs": 2}).folder() != own.folder()


def test_a_trial_whose_process_was_killed_is_made_once_more(home, monkeypatch):
    own = study()
    tuning.begin(own)
    monkeypatch.setattr(tuning, "judge", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tuning.attempt_trial(str(own.folder()), 0)
    monkeypatch.undo()
    monkeypatch.setenv("NBLIB_HOME", str(home))
    assert tuning.begin(own) == [0, 1, 2, 3]
    work(own)
    assert sorted(tuning.ended(own)) == [0, 1, 2, 3]


def test_a_lock_left_by_a_killed_process_gives_way(home, monkeypatch):
    from optuna.storages.journal import JournalFileOpenLock

    own = study()
    tuning.begin(own)
    lock = own.folder() / f"{tuning.JOURNAL}.lock"
    lock.touch()
    patient = JournalFileOpenLock.__init__
    monkeypatch.setattr(JournalFileOpenLock, "__init__", lambda self, path: patient(self, path, 1))
    assert tuning.attempt_trial(str(own.folder()), 0).code == 0 and not lock.exists()


def test_settings_that_cannot_be_trained_are_a_failed_trial(home):
    own = study(trials=2, space={"learning_rate": {"choices": [1e30, 0.01]}}, sampler="grid")
    work(own)
    table = searched.trials([own]).set_index("learning_rate")
    assert table.loc[1e30, "state"] == "failed" and "not finite" in table.loc[1e30, "error"]
    assert tuning.winner(own)[1]["learning_rate"] == 0.01
    assert tuning.begin(own) == []  # an error of its own is not tried again
    with pytest.raises(NblibError, match="no trial came to its end"):
        tuning.winner(work(study(trials=1, space={"learning_rate": {"choices": [1e30]}})))


def test_a_grid_takes_every_point_once(home):
    space = {"batch_size": {"choices": [16, 64]}, "n_bins": {"choices": [1, 5]}}
    own = work(study(space=space, sampler="grid", trials=4))
    points = {tuple(sorted(params.items())) for _, params, _ in told(own)}
    assert len(points) == 4
    assert {tuning.winner(own)[1]["n_bins"]} <= {1, 5}


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_a_hopeless_trial_is_given_up_early(home, pruner):
    """Three of the learning rates, the last in the order of this seed, are too small to learn."""
    rates = [1e-9, 2e-9, 2e-2, 2.5e-2, 3e-2, 3.5e-2, 4e-2, 3e-9]
    space = {"learning_rate": {"choices": rates}}
    fixed = {**FIXED, "max_epochs": 12, "patience": 12, "batch_size": 16}
    own = Study("s", Search(trials=8, space=space, pruner=pruner, sampler="grid", grace_epochs=4, objective="val_loss"), fixed)  # fmt: skip
    found = searched.trials([work(own)])
    given_up = found[found["state"] == "given up early"]
    assert len(given_up) and (given_up["epochs"] < 12).all() and (given_up["epochs"] >= 4).all()
    assert found.loc[found["state"] == "whole", "value"].min() == tuning.best(own).value
    assert tuning.best(own).params["learning_rate"] > 1e-3
    none = study(pruner="none", trials=4)
    assert (searched.trials([work(none)])["state"] == "whole").all()


def test_the_objective_is_the_validation_score_of_the_notebook(home):
    """The run with a trial's settings has the validation accuracy that the trial told."""
    own = work(study(trials=2))
    assert runner.run(*tuning.winner(own), progress=False) == 0
    (row,) = results.scan().itertuples()
    assert row.val_accuracy == pytest.approx(tuning.best(own).value)
    loss = work(study(trials=2, objective="val_loss"))
    values = [value for _, _, value in told(loss)]
    assert min(values) == tuning.best(loss).value != tuning.best(own).value


# --- the whole -----------------------------------------------------------------------------------


def test_a_sweep_searches_tests_the_winner_once_and_reports(home, tmp_path, capsys):
    path = tmp_path / "s.yml"
    text = {"sweep": "s", "params": FIXED, "search": {"trials": 4, "space": {**SPACE, "n_bins": {"choices": [1, 5]}}}}  # fmt: skip
    path.write_text(json.dumps(text))
    assert main(["sweep", str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "0 of 4 trials done" in said and not store.searches_dir().exists()
    assert main(["sweep", str(path)]) == 0
    said = capsys.readouterr().out
    assert "trial 3 (" in said and "7 of 7 runs done, 0 failed" in said  # trials, two runs, report
    (own,) = searched.current("s")
    runs = results.scan()
    assert set(runs["key"]) == {runner.plan(*run).key for run in tuning.tested(own)}
    (report,) = [a for a in store.artifacts() if a.parts[-3] == "91_search"]
    trials = pd.read_parquet(report / searched.TRIALS)
    whole = trials[trials["state"] == "whole"]
    chosen = runner.plan(*tuning.winner(own)).params
    best = whole.loc[whole["value"].idxmax(), "learning_rate"]
    assert best == pytest.approx(chosen.learning_rate, rel=1e-3)
    assert len(f"{chosen.learning_rate:.15g}".lstrip("0.").replace(".", "")) <= 4  # for people
    assert store.read_manifest(report)["upstream"] == searched.inputs([own])
    words = searched.in_words([own], trials, searched.outcome([own]))
    assert "4 trials" in words and "the settings as they were" in words
    assert reports.there(runner.plan("91_search", {"search": "s"})) == report

    made = sorted(store.artifacts())
    assert main(["sweep", str(path)]) == 0 and "runs done" not in capsys.readouterr().out
    assert sorted(store.artifacts()) == made
    with pytest.raises(MissingInput, match="search = 'other': there are s"):
        searched.current("other")
    assert searched.current() == [own]


def test_the_shares_of_the_settings_say_which_one_matters(home):
    """Trials made up so that one setting decides."""
    own = study(trials=20)
    tuning.begin(own)
    opened = tuning.open_study(own)
    space = {"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True), "batch_size": optuna.distributions.CategoricalDistribution([16, 64])}  # fmt: skip
    rng = np.random.default_rng(0)
    for i in range(20):
        rate, size = 10 ** rng.uniform(-4, -1), int(rng.choice([16, 64]))
        opened.add_trial(
            optuna.create_trial(
                params={"learning_rate": rate, "batch_size": size}, distributions=space,
                value=np.log10(rate), user_attrs={"index": i},
            )
        )  # fmt: skip
    share = searched.importances([own]).set_index("setting")["share"]
    assert share["learning_rate"] > 0.8 > 0.2 > share["batch_size"]
    assert searched.importances([study(seed=5)]).empty


def test_without_any_search_the_report_says_how_to_make_one(home):
    with pytest.raises(MissingInput, match="none was run in this data root"):
        searched.current()
    assert reports.there(runner.plan("91_search", {})) is None
    with pytest.raises(BadParameter, match="unknown parameter 'serch'"):
        runner.plan("91_search", {"serch": "s"})
