"""The book: complete contents, names that exist, formulas that draw, checks that catch faults."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml

from nblib.book import build, check, pages, tables
from nblib.core import integrity, params, store
from nblib.core.errors import BadParameter, NblibError
from nblib.experiments import decode
from nblib.report import all_runs, model_choice, summary
from nblib.report.plots.all_runs import compare_runs
from nblib.report.plots.style import VERMILLION
from nblib.run import execute, many, sweep
from nblib.run.search import definition

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
TEXTS = {
    path: path.read_text(encoding="utf-8")
    for path in sorted(BOOK.rglob("*.md"))
    if not set(path.relative_to(BOOK).parts) & set(build.NOT_PAGES)
}
sys.path.append(str(BOOK / "_ext"))

import derived  # noqa: E402
import mathsvg  # noqa: E402

# Every function and class that the lab's own description of its scripts names.
SCRIPTS = [
    "print_memory_usage",
    "print_gpu_memory",
    "NeuronDataset",
    "process_neuron_wrapper",
    "process_neuron",
    "create_directory_and_manifest",
    "create_cache_get_session_table",
    "pick_session_and_pull_data",
    "filter_valid_spike_times",
    "get_stimulus_table",
    "calculate_bins",
    "process_all_neurons",
    "create_and_prepare_spike_dataframe",
    "save_and_count_spike_dataframe",
    "normalize_firing_rates",
    "filter_and_save_neurons",
    "process_and_save_data",
    "get_session_ids",
    "process_session_batch",
    "process_all_sessions_in_batches",
    "master_function",
    "check_file_exists",
    "load_pickle_file",
    "save_pickle_file",
    "clean_avg_firing_rates",
    "master_cleaning_and_saving",
    "DataSplitter",
    "DataSplitter.__init__",
    "DataSplitter._prepare_data",
    "DataSplitter.remove_0_columns",
    "DataSplitter._split_and_reshape",
    "DataSplitter._create_loaders",
    "DataSplitter.compute_correlation_matrix",
]


def toc_files() -> list[str]:
    """Every file that the contents name, in order."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    found = [contents["root"]]
    for part in contents["parts"]:
        for chapter in part["chapters"]:
            found += [chapter["file"], *(s["file"] for s in chapter.get("sections", []))]
    return found


# --- prose ---------------------------------------------------------------------------------------


def test_contents_name_every_page_and_notebook_once():
    there = {str(path.relative_to(ROOT).with_suffix("")) for path in TEXTS}
    there |= {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    named = toc_files()
    assert sorted(named) == sorted(set(named))
    assert set(named) == there


def test_every_script_has_a_new_home_that_exists():
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.*?) \|", TEXTS[BOOK / "where_did_my_script_go.md"], re.M
    )
    homes = {name: re.findall(r"<(nblib[\w.]*)>", now) for name, now in rows}
    assert set(homes) >= set(SCRIPTS)
    for name in SCRIPTS:
        assert homes[name], name
        for target in homes[name]:
            assert derived.resolve(target) is not None


def test_a_home_that_is_not_there_is_noticed():
    with pytest.raises(ValueError, match="no 'nowhere'"):
        derived.resolve("nblib.prepare.binning.nowhere")


def test_every_parameter_is_in_the_data_dictionary():
    text = TEXTS[BOOK / "data_dictionary.md"]
    shown = set()
    for name in re.findall(r"^```\{parameters\} (\S+)", text, re.M):
        shown |= {row[0].strip("`") for row in derived.parameter_rows(derived.resolve(name))}
    models = (
        params.Recipe,
        params.SimulateSettings,
        decode.Params,
        all_runs.Params,
        definition.Params,
    )
    assert shown >= {name for model in models for name in model.model_fields}


def test_a_parameter_table_tells_meaning_type_bounds_and_default():
    rows = {row[0]: row for row in derived.parameter_rows(params.CleanSettings)}
    assert all(row[1] for row in rows.values())
    assert rows["`n_units`"][2:] == ("whole number, ≥ 0", "`0`")
    assert rows["`isi_violations_max`"][3] == "`.inf`"
    assert rows["`invalid_spikes`"][2] == "`drop` \\| `keep`"
    own = [row[0] for row in derived.parameter_rows(params.Recipe, own=True)]
    assert own == ["`recipe`", "`recordings`", "`pseudo_population`"]


def test_every_room_is_in_the_api_reference():
    rooms = {room for text in TEXTS.values() for room in derived.MODULES.findall(text)}
    assert rooms == {f"nblib.{p.parent.name}" for p in (ROOT / "nblib").glob("*/__init__.py")}


