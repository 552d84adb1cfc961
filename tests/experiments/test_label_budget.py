"""Label budgets: who is drawn, who judges, and scores that hold still when labels are shuffled."""

import uuid
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from nblib.core.errors import BadInput, BadParameter
from nblib.experiments import label_budget, readouts, self_supervision
from nblib.experiments.label_budget import Params as DownstreamParams
from nblib.experiments.self_supervision import Params as PretextParams
from nblib.prepare.spectra import log_band_power
from nblib.prepare.windows import Cohort, Windows
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


def stage(**given):
    params = DownstreamParams(**{"embedders": ["random"], "budgets": [1, 10, 0], "n_draws": 3, "folds": [0, 1], "n_folds": 4, "compare": [], "preset": "banville", **given})  # fmt: skip
    recipe = SimpleNamespace(recipe="lfp_tiny")
    return SimpleNamespace(params=params, recipe=recipe, name="09_downstream_one_vs_all", recording="cohort", key="k" * 16)  # fmt: skip


@pytest.fixture(autouse=True)
def root(home):
    return home


@pytest.fixture
def features(monkeypatch):
    """Embeddings that know the state: power at the three frequencies, in place of a network's."""

    def power(part, windows, fold, stage):
        return np.log(np.abs(np.fft.rfft(windows.x, axis=1))[:, [4, 10, 16]].reshape(len(windows), -1) + 1)  # fmt: skip

    monkeypatch.setattr(label_budget, "_one_embedding", power)


def test_folds_keep_subjects_apart():
    data = cohort()
    folds = label_budget.make_folds(data, stage(folds=[0, 1, 2, 3]))
    tested = [set(data.subject[f.test]) for f in folds]
    assert sorted(s for t in tested for s in t) == [f"m{i}" for i in range(8)]
    for fold, test in zip(folds, tested, strict=True):
        assert not test & set(data.subject[fold.train])
        assert (data.label[fold.test] != "").all()  # windows between states judge nobody


def test_draws_hold_each_other_and_count_positives():
    fold = label_budget.make_folds(cohort(), stage())[0]
    for positive in (None, 0, 2):
        small, large = (label_budget.draw(fold, k, 1, 0, positive) for k in (3, 10))
        assert set(small) <= set(large) and set(large) <= set(fold.train)
        if positive is None:
            assert np.bincount(fold.y[large]).tolist() == [10, 10, 10]
        else:
            assert (fold.y[large] == positive).sum() == 10 == (fold.y[large] != positive).sum()
    one, two = (label_budget.draw(fold, 3, number, 0, None) for number in (0, 1))
    assert set(one) != set(two)
    assert len(label_budget.draw(fold, 0, 0, 0, None)) == len(fold.train)


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
    assert chooses.any() and (~chooses).sum() == (~readouts.inner_split(y, 30)).sum()
    if hop == 3.0:
        np.testing.assert_array_equal(kept, rows)
    every, _, none = readouts.teach_and_choose(rows, y, 30, SimpleNamespace(**vars(cohort) | {"window_s": 1e4}))  # fmt: skip
    assert none is None and len(every) == len(rows)


def test_what_chooses_comes_out_of_the_budget():
    y = np.repeat([0, 1], 10)
    assert readouts.inner_split(y[:8], 4) is None
    chooses = readouts.inner_split(y, 10)
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
    curves = label_budget.run(cohort(signal=0.5), stage(embedders=["random"]))
    at = curves.curve.set_index(["task", "budget"])
    assert at.loc[("multiclass", 0), "value"] > 0.9 > at.loc[("multiclass", 1), "value"] > 0.4
    assert at.loc[("one_vs_all", 0), "value"] > 0.9
    assert (at["n_subjects"] == 4).all() and at.loc[("one_vs_all", 1), "chance"] == 0.5
    assert at.loc[("multiclass", 0), "chance"] == pytest.approx(1 / 3)
    assert curves.draws.groupby(["task", "budget", "fold"])["draw"].nunique().unique().tolist() == [1, 3]  # fmt: skip
    told = label_budget.lab_dictionary(curves)["random"]["multiclass"]
    assert set(told) == {"1", "10", "None"}
    assert "random" in label_budget.in_words(stage(), curves)


