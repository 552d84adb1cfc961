"""Label budgets: who is drawn, who judges, and scores that hold still when labels are shuffled."""

import uuid
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from nblib.core import recipes
from nblib.core.errors import BadInput, BadParameter
from nblib.evaluate.scores import score_over_subjects
from nblib.experiments import few_labels, label_budget, readouts, self_supervision, subjects
from nblib.experiments.embedders import Embedders
from nblib.experiments.pretext import EMBEDDINGS
from nblib.prepare.potentials.spectra import log_band_power
from nblib.prepare.potentials.stored_windows import Cohort, Windows
from nblib.road import stages

STATES = ("a", "b", "c")
N_SUBJECTS, PER_STATE = 8, 30


def cohort(n_subjects=N_SUBJECTS, signal=1.0, seed=0):
    """Windows of 64 samples and 2 channels whose oscillation tells the state; a gap between states."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(n_subjects):
        label = np.repeat(["a", "", "b", "", "c"], [PER_STATE, 2, PER_STATE, 2, PER_STATE])
        t = np.arange(64) / 64
        x = rng.standard_normal((len(label), 64, 2))
        for k, state in enumerate(STATES):
            wave = np.sin(
                2 * np.pi * (4 + 6 * k) * t + rng.uniform(0, 6, ((label == state).sum(), 1))
            )
            x[label == state] += signal * wave[:, :, None]
        x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
        start = np.arange(len(label)) * 1.0
        name = f"m{i}"
        parts.append(Windows(x.astype(np.float32), start, label.astype(str), (label != "") * 1.0, name, name, 64.0, 1.0, 1.0, ["r1", "r2"], 0, ""))  # fmt: skip
    return Cohort(parts)


def asked(**given):
    return label_budget.Params(**{"embedders": ["random"], "budgets": [1, 10, 0], "n_draws": 3, "folds": [0, 1], "n_folds": 4, "compare": [], "preset": "banville", **given})  # fmt: skip


def curves_of(windows=None, **given):
    return label_budget.learning_curves(cohort() if windows is None else windows, asked(**given))


@pytest.fixture
def features(monkeypatch):
    """Embeddings that know the state: power at the three frequencies, in place of a network's."""

    def power(self, part, run):
        x = self.cohort.x
        return np.log(np.abs(np.fft.rfft(x, axis=1))[:, [4, 10, 16]].reshape(len(x), -1) + 1)

    monkeypatch.setattr(Embedders, "_embed", power)


def test_folds_keep_subjects_apart():
    data = cohort()
    folds = subjects.make_folds(data, asked(folds=[0, 1, 2, 3]))
    tested = [set(data.subject[f.test]) for f in folds]
    assert sorted(s for t in tested for s in t) == [f"m{i}" for i in range(8)]
    for fold, test in zip(folds, tested, strict=True):
        assert not test & set(data.subject[fold.train])
        assert (data.label[fold.test] != "").all()  # windows between states judge nobody


def test_draws_hold_each_other_and_count_positives():
    fold = subjects.make_folds(cohort(), asked())[0]
    for positive in (None, 0, 2):
        (small, _), (large, y) = (label_budget.drawn(fold, k, 1, 0, positive) for k in (3, 10))
        assert set(small) <= set(large) and set(large) <= set(fold.train)
        if positive is None:
            assert np.bincount(fold.y[large]).tolist() == [10, 10, 10] == np.bincount(y).tolist()
        else:
            assert (fold.y[large] == positive).sum() == 10 == (fold.y[large] != positive).sum()
            np.testing.assert_array_equal(y, fold.y[large] == positive)
    one, two = (label_budget.drawn(fold, 3, number, 0, None)[0] for number in (0, 1))
    assert set(one) != set(two)
    assert len(label_budget.drawn(fold, 0, 0, 0, None)[0]) == len(fold.train)


def test_one_against_all_is_balanced_with_all_labels_too():
    fold = subjects.make_folds(cohort(), asked())[0]
    for positive in range(3):
        n_others, n_positive = np.bincount(label_budget.drawn(fold, 0, 0, 0, positive)[1])
        assert n_others == n_positive


