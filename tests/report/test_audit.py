"""The leakage audit: every fault that is put in is found, and a clean project has none."""

import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import tiny_project
import torch
from laboratory import (
    Laboratory,
    binned_counts,
    change_manifest,
    change_metrics,
    rewrite,
    vouch,
)

from nblib import models
from nblib.core import recipes, store
from nblib.core.errors import BadParameter
from nblib.evaluate import scores
from nblib.models import CONFIG
from nblib.prepare import decoder_inputs, stored_splits
from nblib.report import all_runs, audit
from nblib.report.audit.checks import role_faults
from nblib.report.one_run import HISTORY

TWO = 'recipe: two\nrecordings: ["000021", "000022"]\nsource: nwb\npath: {root}/raw_{{recording}}.nwb\nn_folds: 2\n'


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    """Two recordings with raw files of their own, and a recipe of two folds."""
    project = tiny_project.enter(tmp_path, monkeypatch)
    for recording in ("000021", "000022"):
        (project.root / f"raw_{recording}.nwb").write_bytes(recording.encode())
    path = project.root / "params" / "recipes" / "two.yml"
    path.write_text(TWO.format(root=project.root))
    return Laboratory(project, "two")


def split_of(run):
    manifest = store.read_manifest(run)
    return store.folder("04_split", manifest["recording"], manifest["upstream"][0])


def found(check=""):
    return [f for f in audit.audit().findings if check in ("", f.check)]


def only(check, run, what, verdict=audit.LEAK):
    """The one finding of a check, and no other check has any."""
    findings = found()
    assert {f.check for f in findings} == {check}, findings
    assert all(f.folder.name == run.name and f.verdict == verdict for f in findings)
    assert what in findings[0].what, findings[0].what


def test_a_clean_project_has_no_findings(laboratory):
    for recording in ("000021", "000022"):
        for fold in (0, 1):
            laboratory.run(recording=recording, fold=fold)
    report = audit.audit()
    assert report.findings == []
    assert report.looked == {
        "files": 4, "one split": 4, "roles": 2, "test rows": 4, "random split": 4, "choice": 4, "windows": 0,
        "recordings": 2, "subjects": 0, "sessions": 0,
    }  # fmt: skip
    table = report.table()
    nothing = "nothing to look at"
    assert table["verdict"].tolist() == ["passed"] * 6 + [nothing, "passed", nothing, nothing]
    assert report.in_words() == "4 runs audited: no leak found."


def test_no_run_is_no_finding(home):
    assert audit.audit().findings == []


# --- splits --------------------------------------------------------------------------------------


def restated(run, split):
    """Store another split, and let the run state its hash and its counts."""
    rewrite(split_of(run), stored_splits.SPLIT_FILE, split)
    fold = split[split["fold"] == 0]["role"].value_counts()
    counts = {f"n_{role}": int(fold[role]) for role in ("train", "val", "test")}
    change_metrics(run, split_hash=stored_splits.split_hash(split), **counts)


def test_a_test_row_that_also_teaches_is_found(laboratory):
    run = laboratory.run()
    split = pd.read_parquet(split_of(run) / stored_splits.SPLIT_FILE)
    leaked = split[(split["fold"] == 0) & (split["role"] == "test")].head(1)
    restated(run, pd.concat([split, leaked.assign(role="train")], ignore_index=True))
    checks = {f.check for f in found()}
    assert checks == {"roles", "test rows"}
    told = [f.what for f in found("roles")]
    assert any("trial(s) of fold 0 have several roles" in what for what in told)
    assert "predictions are of rows that taught" in found("test rows")[0].what


def test_a_row_inside_the_gap_is_found(laboratory):
    run = laboratory.run()
    split = pd.read_parquet(split_of(run) / stored_splits.SPLIT_FILE)
    near = split.index[(split["fold"] == 0) & (split["role"] == "gap")][0]
    split.loc[near, "role"] = "train"
    restated(run, split)
    only("roles", run, "lie within 1 s of")


def test_a_presentation_copied_under_another_number_is_found_by_its_time(laboratory):
    run = laboratory.run()
    split = pd.read_parquet(split_of(run) / stored_splits.SPLIT_FILE)
    copy = split[(split["fold"] == 0) & (split["role"] == "test")].head(1)
    copy = copy.assign(trial=999, group=999, role="train")
    assert list(role_faults(pd.concat([split, copy]), 0.0))
    assert list(role_faults(split, 1.0)) == []
    both = split.copy()
    both.loc[both["fold"] == 1, "role"] = both.loc[both["fold"] == 0, "role"].to_numpy()
    assert any("is tested in several folds" in what for what in role_faults(both, 1.0))