def test_the_reference_of_a_room_holds_its_modules_and_those_of_its_folders():
    page = derived.module_sections("nblib.data")
    assert "## opening\n\n```{eval-rst}\n.. automodule:: nblib.data.opening\n```" in page
    assert "automodule:: nblib.data.nwb.tables\n" in page
    assert "nblib.data.trials\n" not in page  # a folder that holds nothing itself


def test_the_tree_has_every_module_with_a_sentence():
    lines = derived.tree_lines(ROOT / "nblib")
    assert "  bin_of_spike.py          Which bin each spike falls in" in "\n".join(lines)
    modules = [p for p in (ROOT / "nblib").rglob("*.py") if not p.name.startswith("_")]
    rooms = list((ROOT / "nblib").rglob("*/__init__.py"))
    assert len(lines) == len(modules) + len(rooms)
    assert [line for line in lines if len(line.split()) < 4] == []


def test_every_module_that_the_page_of_the_house_names_is_there():
    page = (ROOT / "book" / "how_the_house_is_built.md").read_text(encoding="utf-8")
    named = {name.removeprefix("nblib/") for name in re.findall(r"`([\w/]+\.py)`", page)}
    assert len(named) > 20
    assert {name for name in named if not (ROOT / "nblib" / name).is_file()} == set()


