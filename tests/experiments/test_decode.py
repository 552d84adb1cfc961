"""One training run: what is loaded, fitted, scored and written."""

import json
from dataclasses import replace
from types import SimpleNamespace

import by_hand
import numpy as np
import pandas as pd
import pytest

from nblib.core import recipes, store
from nblib.core.errors import BadParameter, MissingInput
from nblib.core.params import Recipe
from nblib.data import counts_dataset
from nblib.evaluate import scores, stats
from nblib.experiments import decode
from nblib.prepare import binning, stored_splits
from nblib.report import all_runs, audit, model_choice
from nblib.report.one_run import load_run
from nblib.road import stages

FEW = {"n_permutations": 100, "n_bootstrap": 100}


def begin(name, **given):
    return by_hand.begin(name, **{"recipe": "tiny", "recording": "tiny", **given})


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """01 to 04 of the tiny recording, in the data root of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLIB_HOME", str(tmp_path_factory.mktemp("home")))
        tiny = {"recipe": "tiny", "recording": "tiny"}
        _, counts, cleaned, split = (by_hand.by_hand(name, **tiny) for name in by_hand.ROAD)
        yield SimpleNamespace(
            counts=counts["binned"],
            cleaned=cleaned["cleaned"],
            roles=split["roles"],
            fitted=split["statistics"],
        )


def load(stage, **more):
    split, counts = stage.input("04_split"), stage.input("03_clean")
    return decode.load_data(split, counts, stage.recipe, stage.params, **more)


def trained(**given):
    stage = begin("05_train_lstm", **FEW, **given)
    data = load(stage)
    decoder = decode.make_decoder(stage.params)
    history = decode.fit(decoder, data, stage.params, stage.log_dir)
    ideal = decode.ideal_observer(data, stage.recipe, stage.params)
    return stage, data, decoder, decode.evaluate(decoder, data, stage.params, history, ideal)


def test_a_decoder_taught_again_keeps_the_validation_score_it_was_chosen_by(road):
    plain, data, _, result = trained(model="bayes_poisson")
    other, _, again, taught = trained(model="bayes_poisson", refit=True)
    assert taught.about["val_accuracy"] == result.about["val_accuracy"]
    assert again.fitted["refit"] == len(data.train) + len(data.val)
    assert (again.predict(data.val.x) == data.val.y).mean() > result.about["val_accuracy"]
    assert plain.key != other.key  # it is a run of its own
    assert taught.about["n_train"] == result.about["n_train"]


def test_an_ensemble_rests_on_the_runs_of_its_members(road):
    names = ["bayes_poisson", "logistic"]
    given = {"model": "ensemble", "model_params": {"members": names}, "seed": 3}
    stage = begin("05_train_lstm", **FEW, **given)
    runs = stage.params.needs(stage.recipe)
    with pytest.raises(
        MissingInput, match=r"needs a run of 05_train_lstm .*-p model bayes_poisson"
    ):
        stage.needed(runs[0])
    for name in names:
        other, _, _, of_one = trained(model=name, seed=3)
        other.commit(lambda folder, result=of_one, who=other.who: result.save(folder, who))
    members = {run.model: stage.needed(run) for run in runs}
    assert stage.made_of.upstream[1:] == [folder.name for folder in members.values()]
    data, decoder = load(stage), decode.make_decoder(stage.params, members)
    history = decode.fit(decoder, data, stage.params, stage.log_dir)
    assert decoder.members["logistic"].weight.tolist() == load_run(members["logistic"]).model.weight.tolist()  # fmt: skip
    result = decode.evaluate(decoder, data, stage.params, history)
    folder = stage.commit(lambda folder: result.save(folder, stage.who))
    assert load_run(folder).model.predict(data.test.x).tolist() == decoder.predict(data.test.x).tolist()  # fmt: skip
    assert [f for f in audit.audit().findings if f.folder == folder] == []


def words_of(stage, data, result):
    return decode.in_words(result, data, stage.recipe, stage.params.model)


def test_data_are_the_split_s(road):
    data = load(begin("05_train_lstm"))
    sizes = road.roles["role"].value_counts()
    assert data.table()["presentations"].to_dict() == {
        r: sizes[r] for r in ("train", "val", "test")
    }
    assert (data.table()["units"] == len(road.fitted[0].unit_ids)).all()
    assert data.split_hash == stored_splits.split_hash(road.roles)
    group = stored_splits.time_blocks(road.roles)[1]
    np.testing.assert_array_equal(data.group, group.loc[data.test.trial])
    np.testing.assert_allclose(data.stop_s, [0.05, 0.10, 0.15, 0.20, 0.25], atol=1e-3)


def test_who_chooses_units_on_fewer_rows_gets_all_as_they_are(road):
    data = load(begin("05_train_lstm"), every_unit=True)
    np.testing.assert_array_equal(data.unit_ids, road.cleaned["unit"])
    counts = road.cleaned["counts"].sel(trial=data.train.trial)
    np.testing.assert_array_equal(data.train.x, counts)
    for name in ("07_few_shot", "10_image_latents"):
        text = (store.notebooks_dir() / f"{name}.ipynb").read_text()
        assert "every_unit=True" in text


def test_an_unknown_fold_is_refused(road):
    with pytest.raises(
        BadParameter, match=r"fold = 1: the split of .* has 1 fold\(s\), numbered from 0"
    ):
        load(begin("05_train_lstm", fold=1))


def test_missing_upstream_is_named(home):
    with pytest.raises(MissingInput, match="nblib run 04_split --with-upstream"):
        load(begin("05_train_lstm"))


def test_a_run_from_start_to_artifact(road):
    stage, data, _, result = trained(model="linear_svm")
    place = stage.commit(lambda folder: result.save(folder, stage.who))
    predictions, history = result.tables["predictions"], result.tables["history"]
    run = load_run(place)
    assert run.metrics["scores"]["accuracy"]["value"] == predictions["correct"].mean()
    assert run.metrics["n_test"] == len(data.test) and run.metrics["n_classes"] == 7
    assert run.metrics["oracle"]["accuracy"]["value"] > 0.5
    test = road.cleaned.sel(trial=data.test.trial)
    np.testing.assert_array_equal(run.predict(test), predictions["predicted"])
    assert len(run.history) == len(history)
    assert len(pd.read_parquet(place / "accuracy_by_time.parquet")) == data.test.x.shape[1]
    assert json.loads((place / "config.json").read_text())["model"] == "linear_svm"
    row = all_runs.scan()
    row = row[row["key"] == run.key].iloc[0]
    assert row["flag"] == "" and row["oracle"] == run.metrics["oracle"]["accuracy"]["value"]


def rows_of(road, role):
    """The counts of a role's trials as the fold's statistics scale them, and its classes, by trial."""
    trials = np.sort(road.roles.loc[road.roles["role"] == role, "trial"])
    picked, statistics = road.cleaned.sel(trial=trials), road.fitted[0]
    x = statistics.transform(picked["counts"].to_numpy(), picked["unit"].to_numpy())
    return trials, x, statistics.encode(picked["label"].to_numpy())


def only_train_and_validation(road, seen):
    """Each fit saw the train rows, then the validation rows, and nothing else of the recording."""
    assert seen
    pairs = [p for both in seen for p in zip(both, ("train", "val"), strict=True)]
    for given, role in pairs:
        _, x, _ = rows_of(road, role)
        assert len(given) == len(x), f"rows of another role than {role}"
        for unit in np.moveaxis(given, 2, 0):  # some of the units, as they are
            assert (unit[:, :, None] == x).all(axis=(0, 1)).any(), "other counts than the trials'"


def test_no_fit_sees_a_test_row(road, monkeypatch):
    """Whoever is fitted for a run (the decoder, its network, the decoders of single areas)."""
    from nblib import models
    from nblib.models import training

    seen, loop, kind = [], training.fit, models.MODELS["mlp"]
    fit = kind.fit

    def spy(decoder, x, y, val, **how):
        seen.append((x, val[0]))
        return fit(decoder, x, y, val, **how)

    def spied_loop(net, train, val, *more, **how):
        seen.append((train.x, val.x))
        return loop(net, train, val, *more, **how)

    monkeypatch.setattr(kind, "fit", spy)
    monkeypatch.setattr(training, "fit", spied_loop)
    trained(model="mlp", areas=True, importance=0, max_epochs=2)
    assert len(seen) >= 2 * 3, "the decoder and those of areas, and the networks of both"
    only_train_and_validation(road, seen)


@pytest.mark.parametrize("shuffle", [False, True])
def test_validation_accuracy_is_that_of_validation_rows(road, shuffle):
    _, data, decoder, result = trained(model="linear_svm", shuffle_labels=shuffle)
    _, x, y = rows_of(road, "val")
    if shuffle:
        y = data.val.y
    right = (decoder.predict(x) == y).mean()
    assert result.about["val_accuracy"] == right != result.scores["accuracy"].value


def test_the_oracle_reads_the_units_of_the_decoder_alone(road):
    stage = begin("05_train_lstm", model="nearest_mean", **FEW)
    data = load(stage)
    few = decode.of_units(data, np.arange(len(data.unit_ids)) < 3)
    all_units, three = (decode.ideal_observer(d, stage.recipe, stage.params) for d in (data, few))
    rows = np.arange(len(data.test))
    assert three[rows, data.test.y].mean() < all_units[rows, data.test.y].mean() - 0.1


def test_the_last_moment_is_the_whole_presentation(road):
    _, data, decoder, result = trained(model="linear_svm")
    by_time = result.tables["accuracy_by_time"]
    assert by_time["accuracy"].iloc[-1] == result.scores["accuracy"].value
    filled = rows_of(road, "train")[1].mean(axis=0)  # bins not yet known: nothing of test rows
    again = scores.accuracy_over_time(decoder, data.test, data.stop_s, filled, data.group)
    pd.testing.assert_frame_equal(by_time, again)


def test_the_oracle_says_nothing_about_shuffled_labels(road):
    stage, data, _, result = trained(model="linear_svm", shuffle_labels=True)
    assert result.best is None and "best possible" not in words_of(stage, data, result)
    assert "best possible" not in result.table()
    plain = load(begin("05_train_lstm"))
    assert not np.array_equal(plain.test.y, data.test.y)
    np.testing.assert_array_equal(np.sort(plain.test.y), np.sort(data.test.y))


def test_the_sentence_states_the_numbers(road):
    stage, data, _, result = trained(model="linear_svm")
    words = words_of(stage, data, result)
    for number in (
        f"{result.scores['accuracy'].value:.1%} of {len(data.test)}",
        f"{result.scores['accuracy'].chance:.1%}",
        f"{result.best['accuracy'].value:.1%}",
    ):
        assert number in words


def test_the_sentence_tells_of_a_random_split_of_labels_in_runs(road):
    stage, data, _, result = trained(model="nearest_mean")
    in_runs = replace(data, labels_in_runs=True)
    drawn = stage.recipe.model_copy(update={"split": "random"})
    assert stored_splits.RUNS_AND_RANDOM in decode.in_words(result, in_runs, drawn, "nearest_mean")
    assert stored_splits.RUNS_AND_RANDOM not in decode.in_words(result, data, drawn, "nearest_mean")
    assert stored_splits.RUNS_AND_RANDOM not in words_of(stage, in_runs, result)


def test_presentations_of_a_block_count_as_one(road):
    """Interval and p of 05, and of the best possible beside it, are over blocks."""
    stage, data, decoder, alone = trained(model="nearest_mean")
    blocked = replace(data, group=np.arange(len(data.test)) // 8)
    history = pd.DataFrame({"epoch": [0]})
    ideal = decode.ideal_observer(data, stage.recipe, stage.params)
    result = decode.evaluate(decoder, blocked, stage.params, history, ideal)
    log_proba = decoder.predict_log_proba(data.test.x)
    for told, answers in ((result.scores, log_proba), (result.best, ideal)):
        given = {**FEW, "seed": stage.params.seed, "group": blocked.group}
        assert told == scores.decoding_scores(data.test.y, answers, **given)
    one, other = (r.scores["accuracy"] for r in (alone, result))
    assert one.value == other.value and (one.ci_low, one.ci_high) != (other.ci_low, other.ci_high)
    # What is pooled over folds later reads the blocks here.
    assert result.tables["predictions"]["group"].tolist() == blocked.group.tolist()
    for name in ("accuracy_by_time", "importance_units", "importance_bins"):
        of_one, of_blocks = (r.tables[name].filter(regex="low|high") for r in (alone, result))
        assert of_one.size and not of_one.equals(of_blocks), name


def test_what_carries_the_answer_is_asked_of_test_presentations(road):
    stage, data, decoder, result = trained(model="nearest_mean")
    alone = replace(data, group=None)
    for samples, same in ((data.test, True), (data.val, False)):
        found = decode.importances(decoder, samples, alone, stage.params)
        for name, table in found.items():
            assert result.tables[name].equals(table) == same, name


def test_differences_between_areas_count_blocks_as_one(road):
    stage, data, decoder, _ = trained(model="nearest_mean", importance=0)
    blocked = replace(data, group=np.arange(len(data.test)) // 8)
    answers = decoder.predict_log_proba(data.test.x)
    alone, table = (decode.by_area(answers, d, stage.params) for d in (data, blocked))
    part = decode.of_units(data, table["area"][1] == counts_dataset.areas_of(data.units))
    other = decode.make_decoder(stage.params)
    decode.fit(other, part, stage.params, None, progress=False)
    right = [
        a.argmax(axis=1) == data.test.y for a in (answers, other.predict_log_proba(part.test.x))
    ]
    expected = stats.paired_difference(*right, group=blocked.group)
    row = table[table["kind"] == "alone"].iloc[0]
    assert (row["less"], row["less_low"], row["less_high"]) == (
        expected.value, expected.ci_low, expected.ci_high,
    )  # fmt: skip
    assert not np.allclose(alone["less_low"][1:], table["less_low"][1:])
    assert not np.allclose(alone["ci_low"], table["ci_low"])


def test_table_shows_every_score_beside_the_best_possible(road):
    result = trained(model="linear_svm")[-1]
    assert result.table().index.tolist() == list(result.scores)
    numbers = result.table().select_dtypes("number")
    assert {"value", "chance", "p, label permutation", "best possible"} <= set(numbers)
    rows = [replace(row, best=None) for row in result.rows]
    assert "best possible" not in replace(result, rows=rows).table()


def test_a_killed_run_goes_on_and_a_foreign_checkpoint_is_put_aside(road, capsys):
    given = {"model": "mlp", "max_epochs": 3, "model_params": {"hidden": 8}}
    judged = trained(**given)[-1]
    whole = judged.tables["history"]
    stage = begin("05_train_lstm", **FEW, **given)
    assert list(stage.log_dir.glob("*.ckpt")), "until the run is committed its checkpoint stays"
    again = trained(**given)[-1].tables["history"]  # every epoch is there already
    columns = ["epoch", "train_loss", "val_loss", "val_accuracy"]
    pd.testing.assert_frame_equal(again[columns], whole[columns])
    (checkpoint,) = stage.log_dir.glob("*.ckpt")
    checkpoint.write_bytes(b"not a checkpoint")
    stage, _, decoder, again = trained(**given)
    assert decoder.fitted and again.about["val_accuracy"] == judged.about["val_accuracy"]
    pd.testing.assert_frame_equal(again.tables["predictions"], judged.tables["predictions"])
    assert "Starting afresh" in capsys.readouterr().out
    pd.testing.assert_frame_equal(again.tables["history"][columns], whole[columns])
    stage.commit(lambda folder: again.save(folder, stage.who))
    assert not list(stage.log_dir.glob("*.ckpt"))


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"binning": "per_presentation"}, 0.0),
        ({"binning": "fixed_width", "bin_s": 0.05}, 0.0),
        ({"binning": "event_window", "window_start_s": -0.1, "window_stop_s": 0.15, "bin_s": 0.05}, -0.1),
        ({"binning": "edges", "edges_s": [-0.05, 0.05, 0.2]}, -0.05),
    ],
)  # fmt: skip
def test_bins_end_where_they_end(settings, first):
    from handmade import recording

    session = recording([np.array([1.1])], [0, 1], [1.0, 2.0])
    recipe = Recipe(recipe="r", recordings=["r"], **settings)
    counts = binning.bin_recording(session, recipe.settings(stages.STAGES["02_bin"].settings))
    stops = counts_dataset.bin_stops(counts, recipe)
    width = counts["exposure_s"].to_numpy()[0]
    np.testing.assert_allclose(stops, first + np.cumsum(width), atol=1e-6)


def test_a_run_is_held_against_another_on_the_same_presentations(road):
    stage, data, _, result = trained(model="logistic")
    run, answers = stage.who | result.about, result.tables["predictions"]

    def beside(predictions=answers, **other):
        return model_choice.against_in_words(
            run | other, predictions, "logistic", stage.recipe_name
        )

    assert "no run of `logistic`" in beside()
    assert beside(seed=7).endswith("-p model logistic -p seed 7`.")
    place = stage.commit(lambda folder: result.save(folder, stage.who))
    said = beside()
    assert f"run {place.name[:8]}) on the same {len(data.test)} test presentations: +0.0%" in said
    assert said.endswith("no difference that these presentations could show.")
    wrong = answers.assign(correct=False)
    said = beside(wrong, model="x")
    assert f"presentations: {-result.scores['accuracy'].value:+.1%}" in said
    assert said.endswith("logistic is right more often.")
    assert "no run of" in beside(split_hash="other")
    # A recipe derived from this one has another input, whatever its split.
    assert "no run of" in beside(recipe="tiny-12345678")
    assert "compared with nothing" in beside(shuffle_labels=True)


@pytest.mark.parametrize(
    ("settings", "window"),
    [
        ({"binning": "per_presentation"}, (0, np.inf)),
        ({"binning": "edges", "edges_s": [0.0, 0.02, 0.05]}, (0, 0.05)),
        ({"binning": "event_window", "window_start_s": -0.1, "window_stop_s": 0.1}, (0, 0.1)),
        ({"binning": "fixed_width", "bin_s": 0.04}, (0, 0.24)),
    ],
)
def test_the_oracle_sees_no_more_than_the_decoder(settings, window):
    recipe = Recipe(recipe="r", recordings=["r"], **settings)
    data = SimpleNamespace(stop_s=np.array([0.01, window[1]]))
    assert decode.seen_window(data, recipe) == window


def test_another_event_than_the_onset_has_no_oracle(road):
    data = load(begin("05_train_lstm"))
    settings = {"binning": "event_window", "event": "stop_time"}
    recipe = recipes.derive(begin("05_train_lstm").recipe, settings)
    stage = begin("05_train_lstm", recipe=recipe.recipe)
    assert decode.ideal_observer(data, stage.recipe, stage.params) is None


def test_a_graph_is_named_once(road):
    stage = begin("06_train_st_gat", graph="anatomy", model_params={"k": 2})
    assert decode.make_decoder(stage.params).params["graph"] == "anatomy"
    with pytest.raises(BadParameter, match="give it once"):
        begin("06_train_st_gat", graph="anatomy", model_params={"graph": "full"})


def test_units_stand_in_the_order_of_the_samples(road):
    data = load(begin("05_train_lstm"))
    assert data.units.index.tolist() == data.unit_ids.tolist()
    area = road.counts["area"].sel(unit=data.unit_ids).to_numpy()
    assert data.units["area"].tolist() == area.tolist()