@pytest.mark.parametrize("hop", [1.0, 2.0, 3.0])
def test_no_sample_teaches_and_chooses(hop):
    """Windows of 3 s, one every `hop`, drawn at random from two recordings that count from zero."""
    n = 150
    cohort = SimpleNamespace(
        record=np.repeat([0, 1], n), start_s=np.tile(hop * np.arange(n), 2), window_s=3.0
    )
    rng = np.random.default_rng(0)
    rows = rng.permutation(2 * n)[:80]
    y = rng.integers(0, 3, len(rows))
    kept, labels, chooses = readouts.teach_and_choose(rows, y, 30, cohort)
    assert np.isin(kept, rows).all() and (labels == y[np.isin(rows, kept)]).all()
    record, start = cohort.record[kept], cohort.start_s[kept]
    for i in np.flatnonzero(chooses):
        taught = start[~chooses & (record == record[i])]
        assert np.abs(taught - start[i]).min() >= 3.0
    assert chooses.any() and (~chooses).sum() == (~few_labels.choosing(y, 30)).sum()
    if hop == 3.0:
        np.testing.assert_array_equal(kept, rows)
    every, _, none = readouts.teach_and_choose(rows, y, 30, SimpleNamespace(**vars(cohort) | {"window_s": 1e4}))  # fmt: skip
    assert none is None and len(every) == len(rows)


def test_what_chooses_comes_out_of_the_budget():
    y = np.repeat([0, 1], 10)
    assert few_labels.choosing(y[:8], 4) is None
    chooses = few_labels.choosing(y, 10)
    assert chooses.sum() == 4 and chooses[[8, 9, 18, 19]].all()


@pytest.mark.parametrize(("n", "d", "k"), [(200, 6, 3), (12, 40, 3), (20, 6, 2)])
def test_the_probe_is_logistic_regression(n, d, k):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d)), np.arange(n) % k
    weight, bias = readouts._logistic(x, y, 0.5, k)
    theirs = LogisticRegression(C=0.5, tol=1e-8, max_iter=5000)
    if k > 2:
        p = theirs.fit(x, y).predict_proba(x)
        score = x @ weight + bias
        ours = np.exp(score - score.max(1, keepdims=True))
        np.testing.assert_allclose(ours / ours.sum(1, keepdims=True), p, atol=2e-3)
    else:  # scikit-learn keeps one column where this keeps two, so its penalty is half of ours
        theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(x, y)
        np.testing.assert_allclose(weight[:, 1] - weight[:, 0], theirs.coef_[0], atol=2e-3)


def test_an_embedding_that_knows_needs_few_labels(features):
    result = curves_of(cohort(signal=0.5))
    curve = result.tables["curve"]
    at = curve.set_index(["task", "budget"])
    assert at.loc[("multiclass", 0), "value"] > 0.9 > at.loc[("multiclass", 1), "value"] > 0.4
    assert at.loc[("one_vs_all", 0), "value"] > 0.9
    assert (at["n_subjects"] == 4).all() and at.loc[("one_vs_all", 1), "chance"] == 0.5
    assert at.loc[("multiclass", 0), "chance"] == pytest.approx(1 / 3)
    by = result.tables["draws"].groupby(["task", "budget", "fold"])
    assert by["draw"].nunique().unique().tolist() == [1, 3]
    kept = label_budget.LabDictionary(curve).entries()["random"]["multiclass"]
    assert set(kept) == {"1", "10", "None"}
    assert "random" in label_budget.in_words(result, asked())


def test_band_power_is_an_embedder_that_learns_nothing():
    data = cohort()
    curve = curves_of(data, embedders=["bandpower"], tasks=["multiclass"]).tables["curve"]
    at = curve.set_index("budget")["value"]  # 4, 10 and 16 Hz lie in three bands
    assert at[0] > 0.9 and set(curve["embedder"]) == {"bandpower"}
    h = Embedders(data, asked(), None).embed("bandpower", 0)
    assert h.shape == (len(data), 2 * 5)  # two channels, five bands
    time = np.arange(192)[:, None] / 64
    slow, fast = (log_band_power(np.sin(2 * np.pi * hz * time)[None], 64.0) for hz in (6, 20))
    assert slow.argmax() == 1 and fast.argmax() == 3  # theta, beta
    with pytest.raises(BadInput, match="hold none of the bands"):
        log_band_power(np.zeros((1, 2, 1)), 1.0)


