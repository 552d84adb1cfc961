"""What home and results page say of the runs: verdicts, the figure of all decoders, tables in tabs."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from nblib.book.pages import linked_figure
from nblib.core.markup import in_html, in_markdown
from nblib.report import all_runs, model_choice, summary
from nblib.road.stage_registry import DECODERS, FEW_SHOT, RESULTS

if TYPE_CHECKING:
    import pandas as pd

    from nblib.book.pages import Links

COMPARISON = (
    "Test accuracy of each decoder with its 95 % interval, the best on test first. The one that "
    "validation chooses stands out; test scores have no part in the choice. Each mark opens its run."
)
OWN, OTHERS, FOLDS, CURVES = "The recipes' own runs", "Other settings", "Folds", "Label counts"
REST, FLAGGED = "Without labels, images", "Not compared"
TABS = {
    OWN: "Decoders as the recipes ask for them.",
    OTHERS: "With settings of the recipe changed: these were judged on another input.",
    FOLDS: f"One row a fold; [90](../notebooks/{RESULTS}.ipynb) pools them.",
    CURVES: "Trained on a few presentations of each class (07).",
    REST: "Runs of 08, 09 and 10.",
    FLAGGED: "Controls with shuffled labels, and runs with a flag, see below.",
}


def headline(table: pd.DataFrame, links: Links, compared: pd.DataFrame) -> str:
    """What validation chooses on the demo and how it did, with its run; compared: `model_choice.paired`."""
    demo = all_runs.comparable(table)
    demo = demo[demo["group"] == "demo"]
    best = model_choice.chosen(demo)
    if best.empty:
        return ""
    run = best.iloc[0]
    others = compared[compared["recipe"] == "demo"] if len(compared) else compared
    name = f'<a href="{links.href(run["run"])}">{in_markdown(run["decoder"])}</a>'
    return (
        "## What comes out\n\n"
        f"On the simulated recording with {run['n_units']:,.0f} units and {run['n_classes']:,.0f} classes, "
        f"validation chooses {summary.verdict(best, 'accuracy', others, name)} "
        "The [results](results.md) hold every number."
    )


def verdicts(table: pd.DataFrame, compared: pd.DataFrame) -> str:
    """A sentence for each recording: what validation chooses there, and how that did on test."""
    lines = summary.verdicts(_own(all_runs.comparable(table)), compared=compared)
    return "\n".join(f"- {line}" for line in lines)


def _own(runs: pd.DataFrame) -> pd.DataFrame:
    """Those judged as their recipe says, not on other data or another split."""
    return runs[runs["group"] == runs["base"]]


def comparison(table: pd.DataFrame, links: Links) -> str:
    """The figure of all decoders, its marks linked to their runs; nothing without a run to compare."""
    fair = _own(all_runs.comparable(table))
    if fair.empty:
        return ""
    from nblib.report.plots.all_runs import compare_runs

    figure = compare_runs(model_choice.marked(fair))
    return linked_figure(figure, links, COMPARISON)


def tab_of(table: pd.DataFrame) -> list[str]:
    """The tab in which the results page shows each row of a scan."""
    compared = set(all_runs.comparable(table)["run"])
    several = table.groupby(["group", "recording"])["fold"].transform("nunique") > 1
    tabs = []
    for row, folds in zip(table.itertuples(), several, strict=True):
        plain = row.group == row.base and not row.changed
        if row.flag or (row.notebook in DECODERS and row.run not in compared):
            tabs.append(FLAGGED)
        elif row.notebook == FEW_SHOT:
            tabs.append(CURVES)
        elif row.notebook not in DECODERS:
            tabs.append(REST)
        else:
            tabs.append(OWN if plain else FOLDS if folds else OTHERS)
    return tabs


def rows_html(table: pd.DataFrame, links: Links) -> str:
    """Rows of a scan as an HTML table of at most eight columns; each decoder opens its run.

    On a narrow page each cell brings its heading along (`data-label`).
    """
    shown = summary.runs_table(table)

    def decoder(run: str, model: str, differs: str) -> str:
        link = f'<a href="{links.href(run)}">{in_html(model)}</a>'
        return f"{link} <small>{in_html(differs)}</small>" if differs else link

    named = shown[["run", "model", "differs"]].itertuples(index=False)
    columns = {"decoder": [decoder(*row) for row in named]}
    rest = shown.drop(columns=["run", "model", "differs", "n_test"])
    columns |= {name: rest[name].map(in_html).tolist() for name in rest if rest[name].any()}
    head = "".join(f"<th>{name}</th>" for name in columns)
    body = "\n".join(
        "<tr>"
        + "".join(f'<td data-label="{n}">{c}</td>' for n, c in zip(columns, cells, strict=True))
        + "</tr>"
        for cells in zip(*columns.values(), strict=True)
    )
    return f'<table class="display compact">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'


def results_table(table: pd.DataFrame, links: Links, most_pages: int) -> str:
    """All runs in tabs, plain HTML tables that a script makes sortable, searchable, exportable."""
    if table.empty:
        return "No run yet. Train one with `nblib run 05 --with-upstream`."
    table = summary.in_order(table)
    place = tab_of(table)
    tabs = []
    for name, about in TABS.items():
        part = table[[tab == name for tab in place]]
        if len(part):
            made = f'```{{raw}} html\n<div class="results-table">\n{rows_html(part, links)}\n</div>\n```'
            tabs.append(f"````{{tab-item}} {name} ({len(part)})\n{about}\n\n{made}\n````")
    files = [f'<script src="../_static/{name}.js"></script>' for name in ("itables", "results")]
    scripts = "```{raw} html\n" + "\n".join(files) + "\n```"
    left_out = table["folder"].nunique() - len(links.slugs)
    note = (
        f"\n\n{left_out} of these runs have no page here and open their manifest: run in Jupyter, not readable, "
        f"or below the first {most_pages}."
    )
    return "\n".join(["`````{tab-set}", *tabs, "`````", "", scripts]) + note * bool(left_out)


def itables_files() -> str:
    """itables' code and style, as a script that hands them to `_static/results.js`."""
    from importlib.resources import files

    folder = files("itables") / "html"
    packed = {
        name: base64.b64encode((folder / file).read_bytes()).decode()
        for name, file in (("code", "dt_bundle.js"), ("style", "dt_bundle.css"))
    }
    return f"window.itablesFiles = {json.dumps(packed)};\n"