def test_band_power_is_an_embedder_that_learns_nothing():
    data = cohort()
    curve = label_budget.run(data, stage(embedders=["bandpower"], tasks=["multiclass"])).curve
    at = curve.set_index("budget")["value"]  # 4, 10 and 16 Hz lie in three bands
    assert at[0] > 0.9 and set(curve["embedder"]) == {"bandpower"}
    h = label_budget._one_embedding("bandpower", data, None, stage())
    assert h.shape == (len(data), 2 * 5)  # two channels, five bands
    time = np.arange(192)[:, None] / 64
    slow, fast = (log_band_power(np.sin(2 * np.pi * hz * time)[None], 64.0) for hz in (6, 20))
    assert slow.argmax() == 1 and fast.argmax() == 3  # theta, beta
    with pytest.raises(BadInput, match="hold none of the bands"):
        log_band_power(np.zeros((1, 2, 1)), 1.0)


def test_shuffled_labels_stay_at_chance(features):
    """The 99.99 % interval of what permuted labels give, over subjects; and true labels leave it."""
    asked = {"budgets": [10, 0], "tasks": ["multiclass"], "folds": [0, 1, 2, 3]}
    null = label_budget.run(cohort(), stage(**asked, shuffle_labels=True)).subjects
    sd = np.sqrt(2 / 9 / (3 * PER_STATE))  # of one subject's balanced accuracy under chance
    mean = null.groupby("budget")["accuracy"].mean()
    assert (np.abs(mean - 1 / 3) < 3.9 * sd * np.sqrt(2 / N_SUBJECTS)).all()
    true = label_budget.run(cohort(), stage(**asked)).subjects.groupby("budget")["accuracy"].mean()
    assert (np.abs(true - 1 / 3) > 3.9 * sd * np.sqrt(2 / N_SUBJECTS)).all()


def test_every_embedder_gets_the_same_draws(features, monkeypatch):
    seen = []
    draw = label_budget.draw
    monkeypatch.setattr(label_budget, "draw", lambda *a: seen.append(draw(*a).tolist()) or (seen[-1] and draw(*a)))  # fmt: skip
    label_budget.run(
        cohort(), stage(embedders=["random", "rp+ts"], folds=[0], tasks=["multiclass"])
    )
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


def test_each_fold_reads_the_embedders_that_spared_its_mice(features, monkeypatch):
    made, read = [], label_budget._one_embedding
    monkeypatch.setattr(label_budget, "_one_embedding", lambda part, windows, run, stage: made.append(run.fold) or read(part, windows, run, stage))  # fmt: skip
    monkeypatch.setattr(label_budget, "embedder_net", lambda part, windows, run, stage: made.append(run.fold))  # fmt: skip
    monkeypatch.setattr(label_budget, "_answers", lambda fold, *_: fold.y[fold.test])
    for head in ("logistic", "finetune"):
        label_budget.run(cohort(), stage(embedders=["rp"], folds=[0, 2], tasks=["multiclass"], head=head))  # fmt: skip
    assert made == [0, 2, 0, 2]


def test_named_differences_are_paired_over_subjects(features, monkeypatch):
    good = label_budget._one_embedding
    noise = np.random.default_rng(0).standard_normal((len(cohort()), 6))
    monkeypatch.setattr(label_budget, "_one_embedding", lambda part, *a: noise if part == "random" else good(part, *a))  # fmt: skip
    asked = stage(embedders=["rp", "random"], compare=["rp - random", "ts - random"], folds=[0, 1, 2, 3], tasks=["multiclass"])  # fmt: skip
    table = label_budget.run(cohort(), asked).compared.set_index("budget")
    assert set(table["difference"]) == {"rp - random"}  # ts was not run
    assert (table.loc[[10, 0], "ci_low"] > 0.3).all() and (table["n_subjects"] == 8).all()
    assert (table["p, Holm"] >= table["p"]).all() and table.loc[0, "p"] == pytest.approx(2 / 2**8)


@pytest.mark.parametrize("head", ["linear", "finetune"])
def test_other_heads(features, head):
    given = {"head": head, "max_epochs": 40, "folds": [0], "tasks": ["multiclass"], "budgets": [10], "n_draws": 1, "n_draws_trained": 1}  # fmt: skip
    value = label_budget.run(cohort(signal=2.0), stage(**given)).curve["value"].iloc[0]
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
        label_budget.run(cohort(), stage(**given))


def test_a_state_that_a_fold_lacks_is_named():
    data = cohort(4)
    part = data.parts[0]
    lone = np.where(part.label == "c", "", part.label)
    parts = [p if i == 0 else Windows(**{**vars(p), "label": lone, "purity": (lone != "") * 1.0}) for i, p in enumerate(data.parts)]  # fmt: skip
    with pytest.raises(BadInput, match=r"no labelled (training|test) window of 'c'"):
        label_budget.run(Cohort(parts), stage(folds=[0, 1, 2, 3], n_folds=4))