def test_chance_of_a_subject_is_of_the_states_that_it_has():
    """An answer that looks at no window is right in one of two where a third state is absent."""
    data = cohort()
    *some, last = [test[1] for test in subjects.subject_folds(data.subject, 4, 0)]
    lacks = np.isin(data.subject, some) & (data.label == "c")
    data.labelled &= ~lacks & ~((data.subject == last) & (data.label != "a"))
    folds = subjects.make_folds(data, asked(folds=[0, 1, 2, 3]))
    rows = [
        {"embedder": "e", "task": "multiclass", "budget": 0, "fold": fold.number, "draw": 0} | row
        for fold in folds
        for row in label_budget.by_subject(fold, np.zeros(len(fold.test), int), None)
    ]
    (row,) = label_budget.summarise(pd.DataFrame(rows), data, asked(), folds).rows
    assert row.score.n == 7 and row.score.value == pytest.approx((3 / 2 + 4 / 3) / 7)
    assert row.score.chance == pytest.approx(row.score.value) and row.score.p == 1


def test_shuffled_labels_stay_at_chance(features):
    """The 99.99 % interval of what permuted labels give, over subjects; and true labels leave it."""
    given = {"budgets": [10, 0], "tasks": ["multiclass"], "folds": [0, 1, 2, 3]}
    null = curves_of(**given, shuffle_labels=True).tables["subjects"]
    sd = np.sqrt(2 / 9 / (3 * PER_STATE))  # of one subject's balanced accuracy under chance
    mean = null.groupby("budget")["accuracy"].mean()
    assert (np.abs(mean - 1 / 3) < 3.9 * sd * np.sqrt(2 / N_SUBJECTS)).all()
    true = curves_of(**given).tables["subjects"].groupby("budget")["accuracy"].mean()
    assert (np.abs(true - 1 / 3) > 3.9 * sd * np.sqrt(2 / N_SUBJECTS)).all()


def test_every_embedder_gets_the_same_draws(features, monkeypatch):
    seen, drawn = [], label_budget.drawn
    monkeypatch.setattr(label_budget, "drawn", lambda *a: seen.append(drawn(*a)) or seen[-1])
    curves_of(embedders=["random", "rp+ts"], folds=[0], tasks=["multiclass"])
    rows = [rows.tolist() for rows, _ in seen]
    assert rows[: len(rows) // 2] == rows[len(rows) // 2 :]


def test_each_fold_reads_the_embedders_that_spared_its_mice(features, monkeypatch):
    made, read = [], Embedders._embed
    monkeypatch.setattr(Embedders, "_embed", lambda self, part, run: made.append(run.fold) or read(self, part, run))  # fmt: skip
    monkeypatch.setattr(Embedders, "_net", lambda self, part, run: made.append(run.fold))
    monkeypatch.setattr(readouts, "train", lambda *a: None)
    monkeypatch.setattr(readouts, "classes_of", lambda net, x: np.zeros(len(x), int))
    for head in ("logistic", "finetune"):
        curves_of(embedders=["rp"], folds=[0, 2], tasks=["multiclass"], head=head)
    assert made == [0, 2, 0, 2]


def test_named_differences_are_paired_over_subjects(features, monkeypatch):
    good = Embedders._embed
    noise = np.random.default_rng(0).standard_normal((len(cohort()), 6))
    monkeypatch.setattr(Embedders, "_embed", lambda self, part, run: noise if part == "random" else good(self, part, run))  # fmt: skip
    params = asked(embedders=["rp", "random"], compare=["rp - random", "ts - random"], folds=[0, 1, 2, 3], tasks=["multiclass"])  # fmt: skip
    subjects = label_budget.learning_curves(cohort(), params).tables["subjects"]
    table = label_budget.compare(subjects, params).set_index("budget")
    assert set(table["difference"]) == {"rp - random"}  # ts was not run
    assert (table.loc[[10, 0], "ci_low"] > 0.3).all() and (table["n_subjects"] == 8).all()
    assert (table["p, Holm"] >= table["p"]).all() and table.loc[0, "p"] == pytest.approx(2 / 2**8)


def test_a_difference_is_that_of_each_subject_in_whatever_order():
    level = np.linspace(0.2, 0.9, 6)  # subjects differ by far more than the embedders
    one, other = (
        pd.DataFrame({"embedder": name, "task": "multiclass", "budget": 0, "subject": list("abcdef"), "accuracy": a})
        for name, a in (("rp", level + 0.05), ("ts", level))
    )  # fmt: skip
    params = asked(embedders=["rp", "ts"], compare=["rp - ts"])
    (row,) = label_budget.compare(pd.concat([one, other[::-1]]), params).to_dict("records")
    assert row["value"] == pytest.approx(0.05) and row["p"] == 2 / 2**6
    assert row["ci_low"] == pytest.approx(0.05) == row["ci_high"]


@pytest.mark.parametrize("head", ["linear", "finetune"])
def test_other_heads(features, head):
    given = {"head": head, "max_epochs": 40, "folds": [0], "tasks": ["multiclass"], "budgets": [10], "n_draws": 1, "n_draws_trained": 1}  # fmt: skip
    value = curves_of(cohort(signal=2.0), **given).tables["curve"]["value"].iloc[0]
    assert value > 0.5


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"embedders": ["oracle"]}, BadParameter, "embedder 'oracle': expected rp"),
        ({"embedders": ["rp@test"]}, BadParameter, "embedder 'rp@test': expected rp"),
        ({"embedders": ["rp+supervised"]}, BadParameter, "can be joined"),
        ({"embedders": ["rp+ts"], "head": "finetune"}, BadParameter, "can be joined"),
        ({"embedders": ["bandpower"], "head": "finetune"}, BadParameter, "has no weights"),
        ({"folds": [9]}, BadParameter, "there are 4"),
        ({"budgets": [1, 500]}, BadParameter, "the rarest state has 180"),
        ({"compare": ["rp vs ts"]}, BadParameter, "expected two embedders"),
        ({"compare": ["rp - rndom"]}, BadParameter, "embedder 'rndom': expected rp"),
        ({"n_folds": 8, "folds": [0]}, BadParameter, "one test subject, 'm"),
        ({"budgets": [180]}, BadParameter, "the rarest state has 180"),
        (
            {"embedders": ["rp"], "pretext_params": {"seed": 1}},
            BadParameter,
            "pretext_params holds 'seed'",
        ),
        ({"n_folds": 9}, BadParameter, "the cohort has 8 subjects"),
    ],
)
def test_bad_settings_are_named(given, error, says):
    with pytest.raises(error, match=says):
        curves_of(**given)


