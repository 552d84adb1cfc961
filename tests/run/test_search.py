"""Searches: validation alone chooses, nothing is done twice, the winner is tested once."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest
from by_hand import ROAD, by_hand

from nblib.cli import main
from nblib.core import params as P
from nblib.core import store
from nblib.core.errors import BadInput, BadParameter, CorruptArtifact, MissingInput, NblibError
from nblib.experiments import decode
from nblib.report import all_runs
from nblib.road import stages
from nblib.run import clean_up, execute, many, plan, sweep
from nblib.run.search import tables
from nblib.run.search import trials as tuning
from nblib.run.search.definition import Search, Study

FIXED = {
    "recipe": "tiny", "recording": "tiny", "model": "lstm", "importance": 0, "max_epochs": 3,
    "model_params": {"hidden": 8, "dropout": 0.0, "input_dropout": 0.0}, "n_permutations": 100, "n_bootstrap": 100,
}  # fmt: skip
SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "batch_size": {"choices": [16, 64]}}  # fmt: skip
pytestmark = pytest.mark.usefixtures("preloaded")


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A data root with the tiny recording in one and five bins, made once."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLIB_HOME", str(folder))
        for n in (1, 5):
            recipe = plan.job_of("02_bin", {"recipe": "tiny", "n_bins": n}).recipe_name
            for name in ROAD:
                by_hand(name, recipe=recipe, recording="tiny")
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
        ("learning_rate: {low: 0.001, high: 0.1}", "fold: {choices: [0, 1]}", "fold says what trials are judged on"),
        ("learning_rate: {low: 0.001, high: 0.1}", "seed: {low: 0, high: 9}", "seed says what trials"),
        ("learning_rate: {low: 0.001, high: 0.1}", "refit: {choices: [true, false]}", "refit says what trials are judged on, how to work, or what to do once they are judged"),
        ("learning_rate: {low: 0.001, high: 0.1}", "shuffle_labels: {choices: [true, false]}", "shuffle_labels says"),
        ("learning_rate: {low: 0.001, high: 0.1}", "label: {choices: [frame, stimulus_name]}", "label says what"),
        ("learning_rate: {low: 0.001, high: 0.1}", "split_seed: {choices: [0, 1]}", "split_seed says what"),
        ("learning_rate: {low: 0.001, high: 0.1}", "invalid_presentations: {choices: [drop, keep]}", "invalid_presentations says what"),
        ("learning_rate: {low: 0.001, high: 0.1}", "unobserved: {choices: [units, keep]}", "unobserved says what"),
        ("learning_rate: {low: 0.001, high: 0.1}", "learning_rate: {low: 0.001, high: .inf}", "should be a finite number"),
        ("trials: 4", "each: {fold: [0, 0]}", "each.fold names 0 twice"),
        ("model: lstm}", "model: lstm, learning_rate: 0.1}", "learning_rate is fixed and searched"),
        ("model: lstm}", "model: nearest_mean}", "nearest_mean is not trained by epochs and has no learning_rate"),
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


def test_inputs_with_another_split_are_refused(home):
    """Trials on other validation presentations could not be compared: fewer units may remain, and
    with them another split, where units decide which presentations stay."""
    own = study(space={"n_bins": {"choices": [1, 5]}})
    assert tuning.begin(own) == [0, 1, 2, 3]
    from nblib.prepare import stored_splits

    hashes = iter(["one", "other"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_splits, "split_hash", lambda roles: next(hashes))
        with pytest.raises(BadInput, match="different splits"):
            tuning.begin(own)


# --- trials --------------------------------------------------------------------------------------


def test_no_trial_looks_at_test_presentations(home, monkeypatch):
    """Spoilt test presentations change no trial, which seed and index propose; judged on them, as a
    faulty trial would be, all change."""
    load = decode.load_data
    clean = told(work(study()))
    assert len({str(params) for _, params, _ in clean}) == 4

    def poisoned(*given):
        data = load(*given)
        noise = np.full_like(data.test.x, np.nan)
        return replace(data, test=replace(data.test, x=noise, y=data.test.y[::-1].copy()))

    def leaking(*given):
        data = load(*given)
        return replace(data, val=data.test)

    for load_data, same in ((poisoned, True), (leaking, False)):
        monkeypatch.setattr(decode, "load_data", load_data)
        shutil.rmtree(store.searches_dir())
        assert (told(work(study())) == clean) == same
    assert told(work(study(seed=1), [0]))[0][1] != clean[0][1]


def test_what_is_done_is_not_done_again(home):
    """Neither trials nor runs; of a process that was killed the trial is made once more."""
    own = study()
    tuning.begin(own)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tuning, "judge", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        tuning.attempt_trial(str(own.folder()), 0)
    assert tuning.begin(own) == [0, 1, 2, 3]
    work(own)
    assert sorted(tuning.ended(own)) == [0, 1, 2, 3] and tuning.begin(own) == []
    assert len(tuning.tested(own)) == 2 and tuning.tested(study(trials=6)) == []  # not halfway
    more = study(trials=6)
    assert more.folder() == own.folder() and tuning.begin(more) == [4, 5]
    assert "done already" in tuning.attempt_trial(str(own.folder()), 2).message
    assert study(seed=1).folder() != own.folder() != study(objective="val_loss").folder()
    # How to work, and a default said aloud.
    same = {**FIXED, "device": "cpu", "threads": 1, "fold": 0}
    assert Study("s", own.search, same).folder() == own.folder()
    info, before = stages.STAGES["05_train_lstm"], own.folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stages.STAGES, "05_train_lstm", replace(info, version=99))
        assert study().folder() != before  # trials of other code do not choose
    assert Study("s", own.search, {**FIXED, "max_epochs": 2}).folder() != own.folder()


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
    table = tables.trials([own]).set_index("learning_rate")
    assert table.loc[1e30, "state"] == "failed" and "not finite" in table.loc[1e30, "error"]
    assert tuning.winner(own)[1]["learning_rate"] == 0.01
    assert tuning.begin(own) == []  # an error of its own is not tried again
    hopeless = work(study(trials=1, space={"learning_rate": {"choices": [1e30]}}))
    assert tuning.winner(hopeless) is None and tuning.tested(hopeless) == []
    words = tables.in_words([hopeless], tables.trials([hopeless]), tables.outcome([hopeless]))
    assert "Nothing was tested: none ran to its end" in words
    assert tables.importances([hopeless]).empty and len(tables.inputs([hopeless])) == 1


def test_a_grid_takes_every_point_once(home):
    space = {"batch_size": {"choices": [16, 64]}, "n_bins": {"choices": [1, 5]}}
    own = work(study(space=space, sampler="grid", trials=4))
    points = {tuple(sorted(params.items())) for _, params, _ in told(own)}
    assert len(points) == 4
    for seed in range(3):  # whichever trial is lost with its process, and made again
        own = study(space=space, sampler="grid", trials=4, seed=seed)
        tuning.begin(own)
        lost = tuning.open_study(own, 1).ask()
        lost.suggest_categorical("batch_size", [16, 64])
        work(own)
        assert len({str(params) for _, params, _ in told(own)}) == 4
    assert {tuning.winner(own)[1]["n_bins"]} <= {1, 5}


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_a_hopeless_trial_is_given_up_early(home, pruner):
    """Three of the learning rates, the last in the order of this seed, are too small to learn."""
    rates = [1e-9, 2e-9, 2e-2, 2.5e-2, 3e-2, 3.5e-2, 4e-2, 3e-9]
    space = {"learning_rate": {"choices": rates}}
    # Else it knows something without learning.
    from_nothing = {**FIXED["model_params"], "linear": ""}
    fixed = FIXED | {
        "max_epochs": 12,
        "patience": 12,
        "batch_size": 16,
        "model_params": from_nothing,
    }
    own = Study("s", Search(trials=8, space=space, pruner=pruner, sampler="grid", grace_epochs=4, objective="val_loss"), fixed)  # fmt: skip
    found = tables.trials([work(own)])
    given_up = found[found["state"] == "given up early"]
    assert len(given_up) and (given_up["epochs"] < 12).all() and (given_up["epochs"] >= 4).all()
    assert found.loc[found["state"] == "whole", "value"].min() == tuning.best(own).value
    assert tuning.best(own).params["learning_rate"] > 1e-3


def test_the_objective_is_the_validation_score_of_the_notebook(home):
    """The run with a trial's settings has the validation accuracy that the trial told."""
    own = work(study(trials=2, pruner="none"))
    assert (tables.trials([own])["state"] == "whole").all()
    assert execute.run(*tuning.winner(own), progress=False) == 0
    (row,) = all_runs.scan().itertuples()
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
    (own,) = tables.current("s")
    runs = all_runs.scan()
    assert set(runs["key"]) == {plan.job_of(*run).key for run in tuning.tested(own)}
    (report,) = [a for a in store.artifacts() if a.parts[-3] == "91_search"]
    trials = pd.read_parquet(report / tables.TRIALS)
    whole = trials[trials["state"] == "whole"]
    chosen = plan.job_of(*tuning.winner(own)).params
    best = whole.loc[whole["value"].idxmax(), "learning_rate"]
    assert best == pytest.approx(chosen.learning_rate, rel=1e-3)
    assert len(f"{chosen.learning_rate:.15g}".lstrip("0.").replace(".", "")) <= 4  # for people
    assert store.read_manifest(report)["upstream"] == tables.inputs([own])
    words = tables.in_words([own], trials, tables.outcome([own]))
    assert "4 trials" in words and "the settings as they were" in words
    assert plan.job_of("91_search", {"search": "s"}).done() == report

    made = sorted(store.artifacts())
    assert main(["sweep", str(path)]) == 0 and "runs done" not in capsys.readouterr().out
    assert sorted(store.artifacts()) == made
    with pytest.raises(MissingInput, match="search = 'other': there are s"):
        tables.current("other")
    assert tables.current() == [own]


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
    share = tables.importances([own]).set_index("setting")["share"]
    assert share["learning_rate"] > 0.8 > 0.2 > share["batch_size"]
    assert tables.importances([study(seed=5)]).empty


