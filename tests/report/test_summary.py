"""All runs as people read them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nblib.report import all_runs, model_choice, plots, summary
from nblib.report.plots.all_runs import compare_runs


@pytest.fixture
def runs():
    base = {
        "chance": 0.01,
        "p": 0.001,
        "null": "label permutation",
        "fold": 0,
        "seed": 0,
        "n_test": 100,
        "flag": "",
        "variant": "",
        "changed": "",
        "notebook": "05_train_lstm",
        "code_version": "0.1.0",
        "split_hash": "s",
    }
    rows = [
        {"recipe": "demo", "recording": "a", "model": "lstm", "value": 0.80, "oracle": 0.95, "key": "k1", "run": "k1"},
        {"recipe": "demo", "recording": "b", "model": "lstm", "value": 0.60, "oracle": 0.95, "key": "k2", "run": "k2"},
        {"recipe": "demo", "recording": "a", "model": "mlp", "value": 0.65, "oracle": 0.95, "key": "k3", "run": "k3"},
        {"recipe": "real", "recording": "c", "model": "mlp", "value": 0.40, "oracle": None, "key": "k4", "run": "k4"},
    ]  # fmt: skip
    table = pd.DataFrame([{**base, **row} for row in rows])
    table["val_accuracy"] = [0.7, 0.7, 0.5, 0.4]
    return table.assign(
        base=table["recipe"],
        group=table["recipe"],
        metric="accuracy",
        ci_low=table["value"] - 0.1,
        ci_high=table["value"] + 0.1,
    )


def test_table_is_sorted_and_in_percent(runs):
    table = summary.runs_table(runs)
    assert table["score"].tolist() == ["80.0%", "65.0%", "60.0%", "40.0%"]
    assert table.loc[0, "95 % interval"] == "70.0% to 90.0%"
    assert table["best possible"].tolist() == ["95.0%", "95.0%", "95.0%", ""]


def test_a_corrupt_run_is_listed_last_without_scores(runs):
    runs.loc[0, ["value", "ci_low", "ci_high", "p"]] = float("nan")
    runs.loc[0, "flag"] = "corrupt"
    last = summary.runs_table(runs).iloc[-1]
    assert "corrupt" in last["differs"] and last["score"] == ""


def test_words_name_the_best_of_each_recipe(runs):
    words = summary.in_words(runs)
    assert "4 runs" in words
    demo = "- demo: **lstm**, the only decoder, with a mean accuracy of 70.0% over 2 recordings (2 runs, 60.0% to 80.0%, chance 1.0%, best possible 95.0%)."
    assert (
        f"{demo} 1 more, not run on the same recordings and folds, took no part.\n" in words
    )  # mlp
    assert "- real: **mlp**, the only decoder, with an accuracy of 40.0% (95 % interval 30.0% to 50.0%, chance 1.0%)." in words  # fmt: skip
    assert "no run" in summary.in_words(runs.iloc[:0])


def test_validation_chooses_and_test_scores_have_no_part_in_it(runs):
    both = pd.concat([runs, runs.iloc[[2]].assign(recording="b", run="k5")], ignore_index=True)
    both["val_accuracy"] = [0.5, 0.5, 0.9, 0.4, 0.4]
    words = "- demo: **mlp**, out of 2 decoders, with a mean accuracy of"
    assert f"{words} 65.0%" in summary.in_words(both)
    both["value"] = [0.99, 0.99, 0.01, 0.4, 0.01]
    assert f"{words} 1.0%" in summary.in_words(both)


def predictions(folder, right, first_trial=0):
    """A stored table of predictions with so many right out of 40."""
    folder.mkdir()
    correct = np.arange(40) < right
    table = pd.DataFrame({"trial": first_trial + np.arange(40), "label": np.arange(40) % 2})
    table["predicted"] = np.where(correct, table["label"], 1 - table["label"])
    table.assign(correct=correct, group=table["trial"]).to_parquet(folder / "predictions.parquet")
    return str(folder)


@pytest.fixture
def stored(runs, tmp_path, monkeypatch):
    """The runs of recording a, with predictions and a second fold of the first decoder."""
    monkeypatch.setattr(
        model_choice,
        "load_run",
        lambda f: SimpleNamespace(predictions=pd.read_parquet(Path(f) / "predictions.parquet")),
    )
    runs = runs.iloc[[0, 2, 2]].assign(model=["lstm", "mlp", "gru"], split_hash="s")
    runs["val_accuracy"] = [0.7, 0.5, 0.6]
    runs["folder"] = [predictions(tmp_path / str(i), n) for i, n in enumerate((36, 12, 35))]
    second = runs.iloc[[0]].assign(fold=1, folder=predictions(tmp_path / "f1", 20, 40))
    return pd.concat([runs, second], ignore_index=True)


def test_the_chosen_decoder_is_compared_on_the_same_presentations(stored):
    compared = model_choice.paired(stored)
    table = summary.comparison_table(compared).set_index("other")
    assert set(table["chosen"]) == {"lstm"} and (table["n"] == 40).all()  # fold 0 alone
    assert table["difference"].to_dict() == {"gru": "+2.5%", "mlp": "+60.0%"}
    assert table.loc["mlp", "p, Holm"] == pytest.approx(
        2 * table.loc["mlp", "p, sign flips"], abs=2e-4
    )
    assert table.loc["gru", "p, Holm"] > 0.5
    assert "recipe" not in table  # the same in every row
    words = summary.in_words(stored, compared=compared)
    assert words.endswith("On test it cannot be told apart from gru.")
    assert summary.standing(compared[compared["other"] == "mlp"]) == "On test it beats mlp."
    worse = compared.assign(low=-compared["high"], high=-compared["low"])
    assert summary.standing(worse).startswith("On test it is beaten by mlp, which")


def test_runs_of_another_split_are_not_compared(stored):
    stored["split_hash"] = ["s", "other", "s", "s"]
    assert model_choice.paired(stored)["other"].tolist() == ["gru"]
    assert model_choice.paired(stored.iloc[:1]).empty


def test_folds_are_pooled(stored):
    (row,) = summary.folds_table(model_choice.over_folds(stored)).to_dict("records")
    assert row["decoder"] == "lstm" and row["folds"] == 2 and row["n"] == 80
    assert row["pooled accuracy"] == "70.0%" and row["chance"] == "50.0%"
    assert (row["lowest fold"], row["highest fold"]) == ("50.0%", "90.0%")
    assert summary.folds_table(model_choice.over_folds(stored.iloc[:3])).empty


# --- chosen on validation, compared over recordings -----------------------------------------------


def cohort(scores, validation=None, folds=(0,), group="demo"):
    """Runs of models on recordings; scores: model -> one score a recording (None: not run)."""
    rows = [
        {"group": group, "recording": f"r{i}", "split_hash": f"s{i}", "model": model, "variant": "", "changed": "",
         "fold": fold, "seed": 0, "value": value, "val_accuracy": (validation or scores)[model][i],
         "notebook": "05_train_lstm", "flag": "", "run": f"r{i}/{model}{fold}"}
        for model, values in scores.items()
        for i, value in enumerate(values)
        for fold in folds
        if value is not None
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_validation_chooses_the_best_of_each_recording():
    runs = cohort({"lstm": [0.9, 0.2], "mlp": [0.5, 0.6]}, {"lstm": [0.5, 0.7], "mlp": [0.4, 0.1]}, folds=(0, 1))  # fmt: skip
    found = model_choice.chosen(runs)
    assert set(found["decoder"]) == {"lstm"}  # for r1 too, although its test score is lower
    assert found.groupby("recording").size().to_dict() == {"r0": 2, "r1": 2}  # a row a fold
    assert model_choice.chosen(runs.iloc[:0]).empty


def test_a_decoder_that_was_not_run_on_every_fold_is_not_chosen():
    runs = cohort({"lstm": [0.9], "mlp": [0.5]}, folds=(0, 1, 2))
    easy = runs[~((runs["model"] == "lstm") & (runs["fold"] > 0))]
    assert set(model_choice.chosen(easy)["decoder"]) == {"mlp"}
    assert set(model_choice.chosen(runs)["decoder"]) == {"lstm"}


def test_decoders_are_compared_over_recordings():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.9, 10)
    runs = cohort(
        {"lstm": base, "gru": base + rng.normal(0, 0.02, 10) - 0.001, "ridge": base - 0.1}
    )
    table = model_choice.over_recordings(runs).set_index("other")
    assert set(table["chosen"]) == {"lstm"} and (table["n"] == 10).all()
    assert table.loc["ridge", "difference"] == pytest.approx(0.1)
    assert table.loc["ridge", "p"] == pytest.approx(2 / 2**10, abs=1e-4)
    assert table.loc["ridge", "holm"] == pytest.approx(4 / 2**10, abs=1e-4)
    assert table.loc["gru", "p"] > 0.05


def test_only_recordings_and_splits_that_both_share_are_compared():
    runs = cohort({"lstm": [0.9, 0.9, 0.9], "mlp": [0.5, 0.6, None]})
    (row,) = model_choice.over_recordings(runs).to_dict("records")
    assert row["n"] == 2 and row["difference"] == pytest.approx(0.35)
    runs.loc[(runs["model"] == "mlp") & (runs["recording"] == "r1"), "split_hash"] = "other"
    assert model_choice.over_recordings(runs).empty  # a single recording says nothing of others
    few = cohort({"lstm": [0.9, 0.9, 0.9], "mlp": [0.99, None, None]})
    assert model_choice.over_recordings(few).empty  # and a decoder of one recording is not the best


def test_one_recording_is_compared_over_its_presentations(stored):
    table = summary.comparison_table(model_choice.comparisons(stored))
    assert set(table["of"]) == {"presentations"} and len(table) == 2
    both = pd.concat([stored, cohort({"lstm": [0.9, 0.8], "mlp": [0.5, 0.6]}, group="many")])
    table = summary.comparison_table(model_choice.comparisons(both))
    assert set(table["of"]) == {"presentations", "recordings"}
    assert table["recipe"].tolist() == ["many", "demo", "demo"]
    assert table.loc[table["of"] == "recordings", "n"].tolist() == [2]
    assert model_choice.comparisons(stored.iloc[:0]).empty


def test_the_words_hold_the_verdict_of_the_audit_and_tell_of_several_versions(runs):
    words = summary.in_words(runs, "accuracy", "4 runs audited: no leak found.")
    assert words.endswith("- 4 runs audited: no leak found.") and "versions of nblib" not in words
    runs.loc[0, "code_version"] = "0.2.0"
    assert "- demo: 3 runs of 2 versions of nblib" in summary.in_words(runs)
    assert summary.in_words(runs.iloc[:0], leaks="0 runs audited.").endswith("0 runs audited.")


def few_shot_rows(recordings, values, group="demo", rest=""):
    return pd.DataFrame(
        [
            {"notebook": "07_few_shot", "group": group, "changed": "", "recording": r, "model": "ridge",
             "variant": f"k={k}{rest}", "value": v, "ci_low": v - 0.1, "ci_high": v + 0.1, "chance": 0.1,
             "run": f"run of {r}", "oracle": 0.9, "n_train": 10 * (k if k != "all" else 25), "n_classes": 10, "flag": ""}
            for r, v in zip(recordings, values, strict=True)
            for k in (1, "all")
        ]
    )  # fmt: skip


def test_learning_curves_are_averaged_over_recordings():
    one = model_choice.learning_curves(few_shot_rows(["a"], [0.4]))
    assert one[["k", "per_class", "n_recordings"]].to_numpy().tolist() == [[1, 1, 1], [0, 25, 1]]
    assert one["ci_low"].tolist() == pytest.approx([0.3, 0.3])
    many = model_choice.learning_curves(few_shot_rows("abcd", [0.2, 0.3, 0.4, 0.5]))
    assert many["value"].tolist() == pytest.approx([0.35, 0.35])
    # About 3.18 standard errors of four recordings each way.
    assert [many["ci_low"][0], many["ci_high"][0]] == pytest.approx([0.145, 0.555], abs=0.04)
    assert model_choice.learning_curves(few_shot_rows(["a"], [0.4]).iloc[:0]).empty
    # Other recipes and other settings are curves of their own.
    other = few_shot_rows("ab", [0.9, 0.9], group="real")
    slow = few_shot_rows("ab", [0.1, 0.1], rest=", max_epochs=3")
    three = model_choice.learning_curves(pd.concat([few_shot_rows("ab", [0.2, 0.3]), other, slow]))
    by = three[three["k"] == 1].set_index("model")["value"].round(3).to_dict()
    assert by == {"ridge, demo": 0.25, "ridge, demo, max_epochs=3": 0.1, "ridge, real": 0.9}
    # A recording that lacks a k has no part: all points are of the same recordings.
    part = pd.concat([few_shot_rows("ab", [0.2, 0.3]), few_shot_rows("c", [0.9]).iloc[:1]])
    assert model_choice.learning_curves(part)["n_recordings"].tolist() == [2, 2]
    # Two folds of one recording are one recording.
    twice = model_choice.learning_curves(few_shot_rows(["a", "a", "b"], [0.2, 0.4, 0.5]))
    assert twice["value"][0] == pytest.approx(0.4) and twice["n_recordings"][0] == 2


def test_saved_table_keeps_every_column(runs, tmp_path):
    summary.save(runs, tmp_path, pd.DataFrame({"check": ["roles"], "verdict": ["passed"]}))
    assert pd.read_parquet(tmp_path / "audit.parquet")["verdict"].tolist() == ["passed"]
    assert pd.read_parquet(tmp_path / "runs.parquet").columns.tolist() == runs.columns.tolist()
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 4


def test_no_run_yet(home):
    none = all_runs.scan()
    assert summary.runs_table(none).empty and "no run" in summary.in_words(all_runs.clean(none))
    assert plots.png_bytes(compare_runs(all_runs.clean(none))).startswith(b"\x89PNG")


def test_a_control_with_shuffled_labels_has_no_part_in_it(runs):
    control = runs.iloc[[0]].assign(variant="shuffle_labels=true", value=0.01, val_accuracy=0.99)
    fair = all_runs.comparable(pd.concat([runs, control], ignore_index=True))
    words = summary.in_words(fair)
    assert "- demo: **lstm**, the only decoder, with a mean accuracy of 70.0%" in words
    assert "4 runs" in words


def test_runs_with_other_settings_are_not_averaged_in(runs):
    other = runs.iloc[[0, 1]].assign(variant='graph="learned"', value=0.1, val_accuracy=0.75)
    words = summary.in_words(pd.concat([runs, other], ignore_index=True))
    assert '- demo: **lstm (graph="learned")**, out of 2 decoders, with a mean accuracy of 10.0%' in words  # fmt: skip
    words = summary.in_words(pd.concat([runs, other.assign(val_accuracy=0.2)], ignore_index=True))
    assert "- demo: **lstm**, out of 2 decoders, with a mean accuracy of 70.0% over 2 recordings" in words  # fmt: skip


def test_a_decoder_of_the_easy_recording_is_announced_nowhere(runs):
    """LSTM was run on both recordings, ridge on the easy one alone, where LSTM beats it too."""
    some = cohort({"lstm": [0.95, 0.40], "ridge": [0.90, None]})
    easy = some[some["recording"] == "r0"]
    assert set(model_choice.chosen(some, ("group",))["decoder"]) == {"lstm"}
    assert (
        set(model_choice.chosen(some)["decoder"])
        == set(model_choice.chosen(easy)["decoder"])
        == {"lstm"}
    )
    folds = cohort({"lstm": [0.6], "gru": [0.5]}, folds=(0, 1))
    one = cohort({"ridge": [0.99]})  # on the easy fold alone
    table = pd.concat([folds, one], ignore_index=True)
    best = model_choice.chosen(table)
    assert set(best["decoder"]) == {"lstm"} and set(best["rivals"]) == {2} and set(best["left_out"]) == {1}  # fmt: skip
    assert set(model_choice.chosen(table, ("group",))["decoder"]) == {"lstm"}


def test_decoders_of_other_recordings_are_not_compared(runs):
    apart = cohort({"lstm": [0.9, None], "mlp": [None, 0.5]})
    assert model_choice.chosen(apart, ("group",)).empty
    assert set(model_choice.chosen(apart)["decoder"]) == {
        "lstm",
        "mlp",
    }  # each the only one of its own
    told = summary.verdicts(apart.assign(chance=0.1, oracle=np.nan), by=("group",))
    assert told[0].startswith("demo: validation chooses none")
    # Of equally large sets, the one on which the most decoders were run.
    more = cohort({"lstm": [0.9, None], "mlp": [None, 0.5], "gru": [None, 0.6]})
    assert set(model_choice.chosen(more, ("group",))["decoder"]) == {"gru"}


def test_more_seeds_and_more_folds_do_not_weigh_more():
    base = cohort({"lstm": [0.5, 0.9], "mlp": [0.8, 0.5]})
    lucky = base[(base["model"] == "lstm") & (base["recording"] == "r1")]
    seeds = pd.concat([base, *(lucky.assign(seed=s) for s in range(1, 9))], ignore_index=True)
    base_best = model_choice.chosen(base, ("group",))["decoder"].unique().tolist()
    assert (
        model_choice.chosen(seeds, ("group",))["decoder"].unique().tolist() == base_best == ["lstm"]
    )
    worse = seeds.assign(val_accuracy=seeds["val_accuracy"].replace(0.8, 0.95))
    assert set(model_choice.chosen(worse, ("group",))["decoder"]) == {"mlp"}