def test_who_teaches_makes_another_run_of_08():
    params = stage(embedders=["rp", "rp@all", "rp+rp@all", "random"], folds=[1, 2]).params
    runs = [run for _, run in stages.needed("09_downstream_one_vs_all", None, params)]
    told = [(r.pretext, r.fold, r.teachers) for r in runs]
    assert told == [
        ("rp", 1, "train_subjects"), ("rp", 2, "train_subjects"), ("rp", 1, "all_subjects"),
    ]  # fmt: skip


# --- what must not leak --------------------------------------------------------------------------


def test_08_and_09_test_the_same_mice():
    data, asked = cohort(), stage(folds=[0, 1, 2, 3], seed=3, embedders=["rp"])
    for fold in label_budget.make_folds(data, asked):
        made = asked.params.pretext_run("rp", fold.number)
        mine, theirs = set(data.subject[fold.test]), set(self_supervision.test_subjects(data, made))
        assert mine == theirs


def test_test_mice_do_not_scale_the_embedding():
    data = cohort()
    fold = label_budget.make_folds(data, stage())[0]
    rng = np.random.default_rng(0)
    h = rng.standard_normal((len(data), 5))
    other = np.where(np.isin(data.subject, data.subject[fold.test])[:, None], 100 * h + 7, h)
    one, two = label_budget._standardised(h, fold), label_budget._standardised(other, fold)
    np.testing.assert_array_equal(one[fold.train], two[fold.train])
    assert not np.allclose(one[fold.test], two[fold.test])