def test_pruned_trials_never_win_and_dotted_settings_reach_the_test(home):
    own = study(trials=3, space={"model_params.hidden": {"choices": [4, 8, 16]}})
    own = Study("s", own.search, {**FIXED, "model_params": {"dropout": 0.0}})
    tuning.begin(own)
    opened = tuning.open_study(own)
    state = optuna.trial.TrialState
    space = {"model_params.hidden": optuna.distributions.CategoricalDistribution([4, 8, 16])}
    for i, (hidden, kind, value) in enumerate([(4, state.COMPLETE, 0.3), (8, state.COMPLETE, 0.4), (16, state.PRUNED, 0.9)]):  # fmt: skip
        more = {"value": value} if kind == state.COMPLETE else {"intermediate_values": {1: value}}
        opened.add_trial(optuna.create_trial(state=kind, params={"model_params.hidden": hidden}, distributions=space, user_attrs={"index": i}, **more))  # fmt: skip
    assert tuning.best(own).params == {"model_params.hidden": 8}
    assert tuning.winner(own) == ("05_train_lstm", {**own.fixed, "model_params": {"dropout": 0.0, "hidden": 8}})  # fmt: skip


def test_a_search_that_is_stopped_tests_nothing(home, tmp_path, monkeypatch):
    path = tmp_path / "s.yml"
    search = {"trials": 6, "space": SPACE}
    path.write_text(json.dumps({"sweep": "s", "params": FIXED, "search": search}))
    stopped = execute.Exit(128 + signal.SIGINT, "trial 0: stopped")
    monkeypatch.setattr(many, "run_calls", lambda calls, *_, **__: [stopped] * len(calls))
    before = sorted(store.artifacts())
    assert main(["sweep", str(path)]) == 130
    assert sorted(store.artifacts()) == before
    assert not list(store.searches_dir().glob("*/current.json"))