def test_a_group_with_two_roles_is_found(laboratory):
    run = laboratory.run()
    split = pd.read_parquet(split_of(run) / stored_splits.SPLIT_FILE)
    test = split[(split["fold"] == 0) & (split["role"] == "test")].index[0]
    train = split[(split["fold"] == 0) & (split["role"] == "train")].index[-1]
    split.loc[train, "group"] = split.loc[test, "group"]
    assert any("group(s) of fold 0 have several roles" in what for what in role_faults(split, 0.0))


def test_a_stated_split_that_is_not_the_stored_one_is_found(laboratory):
    run = laboratory.run()
    change_metrics(run, split_hash="0" * 12)
    only("one split", run, "it states split 000000000000")


def test_runs_that_are_compared_and_were_judged_by_two_splits_are_found(laboratory):
    run = laboratory.run()
    laboratory.run(model="logistic", seed=1)
    other = recipes.derive(laboratory.recipe, {"unusable_trials": "leave_out"})
    odd = laboratory.run(recipe=other, seed=2)
    split = pd.read_parquet(split_of(odd) / stored_splits.SPLIT_FILE)
    split = split[split["trial"] != 0]  # one presentation less
    restated(odd, split)
    if 0 in set(pd.read_parquet(odd / scores.PREDICTIONS)["trial"]):
        told = pd.read_parquet(odd / scores.PREDICTIONS)
        rewrite(odd, scores.PREDICTIONS, told[told["trial"] != 0])
    only("one split", odd, "most runs of two, 000021, by")
    assert run.name != odd.name


def test_a_changed_or_missing_split_cannot_be_told(laboratory):
    run = laboratory.run()
    path = split_of(run) / stored_splits.SPLIT_FILE
    path.write_bytes(path.read_bytes()[:-1])
    assert {(f.verdict, f.check) for f in found()} == {
        ("cannot be told", c) for c in ("files", "one split", "roles", "test rows", "choice")
    }
    shutil.rmtree(split_of(run))
    assert {f.verdict for f in found()} == {"cannot be told"}
    assert "0 leaks**, and 6 that cannot be told" in audit.audit().in_words()


def test_splits_in_each_other_s_folder_are_not_what_was_written(laboratory):
    runs = [laboratory.run(recording=recording) for recording in ("000021", "000022")]
    one, other = map(split_of, runs)
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)
    findings = found("files")
    assert [f.folder.name for f in findings] == [run.name for run in runs]
    assert all(f.verdict == audit.UNTOLD for f in findings)
    assert [split.name in f.what for f, split in zip(findings, (one, other), strict=True)] == [
        True
    ] * 2


# --- runs ----------------------------------------------------------------------------------------


def test_predictions_of_rows_that_are_no_test_rows_are_found(laboratory):
    run = laboratory.run()
    told = pd.read_parquet(run / scores.PREDICTIONS)
    rewrite(run, scores.PREDICTIONS, told.assign(trial=told["trial"] + 1000))
    only("test rows", run, "predictions are of no test row")
    rewrite(run, scores.PREDICTIONS, told.iloc[:-1])
    only("test rows", run, "1 test rows have no prediction")


def test_predictions_of_train_rows_are_found(laboratory):
    run = laboratory.run()
    split = pd.read_parquet(split_of(run) / stored_splits.SPLIT_FILE)
    taught = split[(split["fold"] == 0) & (split["role"] == "train")]["trial"]
    told = pd.read_parquet(run / scores.PREDICTIONS)
    told.loc[0, "trial"] = taught.iloc[0]
    rewrite(run, scores.PREDICTIONS, told)
    only("test rows", run, f"1 predictions are of rows that taught, first trial {taught.iloc[0]}")


def test_a_count_of_rows_that_disagrees_is_found(laboratory):
    run = laboratory.run()
    change_metrics(run, n_train=1)
    only("test rows", run, "the run counts 1 train rows")


def test_a_random_split_of_labels_in_runs_is_found(laboratory):
    random = laboratory.run(recipe=recipes.derive(laboratory.recipe, {"split": "random"}))
    assert found() == []  # labels come in turns
    split = pd.read_parquet(split_of(random) / stored_splits.SPLIT_FILE)
    slow = {trial: label for trial, label in zip(split["trial"], np.sort(split["label"]), strict=True)}  # fmt: skip
    restated(random, split.assign(label=split["trial"].map(slow)))
    (finding,) = found("random split")
    assert finding.verdict == audit.LEAK and "Labels come in runs" in finding.what