def test_rows_that_choose_do_not_fit():
    """Labels of noise: on the rows of the fit the weakest penalty wins, on others the strongest."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 40)), np.arange(60) % 2
    chooses = readouts.inner_split(y, 30)
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
    chooses = readouts.inner_split(y, 20)
    how = SimpleNamespace(seed=0, device="cpu", threads=0, max_epochs=2)
    net = StagerNet(2, 64, 64.0)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    if head == "network":
        readouts.train_network(net, data.x[rows], y, chooses, 2, how)
    else:
        readouts.train_layer(np.random.default_rng(0).standard_normal((40, 6)), y, chooses, 2, how)
    ((train, val),) = seen
    assert train.trial.tolist() == np.flatnonzero(~chooses).tolist()
    assert val.trial.tolist() == np.flatnonzero(chooses).tolist()
    assert all((before[k] == v).all() for k, v in net.state_dict().items())


def test_stored_embeddings_are_of_these_very_windows(tmp_path):
    from safetensors.numpy import save_file

    data = cohort(4)
    h = np.random.default_rng(0).standard_normal((len(data), 3)).astype(np.float32)
    asked = stage(embedders=["rp"], n_folds=2)
    asked.needed = lambda made: tmp_path
    made = asked.params.pretext_run("rp", 0)
    save_file({"h": h, "start_s": data.start_s}, tmp_path / self_supervision.EMBEDDINGS)
    np.testing.assert_array_equal(label_budget._one_embedding("rp", data, made, asked), h)
    save_file({"h": h, "start_s": data.start_s + 1}, tmp_path / self_supervision.EMBEDDINGS)
    with pytest.raises(BadInput, match="of other windows"):
        label_budget._one_embedding("rp", data, made, asked)


def test_one_against_all_is_balanced_with_all_labels_too(features, monkeypatch):
    seen = []
    answers = label_budget._answers
    monkeypatch.setattr(label_budget, "_answers", lambda fold, rows, y, *a: seen.append(np.bincount(y)) or answers(fold, rows, y, *a))  # fmt: skip
    label_budget.run(cohort(), stage(tasks=["one_vs_all"], budgets=[0], folds=[0]))
    assert len(seen) == 3 and all(counts[0] == counts[1] for counts in seen)


def test_balanced_accuracy_does_not_reward_the_frequent_state():
    truth, answer = np.array([0, 0, 0, 0, 1]), np.zeros(5, int)
    assert label_budget.balanced(truth, answer) == 0.5


def test_a_weight_file_is_known_by_its_content(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"one")
    params = stage(embedders=["random", f"rp+{path}"]).params
    assert params.files() == {str(path): str(path)}


# --- learning without labels ---------------------------------------------------------------------


def pretext_stage(**given):
    params = PretextParams(**{"tau_pos_s": 5.0, "tau_neg_s": 30.0, "n_folds": 4, "n_steps": 15, "max_epochs": 8, "batch_size": 48, "learning_rate": 2e-3, "n_context": 4, "n_ahead": 3, "n_negatives": 4, "device": "cpu", **given})  # fmt: skip
    recipe = SimpleNamespace(recipe="lfp_tiny")
    return SimpleNamespace(params=params, recipe=recipe, name="08_ssl_pretext", recording="cohort", key=uuid.uuid4().hex[:16])  # fmt: skip


@pytest.mark.parametrize("n_mice", [3, 6, 12])
def test_the_score_of_a_pretext_task_counts_mice_not_samples(n_mice):
    """No effect, and mice that differ by three points: samples by the thousand do not count."""
    rng = np.random.default_rng(n_mice)
    found = [
        self_supervision.over_subjects(
            rng.binomial(1500, rng.normal(0.5, 0.03, n_mice)) / 1500, 0.5, 1500 * n_mice, 0
        )
        for _ in range(300)
    ]
    assert np.mean([s.p < 0.05 for s in found]) < 0.08
    assert np.mean([s.ci_low <= 0.5 <= s.ci_high for s in found]) >= 0.92
    alone = self_supervision.over_subjects(np.array([0.8]), 0.5, 1500, 0)
    assert (alone.value, alone.ci_low, alone.ci_high, alone.p) == (0.8, 0, 1, 0.5)


def test_intervals_of_budget_curves_hold_the_truth_over_subjects():
    rng, held = np.random.default_rng(2), {n: 0 for n in (2, 4, 8)}
    for n in held:
        for _ in range(250):
            row = label_budget._interval(pd.Series(np.clip(rng.normal(0.9, 0.04, n), 0, 1)), SimpleNamespace(seed=0), 0.5)  # fmt: skip
            held[n] += row["ci_low"] <= 0.9 <= row["ci_high"]
    assert min(held.values()) >= 0.92 * 250, held
    one = label_budget._interval(
        pd.Series([1.0]), SimpleNamespace(seed=0), 0.5
    )  # a state of one mouse
    assert (one["ci_low"], one["ci_high"]) == (0, 1)


@pytest.mark.parametrize("task", ["rp", "ts", "cpc"])
def test_order_in_time_teaches_and_shuffled_time_does_not(task):
    data = cohort(signal=2.0)
    found = self_supervision.run(data, pretext_stage(pretext=task))
    s = found.scores["accuracy"]
    assert found.embeddings.shape == (len(data), 100) and 0 <= s.ci_low <= s.value <= s.ci_high
    subject = [p.subject for p in data.parts]
    of = {role: {subject[i] for i in rows} for role, rows in found.who.items()}
    assert not of["test"] & (of["train"] | of["val"]) and not of["train"] & of["val"]
    assert "had no part in its training" in self_supervision.in_words(
        pretext_stage(pretext=task), found
    )
    if task == "rp":  # near windows share the state, far ones do not: easily learnt
        assert s.value > 0.6 and s.p == 1 / 4  # two test mice: no p is smaller
        rng = np.random.default_rng(3)
        mixed = [Windows(**{**vars(p), "x": p.x[rng.permutation(len(p))]}) for p in data.parts]
        null = self_supervision.run(Cohort(mixed), pretext_stage(pretext=task)).scores["accuracy"]
        assert abs(null.value - 0.5) < 0.06


def test_windows_in_another_order_teach_nothing():
    found = self_supervision.run(cohort(signal=2.0), pretext_stage(pretext="rp", shuffle_time=True))
    assert abs(found.scores["accuracy"].value - 0.5) < 0.06
    # The windows themselves stay where they are: state and embedding belong together.
    assert len(found.embeddings) == len(cohort())


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


def test_the_same_seed_gives_the_same_embedder():
    data = cohort(5)
    one, two = (
        self_supervision.run(data, pretext_stage(n_folds=5, max_epochs=2)) for _ in range(2)
    )
    np.testing.assert_array_equal(one.embeddings, two.embeddings)
    other = self_supervision.run(data, pretext_stage(n_folds=5, max_epochs=2, seed=1))
    assert not np.array_equal(one.embeddings, other.embeddings)


def test_what_test_mice_do_has_no_part_in_the_embedder():
    """Poison every window of the test mice: the network is the same to the last bit."""
    data = cohort(6)
    asked = {"n_folds": 3, "max_epochs": 2}
    test = self_supervision.test_subjects(data, pretext_stage(**asked).params)
    poisoned = [Windows(**{**vars(p), "x": p.x * 0 + 9}) if p.subject in test else p for p in data.parts]  # fmt: skip
    both = (data, Cohort(poisoned))
    one, two = (self_supervision.run(c, pretext_stage(**asked)).net.state_dict() for c in both)
    assert all((one[k] == two[k]).all() for k in one)