def test_damaged_files_are_named(home):
    own = work(study(trials=1))
    tuning.keep("s", [own])
    journal = own.folder() / tuning.JOURNAL
    journal.write_text(journal.read_text() + '{"op_code": 4, "wo\n{}\n')
    with pytest.raises(CorruptArtifact, match=r"journal.log: a line of it is damaged"):
        tuning.ended(own)
    (own.folder() / tuning.STUDY).unlink()
    with pytest.raises(CorruptArtifact, match=r"study.json: not readable"):
        tables.current("s")
    (store.searches_dir() / "s" / tuning.CURRENT).write_text("[")
    with pytest.raises(CorruptArtifact, match=r"current.json: not readable"):
        tables.current()


def test_inputs_of_a_search_are_no_waste_and_nothing_is_freed_under_work(home):
    own = work(study(trials=2, space={"n_bins": {"choices": [1, 5]}}, sampler="grid"))
    tuning.keep("s", [own])
    assert not [w for w in clean_up.waste() if w.why == "no result rests on it"]
    shutil.rmtree(store.searches_dir())
    assert len([w for w in clean_up.waste() if w.why == "no result rests on it"]) == 8
    kept = store.failed_dir() / "tiny" / f"05_train_lstm-abc.{os.getpid()}@{platform.node()}.running.ipynb"  # fmt: skip
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("{}")
    with pytest.raises(NblibError, match="Nothing was freed"):
        clean_up.gc(delete=True)
    kept.unlink()
    assert "Freed" in clean_up.gc(delete=True)