def test_test_scores_beside_epochs_are_found(laboratory):
    run = laboratory.run()
    history = pd.read_parquet(run / HISTORY)
    rewrite(run, HISTORY, history.assign(test_accuracy=0.9))
    only("choice", run, "test scores stood beside its epochs: test_accuracy")


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_a_run_that_fitted_on_test_rows_is_found(laboratory, model):
    run = laboratory.run(model=model, max_epochs=4, val="test")
    only("choice", run, ", but that on the test rows")


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_test_accuracy_said_to_be_validation_accuracy_is_found(laboratory, model):
    sound = laboratory.run(model=model, max_epochs=4)
    assert found() == []
    accuracy = pd.read_parquet(sound / scores.PREDICTIONS)["correct"].mean()
    assert accuracy != json.loads((sound / scores.METRICS).read_text())["val_accuracy"]
    change_metrics(sound, val_accuracy=accuracy)
    only("choice", sound, f"its validation accuracy {accuracy:.4f} is not that of its model")


def test_both_faults_at_once_are_found(laboratory):
    run = laboratory.run(val="test")
    accuracy = pd.read_parquet(run / scores.PREDICTIONS)["correct"].mean()
    change_metrics(run, val_accuracy=accuracy)
    only("choice", run, "is not that of its model on the validation rows")


def test_an_epoch_kept_by_its_test_score_is_found(laboratory, monkeypatch):
    """The trainer itself is made to keep the weights that do best on the test rows."""
    from nblib.models import training

    split, statistics = stored_splits.load(store.folder("04_split", "000021", laboratory.split(laboratory.recipe, "000021")))  # fmt: skip
    test = decoder_inputs.role_samples(binned_counts("000021"), split, statistics[0], 0)["test"]
    as_it_is, kept = training.Keeper.on_train_epoch_end, {}

    def by_test(self, trainer, lit):
        as_it_is(self, trainer, lit)
        with torch.no_grad():
            loss, _ = training.classify(lit.net.eval(), torch.tensor(test.x), torch.tensor(test.y))
        if loss < kept.get("loss", np.inf):
            weights = {k: v.detach().clone() for k, v in lit.net.state_dict().items()}
            kept.update(loss=loss, epoch=self.history[-1]["epoch"], weights=weights)
        self.best_epoch, self.best = kept["epoch"], kept["weights"]

    monkeypatch.setattr(training.Keeper, "on_train_epoch_end", by_test)
    run = laboratory.run(model="mlp", max_epochs=12, learning_rate=0.03)
    best = int(pd.read_parquet(run / HISTORY)["val_loss"].idxmin())
    assert best != kept["epoch"], "the two choices agree: this says nothing"
    only("choice", run, f"it kept epoch {kept['epoch']}, whose validation loss is")
    # And one that also says to have kept the right one.
    config = json.loads((run / CONFIG).read_text())
    config["training"]["best_epoch"] = best
    (run / CONFIG).write_text(json.dumps(config))
    vouch(run, CONFIG)
    only("choice", run, "is not that of its model on the validation rows")


def test_arithmetic_in_16_bit_is_no_leak_and_hides_none(laboratory):
    for seed in range(3):
        laboratory.run(model="mlp", max_epochs=3, precision="bf16-mixed", seed=seed)
    assert found() == []
    leak = laboratory.run(model="mlp", max_epochs=3, precision="bf16-mixed", seed=9, val="test")
    only("choice", leak, "is not that of its model on the validation rows")


def test_a_control_with_shuffled_labels_is_asked_for_its_own_labels(laboratory):
    laboratory.run(shuffle_labels=True, seed=3)
    report = audit.audit()
    assert report.findings == [] and report.looked["choice"] == 1


def test_a_model_is_asked_once_as_long_as_nothing_changes(laboratory, monkeypatch):
    run = laboratory.run()
    assert found() == []
    with monkeypatch.context() as patched:
        patched.setattr(models, "load", lambda folder: pytest.fail("asked again"))
        assert found() == []
    other = laboratory.run(seed=1, model_params={"c_values": [1e-4]})
    shutil.copy(other / "weights.safetensors", run / "weights.safetensors")
    vouch(run, "weights.safetensors")
    only("choice", run, "is not that of its model on the validation rows")


