"""Every notebook, run: by plain papermill, by the runner, and on real recordings."""

import html
import json
import shutil

import browser
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import yaml
from preloaded import attempt

from nblib.book import build
from nblib.book.check import check as check_pages
from nblib.core import store
from nblib.experiments.spikes.prediction import BITS
from nblib.report import all_runs, audit
from nblib.report.one_run import load_run
from nblib.road import stages

pytestmark = pytest.mark.usefixtures("preloaded")
FEW = {"n_permutations": 100, "n_bootstrap": 100}
ROAD = ["01_ingest", "02_bin", "03_clean", "04_split"]
FIGURES = {
    "01_ingest": 2,
    "02_bin": 3,
    "03_clean": 2,
    "04_split": 3,
    "05_train_lstm": 5,
    "06_train_st_gat": 4,
    "07_few_shot": 3,
    "08_ssl_pretext": 2,
    "09_downstream_one_vs_all": 2,
    "10_image_latents": 3,
    "11_movie": 5,
    "12_multimodal": 5,
    "13_spike_distance": 3,
    "90_results": 4,
    "91_search": 2,
    "92_planning": 1,
}
AVERAGES = (  # of cells in the plane of 13 that can be seen: what is said of each, and its lines
    "[...document.querySelectorAll('.nb-cell .k')].filter(e => getComputedStyle(e).visibility == 'visible')"
    ".map(e => [e.querySelector('text').textContent, e.querySelectorAll('polyline').length])"
)
LAST_WORDS = "document.querySelectorAll('.nb-cell text')[4]"