def test_without_any_search_the_report_says_how_to_make_one(home):
    with pytest.raises(MissingInput, match="none was run in this data root"):
        tables.current()
    assert plan.job_of("91_search", {}).done() is None
    with pytest.raises(BadParameter, match="unknown parameter 'serch'"):
        plan.job_of("91_search", {"serch": "s"})


@pytest.mark.slow
def test_a_network_of_many_sessions_is_searched_by_its_validation_loss(tmp_path, monkeypatch):
    """The same file, another stage and objective: trials, the winner, its test scores in words."""
    monkeypatch.setenv("NBLIB_HOME", str(tmp_path))
    space = {"most_hidden": {"low": 0.2, "high": 0.8}, "width": {"choices": [8, 16]}}
    fixed = {
        "recipe": "task_tiny", "max_epochs": 2, "layers": 1, "n_permutations": 100, "n_bootstrap": 100,
    }  # fmt: skip
    more = {"notebook": "12_multimodal", "objective": "val_loss", "space": space, "trials": 2}
    own = Study("s", Search(**more), fixed)
    own.check()
    roads = sweep.with_roads([("04_split", {"recipe": "task_tiny", "recording": r}) for r in ("t1", "t2")])  # fmt: skip
    assert not any(o.code for o in many.run_many(roads, 2, progress=False))
    assert own.title() == "task_tiny" and len(told(work(own))) == 2
    assert [s for s in tables.trials([own])["state"]] == ["whole", "whole"]
    for run in tuning.tested(own):
        assert execute.run(*run, progress=False) == 0
    tested = tables.outcome([own])
    chosen = tested[tested["which"] == "chosen by validation"]
    assert chosen["validation"].iloc[0] == pytest.approx(tuning.best(own).value, rel=1e-4)
    assert {"wheel", "choice", "spikes from behaviour"} <= set(chosen["score"])
    assert "score on test trials wheel" in tables.in_words([own], tables.trials([own]), tested)
    with pytest.raises(NblibError, match="12_multimodal has val_loss"):
        P.checked(Search, {**more, "objective": "val_accuracy"}, "s")