def test_a_bug_of_ours_does_not_look_like_a_broken_run(laboratory, monkeypatch):
    laboratory.run()

    def bug(*_):
        raise KeyError("modle")

    with monkeypatch.context() as patched, pytest.raises(KeyError, match="modle"):
        patched.setattr(all_runs, "_changed_parameters", bug)
        all_runs.scan()
    monkeypatch.setitem(audit.LOOKS, "test rows", bug)
    with pytest.raises(KeyError, match="modle"):
        audit.audit()


def test_a_field_that_is_gone_cannot_be_told(laboratory):
    run = laboratory.run()
    told = json.loads((run / scores.METRICS).read_text())
    del told["fold"]
    (run / scores.METRICS).write_text(json.dumps(told))
    vouch(run, scores.METRICS)
    assert {f.verdict for f in found()} == {"cannot be told"}
    assert all("has no field 'fold'" in f.what for f in found())


def test_a_recipe_that_is_not_there_is_refused(laboratory):
    laboratory.run()
    with pytest.raises(BadParameter, match=r"no recipe 'twoo'.* There are runs of two\."):
        audit.audit("twoo")
    assert audit.audit("tiny").looked["files"] == 0  # it is there, without a run


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_of_a_run_that_was_taught_again_the_record_is_checked_and_the_rest_untold(
    laboratory, model
):
    run = laboratory.run(model=model, max_epochs=4, learning_rate=0.03, refit=True)
    only("choice", run, "validation rows taught its model again", audit.UNTOLD)
    history, told = pd.read_parquet(run / HISTORY), json.loads((run / scores.METRICS).read_text())
    change_metrics(run, val_accuracy=told["val_accuracy"] / 2)
    only("choice", run, "is not that of the epoch with the lowest validation loss")
    change_metrics(run, val_accuracy=told["val_accuracy"])
    rewrite(run, HISTORY, history.assign(epoch=history["epoch"][::-1].to_numpy()))
    only("choice", run, "whose validation loss is")
    # A manifest that hides it does not fit its key.
    hidden = laboratory.run(model=model, max_epochs=4, learning_rate=0.03, seed=1, refit=True)
    parameters = store.read_manifest(hidden)["parameters"]
    change_manifest(hidden, parameters=parameters | {"refit": False})
    (finding,) = [f for f in found() if f.folder.name == hidden.name]
    assert "key" in finding.what


def test_a_choice_that_left_no_trace_cannot_be_told(laboratory):
    run = laboratory.run()
    change_metrics(run, val_accuracy=None)
    only("choice", run, "no validation accuracy is recorded", audit.UNTOLD)


def test_a_run_that_is_not_as_its_stage_writes_it_does_not_end_the_audit(laboratory):
    run, other = laboratory.run(), laboratory.run(seed=1)
    rewrite(run, scores.PREDICTIONS, pd.DataFrame({"row": [1]}))
    only("test rows", run, "it has no column 'trial'", audit.UNTOLD)
    assert audit.audit().looked["test rows"] == 2 and other.is_dir()


def test_changed_scores_cannot_be_told(laboratory):
    run = laboratory.run()
    (run / "metrics.json").write_text("{}")
    only("files", run, "its bytes changed", audit.UNTOLD)


# --- recordings and subjects ---------------------------------------------------------------------


def test_a_recording_under_a_second_name_is_found(laboratory):
    shutil.copy(laboratory.project.root / "raw_000021.nwb", laboratory.project.root / "raw_000022.nwb")  # fmt: skip
    laboratory.run(recording="000021")
    second = laboratory.run(recording="000022")
    only("recordings", second, "000022 and 000021 are one recording")


COHORT = ["m1", "m2", "m3", "m4"]


