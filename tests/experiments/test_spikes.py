"""Predicted spikes: nothing later than t0 is seen, validation chooses, and models find what is there."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from nblib.core.errors import BadInput, BadParameter
from nblib.evaluate import spike_trains
from nblib.experiments.spikes import kinds, prediction, trains
from nblib.models.encoders import glm, network
from nblib.prepare.continuous import STEP, cycle_roles
from nblib.prepare.continuous.stream import Stream, spans_of
from nblib.prepare.encoding import history
from nblib.prepare.encoding.distance import SPIKE_BIN
from nblib.report.audit import checks
from nblib.report.plots import cells as plots

ROW, BIN_S = 1000, 0.001
CYCLE = SimpleNamespace(gap_s=0.0, context_s=[0.8, 0.2], cycle_s=[19.0, 3.0, 5.0])


def roles(n_rows):
    return cycle_roles(np.arange(n_rows), ROW * BIN_S, CYCLE)


@pytest.fixture(scope="module")
def stream():
    """Six cells of two kinds for 90 s: two channels of noise, a filter, two bins without a spike, bursts."""
    rng = np.random.default_rng(0)
    n_rows, n_cells = 90, 6
    shown = np.repeat(rng.integers(0, 2, (n_rows * ROW // 50, 2)) - 0.5, 50, axis=0)
    course = np.exp(-np.arange(120) / 30)
    drive = np.stack([np.convolve(channel, course)[: len(shown)] for channel in shown.T], axis=1)
    drive = np.concatenate([np.zeros((1, 2)), drive[:-1]]) / drive.std(axis=0)
    types = np.arange(n_cells) % 2
    log_hazard = np.log(0.006) + 1.2 * drive[:, types] * np.where(types, 1, -1) - 0.7
    spikes, last = np.zeros((len(shown), n_cells), np.uint8), np.full(n_cells, -1000)
    truth = np.empty((len(shown), n_cells), np.float32)
    chance = rng.random(spikes.shape)
    for t in range(len(shown)):
        away = t - last
        truth[t] = log_hazard[t] + np.where(away <= 2, -30, 2.5 * np.exp(-(away - 3) / 4))
        spikes[t] = chance[t] < -np.expm1(-np.exp(truth[t]))
        last = np.where(spikes[t], t, last)
    rows = np.arange(n_rows)
    return Stream(
        counts=spikes, stimulus=shown.astype(np.float32), number=np.arange(len(shown)),
        spans=spans_of(rows, roles(n_rows), ROW), units=pd.DataFrame(index=np.arange(n_cells)), bin_s=BIN_S,
        row_bins=ROW, gap_s=1.0, split_hash="none", log_intensity=truth.__getitem__, types=types,
    )  # fmt: skip


def small(**given):
    return prediction.Params(
        **{"max_epochs": 2, "steps_an_epoch": 4000, "n_bootstrap": 100, "latent": 4, **given}
    )


@pytest.fixture(scope="module")
def data(stream):
    return prediction.data_of(stream, small())


def test_steps_see_and_predict_their_own_role_and_gaps_alone(data, stream):
    role = np.repeat(roles(90), ROW)
    table = prediction.windows_table(data)
    assert set(table["role"]) == {"train", "val", "test"}
    for row in table.itertuples():
        bins = slice(round(row.sees_from_s / BIN_S), round(row.until_s / BIN_S))
        assert set(role[bins]) <= {row.role, "gap"}
    with pytest.raises(BadParameter, match="the split keeps 1 s free"):
        history.inputs_of(stream, 0.21)


def test_nothing_reaches_over_a_seam(stream):
    """Seven seconds are missing after the 31st: no step of a role there knows what came before them."""
    seam = 31 * ROW
    rows = np.r_[0:31, 38:97]
    number = (rows[:, None] * ROW + np.arange(ROW)).ravel()
    cut = replace(stream, number=number, spans=spans_of(rows, roles(97)[rows], ROW))
    counts = cut.counts.copy()
    counts[:seam] = np.random.default_rng(1).random(counts[:seam].shape) < 0.2
    shown = cut.stimulus.copy()
    shown[:seam] *= -1
    one, other = (history.inputs_of(s, 0.08) for s in (cut, replace(cut, counts=counts)))
    later = {role: at[at >= seam // STEP] for role, at in one.steps.items()}
    assert min(map(len, later.values())) > 0 and all(
        at[0] >= seam // STEP + 100 for at in later.values()
    )
    for at in later.values():
        assert np.abs(one.recent(at) - other.recent(at)).max() < 1e-6
        assert (one.age(at) == other.age(at)).all()
        seen = replace(one, stimulus=shown.reshape(-1, STEP, 2).mean(axis=1)).shown(at)
        plain = replace(one, stimulus=cut.stimulus.reshape(-1, STEP, 2).mean(axis=1)).shown(at)
        assert (seen == plain).all()


def test_no_target_reaches_over_a_seam(stream):
    """The rows between train and test are missing: what distances of train are told lies before them."""
    rows = np.r_[0:19, 26:97]
    number = (rows[:, None] * ROW + np.arange(ROW)).ravel()
    cut = replace(stream, number=number, spans=spans_of(rows, roles(97)[rows], ROW))
    counts = cut.counts.copy()
    counts[19 * ROW :] = np.random.default_rng(1).random(counts[19 * ROW :].shape) < 0.2
    one, other = (history.inputs_of(s, 0.08) for s in (cut, replace(cut, counts=counts)))
    last = one.steps["train"][one.steps["train"] < 19 * ROW // STEP][-30:]
    model = network.Predictor(one, "distance", n_bins=80, latent=4)
    assert (model.log_distance(one, last) == model.log_distance(other, last)).all()


def test_a_target_is_the_distance_to_the_nearest_spike_ahead(data):
    """Of bins before t0 too: what came before is what the network is to do without."""
    inputs, step = data.inputs, data.inputs.steps["train"][40]
    told = network.Predictor(inputs, "distance", n_bins=80, latent=4).log_distance(
        inputs, np.array([step])
    )
    for cell in range(inputs.n_cells):
        spikes = np.flatnonzero(inputs.spikes[step : step + 35, :, cell].ravel())
        bins = np.arange(-network.PAST, 80)[:, None]
        away = np.abs(bins - spikes).min(axis=1, initial=history.LONGEST)
        expected = np.log(np.maximum(away, SPIKE_BIN))
        np.testing.assert_allclose(told[0, cell], expected, rtol=1e-6)


def test_few_windows_are_the_work_of_one_thread(data, monkeypatch):
    threads = []
    monkeypatch.setattr(network, "train", lambda *given, **_: threads.append(given[2].threads))
    for asked in (0, 2):
        of = replace(data, params=data.params.model_copy(update={"threads": asked}))
        for head in ("now", "chain"):
            prediction.fit_network(of, head)
    assert threads == [0, 1, 2, 2]


def test_history_is_what_it_says(data, stream):
    counts = data.inputs.spikes.sum(axis=1)
    step = 3000
    lag = np.arange(1, history.CONTEXT_STEPS + 1)
    decay = np.exp(-(lag - 1)[:, None] / np.array(history.TAUS)) / np.sqrt(history.TAUS)
    known = counts[step - lag].T @ decay
    assert data.inputs.traces[step] == pytest.approx(known, abs=1e-4)
    for cell in range(6):
        before = np.flatnonzero(stream.counts[: step * STEP + 3, cell])[-1]
        assert data.inputs.since[step, 3, cell] == min(step * STEP + 3 - before, history.LONGEST)


def test_no_spike_comes_after_the_end_of_a_recording(data):
    spikes = data.inputs.spikes
    steps = len(spikes) - np.arange(4, 0, -1)
    ahead = data.inputs.ahead(steps, 10 * STEP)
    for step, of_step in zip(steps, ahead, strict=True):
        left = spikes[step:].reshape(-1, data.inputs.n_cells).T
        assert (of_step[:, : left.shape[1]] == left).all() and not of_step[:, left.shape[1] :].any()


@pytest.mark.parametrize("code", network.CODES)
@pytest.mark.parametrize("head", network.HEADS)
def test_nothing_after_t0_changes_an_answer(data, head, code):
    torch.manual_seed(0)
    model = network.Predictor(data.inputs, head, n_bins=data.ahead, code=code, latent=4)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, 0, 0.1)  # a network at its start answers alike to all
    assert prediction.change_after_t0(data, model.eval()) == 0


def test_the_model_of_each_cell_sees_nothing_after_t0(data):
    step, *both = data.disturbed
    for weights in (data.lnp, data.glm):  # later bins know the spikes of the first
        known, changed = (glm.log_hazard(x.inputs, weights, step)[..., 0] for x in both)
        assert (known == changed).all()


def test_a_look_ahead_is_seen(data, monkeypatch):
    torch.manual_seed(0)
    model = network.Predictor(data.inputs, "intensity", n_bins=data.ahead)
    torch.nn.init.normal_(model.net.out.weight)
    shown = history.Inputs.shown
    monkeypatch.setattr(history.Inputs, "shown", lambda self, steps: shown(self, steps + 3))
    assert prediction.change_after_t0(data, model.eval()) > 0


def test_a_scale_of_all_data_is_seen(data, monkeypatch):
    """Whatever is scaled by steps of every role is told, and the run stores it for the audit."""
    assert prediction.change_outside_train(data) == 0
    inputs_of, windows = history.inputs_of, Stream.windows

    def by_all(stream, horizon_s):
        def windows_of_all(self, role, *given):
            roles = ("train", "val", "test") if role == "train" else (role,)
            return np.sort(np.concatenate([windows(self, each, *given) for each in roles]))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Stream, "windows", windows_of_all)
            return inputs_of(stream, horizon_s)

    monkeypatch.setattr(history, "inputs_of", by_all)
    assert prediction.change_outside_train(data) > 0.01


def test_spikes_that_share_a_bin_are_counted(stream, data):
    counts = stream.counts.copy()
    twice = data.inputs.steps["test"][:40, None] * STEP + np.arange(STEP)
    counts[twice] *= 3
    table = prediction.data_of(replace(stream, counts=counts), small()).table().set_index("role")
    assert table["spikes"].tolist() == data.table()["spikes"].tolist()
    assert table["not told apart"].tolist() == [0, 0, 2 * int(stream.counts[twice].sum())]


def test_what_cannot_be_predicted_is_named(stream):
    """A cell without a spike, a cell alone, a stimulus that stands still, more bins ahead than are told apart."""
    counts = stream.counts.copy()
    counts[:, 2] = 0
    counts[:100, 2] = 1
    with pytest.raises(
        BadInput, match=r"no spike in train of 1 unit\(s\), 2, which fire 1.1 to 1.1 Hz"
    ):
        prediction.data_of(replace(stream, counts=counts), small())
    alone = replace(stream, counts=counts[:, :1], units=stream.units.iloc[:1])
    with pytest.raises(BadInput, match="unit 0 is left alone"):
        prediction.data_of(alone, small())
    still = replace(stream, stimulus=np.ones_like(stream.stimulus))
    with pytest.raises(BadInput, match=r"the stimulus is 1.0, 1.0 in all of train"):
        prediction.data_of(still, small())
    many = replace(stream, stimulus=np.zeros((len(stream.number), 200), np.float32))
    with pytest.raises(
        BadInput, match=r"stimulus has 200 channels, .* more than 32; write a series"
    ):
        prediction.data_of(many, small())
    for bin_s, words in ((0.0003, "expected 2.4 to 60 ms"), (0.03, "expected 240 to 6000 ms")):
        with pytest.raises(BadParameter, match=f"horizon_ms = 80: {words}"):
            prediction.data_of(replace(stream, bin_s=bin_s), small())


def test_cells_that_are_alike_have_a_place_and_no_score(data):
    """Of six times one cell t-SNE would divide by 0 and end the kernel; two cells are no kinds."""
    spikes = data.inputs.spikes[..., [0] * 6]
    alike = replace(data.inputs, spikes=spikes, rate=data.inputs.rate[[0] * 6])
    unknown = replace(data, inputs=alike, stream=replace(data.stream, types=None))
    rows, _, table, plane = kinds.grouped(unknown, None)
    assert rows == [] and table.empty and kinds.in_words(table) == ""
    assert (plane[["x", "y"]] == 0.5).all(axis=None)
    two = replace(data.inputs, spikes=spikes[..., :2], rate=alike.rate[:2])
    units = replace(unknown.stream, units=data.stream.units.iloc[:2])
    assert kinds.grouped(replace(unknown, inputs=two, stream=units), None)[0] == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("head", ["now", *prediction.AHEAD])
@pytest.mark.parametrize("code", ["embedding", "token"])
def test_a_gpu_teaches_what_the_processor_teaches(stream, head, code, monkeypatch):
    """But for what is dropped, which either draws for itself."""
    monkeypatch.setattr(network, "DROPPED", 0.0)
    said = []
    for device in ("cpu", "cuda"):
        data = prediction.data_of(stream, small(device=device, cell_code=code, max_epochs=1))
        model = prediction.fit_network(data, head)
        said.append(data.ask(model, data.inputs.steps["val"][:8]))
    np.testing.assert_allclose(*said, atol=0.05)


@pytest.fixture(scope="module")
def result(data):
    return prediction.predict(data)


def test_the_baselines_come_near_the_truth_and_no_model_passes_it(result):
    rows = {row.of["model"]: row for row in result.rows if row.metric == prediction.BITS}
    best = rows["glm"].best.value
    assert rows["lnp"].score.value < rows["glm"].score.value < best + 0.05
    assert rows["glm"].score.value > 0.85 * best
    for model in prediction.NOW:  # by more than its interval over cells tells
        score = rows[model].score
        assert score.value - (score.ci_high - score.ci_low) / 2 < best
    assert rows["chain"].score.value > rows["intensity"].score.value


def test_only_train_steps_teach_the_model_of_each_cell(data):
    counts = data.inputs.spikes.copy()
    others = np.concatenate([data.inputs.steps[role] for role in ("val", "test")])
    counts[others] = 1 - counts[others]
    other = glm.fit_cells(replace(data.inputs, spikes=counts))
    assert all((other[name] == known).all() for name, known in data.lnp.items())


def test_weights_are_those_below_the_ceiling_and_one_that_no_cell_has_is_drawn_to_nought():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.standard_normal((6000, 4)), np.ones(6000)]).astype(np.float32)
    true = np.append(rng.normal(0, 1.5, (20, 4)), np.full((20, 1), -3.0), axis=1)
    true[:, 3] = 0
    count = rng.poisson(np.exp(np.minimum(x @ true.T + 3, 2.5) - 3)).astype(np.float32)
    w, ridge = np.zeros((20, 5), np.float32), np.array([100.0] * 4 + [0.0])
    w[:, 4], ceiling, errors = -3, np.inf, []
    for _ in range(3):
        w, ridge = glm._newton(x, count, 0.0, ridge, w, ceiling)
        ceiling, _ = glm._ceilings(x, count, 0.0, w)
        errors.append(np.abs(w - true)[:, :3].mean())
    assert np.mean(ceiling == 2.5) > 0.8 and errors[-1] < 0.5 * errors[0]
    assert ridge[3] > 20 * ridge[:3].max() and np.abs(w[:, 3]).max() < 0.05


@pytest.mark.parametrize(("spread", "leans"), [(0.0, True), (1.0, False)])
def test_a_cell_with_few_spikes_leans_on_the_others_where_all_are_alike(spread, leans):
    rng = np.random.default_rng(0)
    expected = np.full((40, glm.N_AGES), 200.0)
    expected[0] = 2.0
    hits = rng.poisson(expected * np.exp(rng.normal(0, spread, (40, 1)) + 1))
    hits[0] = 0
    assert (np.abs(glm._ages(hits, expected)[0] - 1).max() < 0.3) == leans


def test_no_time_since_a_spike_is_impossible_where_few_were_expected():
    hits, expected = np.array([[0, 18], [0, 12]]), np.array([[1.0, 9.0], [0.5, 6.0]])
    ages = glm._ages(hits, expected)
    assert (ages[:, 0] > -2).all() and (ages[:, 1] > 0.5).all()


@pytest.mark.parametrize("model", ["glm", "lnp"])
def test_the_network_begins_where_the_model_of_each_cell_ends(data, model):
    """Before any training the two say the same of every bin, with history and without."""
    steps, weights = data.inputs.steps["val"][:50], getattr(data, model)
    net = network.Predictor(data.inputs, "now", history=model == "glm", latent=4, linear=weights)
    known = glm.log_hazard(data.inputs, weights, steps)
    np.testing.assert_allclose(data.ask(net, steps), known, atol=1e-4)


def test_every_train_stands_beside_those_that_know_nothing(result):
    table = result.tables["trains"].set_index("trains")
    assert set(spike_trains.REFERENCES) < set(table.index)
    assert {trains.GREEDY, trains.EXACT, trains.TWIN, "chain: most like", "chain: sampled"} < set(
        table.index
    )
    assert table["count_ratio"]["chain: sampled"] == pytest.approx(1, abs=0.5)
    assert set(result.tables["choices"]["role"]) == {"val"}
    words = prediction.in_words(result)
    assert words.startswith("**Result.**") and "over the published greedy inference" in words


def test_a_train_without_spikes_is_not_called_the_nearest():
    """A flat train has no correlation; counted as 0 it lies over those that are below."""
    columns = {"trains": [trains.EXACT, trains.GREEDY], "count_ratio": [0.0, 0.9]}
    columns |= {"correlation": [0.0, -0.02], "schreiber_10": [0.0, 0.1]}
    words = trains.in_words(pd.DataFrame(columns))
    assert f"*{trains.GREEDY}* is nearest" in words and "-0.02 at 0.90 of the spikes" in words
    alone = pd.DataFrame(columns).iloc[:1]
    assert trains.in_words(alone) == "No inferred train holds a spike."


EVERY = ["lnp", "net", "intensity", "chain"]


@pytest.mark.parametrize(
    ("code", "encoders"),
    [("embedding", EVERY[:2]), *(pytest.param(c, EVERY, marks=pytest.mark.slow) for c in network.CODES)],
)  # fmt: skip
def test_a_stimulus_of_another_time_tells_nothing(stream, code, encoders):
    """Rolled by half of its time inside each role, without history: no encoder predicts beyond its interval."""
    shown = stream.stimulus.copy()
    for role in ("train", "val", "test"):
        at = stream.windows(role)
        shown[at] = np.roll(shown[at], len(at) // 2, axis=0)
    asked = small(encoders=encoders, history=False, cell_code=code)
    result = prediction.predict(prediction.data_of(replace(stream, stimulus=shown), asked))
    bits = [row for row in result.rows if row.metric == prediction.BITS]
    assert len(bits) == len(encoders)
    for row in bits:
        assert row.score.ci_low < 0.02, row.what
    if encoders == EVERY[:2]:  # no trains were inferred, and the notebook still runs
        assert list(trains.readable_table(result.tables["trains"])["trains"]) == list(
            spike_trains.REFERENCES
        )
        assert " of the spikes" not in prediction.in_words(result)


def test_cells_of_a_kind_are_grouped(result, data):
    table = result.tables["kinds"].set_index("by")
    assert table["rand"][kinds.AVERAGE] == 1
    assert table["sta"][kinds.AVERAGE] > table["sta_apart"][kinds.AVERAGE]
    assert glm.raised_cosines().sum(axis=1) == pytest.approx(1)
    score = {row.of["model"]: row.score for row in result.rows if row.metric == kinds.RAND}
    assert set(score) == set(table.index) and score[kinds.AVERAGE].value == 1
    # Groups made of train are alike there in any case, so averages of test judge them.
    fresh = kinds.spike_triggered(data.inputs, "test")
    row = kinds.scored("average", data.stream.types, fresh, None)
    near, apart = table.loc[kinds.AVERAGE, ["sta", "sta_apart"]]
    assert row.score.value == pytest.approx(near - apart) and row.score.ci_low > 0
    assert isinstance(row.score.value, float)  # or it is not stored


def test_groups_of_noise_are_no_kinds_and_few_cells_have_an_interval():
    rng = np.random.default_rng(0)
    noise, other = rng.normal(size=(2, 40, 1, 63))
    groups = kinds.group(noise, 8)
    circular, honest = (kinds.scored("noise", groups, sta, None).score for sta in (noise, other))
    assert circular.p < 0.01 and honest.p > 0.05 and honest.ci_low < 0 < honest.ci_high
    few = kinds.scored("few", np.array([0, 0, 1, 2, 3, 4, 5, 6, 7]), noise[:9], None).score
    assert few.ci_low < few.value < few.ci_high


def test_the_share_that_probes_explain_is_told_where_there_are_several(data):
    """Units of two recordings in a file, by their probe: cells of one kind each, or of both in either."""
    told = {}
    for name, probe in (("kinds", data.stream.types), ("mixed", [0, 0, 1, 1, 0, 1])):
        units = data.stream.units.assign(probe=[f"r{k}" for k in probe])
        rows = kinds.grouped(replace(data, stream=replace(data.stream, units=units)), None)[0]
        (told[name],) = [row.score for row in rows if row.metric == kinds.SHARE]
    apart, mixed = told.values()
    assert apart.value > 0.8 and apart.ci_low > apart.chance and 0.1 < apart.chance < 0.3
    assert mixed.value < 0.4 and mixed.p > 0.1
    known = np.random.default_rng(0).normal(size=(8, 30))
    first = kinds.components(known)
    probe = np.repeat([0, 1], 4)
    between = 4 * ((first[:4].mean(axis=0) ** 2).sum() + (first[4:].mean(axis=0) ** 2).sum())
    row = kinds.explained("codes", known, probe)
    assert row.score.value == pytest.approx(between / (first**2).sum(), rel=1e-6)


def test_the_plane_needs_no_script_and_is_reached_by_keyboard(result):
    table = pd.concat([result.tables["plane"]] * 10)
    sta = np.repeat(np.random.default_rng(0).normal(size=(1, 4, 63)), len(table), axis=0)
    page = plots.CellPlane(table, sta, 0.008)._repr_html_()
    assert page.count('tabindex="0"') == 60 and len(page) < 100_000
    assert "<script" not in page and "http" not in page
    assert "unit 0:" in page and " Hz, group " in page


# --- the audit -----------------------------------------------------------------------------------


def audited(result, n_rows=90, **changed):
    """What the audit says of a run that holds this result, with some of its tables changed."""
    tables = {f"{name}.parquet": table for name, table in (result.tables | changed).items()}
    at = np.arange(n_rows) * ROW * BIN_S
    split = pd.DataFrame(
        {"fold": 0, "role": roles(n_rows), "start_s": at, "stop_s": at + ROW * BIN_S}
    )
    run = SimpleNamespace(
        stage="13_spike_distance", split="its folder",
        metrics=result.about | {k: v for k, v in changed.items() if k.startswith("change_")},
        table=lambda name, *columns: {c: tables[name][c].to_numpy() for c in columns} if name in tables else None,
    )  # fmt: skip
    return checks.windows(run, SimpleNamespace(split=lambda folder: (split, "hash")))


def test_a_sound_run_has_no_finding_and_each_planted_fault_is_found(result, home):
    assert audited(result) == []
    seam = result.tables["windows"].copy()
    test = seam.index[seam["role"] == "test"][0]
    seam.loc[test, "sees_from_s"] -= 4.0
    assert "windows of test reach over a seam" in audited(result, windows=seam)[0]
    late = seam.assign(sees_from_s=result.tables["windows"]["sees_from_s"])
    late.loc[late.index[late["role"] == "train"][0], "until_s"] += 1.5
    assert "windows of train reach over a seam" in audited(result, windows=late)[0]
    assert "sees what comes after" in audited(result, change_after_t0={"net": 0.3})[0]
    assert "scaled by more than train" in audited(result, change_outside_train=0.1)[0]
    choices = result.tables["choices"].assign(role="test")
    assert "was chosen on test, not on validation" in audited(result, choices=choices)[0]


def test_test_steps_do_not_choose_the_share_of_the_constant_rate(data, monkeypatch):
    """A model that is right in one role and surely wrong in the other needs the share in the other."""

    def chosen(right):
        def log_hazard(inputs, weights, steps):
            is_right = np.isin(steps, inputs.steps[right]).all()
            return np.where((inputs.ahead(steps, STEP) > 0) == is_right, 3.0, -30.0)

        monkeypatch.setattr(glm, "log_hazard", log_hazard)
        return prediction.log_hazard_now(data, "lnp", None)[1]

    assert chosen("val") == 0 and chosen("test") == max(prediction.SHARES)


def test_published_trains_are_made_of_their_own_window_alone():
    p = np.random.default_rng(0).gamma(0.5, 0.2, (2, 6, 40))
    ways = trains.published_twins(np.random.default_rng(1), 40)
    assert "80 bins rounded" not in ways
    for name in ("20 bins rounded", "40 bins rounded"):
        here, there = (ways[name](x.reshape(2, -1)).reshape(p.shape) for x in (p, p[:, ::-1]))
        assert here.any() and (here[:, ::-1] == there).all()


def test_samples_of_one_batch_of_windows_are_not_those_of_the_next(data, monkeypatch):
    """A network that says the same of every window, asked a few windows at a time."""
    model = network.Predictor(data.inputs, "chain", n_bins=data.ahead, history=False)
    drawn = []
    for at_once in (20, 256):
        monkeypatch.setattr(prediction, "AT_ONCE", at_once)
        drawn.append(trains.inferred(data, {"chain": model})[0]["chain: sampled"])
    batch = 20 * data.ahead
    first, second = drawn[0][:, :batch], drawn[0][:, batch : 2 * batch]
    assert first.any() and second.any() and (first != second).any()
    assert (drawn[0] == drawn[1]).all()


def test_what_is_chosen_does_not_know_the_test_trains(data):
    torch.manual_seed(0)
    models = {
        head: network.Predictor(data.inputs, head, n_bins=data.ahead, latent=4).eval()
        for head in ("intensity", "distance")
    }
    for model in models.values():  # what is chosen of a network is chosen alike, whatever it learnt
        torch.nn.init.normal_(model.net.out.weight, 0, 0.1)
    flipped = data.inputs.spikes.copy()
    starts = data.starts("test")
    ahead = (starts[:, None] + np.arange(data.ahead // STEP)).ravel()
    flipped[ahead] = 1 - flipped[ahead]
    other = replace(data, inputs=replace(data.inputs, spikes=flipped))
    (here, one), (there, two) = (trains.inferred(d, models) for d in (data, other))
    assert one.equals(two) and {trains.TWIN, trains.EXACT} < set(one["of"])
    assert (here[trains.RECORDED] != there[trains.RECORDED]).all()