def test_a_state_that_a_fold_lacks_is_named():
    data = cohort(4)
    part = data.parts[0]
    lone = np.where(part.label == "c", "", part.label)
    parts = [p if i == 0 else Windows(**{**vars(p), "label": lone, "purity": (lone != "") * 1.0}) for i, p in enumerate(data.parts)]  # fmt: skip
    with pytest.raises(BadInput, match=r"no labelled (training|test) window of 'c'"):
        curves_of(Cohort(parts), folds=[0, 1, 2, 3], n_folds=4)


def test_who_teaches_makes_another_run_of_08():
    params = asked(embedders=["rp", "rp@all", "rp+rp@all", "random"], folds=[1, 2])
    recipe = recipes.find_recipe("lfp_demo")
    inputs = stages.inputs_of("09_downstream_one_vs_all", recipe, "cohort", params)
    runs = [one.params for one in inputs if one.params is not None]
    told = [(r.pretext, r.fold, r.teachers) for r in runs]
    assert told == [
        ("rp", 1, "train_subjects"), ("rp", 2, "train_subjects"), ("rp", 1, "all_subjects"),
    ]  # fmt: skip


# --- what must not leak --------------------------------------------------------------------------


def test_08_and_09_test_the_same_mice():
    data, params = cohort(), asked(folds=[0, 1, 2, 3], seed=3, embedders=["rp"])
    for fold in subjects.make_folds(data, params):
        made = params.pretext_run("rp", fold.number)
        mine, theirs = set(data.subject[fold.test]), set(self_supervision.test_subjects(data, made))
        assert mine == theirs


def test_test_mice_do_not_scale_the_embedding():
    data = cohort()
    fold = subjects.make_folds(data, asked())[0]
    rng = np.random.default_rng(0)
    h = rng.standard_normal((len(data), 5))
    other = np.where(np.isin(data.subject, data.subject[fold.test])[:, None], 100 * h + 7, h)
    one, two = readouts.standardised(h, fold), readouts.standardised(other, fold)
    np.testing.assert_array_equal(one[fold.train], two[fold.train])
    assert not np.allclose(one[fold.test], two[fold.test])


