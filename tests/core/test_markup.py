"""Names that come from files show as text wherever people read them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from nblib.book import pages
from nblib.core import store
from nblib.core.markup import in_html, in_markdown
from nblib.data.checks import SessionReport
from nblib.prepare import binning_stage
from nblib.prepare.potentials.stored_windows import Windows
from nblib.report import explore, model_choice, plots, summary
from nblib.report.plots import primitives, style
from nblib.road import stages
from nblib.run import kernel

EVIL = [
    "<script>alert(1)</script>", "[x](http://evil)", "![x](http://evil/x.png)", "**b**", "__b__", "_i_", "a|b",
    r"$\href{x}$", "$5 and $6", r"\(x\)", r"\[x\]", "`code`", "# head", "- item", "+ item", "1. item", "12) item",
    "> said", "~~gone~~", "http://evil", "www.evil.org", "me@evil.org", "&lt;b&gt;", "a\nb", "---", "{{x}}", "<b", "x^2^",
    ":::{note}", "[^1]", "<!-- x -->", "trailing\\", '" onload="x', "natural_scenes", "VISp/x", "3.5 Hz", "",
]  # fmt: skip


class Text(HTMLParser):
    """The text that a browser shows, and the tags around it."""

    def __init__(self, source: str):
        super().__init__()
        self.text, self.tags = "", set()
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def rendered(markdown: str) -> Text:
    reader = MarkdownIt("commonmark", {"html": True})
    reader.enable(["table", "strikethrough"]).use(dollarmath_plugin)
    return Text(reader.render(markdown))


@pytest.mark.parametrize("name", EVIL)
def test_a_name_shows_as_text(name):
    as_text = " ".join(name.split())
    for before, after in (("", ""), ("- ", ""), ("Of ", " there"), ("**", "**"), ("(*", "*)")):
        if not name and before in ("**", "(*"):
            continue
        shown = rendered(f"{before}{in_markdown(name)}{after}")
        assert as_text in " ".join(shown.text.split()), (before, shown.text)
        assert shown.tags <= {"p", "ul", "li", "strong", "em", "span"}, (before, shown.tags)
    row = rendered(f"| a | b |\n|---|---|\n| {in_markdown(name)} | 1 |\n")
    assert row.text.split("\n").count(as_text) >= bool(as_text) and "1" in row.text.split("\n")
    page = Text(f'<td title="{in_html(name)}">{in_html(name)}</td>')
    assert page.text == name and page.tags == {"td"}


def test_links_are_not_made_of_bare_addresses():
    """Jupyter makes links of what looks like an address; here no such sign is left as it stands."""
    for name in ("http://evil", "www.evil.org", "me@evil.org", "$a$", r"\(x\)"):
        assert not any(sign in in_markdown(name) for sign in ("://", "www.", "@", "$", "\\"))


BAD = "<script>alert(1)</script>**b**$x$"


def test_sentences_and_tables_of_the_notebooks_hold_names_as_text(monkeypatch):
    report = SessionReport("r", {}, [f"column {BAD} is odd"])
    shown = rendered(report.odd_markdown())
    assert f"column {BAD} is odd" in shown.text and shown.tags == {"ul", "li", "span"}
    psth = pd.DataFrame({"area": [BAD], "time_s": [0.1], "rate_hz": [3.0]})
    psth.attrs["shown_s"] = 0.25
    counts = _counts()
    assert BAD in rendered(binning_stage.sentence(counts, psth)).text
    runs = pd.DataFrame(
        {"group": ["demo"], "model": [BAD], "variant": [""], "changed": [""], "value": [0.5], "chance": [0.1],
         "val_accuracy": [0.5], "recording": ["r"], "split_hash": ["s"], "fold": [0], "ci_low": [0.4], "ci_high": [0.6], "oracle": [np.nan], "code_version": ["1"]}
    )  # fmt: skip
    monkeypatch.setattr(summary.all_runs, "several_versions", lambda runs: [])
    monkeypatch.setattr(model_choice, "label", lambda runs: runs["model"])
    assert BAD in rendered(summary.in_words(runs)).text
    table = explore.PlainTable(pd.DataFrame({BAD: [BAD]}))
    assert Text(table._repr_html_()).text.count(BAD) == 2
    assert "script" not in Text(table._repr_html_()).tags


def _counts():
    import xarray as xr

    counts = (("trial", "time", "unit"), np.ones((2, 3, 4)))
    return xr.Dataset({"counts": counts}, attrs={"left_out": "{}"})


def test_windows_and_parameters_show_labels_as_text(tmp_path, monkeypatch):
    windows = SimpleNamespace(
        label=np.array([BAD]), labelled=np.array([True]), recording="r", subject=BAD, dropped=0, rate_hz=10.0,
        how=BAD, x=np.zeros((1, 2, 3)), __len__=lambda: 1,
    )  # fmt: skip

    class Some(SimpleNamespace):
        def __len__(self):
            return 1

    shown = Text(Windows._repr_html_(Some(**vars(windows))))
    assert BAD in shown.text and "script" not in shown.tags
    recipe = stages.P.Recipe(recipe="r", recordings=["a"], label=BAD)
    stage = stages.Stage("01_ingest", stages.StageParams(recipe="r", recording="a"), recipe, "k")
    shown = Text(stage._repr_html_())
    assert BAD in shown.text and "script" not in shown.tags and "b" not in shown.tags


def test_a_dead_kernels_last_words_are_text(tmp_path):
    notebook = tmp_path / "x.ipynb"
    empty = {"cells": [], "metadata": {"papermill": {}}, "nbformat": 4, "nbformat_minor": 5}
    notebook.write_text(json.dumps(empty))
    kernel._mark_ended(notebook, f"its last words: {BAD}")
    assert BAD in rendered("".join(json.loads(notebook.read_text())["cells"][0]["source"])).text


def test_the_titles_of_pages_are_text(tmp_path, monkeypatch):
    monkeypatch.setenv("NBLIB_HOME", str(tmp_path))
    empty = {"cells": [{"cell_type": "markdown", "source": "# 05"}], "metadata": {}}
    folder = tmp_path / "05_train_lstm" / "r" / "k"
    told = {"recording": BAD, "key": "k", "code_version": BAD, "created": "2026", "outputs": {}}
    monkeypatch.setattr(store, "read_manifest", lambda folder: told)
    monkeypatch.setattr(store, "read_attached", lambda folder: empty)
    page = json.loads(pages.page_notebook(folder, None, BAD))
    shown = rendered(page["cells"][0]["source"])
    assert shown.text.count(BAD) == 3 and not shown.tags & {"script", "strong", "math"}


@pytest.mark.parametrize("name", [r"$\href", "$5", "$x$", r"a $\frac{1}{2}$"])
def test_a_figure_writes_dollars_as_they_stand(name):
    @style.styled
    def draw():
        """Names on every part of a figure."""
        fig = style.new_figure(2)
        ax = fig.add_subplot(title=name, xlabel=name)
        ax.plot([1, 100], [1, 2], label=name)
        ax.set_xscale("log")
        primitives.plain_numbers(ax.xaxis)
        ax.legend()
        return fig

    assert plots.png_bytes(draw())
    assert plots.png_bytes(plots.say(name))
