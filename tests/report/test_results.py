"""Run folders as a table, and a run folder as a model again."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import many_runs
import numpy as np
import pytest
import tiny_project
from laboratory import N_TRIALS, Laboratory, change_manifest

import nblib
from nblib.core import recipes, store
from nblib.core.errors import BadInput, BadParameter, CorruptArtifact, MissingInput
from nblib.evaluate import scores as metrics
from nblib.experiments import few_shot, label_budget
from nblib.report import all_runs, score_file, summary
from nblib.report.one_run import load_run, read_all
from nblib.road import stages


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    return Laboratory(tiny_project.enter(tmp_path, monkeypatch))


def flags(table):
    return dict(zip(table["key"], table["flag"], strict=True))


# --- the table -----------------------------------------------------------------------------------


def test_no_runs_is_an_empty_table(laboratory):
    table = all_runs.scan()
    assert table.empty and list(table.columns) == list(all_runs.WIDE)


def test_a_run_is_one_row(laboratory):
    best = {"accuracy": metrics.Score(0.95, 0.93, 0.97, 1 / 3, 0.001, 24)}
    folder = laboratory.run(max_epochs=3, seed=2, oracle=best)
    (row,) = all_runs.scan().to_dict("records")
    expected = {
        "recipe": "tiny", "recording": "000021", "model": "logistic", "fold": 0, "seed": 2,
        "variant": "max_epochs=3", "accuracy": 0.9, "value": 0.9, "ci_low": 0.8, "n_test": 24,
        "oracle": 0.95, "oracle_low": 0.93, "key": folder.name, "folder": str(folder), "flag": "",
        "edited": False, "executed": False, "fit_s": 0.5,
    }  # fmt: skip
    for name, value in expected.items():
        assert row[name] == (pytest.approx(value) if isinstance(value, float) else value), name
    assert row["code_version"].startswith(nblib.__version__)
    (folder / "executed.ipynb").write_text("{}")
    assert all_runs.scan()["executed"].all()


def test_a_derived_recipe_is_told_by_what_it_changes(laboratory):
    laboratory.run()
    more_bins = recipes.derive(laboratory.recipe, {"n_bins": 10, "n_folds": 3})
    laboratory.run(recipe=more_bins)
    table = all_runs.scan("tiny").set_index("recipe")
    assert table["changed"].to_dict() == {"tiny": "", more_bins.recipe: "n_bins=10"}
    assert table["group"].to_dict() == {"tiny": "tiny", more_bins.recipe: "tiny (n_folds=3)"}
    assert len(all_runs.scan(more_bins.recipe)) == 1


def test_runs_on_other_data_are_another_group(laboratory):
    """They were judged on other presentations: no decoder is better for having had more."""
    larger = recipes.derive(laboratory.recipe, {"simulate": {"n_repeats": 9}, "n_bins": 10})
    told = all_runs.derivation(store.plain(larger.model_dump()), {"tiny": laboratory.recipe})
    assert told["group"] == "tiny (n_repeats=9)" and told["changed"] == "n_bins=10"
    unseen = recipes.derive(laboratory.recipe, {"keep_blank": False, "blank": "0"})
    told = all_runs.derivation(store.plain(unseen.model_dump()), {"tiny": laboratory.recipe})
    assert told["group"] == 'tiny (keep_blank=false, blank="0")' and told["changed"] == ""


def test_a_run_of_several_results_has_a_row_for_each(laboratory):
    score = metrics.Score(0.5, 0.4, 0.6, 1 / 3, 0.01, 24)
    rows = [
        {"model": "ridge", "variant": f"k={k}", "n_train": 3 * k, "scores": {"accuracy": score}}
        for k in (1, 5)
    ]
    asked = few_shot.Params(recipe="tiny", recording="000021", n_draws=2)
    told = {
        "notebook": "07_few_shot", "recipe": "tiny", "recording": "000021", "fold": 0, "seed": 0,
        "scores": {"ridge, k = 1": score}, "rows": rows,
    }  # fmt: skip
    extra = {
        "recipe": laboratory.recipe.model_dump(),
        "notebook": {"edited": False},
        "stage_version": stages.STAGES["07_few_shot"].version,
    }
    store.commit(
        "07_few_shot", "000021", "a" * 16, lambda folder: metrics.write_metrics(folder, told),
        params=asked.model_dump(), upstream=[laboratory.split(laboratory.recipe)], extra=extra,
    )  # fmt: skip
    laboratory.run()
    table = all_runs.scan()
    assert table["notebook"].tolist() == ["05_train_lstm", "07_few_shot", "07_few_shot"]
    assert table["variant"].tolist() == ["", "k=1, n_draws=2", "k=5, n_draws=2"]
    assert table["n_train"].tolist() == [82, 3, 15] and (table["flag"] == "").all()
    curves = load_run(table["folder"].iloc[-1])
    with pytest.raises(
        MissingInput, match=r"this run has no predictions\.parquet; it holds metrics\.json"
    ):
        _ = curves.predictions
    assert len(all_runs.comparable(table)) == 1  # a few examples do not stand for a decoder


def test_a_metric_is_chosen_and_an_unknown_one_is_refused(laboratory):
    laboratory.run()
    assert all_runs.scan(metric="top5")["value"].tolist() == [0.9]
    assert all_runs.scan()["oracle"].isna().all()
    with pytest.raises(BadParameter, match="'acuracy': no run has that score"):
        all_runs.scan(metric="acuracy")


def test_a_run_without_the_score_asked_for_shows_its_own_and_says_so(laboratory):
    score = metrics.Score(0.7, 0.6, 0.8, 0.5, 0.01, 3)
    told = {
        "notebook": "09_downstream_one_vs_all", "recipe": "tiny", "recording": "cohort",
        "model": "rp", "fold": -1, "seed": 0, "scores": {"balanced_accuracy": score},
    }  # fmt: skip
    asked = label_budget.Params(recipe="tiny")
    extra = {
        "recipe": laboratory.recipe.model_dump(),
        "notebook": {"edited": False},
        "stage_version": stages.STAGES["09_downstream_one_vs_all"].version,
    }
    store.commit(
        "09_downstream_one_vs_all", "cohort", "b" * 16,
        lambda folder: metrics.write_metrics(folder, told),
        params=asked.model_dump(), upstream=["c" * 16], extra=extra,
    )  # fmt: skip
    for metric in all_runs.ALWAYS:
        (row,) = all_runs.scan(metric=metric).to_dict("records")
        assert (row["metric"], row["value"]) == ("balanced_accuracy", 0.7)
    assert np.isnan(row["accuracy"])
    laboratory.run()
    assert sorted(all_runs.scan()["metric"]) == ["accuracy", "balanced_accuracy"]


def test_runs_that_must_not_be_averaged_are_flagged(laboratory):
    plain, other_seed = laboratory.run(), laboratory.run(seed=1)
    edited = laboratory.run(seed=1, code="mine", edited=True)
    again = laboratory.run(code="newer notebook")
    change_manifest(again, created="2999-01-01T00:00:00Z")
    table = all_runs.scan()
    assert flags(table) == {
        plain.name: f"duplicate of {again.name[:8]}",
        again.name: "",
        other_seed.name: "",
        edited.name: f"edited notebook, duplicate of {other_seed.name[:8]}",
    }
    assert set(all_runs.clean(table)["key"]) == {again.name, other_seed.name}


def test_runs_of_another_stage_version_are_flagged(laboratory, monkeypatch):
    now, info = laboratory.run(), stages.STAGES["05_train_lstm"]
    monkeypatch.setitem(stages.STAGES, "05_train_lstm", replace(info, version=1))
    before = laboratory.run(seed=1)
    monkeypatch.setitem(stages.STAGES, "05_train_lstm", info)
    table = all_runs.scan()
    told = f"old code (stage version 1, now {info.version})"
    assert flags(table) == {now.name: "", before.name: told}
    assert len(all_runs.comparable(table)) == 1


def test_runs_of_several_commits_are_told_and_not_flagged(laboratory):
    laboratory.run()
    assert all_runs.several_versions(all_runs.scan()) == []
    change_manifest(laboratory.run(seed=1), code_version="0.0.9+gabc")
    (sentence,) = all_runs.several_versions(all_runs.scan())
    assert (
        sentence.startswith("tiny: 2 runs of 2 versions of nblib") and "0.0.9+gabc (1)" in sentence
    )
    assert (all_runs.scan()["flag"] == "").all()


def test_a_run_on_another_split_of_the_same_recipe_is_old(laboratory):
    before = laboratory.run()
    path = laboratory.project.root / "params" / "recipes" / "tiny.yml"
    path.write_text(path.read_text() + "gap_s: 2.0\n")
    after = laboratory.run(recipe=recipes.find_recipe("tiny"))
    assert flags(all_runs.scan()) == {before.name: "old split", after.name: ""}
    path.unlink()  # without the recipe the newest split stands for it
    change_manifest(after, created="2999-01-01T00:00:00Z")
    assert flags(all_runs.scan()) == {before.name: "old split", after.name: ""}


def test_a_corrupt_run_is_shown_without_scores(laboratory):
    sound, broken = laboratory.run(), laboratory.run(seed=1)
    text = (broken / "metrics.json").read_text()
    (broken / "metrics.json").write_text(text.replace("0.9", "1.0", 1))
    table = all_runs.scan("tiny")
    assert flags(table) == {sound.name: "", broken.name: "corrupt"}
    assert table.set_index("key").loc[broken.name, ["accuracy", "value"]].isna().all()
    with pytest.raises(CorruptArtifact, match=r"metrics\.json"):
        load_run(broken)


def test_a_run_of_an_earlier_version_is_not_called_corrupt(laboratory):
    old, sound = laboratory.run(), laboratory.run(seed=1)
    manifest = store.read_manifest(old)
    (old / store.MANIFEST).write_text(json.dumps({k: v for k, v in manifest.items() if k != "sha256"}))  # fmt: skip
    assert flags(all_runs.scan()) == {old.name: "earlier nblib", sound.name: ""}


def test_a_recipe_given_by_its_path_is_found_again(laboratory, tmp_path):
    path = tmp_path / "own.yml"
    raw = laboratory.project.root / "raw.nwb"
    path.write_text(tiny_project.RECIPE.format(raw=raw).replace("recipe: tiny", "recipe: own"))
    own = recipes.load_recipe(path)
    base = laboratory.run(recipe=own, recipe_given=str(path))
    more_bins = recipes.derive(own, {"n_bins": 10})
    # From its path with a setting changed, and as the next notebook names it.
    derived = laboratory.run(recipe=more_bins, recipe_given=str(path))
    named = laboratory.run(recipe=more_bins, seed=1)
    for asked in ("own", str(path)):
        table = all_runs.scan(asked).set_index("key")
        assert set(table["group"]) == {"own"}
        assert table["changed"].to_dict() == {base.name: "", derived.name: "n_bins=10", named.name: "n_bins=10"}  # fmt: skip
    assert len(all_runs.comparable(all_runs.scan())) == 3
    path.write_text(path.read_text() + "gap_s: 2.0\n")  # the recipe changes: its runs are old
    assert flags(all_runs.scan("own"))[base.name] == "old split"
    path.unlink()
    assert set(all_runs.scan()["base"]) == {"own", more_bins.recipe}


def test_a_recipe_that_is_not_there_is_refused_with_those_that_are(laboratory):
    laboratory.run()
    with pytest.raises(BadParameter, match=r"no recipe 'tinny'.* There are runs of tiny\."):
        all_runs.scan("tinny")
    laboratory.project.recipe("unused", ["000021"])
    assert all_runs.scan("unused").empty


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_shows_what_matters_in_its_width(laboratory, width):
    best = {"accuracy": metrics.Score(0.95, 0.93, 0.97, 1 / 3, 0.001, 24)}
    laboratory.run(oracle=best)
    many = [0.0001 * 3**i for i in range(8)]
    laboratory.run(seed=2, accuracy=0.8, model_params={"c_values": many})
    broken = laboratory.run(seed=3)
    (broken / "metrics.json").write_text("{}")
    lines = summary.short_table(all_runs.scan(), width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["model", "recording", "differs", "accuracy,", "95", "%", "interval", "best"]  # fmt: skip
    assert lines[1].split() == ["logistic", "000021", "90.0%", "(80.0%", "to", "95.0%)", "95.0%"]
    assert "c_values=" in lines[2] and "…" in lines[2] and "80.0%" in lines[2]
    assert lines[3].split() == ["05_train_lstm", "000021", "corrupt"]


def test_reading_a_run_costs_the_same_however_many_there_are(laboratory, monkeypatch):
    """Files opened a run: the same with 12 runs as with 24, for the table and for the audit."""
    from nblib.report import audit

    def every():
        runs = read_all()
        return score_file.with_settings(all_runs.scores(runs), runs)

    def opened(look):
        counts = Counter()
        with monkeypatch.context() as patched:
            whole, text = Path.read_bytes, Path.read_text
            patched.setattr(Path, "read_bytes", lambda p: (counts.update(["n"]), whole(p))[1])
            patched.setattr(Path, "read_text", lambda p, *a, **k: (counts.update(["n"]), text(p, *a, **k))[1])  # fmt: skip
            look()
        return counts["n"]

    many_runs.make(laboratory, 12)
    few = {}
    for name, look in (("audit", audit.audit), ("audit again", audit.audit), ("scores", every)):
        few[name] = opened(look)
    many_runs.make(laboratory, 24)
    for name, look in (("audit again", audit.audit), ("scores", every)):
        each = (opened(look) - few[name]) / 12
        assert 0 < each <= {"audit again": 5, "scores": 2}[name], name


# --- a run as a model ----------------------------------------------------------------------------


def test_a_run_gives_its_model_back_and_predicts(laboratory):
    folder = laboratory.run()
    run = nblib.load_run(folder)
    told = run.predictions.set_index("trial")
    guess = run.predict(laboratory.binned)
    assert guess.shape == (N_TRIALS,)
    assert (guess[told.index] == told["predicted"]).all()
    assert (guess == laboratory.binned.label.to_numpy()).mean() > 0.6
    log_proba = run.predict_log_proba(laboratory.binned)
    assert log_proba.shape == (N_TRIALS, 3)
    assert np.allclose(np.exp(log_proba).sum(axis=1), 1)
    assert run.config["model"] == "logistic" and run.metrics["n_test"] == 24
    assert run.recipe == laboratory.recipe and run.key == folder.name

    # Raw counts with the ids of their units, in any order and with more units than it knows.
    counts, ids = laboratory.binned.counts.to_numpy(), laboratory.binned.unit.to_numpy()
    order = [3, 1, 4, 0, 2]
    more = np.concatenate([counts[:, :, order], counts[:, :, :1]], axis=2)
    assert (run.predict(more, [*ids[order], "stranger"]) == guess).all()


def test_what_does_not_fit_the_model_is_refused(laboratory):
    run = load_run(laboratory.run())
    counts, ids = laboratory.binned.counts.to_numpy(), laboratory.binned.unit.to_numpy()
    with pytest.raises(BadInput, match="no unit_ids"):
        run.predict(counts)
    with pytest.raises(BadInput, match="4 unit_ids"):
        run.predict(counts, ids[:4])
    with pytest.raises(BadInput, match="unit"):
        run.predict(counts[:, :, 1:], ids[1:])
    with pytest.raises(BadInput, match="2 bins"):
        run.predict(counts[:, :1], ids)


def test_a_run_is_found_by_the_beginning_of_its_key(laboratory):
    folder = laboratory.run()
    assert load_run(folder.name[:6]).folder == folder
    with pytest.raises(MissingInput, match="nblib results"):
        load_run("0123456789abcdef")
    with pytest.raises(MissingInput):
        load_run(folder.name[:2])
    with pytest.raises(BadInput, match="not a run"):
        load_run(store.folder("04_split", "000021", load_run(folder).manifest["upstream"][0]))


def test_a_run_without_its_split_says_how_to_make_it(laboratory):
    run = load_run(laboratory.run())
    place = store.folder("04_split", "000021", run.manifest["upstream"][0])
    place.rename(place.with_name(".away"))
    with pytest.raises(MissingInput, match="nblib run 04_split --with-upstream -p recipe tiny"):
        run.predict(laboratory.binned)


def test_flipped_bytes_of_a_model_are_noticed(laboratory):
    folder = laboratory.run()
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, (0, 0))
    with pytest.raises(CorruptArtifact, match=r"weights\.safetensors"):
        nblib.load_run(folder)


def test_recordings_that_share_a_key_are_told_apart(laboratory):
    """Two recordings of a recipe that read the same file have the same keys."""
    laboratory.project.recipe("tiny", ["000021", "000022"])
    folder, twin = laboratory.run(), laboratory.run(recording="000022")
    assert folder.name == twin.name
    assert all_runs.scan()["run"].tolist() == [f"000021/{folder.name}", f"000022/{folder.name}"]
    with pytest.raises(BadParameter, match="recording/key"):
        load_run(folder.name)
    assert load_run(f"000022/{folder.name}").folder == twin