def test_rows_that_choose_do_not_fit():
    """Labels of noise: on the rows of the fit the weakest penalty wins, on others the strongest."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 40)), np.arange(60) % 2
    chooses = few_labels.choosing(y, 30)
    weight, _ = readouts.probe(x, y, chooses, 2)
    strong, weak = (readouts._logistic(x, y, c, 2)[0] for c in (min(readouts.C_VALUES), max(readouts.C_VALUES)))  # fmt: skip
    np.testing.assert_array_equal(weight, strong)
    assert not np.allclose(weight, weak)


@pytest.mark.parametrize("head", ["network", "layer"])
def test_networks_learn_from_rows_that_do_not_choose_and_leave_the_embedder_alone(
    monkeypatch, head
):
    from nblib.models import training
    from nblib.models.stagernet import StagerNet

    seen = []
    fit = training.fit

    def spy(net, train, val, settings):
        seen.append((train, val))
        return fit(net, train, val, settings)

    monkeypatch.setattr(training, "fit", spy)
    data = cohort(4)
    rows = np.flatnonzero(data.labelled)[:40]
    y = np.arange(40) % 2
    chooses = few_labels.choosing(y, 20)
    how = {"seed": 0, "device": "cpu", "threads": 0, "max_epochs": 2}
    net = StagerNet(2, 64, 64.0)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    if head == "network":
        readouts.train(net, data.x[rows], y, chooses, 2, how)
    else:
        readouts.train(None, np.random.default_rng(0).standard_normal((40, 6)), y, chooses, 2, how)
    ((train, val),) = seen
    assert train.trial.tolist() == np.flatnonzero(~chooses).tolist()
    assert val.trial.tolist() == np.flatnonzero(chooses).tolist()
    assert all((before[k] == v).all() for k, v in net.state_dict().items())


def test_stored_embeddings_are_of_these_very_windows(tmp_path):
    from safetensors.numpy import save_file

    data = cohort(4)
    h = np.random.default_rng(0).standard_normal((len(data), 3)).astype(np.float32)
    embedders = Embedders(data, asked(embedders=["rp"], n_folds=2), lambda run: tmp_path)
    path = tmp_path / f"{EMBEDDINGS}.safetensors"
    save_file({"h": h, "start_s": data.start_s}, path)
    np.testing.assert_array_equal(embedders.embed("rp", 0), h)
    save_file({"h": h, "start_s": data.start_s + 1}, path)
    with pytest.raises(BadInput, match="of other windows"):
        embedders.embed("rp", 1)


def test_balanced_accuracy_does_not_reward_the_frequent_state():
    truth, answer = np.array([0, 0, 0, 0, 1]), np.zeros(5, int)
    assert label_budget.balanced(truth, answer) == 0.5


def test_a_weight_file_is_known_by_its_content(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"one")
    params = asked(embedders=["random", f"rp+{path}"])
    assert params.files() == {str(path): str(path)}


# --- learning without labels ---------------------------------------------------------------------


def pretext(**given):
    return self_supervision.Params(**{"tau_pos_s": 5.0, "tau_neg_s": 30.0, "n_folds": 4, "n_steps": 15, "max_epochs": 8, "batch_size": 48, "learning_rate": 2e-3, "n_context": 4, "n_ahead": 3, "n_negatives": 4, "device": "cpu", **given})  # fmt: skip


@pytest.fixture
def train(tmp_path):
    """Trains on a cohort, each time in a folder of its own."""

    def train(windows, **given):
        folder = tmp_path / uuid.uuid4().hex
        return self_supervision.train_embedder(windows, pretext(**given), folder)

    return train


@pytest.mark.parametrize("n_mice", [3, 6, 12])
def test_the_score_of_a_pretext_task_counts_mice_not_samples(n_mice):
    """No effect, and mice that differ by three points: samples by the thousand do not count."""
    rng = np.random.default_rng(n_mice)
    found = [
        score_over_subjects(rng.binomial(1500, rng.normal(0.5, 0.03, n_mice)) / 1500, 0.5, 0)
        for _ in range(300)
    ]
    assert np.mean([s.p < 0.05 for s in found]) < 0.08
    assert np.mean([s.ci_low <= 0.5 <= s.ci_high for s in found]) >= 0.92
    alone = score_over_subjects(np.array([0.8]), 0.5, 0)
    assert (alone.value, alone.ci_low, alone.ci_high, alone.p) == (0.8, 0, 1, 0.5)


def test_intervals_of_budget_curves_hold_the_truth_over_subjects():
    rng, held = np.random.default_rng(2), {n: 0 for n in (2, 4, 8)}
    for n in held:
        for _ in range(250):
            s = score_over_subjects(np.clip(rng.normal(0.9, 0.04, n), 0, 1), 0.5, 0)
            held[n] += s.ci_low <= 0.9 <= s.ci_high
    assert min(held.values()) >= 0.92 * 250, held
    one = score_over_subjects(np.array([1.0]), 0.5, 0)  # a state of one mouse
    assert (one.ci_low, one.ci_high) == (0, 1)


@pytest.mark.parametrize("task", ["rp", "ts", "cpc"])
def test_order_in_time_teaches_and_shuffled_time_does_not(task, train):
    data = cohort(signal=2.0)
    found = train(data, pretext=task)
    s = found.scores["accuracy"]
    assert found.arrays[EMBEDDINGS]["h"].shape == (len(data), 100)
    assert 0 <= s.ci_low <= s.value <= s.ci_high
    assert s.chance == {"rp": 1 / 2, "ts": 1 / 2, "cpc": 1 / 5}[task]  # one true window among 1 + 4
    history = found.tables["history"]
    kept = history["val_loss"].argmin()
    assert found.about["val_accuracy"] == history["val_accuracy"].iloc[kept]
    if task == "ts":  # another epoch than that of the best accuracy
        assert history["val_accuracy"].iloc[kept] < history["val_accuracy"].max()
    subject = {p.recording: p.subject for p in data.parts}
    of = {
        role: {subject[name] for name in names} for role, names in found.about["recordings"].items()
    }
    assert not of["test"] & (of["train"] | of["val"]) and not of["train"] & of["val"]
    words = self_supervision.in_words(found, pretext(pretext=task))
    assert "had no part in its training" in words
    if task == "rp":  # near windows share the state, far ones do not: easily learnt
        assert s.value > 0.6 and s.p == 1 / 4  # two test mice: no p is smaller
        rng = np.random.default_rng(3)
        mixed = [Windows(**{**vars(p), "x": p.x[rng.permutation(len(p))]}) for p in data.parts]
        null = train(Cohort(mixed), pretext=task).scores["accuracy"]
        assert abs(null.value - 0.5) < 0.06


def test_windows_in_another_order_teach_nothing(train):
    found = train(cohort(signal=2.0), pretext="rp", shuffle_time=True)
    assert abs(found.scores["accuracy"].value - 0.5) < 0.06
    # The windows themselves stay where they are: state and embedding belong together.
    assert len(found.arrays[EMBEDDINGS]["h"]) == len(cohort())


def test_an_embedder_that_answers_nothing_is_not_right():
    import torch

    y = torch.tensor([0, 0, 1])
    logits = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    assert self_supervision._right(logits, y).tolist() == [False, True, True]


def test_a_window_is_not_its_own_neighbour():
    data = cohort(4)
    h = np.random.default_rng(0).standard_normal((len(data), 4))
    keep = np.flatnonzero(data.labelled)
    h[keep[:60:2]] = h[keep[1:60:2]] + 1e-6  # twins; the first pairs are of one state and mouse
    found = self_supervision.neighbours(data, h, k=1)
    assert found["state"].iloc[1:].max() < 0.9  # no twins there: by chance


def test_the_same_seed_gives_the_same_embedder(train):
    data, given = cohort(5), {"n_folds": 5, "max_epochs": 2}
    one, two = (train(data, **given).arrays[EMBEDDINGS]["h"] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = train(data, **given, seed=1).arrays[EMBEDDINGS]["h"]
    assert not np.array_equal(one, other)


def test_what_test_mice_do_has_no_part_in_the_embedder(train):
    """Poison every window of the test mice: the network is the same to the last bit."""
    data = cohort(6)
    given = {"n_folds": 3, "max_epochs": 2}
    test = self_supervision.test_subjects(data, pretext(**given))
    poisoned = [Windows(**{**vars(p), "x": p.x * 0 + 9}) if p.subject in test else p for p in data.parts]  # fmt: skip
    both = (data, Cohort(poisoned))
    one, two = (train(c, **given).files[0].net.state_dict() for c in both)
    assert all((one[k] == two[k]).all() for k in one)