def test_citations_and_references_agree():
    cited = {
        key.strip()
        for text in TEXTS.values()
        for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    listed = set(re.findall(r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text(), re.M))
    assert cited == listed


def test_every_generated_part_is_known():
    known = {"headline", "verdicts", "results", "comparison", "bench"}
    assert {mark for text in TEXTS.values() for mark in build.MARK.findall(text)} == known


# --- pictures and formulas -----------------------------------------------------------------------


def formulas() -> list[tuple[str, str, bool]]:
    found = []
    texts = {path.name: text for path, text in TEXTS.items()}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        texts[path.name] = "\n\n".join(
            "".join(c["source"]) for c in cells if c["cell_type"] == "markdown"
        )
    for name, text in texts.items():
        # Of a directive the content counts; of code nothing does.
        fenced = r"^ *```(\{?)[^\n]*\n(.*?)^ *```$"
        text = re.sub(fenced, lambda m: m[2] if m[1] else "", text, flags=re.S | re.M)
        text = re.sub(r"`[^`\n]*`", "", text)
        found += [(name, latex, True) for latex in re.findall(r"\$\$(.+?)\$\$", text, re.S)]
        inline = re.sub(r"\$\$.+?\$\$", "", text, flags=re.S)
        found += [(name, latex, False) for latex in re.findall(r"\$([^$\n]+)\$", inline)]
    return found


def test_every_formula_draws():
    assert len(formulas()) > 50
    for name, latex, display in formulas():
        svg = mathsvg.render(latex, display=display)
        assert ElementTree.fromstring(svg).get("role") == "img", (name, latex)


def test_a_formula_that_cannot_be_drawn_is_an_error():
    with pytest.raises(ValueError):
        mathsvg.render(r"\nonsense{x}")


def test_a_formula_sits_on_the_line_and_rows_align():
    plain, deep = (mathsvg.render(latex) for latex in ("x", r"x_j"))

    def depth(svg: str) -> float:
        return float(re.search(r"vertical-align:(-[\d.]+)em", svg)[1])

    assert depth(deep) < depth(plain) < 0
    rows = ElementTree.fromstring(mathsvg.render("ab &= c \\\\ x &= y", display=True))
    starts = [float(p.get("transform").split("(")[1].split()[0]) for p in rows]
    assert len(starts) == 4
    assert abs(starts[1] - starts[3]) <= 1  # what follows & begins at one place


PICTURES = sorted((BOOK / "_static" / "flow").glob("*.svg"))


def test_every_decoder_has_a_picture_on_its_page():
    from nblib.models import MODELS

    pages = [BOOK / "intro.md", *(BOOK / "methods" / f"{n}.md" for n in ("decoders", "graphs"))]
    shown = [
        name for page in pages for name in re.findall(r":file: \S+/flow/(\w+)\.svg", TEXTS[page])
    ]
    assert sorted(shown) == [path.stem for path in PICTURES] == sorted([*MODELS, "road"])


@pytest.mark.parametrize("path", PICTURES, ids=lambda p: p.stem)
def test_a_picture_of_a_method_is_small_says_what_it_shows_and_takes_the_themes_colours(path):
    picture = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 10_000
    svg, css = "{http://www.w3.org/2000/svg}", (BOOK / "_static" / "book.css").read_text()
    label = picture.get("aria-label")
    steps = [t.text for t in picture.iter(f"{svg}text") if "name" in t.get("class").split()]
    assert len(steps) >= 4 and all(f"{step} (" in label for step in steps)
    for part in picture.iter():  # colours of its own are for a viewer without the book's style
        if part.get("fill") or part.get("stroke"):
            assert any(f".flow .{name}" in css for name in part.get("class").split())


def docstrings():
    """Each docstring of the package, and where it stands."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for path in sorted((ROOT / "nblib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT)}, {getattr(node, 'name', 'module')}", text


def test_docstrings_read_without_a_warning():
    from docutils import frontend, parsers, readers
    from docutils.core import publish_doctree
    from sphinx.ext.napoleon import Config, NumpyDocstring

    parts = (parsers.get_parser_class("rst"), readers.get_reader_class("standalone"))
    settings, config = frontend.get_default_settings(*parts), Config(napoleon_use_ivar=True)
    settings.report_level, settings.halt_level = 2, 5
    for place, text in docstrings():
        if not re.search(r"[`*_|\\\n]|::", text):
            continue  # a plain line, in which nothing can be wrong
        settings.warning_stream = faults = io.StringIO()
        publish_doctree(str(NumpyDocstring(text, config)), settings=settings)
        assert not faults.getvalue(), f"{place}: {faults.getvalue()}"


def test_a_public_signature_names_parameters_of_one_module():
    """Ten modules hold a `Params`, and the reference cannot tell which a bare one of another is, nor
    which of two modules of one name is meant."""
    holders = []
    for path in sorted((ROOT / "nblib").rglob("*.py")):
        tree = ast.parse(path.read_text())
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        holders += [path.stem] * ("Params" in own)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                for argument in (*node.args.args, *node.args.kwonlyargs):
                    bare = isinstance(argument.annotation, ast.Name) and argument.annotation.id
                    assert bare != "Params" or "Params" in own, f"{path}: {node.name}"
    assert len(set(holders)) == len(holders), holders


# --- plan ----------------------------------------------------------------------------------------


def test_the_plan_runs_every_notebook_and_every_decoder():
    from nblib.models import MODELS

    plan = sweep.read(ROOT / build.PLAN)
    notebooks = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert list(dict.fromkeys(step.notebook for step in plan.steps)) == notebooks
    step = next(step for step in plan.steps if step.notebook == "05_train_lstm")
    jobs = step.runs(plan.params)
    train = [s for s in plan.steps if s.notebook in ("05_train_lstm", "06_train_st_gat")]
    names = [given["model"] for s in train for _, given in s.runs(plan.params)]
    assert set(names) == set(MODELS)
    assert jobs[step.shown(plan.params)][1] == {**plan.params, "model": "lstm"}


def test_a_step_that_shows_no_run_is_refused():
    step = sweep.Step(notebook="05_train_lstm", each={"model": ["lstm"]}, show={"model": "gru"})
    with pytest.raises(BadParameter, match="gru"):
        step.shown({})


def test_what_is_not_done_runs_with_all_it_rests_on(tmp_path, monkeypatch):
    """The plan names a run; 01 to 04 with its values are not in the plan, and run all the same."""
    done, asked = {("05_train_lstm", "lstm"): tmp_path / "lstm"}, []

    def what(task):
        return task[0], task[1].get("model")

    def run_many(tasks, n_jobs, force):
        asked.extend(what(task) for task in tasks)
        done.update({what(task): tmp_path for task in tasks})
        return [execute.Exit(0, "") for _ in tasks]

    monkeypatch.setattr(build, "settled", lambda *task: done.get(what(task)))
    monkeypatch.setattr(many, "run_many", run_many)
    given = {"recipe": "demo", "recording": "demo", "n_bins": 15}
    step = sweep.Step(
        notebook="05_train_lstm",
        params=given,
        each={"model": ["mlp", "lstm"]},
        show={"model": "lstm"},
    )
    book = sweep.Sweep(sweep="b", steps=[step])
    assert build.run_plan(book, 1) == {"05_train_lstm": tmp_path / "lstm"}
    inputs = ["01_ingest", "02_bin", "03_clean", "04_split"]
    assert asked == [*((name, None) for name in inputs), ("05_train_lstm", "mlp")]
    del done["05_train_lstm", "mlp"]
    monkeypatch.setattr(many, "run_many", lambda *a, **k: [execute.Exit(3, "it broke")])
    with pytest.raises(NblibError, match="it broke"):
        build.run_plan(book, 1)


# --- laying out ----------------------------------------------------------------------------------


DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTjGTwAAAABJRU5ErkJggg=="
)


def artifact(
    home: Path, stage: str, recording: str, key: str, upstream: list[str], *, scores=False
) -> Path:
    """A committed artifact with an executed notebook, small enough to read."""
    folder = home / stage / recording / key
    folder.mkdir(parents=True)
    view = {
        "output_type": "display_data",
        "metadata": {},
        "data": {pages.WIDGET: {}, "text/plain": "box"},
    }
    told = {"output_type": "stream", "name": "stdout", "text": f"written to {home}/x"}
    picture = {
        "output_type": "display_data",
        "metadata": {"image/png": {"width": 8, "alt": "One grey dot."}},
        "data": {"image/png": base64.b64encode(DOT).decode(), "text/plain": "<Figure>"},
    }
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# 05 · Train\n\nBack to [04](04_split.ipynb)."},
        {"cell_type": "code", "id": "b", "metadata": {}, "execution_count": 1, "source": "x = 1", "outputs": [view, told, picture]},
    ]  # fmt: skip
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"widgets": {}, "language_info": {"name": "python"}},
        "cells": cells,
    }
    if scores:
        (folder / "metrics.json").write_text("{}")
        right = np.arange(100) < (60 if key.startswith("2") else 50)
        answers = pd.DataFrame({"trial": np.arange(100), "correct": right, "group": np.arange(100)})
        answers.to_parquet(folder / "predictions.parquet")
    outputs = {p.name: {"sha256": integrity.sha256(p)} for p in folder.iterdir()}
    manifest = {
        "stage": stage, "recording": recording, "key": key, "parameters": {}, "upstream": upstream,
        "outputs": outputs, "created": "2026-01-01T00:00:00Z",
        "wall_s": 1.5, "code_version": "0.1.0",
    }  # fmt: skip
    (folder / store.MANIFEST).write_text(integrity.dump_sealed({**manifest, "sha256": ""}))
    store.attach(folder, notebook)
    return folder


def scan_of(folders: dict[str, Path], **changed) -> pd.DataFrame:
    """A results scan with one run per model."""
    rows = []
    for i, (model, folder) in enumerate(folders.items()):
        rows.append({
            "notebook": "05_train_lstm", "recipe": "demo", "base": "demo", "group": "demo", "changed": "",
            "recording": "demo", "model": model, "fold": 0, "seed": 0, "variant": "",
            "metric": "accuracy", "accuracy": 0.5 + i / 10, "val_accuracy": 0.5 + i / 10, "value": 0.5 + i / 10, "ci_low": 0.4, "ci_high": 0.9, "chance": 0.01,
            "p": 0.001, "null": "label permutation", "oracle": 0.95, "oracle_low": 0.94, "oracle_high": 0.96, "top5": 0.9,
            "balanced_accuracy": 0.5, "n_test": 100, "n_classes": 9, "n_units": 7, "n_bins": 5, "fit_s": 1.0,
            "split_hash": "abc", "key": folder.name, "run": f"demo/{folder.name}", "flag": "", "folder": str(folder), "executed": True,
            "created": f"2026-01-0{i + 1}T00:00:00Z", **changed,
        })  # fmt: skip
    return pd.DataFrame(rows)


def linked(table: pd.DataFrame, paged: list | None = None) -> pages.Links:
    """The links of a scan whose runs have pages, or of those given."""
    return pages.Links.of(table, pages.run_pages(table) if paged is None else paged)


@pytest.fixture
def runs(home) -> pd.DataFrame:
    split = artifact(home, "04_split", "demo", "0" * 16, [])
    names = {"mlp": "1" * 16, "lstm": "2" * 16}
    made = {
        m: artifact(home, "05_train_lstm", "demo", key, [split.name], scores=True)
        for m, key in names.items()
    }
    return scan_of(made)


def test_a_run_page_says_where_it_comes_from_and_holds_what_a_page_can_show(home, runs):
    links = pages.Links.of(runs, [])
    page = json.loads(pages.page_notebook(Path(runs["folder"][0]), links, "mlp on demo"))
    head = page["cells"][0]["source"]
    assert head.startswith("# mlp on demo\n")
    assert "\n## 05 · Train\n" in head
    assert "key <code>1111111111111111</code>" in head
    assert '<a href="../artifacts/05_train_lstm/demo/1111111111111111/manifest.json">' in head
    assert "](../notebooks/04_split.ipynb)" in head
    outputs = page["cells"][1]["outputs"]
    assert [o["output_type"] for o in outputs] == ["stream", "display_data"]
    assert outputs[0]["text"] == "written to NBLIB_HOME/x"
    assert "widgets" not in page["metadata"]


def test_a_page_gives_its_result_first(home, runs):
    folder = Path(runs["folder"][0])
    notebook = store.read_attached(folder)
    said = ["**Result.** not the last", "**Result.** mlp names it.", "more words"]
    notebook["cells"][1]["outputs"] += [
        {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": [text]}}
        for text in said
    ]
    store.attach(folder, notebook)
    page = json.loads(pages.page_notebook(folder, linked(runs)))
    head = page["cells"][0]["source"]
    assert head.index("# 05") < head.index("manifest</a>") < head.index("**Result.** mlp names it.")
    assert "not the last" not in head


def table_of(runs, paged=None):
    return tables.results_table(runs, linked(runs, paged), 60)


def test_the_results_table_has_few_columns_and_its_first_rows_are_the_recipe_s_own(runs):
    """Other settings, folds, label counts and what is not compared stand in tabs of their own."""
    lstm = runs.iloc[[1]]
    others = [
        lstm.assign(changed="n_bins=10", recipe="demo-12345678", value=0.99, run="demo/bins"),
        *(lstm.assign(group="demo (n_folds=5)", fold=k, run=f"demo/f{k}") for k in (0, 1)),
        lstm.assign(notebook="07_few_shot", variant="k=1", run="demo/few"),
        lstm.assign(notebook="09_downstream_one_vs_all", run="cohort/d"),
        lstm.assign(flag="old split", run="demo/old"),
        lstm.assign(variant="shuffle_labels=true", run="demo/control"),
    ]
    many = pd.concat([runs, *others], ignore_index=True)
    made = table_of(many, [])
    names = re.findall(r"^````\{tab-item\} (.*)$", made, re.M)
    assert names == ["The recipes' own runs (2)", "Other settings (1)", "Folds (2)", "Label counts (1)",
                     "Without labels, images (1)", "Not compared (2)"]  # fmt: skip
    for head in re.findall(r"<tr>(<th>.*?)</tr>", made):
        assert head.count("<th>") <= 8
    first = re.findall(r"<tr><td.*?</tr>", made)[:2]
    href = "../artifacts/05_train_lstm/demo/2222222222222222/manifest.json"
    assert f'<a href="{href}">lstm</a>' in first[0] and ">mlp</a>" in first[1]
    assert '<td data-label="95 % interval">40.0% to 90.0%</td>' in first[0]
    assert len(re.findall("<tr><td", made)) == len(many)  # every run stands somewhere, once
    paged = table_of(runs)
    assert '<a href="../runs/demo-demo-lstm-f0-s0-22222222.html">lstm</a>' in paged
    odd = scan_of({"<b>x": Path(runs["folder"][0])}, recording="<i>")
    assert "<b>" not in table_of(odd, []) and "<i>" not in table_of(odd, [])


def test_corrupt_runs_and_runs_without_a_notebook_get_no_page(runs):
    assert pages.run_pages(runs.assign(flag="corrupt")) == []
    assert pages.run_pages(runs.assign(executed=False)) == []
    assert "2 of these runs have no page" in table_of(runs, [])
    assert "have no page" not in table_of(runs)


def test_runs_that_the_table_shows_first_get_a_page_and_those_that_validation_chose(
    home, runs, monkeypatch
):
    monkeypatch.setattr(pages, "MOST_RUN_PAGES", 2)
    models = {f"m{i}": artifact(home, "05_train_lstm", "demo", f"{i:016d}", [], scores=True) for i in range(5)}  # fmt: skip
    many = scan_of(models)
    assert {page.row["model"] for page in pages.run_pages(many)} == {"m4", "m3"}  # the best scores
    many.loc[many["model"] == "m1", "val_accuracy"] = 0.99  # chosen, although its test score is low
    paged = pages.run_pages(many)
    assert [page.row["model"] for page in paged] == ["m1", "m4"]  # by age
    assert "3 of these runs have no page" in table_of(many, paged)
    assert list(summary.in_order(many)["model"]) == ["m4", "m3", "m2", "m1", "m0"]
    many.loc[many["model"] == "m4", "flag"] = "old code"
    assert list(summary.in_order(many)["model"]) == ["m3", "m2", "m1", "m0", "m4"]


def test_home_and_results_name_the_decoder_that_validation_chooses_and_how_it_stands(runs):
    """Integers as integers, the figure marks the same decoder, and who cannot be told apart is said."""
    runs = runs.assign(
        n_units=1200.0, n_classes=119.0, val_accuracy=[0.9, 0.5]
    )  # mlp, behind on test
    compared = model_choice.paired(all_runs.comparable(runs))
    home = tables.headline(runs, linked(runs), compared)
    assert "with 1,200 units and 119 classes, validation chooses **<a href=" in home
    assert ">mlp</a>**, out of 2 decoders, with an accuracy of 50.0% (95 % interval 40.0% to 90.0%, chance 1.0%, best possible 95.0%)" in home  # fmt: skip
    behind = "On test it is beaten by lstm, which has no part in the choice."
    assert behind in home
    assert tables.verdicts(runs, compared) == (
        "- demo: **mlp**, out of 2 decoders, with an accuracy of 50.0% (95 % interval 40.0% to 90.0%, chance 1.0%, "
        f"best possible 95.0%). {behind}"
    )
    alike = tables.headline(runs, linked(runs), compared.assign(holm=0.2))
    assert "On test it cannot be told apart from lstm." in alike
    figure = compare_runs(model_choice.marked(all_runs.comparable(runs)))
    assert "chosen by validation" in [t.get_text() for t in figure.legends[0].get_texts()]
    (mark,) = [c for c in figure.axes[0].containers if c.get_label() == "chosen by validation"]
    assert mark.lines[0].get_color() == VERMILLION and mark.lines[0].get_ydata() == [1]  # mlp


# --- links to runs -------------------------------------------------------------------------------


def test_a_run_is_linked_to_its_page_or_else_to_its_manifest(runs):
    mlp, lstm = runs["run"]
    links = linked(runs, pages.run_pages(runs[runs["run"] == lstm]))
    assert links.href(lstm) == "../runs/demo-demo-lstm-f0-s0-22222222.html"
    assert links.href(mlp) == f"../artifacts/05_train_lstm/{mlp}/manifest.json"
    stranger = "demo/" + "f" * 16
    text = f"<tr><td>{lstm}</td><td>{mlp}</td><td>{stranger}</td><td>0.5</td></tr>"
    found = re.findall(r'<a href="([^"]+)">', links.in_table(text))
    assert found == [links.href(lstm), links.href(mlp)]
    assert f"<td>{stranger}</td>" in links.in_table(text)


def test_every_mark_of_a_figure_leads_to_its_run(runs):
    links = linked(runs)
    figure = tables.comparison(runs, links)
    places = re.findall(r'<a href="([^"]+)" title="([^"]+)" style="left:([\d.]+)%;top:([\d.]+)%">', figure)  # fmt: skip
    assert [place[0] for place in places] == [links.href(k) for k in runs["run"][::-1]]
    assert places[0][1] == "lstm, demo, fold 0, seed 0"
    assert float(places[0][2]) > float(places[1][2])  # the better one lies to the right
    rows = re.findall(r'<tr><td><a href="([^"]+)">demo/\w{16}</a></td>', figure)
    assert rows == [place[0] for place in places]
    assert tables.comparison(runs.iloc[:0], links) == ""


def test_pictures_and_tables_of_an_executed_notebook_are_linked(home, runs):
    folder = Path(runs["folder"][0])
    notebook = store.read_attached(folder)
    key = runs["run"][1]
    picture = {"output_type": "execute_result", "execution_count": 1, "data": {"image/png": "QUJD\n"},
               "metadata": {"image/png": {"width": 720, "alt": "Two <dots>", "runs": [[key, 0.25, 0.5], ["demo/" + "f" * 16, 0.1, 0.1]]}}}  # fmt: skip
    table = {"output_type": "execute_result", "execution_count": 1, "metadata": {},
             "data": {"text/html": [f"<td>{key}</td>"]}}  # fmt: skip
    plain = {"output_type": "execute_result", "execution_count": 1, "data": {"image/png": "QUJD"},
             "metadata": {"image/png": {"width": 720}}}  # fmt: skip
    notebook["cells"][1]["outputs"] = [picture, table, plain]
    store.attach(folder, notebook)
    page = json.loads(pages.page_notebook(folder, linked(runs), "mlp"))
    outputs = page["cells"][1]["outputs"]
    href = "../runs/demo-demo-lstm-f0-s0-22222222.html"
    assert f'<a href="{href}" title="lstm, demo, fold 0, seed 0" style="left:25.00%;top:50.00%">' in outputs[0]["data"]["text/html"]  # fmt: skip
    assert 'src="data:image/png;base64,QUJD"' in outputs[0]["data"]["text/html"]
    assert outputs[0]["data"]["text/html"].count("<tr>") == 2  # one run that the book knows
    assert outputs[1]["data"]["text/html"] == f'<td><a href="{href}">{key}</a></td>'
    assert outputs[2]["data"] == {"image/png": "QUJD"}
    assert 'alt="Two &lt;dots&gt;"' in outputs[0]["data"]["text/html"]
    alt = page["cells"][1]["metadata"]["mystnb"]["image"]["alt"]
    assert alt == "Two <dots> Figure: x = 1"  # the second picture brought no words


def test_manifests_of_runs_and_their_inputs_are_laid_out_even_a_broken_one(tmp_path, runs):
    broken = Path(runs["folder"][0])
    (broken / store.MANIFEST).write_text("{")
    build.put_artifacts(build.Layout(tmp_path), [Path(f) for f in runs["folder"]])
    found = {p.parent.name for p in tmp_path.rglob(store.MANIFEST)}
    assert found == {"0" * 16, "1" * 16, "2" * 16}
    assert next(tmp_path.rglob(f"{broken.name}/manifest.json")).read_text() == "{"


def test_flagged_and_shuffled_runs_are_not_compared(runs):
    assert len(all_runs.comparable(runs)) == 2
    assert all_runs.comparable(runs.assign(flag="old split")).empty
    assert all_runs.comparable(runs.assign(variant="shuffle_labels=true")).empty
    assert tables.headline(runs.assign(flag="old split"), linked(runs), pd.DataFrame()) == ""
    assert ">lstm</a>**, out of 2" in tables.headline(runs, linked(runs), pd.DataFrame())


def test_without_any_run_the_pages_say_so(runs):
    assert "No run yet" in table_of(runs.iloc[:0])
    assert tables.headline(runs.iloc[:0], linked(runs), pd.DataFrame()) == ""
    assert tables.verdicts(runs.iloc[:0], pd.DataFrame()) == ""
    assert "make bench" in pages.bench_table(Path("/nowhere/bench.json"))


def test_the_contents_get_the_runs(runs):
    contents = yaml.safe_load(build.toc((ROOT / "_toc.yml").read_text(), pages.run_pages(runs)))
    chapters = [c for part in contents["parts"] for c in part["chapters"]]
    sections = next(c for c in chapters if c["file"] == "book/results")["sections"]
    assert [s["file"] for s in sections] == [f"runs/{p.slug}" for p in pages.run_pages(runs)]
    assert [s["title"] for s in sections] == ["mlp, demo", "lstm, demo"]


def test_a_fold_is_named_as_a_whole_number_or_not_at_all(runs):
    folds = runs["model"].map({"lstm": float("nan"), "mlp": 1.0})
    titles = {page.title: page for page in pages.run_pages(runs.assign(fold=folds))}
    assert set(titles) == {"lstm on demo, seed 0", "mlp on demo, fold 1, seed 0"}
    lstm, mlp = (titles[title] for title in sorted(titles))
    assert lstm.short_title == "lstm, demo" and mlp.short_title == "mlp, demo, fold 1"
    assert "-fall-s0-" in lstm.slug and "-f1-s0-" in mlp.slug


def test_a_layout_writes_what_changed_and_removes_what_is_gone(tmp_path):
    first = build.Layout(tmp_path)
    old, kept = first.write("a/old.md", "1"), first.write("kept.md", "1")
    first.finish()
    before = kept.stat().st_mtime_ns
    second = build.Layout(tmp_path)
    second.write("kept.md", "1")
    second.finish()
    assert not old.parent.exists()
    assert kept.stat().st_mtime_ns == before


def test_the_bench_table_shows_its_rows_and_its_machine(tmp_path):
    rows = [{"what": "a | b", "ratio": "1.10"}]
    text = json.dumps({"rows": rows, "machine": {"cores": "2"}, "seconds": 90.2})
    (tmp_path / "bench.json").write_text(text)
    table = pages.bench_table(tmp_path / "bench.json")
    assert "| a \\| b | 1.10 |" in table
    assert "cores 2" in table and "90 s" in table


# --- the checks of a rendered book ---------------------------------------------------------------


def site(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path = path.with_name(path.name.replace("_html", ".html").replace("_css", ".css"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def faults_of(check_pages, html: Path) -> list[str]:
    return check_pages(html, check.read_pages(html))


def test_a_sound_book_passes(tmp_path):
    html = site(
        tmp_path,
        index_html='<a href="sub/b.html#x">b</a><a href="https://example.org">out</a><a href="#">top</a>',
        sub__b_html='<h2 id="x">x</h2><a href="../index.html?q=1">a</a><img alt="a cat" src="data:image/png;base64,AA">',
    )
    faults, sizes = check.check(html)
    assert faults == []
    assert set(sizes) == {"index.html", "sub/b.html"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<a href="gone.html">x</a>', "leads to no file"),
        ('<img src="gone.png">', "leads to no file"),
        ('<a href="index.html#gone">x</a>', "no such place"),
        ('<a href="#gone">x</a>', "no such place"),
        ('<a href="../../etc/hostname">x</a>', "leads"),
    ],
)
def test_a_planted_broken_link_is_found(tmp_path, text, said):
    faults = faults_of(check.broken_links, site(tmp_path / "html", index_html=text))
    assert len(faults) == 1 and said in faults[0]


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex.js"></script>',
        '<script src="//unpkg.com/x.js"></script>',
        '<link rel="stylesheet" href="https://fonts.googleapis.com/css">',
        '<img src="https://example.org/badge.svg">',
        '<script type="module">import { ITable } from "https://www.unpkg.com/x.js";</script>',
        '<script>const THEBE = "https://unpkg.com/thebe@0.8.2/lib/index.js"</script>',
        "<style>@font-face { src: url(https://example.org/f.woff2) }</style>",
        '<p style="background: url(//example.org/x.png)">x</p>',
    ],
)
def test_a_planted_load_from_the_network_is_found(tmp_path, text):
    assert faults_of(check.network_loads, site(tmp_path, index_html=text)) != []


@pytest.mark.parametrize(
    "text",
    [
        '<img src="p.png">',
        '<img src="p.png" alt=" ">',
        '<img src="../_images/1f.png" alt="../_images/1f.png">',
        '<svg role="img"><path d=""/></svg>',
    ],
)
def test_a_picture_without_words_is_found(tmp_path, text):
    html = site(tmp_path, index_html=text, fine_html='<img src="p.png" alt="Two lines"><svg></svg>')
    (fault,) = faults_of(check.unnamed_pictures, html)
    assert fault.startswith("index.html: no words say what the picture")
    assert fault in check.check(html)[0]


def test_style_sheets_are_searched_and_plain_links_are_no_loads(tmp_path):
    html = site(
        tmp_path,
        index_html='<a href="https://example.org/x.js">x</a><link rel="canonical" href="https://example.org">'
        '<script type="application/json">{"u": "https://unpkg.com/x"}</script>',
        a_css='@import "https://example.org/x.css";',
    )
    faults = faults_of(check.network_loads, html)
    assert len(faults) == 1 and faults[0].startswith("a.css")


def test_a_heavy_page_is_found_with_its_pictures(tmp_path):
    html = site(tmp_path, index_html='<img src="p.png"><img src="p.png">', light_html="x")
    (html / "p.png").write_bytes(b"0" * 2_000_000)
    faults = faults_of(check.heavy_pages, html)
    assert len(faults) == 1 and "index.html: 2.0 MB" in faults[0]
    inside = site(tmp_path / "b", index_html=f'<img src="data:image/png;base64,{"A" * 2_000_000}">')
    assert len(faults_of(check.heavy_pages, inside)) == 1
    assert faults_of(check.broken_links, inside) == []


# --- all of it -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_small_book_renders_and_a_warning_fails_it(tmp_path, home, runs):
    root = tmp_path / "root"
    shutil.copytree(BOOK, root / "book", ignore=shutil.ignore_patterns(*build.NOT_PAGES))
    shutil.rmtree(root / "book" / "api")
    shutil.copy(ROOT / "_config.yml", root)
    wanted = ["results", "methods/scores", "methods/simulation", "bench", "references"]
    chapters = [{"file": f"book/{name}"} for name in wanted]
    chapters += [{"file": f"notebooks/{n}"} for n in ("04_split", "05_train_lstm", "90_results")]
    contents = {"format": "jb-book", "root": "book/start", "parts": [{"chapters": chapters}]}
    (root / "_toc.yml").write_text(yaml.safe_dump(contents))
    (root / "book" / "start.md").write_text(
        "# Start\n\n```{raw} html\n:file: _static/flow/lstm.svg\n```\n\n$x^2$ {cite:p}`siegle2021`\n"
    )
    for name, text in ((p, p.read_text()) for p in (root / "book").rglob("*.md")):
        name.write_text(re.sub(r"\{py:\w+\}(`[^`]*`)", r"\1", text))  # the API pages are not here
    shown = {"04_split": store.folder("04_split", "demo", "0" * 16)}
    shown |= {name: Path(runs["folder"][1]) for name in ("05_train_lstm", "90_results")}
    source, output = tmp_path / "source", tmp_path / "out"
    build.lay_out(source, root, shown, runs)
    html = build.render(source, output)
    faults, sizes = check.check(html)
    assert faults == []
    assert max(sizes.values()) < check.MAX_PAGE_BYTES
    assert "runs/demo-demo-lstm-f0-s0-22222222.html" in sizes
    assert (html / "artifacts/04_split/demo" / ("0" * 16) / "manifest.json").is_file()
    assert (html / "searchindex.js").is_file()
    page = (html / "book" / "results.html").read_text(encoding="utf-8")
    marked = re.findall(r'<a href="([^"]+)" title="[^"]+" style="left', page)
    assert len(marked) == len(runs)  # every mark of the figure
    page = (html / "runs/demo-demo-lstm-f0-s0-22222222.html").read_text(encoding="utf-8")
    assert re.findall(r'<img alt="([^"]+)"[^>]+_images', page) == ["One grey dot."]
    assert all((html / "book" / href).resolve().is_file() for href in marked)
    with (source / "book" / "start.md").open("a") as file:
        file.write("\n[nowhere](nowhere.md)\n")
    with pytest.raises(NblibError, match=r"nowhere\.md"):
        build.render(source, output)
    assert not (output / "_build").exists(), "no half book"