def outputs(notebook):
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def check(notebook, name):
    """What a rendered page needs: pictures, a result in words, no warnings, no live widgets."""
    found = outputs(notebook)
    told = ["".join(o.text) for o in found if o.output_type == "stream"]
    expected = ("Settings differ from recipe", "Training on the ")
    assert all(t.startswith(expected) and t.count("\n") == 1 for t in told), told
    assert not [o for o in found if o.output_type == "error"]
    pictures = [o for o in found if "image/png" in o.get("data", {})]
    assert len(pictures) == FIGURES[name]
    assert "widgets" not in notebook.metadata
    assert not [o for o in found if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    words = [o.data["text/markdown"] for o in found if "text/markdown" in o.get("data", {})]
    assert words[-1].startswith("**Result.**")
    text = nbformat.writes(notebook)
    assert len(text) < 1_500_000
    assert str(store.home()) not in words[-1]
    return words[-1]


def by_papermill(name, folder, **params):
    """Execute a notebook as anybody would: papermill, its own kernel, nothing else."""
    return papermill.execute_notebook(
        str(store.notebooks_dir() / f"{name}.ipynb"),
        str(folder / f"{name}.ipynb"),
        parameters=params,
        progress_bar=False,
        cwd=str(folder),
    )


def the_run():
    (folder,) = [f for f in store.artifacts() if f.parts[-3] == "05_train_lstm"]
    return load_run(folder)


def page(outcome):
    """The executed notebook of a run that ended well, as text, and its result in words."""
    assert outcome.code == 0, outcome.message
    executed = nbformat.read(outcome.folder / "executed.ipynb", as_version=4)
    return nbformat.writes(executed), check(executed, outcome.folder.parts[-3])


def test_decoders_of_one_recording_by_the_runner_and_by_plain_papermill(home, tmp_path):
    """06 makes what it rests on, and compares itself with 05's run when there is one; 07 on the same."""
    who = {"recipe": "tiny", "recording": "tiny"}
    few = {"max_epochs": 2, "model_params": {"hidden": 8}, **FEW}
    outcome = attempt("06_train_st_gat", {**who, **few}, with_upstream=True)
    text, words = page(outcome)
    assert "st_gat names the right frame" in words
    assert "no run of `lstm` on this input and split" in text
    done = {f.parts[-3]: f for f in store.artifacts() if not f.parts[-3].startswith("00_")}
    assert list(done) == [*ROAD, "06_train_st_gat"]
    for name in ROAD:
        check(nbformat.read(done[name] / "executed.ipynb", as_version=4), name)
    again = attempt("06_train_st_gat", {**who, **few})
    assert again.code == 0 and again.folder == outcome.folder and again.seconds == 0
    words = check(by_papermill("05_train_lstm", tmp_path, **who, **FEW), "05_train_lstm")
    assert "lstm names the right frame" in words and "best possible decoder" in words
    run = the_run()
    assert run.metrics["oracle"]["accuracy"]["value"] > run.metrics["scores"]["accuracy"]["chance"]
    assert run.manifest["notebook"]["edited"] is False
    assert run.manifest["parameters"]["n_permutations"] == 100
    log = store.log_dir("05_train_lstm", "tiny", run.key)
    assert (log / "fit.csv").is_file() and not list(log.glob("*.ckpt"))
    text, _ = page(attempt("06", {**who, "graph": "anatomy", **few}))
    assert "Beside `lstm`" in text
    assert all_runs.scan()["variant"].str.contains('graph="anatomy"').sum() == 1
    outcome = attempt("06", {**who, "model": "lstm"})
    assert outcome.code == 2 and "model" in outcome.message

    models = ["ridge", "lstm", "st_gat"]
    given = {**who, "shots": [1, 5, 0], "n_draws": 2, "max_epochs": 1, "models": models, **FEW}
    _, words = page(attempt("07_few_shot", given))
    assert all(f"**{name}**" in words for name in models)
    words = check(by_papermill("90_results", tmp_path), "90_results")
    assert "- tiny: **" in words and "out of 3 decoders" in words


def test_images_from_spikes(home, tmp_path):
    recipe = tmp_path / "scenes.yml"
    recipe.write_text(
        "recipe: scenes\nrecordings: [scenes]\nsource: simulate\n"
        "simulate: {n_units: 20, n_scenes: 20, n_repeats: 8}\nn_bins: 2\n"
    )
    given = {"recipe": str(recipe), "recording": "scenes", "vae_epochs": 2, **FEW}
    _, words = page(attempt("10", given, with_upstream=True))
    assert "one of 4 images never seen" in words and "*are* filters on the image" in words
    table = all_runs.scan()
    assert len(table) == 12 and set(table["notebook"]) == {"10_image_latents"}
    assert (table["oracle"] >= table["value"]).all() and all_runs.comparable(table).empty


def test_field_potentials_from_files_to_curves(home, tmp_path):
    """01 and 02 of every mouse, two pretexts, one curve: in one command."""
    recipe = tmp_path / "mice.yml"
    tiny = (store.recipes_dir() / "lfp_tiny.yml").read_text()
    tiny = tiny.replace("recipe: lfp_tiny", "recipe: mice").replace(", m5, m6]", ", m5]")
    recipe.write_text(tiny)
    few = {"max_epochs": 2, "n_steps": 3, "batch_size": 32, "tau_pos_s": 5.0, "tau_neg_s": 10.0,
           "n_context": 3, "n_ahead": 2, "n_negatives": 3}  # fmt: skip
    given = {"recipe": str(recipe), "n_folds": 3, "folds": [0], "budgets": [1, 10, 0], "n_draws": 2,
             "embedders": ["rp", "cpc", "rp+cpc", "random"], "pretext_params": few}  # fmt: skip
    alone = attempt("09", given)
    assert alone.code == 3 and "nblib run 02_bin --with-upstream" in alone.message
    outcome = attempt("09", given, with_upstream=True)
    assert outcome.code == 0, outcome.message
    done = [f for f in store.artifacts() if not f.parts[-3].startswith("00_")]
    assert sorted({f.parts[-3] for f in done}) == ["01_ingest", "02_bin", "08_ssl_pretext", "09_downstream_one_vs_all"]  # fmt: skip
    assert len(done) == 5 + 5 + 2 + 1
    said = {}
    for folder in done:
        name = folder.parts[-3]
        said[name] = check(nbformat.read(folder / "executed.ipynb", as_version=4), name)
    assert "windows of 2 s (250 samples × 11 channels)" in said["02_bin"]
    assert "**rp+cpc**" in html.unescape(said["09_downstream_one_vs_all"])
    (pth,) = [p for f in done for p in f.glob("RP_*.pth")]
    assert pth.name == "RP_stagernet_5_10.pth"  # named with its true tau values
    table = all_runs.scan()
    assert set(table["notebook"]) == {"08_ssl_pretext", "09_downstream_one_vs_all"}
    assert (table["flag"] == "").all() and all_runs.comparable(table).empty
    missing = {**given, "pretext_params": {**few, "max_epochs": 1}}
    other = attempt("09", missing)
    assert other.code == 3 and "nblib run 08_ssl_pretext --with-upstream" in other.message
    again = attempt("09", given)
    assert again.code == 0 and again.seconds == 0
    # The exported weights are that very embedder, and are known by what they hold.
    file = tmp_path / "mine" / pth.name
    shutil.copytree(pth.parent, file.parent)
    from_file = attempt("09", {**given, "embedders": [str(file), "random"]})
    assert from_file.code == 0, from_file.message
    curves = [pd.read_parquet(o.folder / "curve.parquet").set_index("embedder") for o in (outcome, from_file)]  # fmt: skip
    assert curves[0].loc["rp", "value"].tolist() == curves[1].loc[str(file), "value"].tolist()


def test_a_real_recording_reaches_a_score(home, real_data):
    real_data("allen_gratings.nwb")
    given = {"recipe": "allen_gratings", "recording": "allen_gratings", "model": "logistic", **FEW}
    outcome = attempt("05_train_lstm", given, with_upstream=True)
    assert outcome.code == 0, outcome.message
    metrics = the_run().metrics
    known = [metrics[name] for name in ("n_classes", "n_units", "oracle")]
    assert known == [4, 30, None]
    score = metrics["scores"]["accuracy"]
    assert 0.5 < score["value"] <= score["ci_high"] and 0 < score["chance"] < score["ci_low"]
    for folder in store.artifacts():
        name = folder.parts[-3]
        words = check(nbformat.read(folder / "executed.ipynb", as_version=4), name)
    assert f"{score['value']:.1%}" in words and "best possible decoder" not in words


def test_a_wrong_type_stops_in_the_validate_cell(home, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="recording = 21"):
        by_papermill("01_ingest", tmp_path, recipe="tiny", recording=21)
    kept = json.loads((tmp_path / "01_ingest.ipynb").read_text())
    ran = [c["id"] for c in kept["cells"] if c.get("execution_count")]
    assert "validate" in ran and "open" not in ran
    assert list(store.artifacts()) == []


def test_every_stage_has_its_notebook():
    assert set(FIGURES) == set(stages.STAGES)


def test_a_film(home):
    given = {"recipe": "movie_tiny", "recording": "pool", "models": ["ridge"], "leak": [0.0, 4.0]}
    given |= {"horizons_s": [0.08], "lags_s": [-0.8, 0.0, 0.4], "importance": True}
    given |= {"tolerance_s": 0.24, "n_permutations": 20, "n_bootstrap": 100}
    outcome = attempt("11_movie", given, with_upstream=True)
    _, words = page(outcome)
    said = {}
    for folder in (f for f in store.artifacts() if f.parts[-3] in ROAD):
        name = folder.parts[-3]
        said[name] = check(nbformat.read(folder / "executed.ipynb", as_version=4), name)
        assert "presentation" not in said[name], name  # of 59,080 bins of 80 ms
    assert "frames, in which hero begins" in said["01_ingest"] and "pauses" in said["01_ingest"]
    assert "bins of film" in said["02_bin"] and "paused" in said["02_bin"]
    assert "a clock that reads no spike tells" in words
    assert "of such a score needs no neuron" in words
    scores = json.loads((outcome.folder / "metrics.json").read_text())["scores"]
    assert scores["ridge: kappa"]["unit"] == "kappa" and "clock: auroc" in scores
    assert scores["Poisson GLM, 0.08 s ahead"]["unit"] == "bits/spike"
    again = attempt("11", {**given, "label_name": "rivals"})
    assert again.code != 0 and "did you mean rival" in again.message


def test_many_sessions(home):
    given = {"recipe": "task_tiny", "max_epochs": 2, **FEW}
    outcome = attempt("12_multimodal", given, with_upstream=True)
    _, words = page(outcome)
    assert "One network of 2 sessions answers 11 tasks" in words
    scores = json.loads((outcome.folder / "metrics.json").read_text())["scores"]
    assert scores["wheel, ridge: R2"]["unit"] == "R2"
    assert (
        scores["spikes from behaviour, Poisson GLM: bits beyond the PSTH"]["unit"] == "bits/spike"
    )
    model = load_run(outcome.folder).model
    wheel = model.decode(np.zeros((2, 25, 12)), {"choice": np.array([-1, 1])}, "t1")["wheel"]
    assert wheel.shape == (2, 25)
    report = audit.audit()
    assert report.findings == [] and report.looked["sessions"] == 1


def retina_rows(**shown):
    """Rows of scores by model: GLM and network of a simulated retina of 60 cells of 8 kinds."""
    shown = {"n_cells": 60, **shown}
    given = {"recipe": "retina_demo", "encoders": ["glm", "net"], "source_params": shown}
    outcome = attempt("13_spike_distance", given, with_upstream=True)
    assert outcome.code == 0, outcome.message
    rows = json.loads((outcome.folder / "metrics.json").read_text())["rows"]
    return {row["model"]: row for row in rows}


@pytest.mark.slow
def test_kinds_of_a_whole_retina_are_told_by_what_the_network_answers(home):
    """60 cells of 8 kinds, 3 minutes: at least as well as by their spike-triggered averages."""
    rows = retina_rows(duration_s=180.0, seed=1)
    answers, average = (
        rows[model]["scores"]["adjusted Rand"]
        for model in ("answers of the network", "spike-triggered average")
    )
    assert answers["value"] >= average["value"] > 0.7 and answers["ci_low"] > 0.6


@pytest.mark.slow
def test_a_long_recording_comes_near_the_truth(home):
    """60 cells of 8 kinds, 15 minutes: the models of one step ahead, and the kinds."""
    rows = retina_rows(duration_s=900.0, seed=31)
    share = {
        model: rows[model]["scores"][BITS]["value"] / rows[model]["oracle"][BITS]["value"]
        for model in ("glm", "net")
    }
    assert 0.95 < share["glm"] < 1 and 0.94 < share["net"] < 1
    assert rows["answers of the network"]["scores"]["adjusted Rand"]["value"] >= 0.95


@pytest.mark.slow
def test_a_quarter_of_an_hour_of_sixty_cells_takes_little_memory(home):
    """Every model and inference at the size of a whole session; how long it learns changes no array."""
    size = {"n_cells": 60, "duration_s": 900.0, "seed": 1}
    given = {"recipe": "retina_demo", "source_params": size, "max_epochs": 1}
    outcome = attempt("13_spike_distance", given | {"steps_an_epoch": 2000}, with_upstream=True)
    assert outcome.code == 0, outcome.message
    assert load_run(outcome.folder).manifest["peak_rss_bytes"] <= 1.5e9


@pytest.mark.slow
@browser.needed
def test_an_average_is_shown_under_the_mouse_and_by_the_tab_key(home, tmp_path):
    """The page of 13 as the book has it, in a real browser: which cells' words and averages can be seen."""
    given = {"recipe": "retina_tiny", "encoders": ["lnp"], "n_bootstrap": 100}
    outcome = attempt("13_spike_distance", given, with_upstream=True)
    assert outcome.code == 0, outcome.message
    html = small_book(tmp_path, outcome.folder)
    path = html / "notebooks" / "13_spike_distance.html"
    for width in (1400, 400):
        with browser.opened(path, tmp_path / f"profile{width}", width) as page:
            assert page.js(AVERAGES) == []
            page.move_to(".nb-cell circle", 4)
            ((words, lines),) = page.js(AVERAGES)
            assert words.startswith("unit 4: ") and " Hz, group " in words and lines == 4
            box = page.js(f"(b => [b.left, b.right])({LAST_WORDS}.getBoundingClientRect())")
            assert box[0] >= 0 and box[1] <= width
            page.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
            assert page.js(AVERAGES) == []
            page.press_until("Tab", "document.activeElement.closest('.nb-cell') !== null")
            for unit in range(3):
                ((words, lines),) = page.js(AVERAGES)
                assert words.startswith(f"unit {unit}: ") and lines == 4
                page.press("Tab")
            size = page.js(f"{LAST_WORDS}.getBoundingClientRect().height")
            assert size > 9 and all(url.startswith(("file:", "data:")) for url in page.requests)


def small_book(tmp_path, run):
    """The pages of a book that has one run of 13, checked: their size, and nothing from the network."""
    here, root, source = store.project_root(), tmp_path / "root", tmp_path / "source"
    for name in ("_static", "_ext"):
        shutil.copytree(here / "book" / name, root / "book" / name)
    shutil.copy(here / "book" / "references.bib", root / "book")
    shutil.copy(here / "_config.yml", root)
    (root / "book" / "start.md").write_text("# Start\n")
    chapters = [{"file": "notebooks/13_spike_distance"}]
    contents = {"format": "jb-book", "root": "book/start", "parts": [{"chapters": chapters}]}
    (root / "_toc.yml").write_text(yaml.safe_dump(contents))
    build.lay_out(source, root, {"13_spike_distance": run}, all_runs.scan().iloc[:0])
    html = build.render(source, tmp_path / "out")
    faults, sizes = check_pages(html)
    assert faults == [] and 10_000 < sizes["notebooks/13_spike_distance.html"] <= 2_000_000
    return html


def test_when_cells_fire(home):
    given = {"recipe": "retina_tiny", "recording": "r1", "max_epochs": 1, "steps_an_epoch": 500}
    given |= {"encoders": ["glm", "net", "distance", "chain"], "n_bootstrap": 100}
    outcome = attempt("13_spike_distance", given, with_upstream=True)
    assert outcome.code == 0, outcome.message
    said = {}
    for folder in (f for f in store.artifacts() if f.parts[-3] in ROAD):
        name = folder.parts[-3]
        said[name] = check(nbformat.read(folder / "executed.ipynb", as_version=4), name)
    assert "of 8 units" in said["01_ingest"] and "and no trials" in said["01_ingest"]
    assert "60,000 bins × 8 units" in said["02_bin"]
    assert "60 of 60 rows of time" in said["03_clean"]
    assert "38 rows of time teach, 6 choose and 10 judge; 6 lie in gaps" in said["04_split"]
    executed = nbformat.read(outcome.folder / "executed.ipynb", as_version=4)
    words = check(executed, "13_spike_distance")
    assert "The simulated truth itself reaches" in words and "adjusted Rand index" in words
    page = "".join("".join(o.get("data", {}).get("text/html", "")) for o in outputs(executed))
    assert page.count('tabindex="0"') == 8 and "unit 0: " in page
    metrics = json.loads((outcome.folder / "metrics.json").read_text())
    assert set(metrics["change_after_t0"].values()) == {0}
    assert audit.audit().findings == []