@pytest.fixture
def cohort(home):
    """Windows of four mice, a run of 08 taught by m1 and m2, and one of 09 that tests m4."""
    recipe = {"recordings": COHORT, "source": "lfp_nwb", "recipe": "mice"}
    keys = []
    for number, name in enumerate(COHORT):
        raw = f"{number:064d}"
        ingest = store.commit("01_ingest", name, f"{number:016d}", lambda f: None, params={}, upstream=[raw])  # fmt: skip
        keys.append(f"1{number:015d}")

        def windows(folder, name=name):
            with h5py.File(folder / "windows.h5", "w") as file:
                file.attrs["subject"] = f"subject of {name}"

        store.commit("02_bin", name, keys[-1], windows, params={}, upstream=[ingest.name])
    score = scores.Score(0.6, 0.5, 0.7, 0.5, 0.01, 10)
    extra = {"recipe": recipe, "notebook": {"edited": False, "code_hash": "x"}, "stage_version": 2}
    roles = {"train": ["m1", "m2"], "val": ["m3"], "test": ["m4"]}

    def pretext(folder):
        told = {"recordings": roles, "scores": {"accuracy": score}, "val_accuracy": 0.5, "model": "rp", "fold": 0,
                "seed": 0, "split_hash": "s", "recipe": "mice"}  # fmt: skip
        scores.write_metrics(folder, told)
        history = {"epoch": [0, 1], "val_loss": [0.7, 0.9], "val_accuracy": [0.5, 0.6]}
        pd.DataFrame(history).to_parquet(folder / HISTORY)

    given = {"pretext": "rp", "fold": 0, "teachers": "train_subjects", "n_folds": 4}
    teacher = store.commit(
        "08_ssl_pretext", "cohort", "8" * 16, pretext, params=given, upstream=keys, extra=extra
    )

    def downstream(folder):
        told = {"scores": {"rp": score}, "model": "rp", "fold": 0, "seed": 0, "split_hash": "s"}
        scores.write_metrics(folder, told)
        draws = {"embedder": ["rp", "random"], "fold": [0, 0], "subject": ["subject of m4"] * 2}
        pd.DataFrame(draws).to_parquet(folder / "draws.parquet")

    judge = store.commit(
        "09_downstream_one_vs_all", "cohort", "9" * 16, downstream, params={},
        upstream=[*keys, teacher.name], extra=extra | {"stage_version": 3},
    )  # fmt: skip
    return teacher, judge


def test_a_clean_cohort_has_no_findings(cohort):
    report = audit.audit()
    assert report.findings == []
    assert report.looked["subjects"] == 2 and report.looked["recordings"] == 4


def test_test_subjects_that_taught_are_found_in_both_runs(cohort):
    teacher, judge = cohort
    roles = {"train": ["m1", "m2", "m4"], "val": ["m3"], "test": ["m4"]}
    change_metrics(teacher, recordings=roles)
    told = {f.folder.name: f.what for f in found("subjects")}
    assert set(told) == {teacher.name, judge.name}
    assert told[judge.name] == "rp, fold 0: taught by test subject(s) subject of m4"


def test_one_subject_in_two_recordings_is_found(cohort):
    teacher, _ = cohort
    folder = next(f for f in store.artifacts() if f.parts[-2] == "m1" and f.parts[-3] == "02_bin")
    with h5py.File(folder / "windows.h5", "a") as file:
        file.attrs["subject"] = "subject of m4"
    vouch(folder, "windows.h5")
    assert {f.folder.name for f in found("subjects")} >= {teacher.name}


def test_teaching_by_all_subjects_is_no_finding_where_it_was_asked_for(cohort):
    teacher, judge = cohort
    manifest = store.read_manifest(teacher)
    change_manifest(teacher, parameters=manifest["parameters"] | {"teachers": "all_subjects"})
    change_metrics(teacher, recordings={"train": COHORT, "val": [], "test": ["m4"]})
    draws = pd.read_parquet(judge / "draws.parquet")
    rewrite(judge, "draws.parquet", draws.assign(embedder=["rp@all", "random"]))
    assert found() == []


def test_an_embedder_without_a_run_that_spared_the_test_subjects_cannot_be_told(cohort):
    teacher, judge = cohort
    manifest = store.read_manifest(teacher)
    change_manifest(teacher, parameters=manifest["parameters"] | {"teachers": "all_subjects"})
    (finding,) = found()  # shown as plain `rp`, it was taught by all
    assert finding.folder.name == judge.name and "no run of 08 that spared" in finding.what


def test_weights_from_a_file_cannot_be_told(cohort):
    _, judge = cohort
    draws = pd.read_parquet(judge / "draws.parquet")
    rewrite(judge, "draws.parquet", draws.assign(embedder=["rp", "mine.pth"]))
    (finding,) = found()
    assert finding.verdict == "cannot be told" and "mine.pth" in finding.what


def test_one_file_under_two_names_in_a_cohort_is_found(cohort):
    folder = next(f for f in store.artifacts() if f.parts[-2] == "m4" and f.parts[-3] == "01_ingest")  # fmt: skip
    change_manifest(folder, upstream=[f"{0:064d}"])
    (finding,) = found()
    assert finding.check == "recordings" and finding.what.startswith("m4 and m1 are one recording")


def test_the_report_names_the_run_of_each_finding(laboratory):
    run = laboratory.run()
    change_metrics(run, n_train=1)
    table = audit.audit().table()
    row = table[table["verdict"] == "leak"].iloc[0]
    assert row["run"] == f"000021/{run.name}" and row["check"] == "test rows"
    assert json.loads(table.to_json())
