"""Parts of pages that come from the data root: executed notebooks, run pages, tables."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nblib import choice, results, store
from nblib.bookbuild.marks import Links, artifact_path, linked_figure
from nblib.markup import in_html, in_markdown

if TYPE_CHECKING:
    import pandas as pd

WIDGET = "application/vnd.jupyter.widget-view+json"
MOST_RUN_PAGES = 60  # a page takes the renderer about a second
EXECUTED = store.ATTACHED[0]
COMPARISON = "Test accuracy of each decoder with its 95 % interval. Each mark opens its run."
LINK_TO_SIBLING = re.compile(r"\]\((?:\./)?(\d\d_\w+\.ipynb)\)")


@dataclass(frozen=True)
class RunPage:
    """One finished run as the book shows it; `row` is its row of the results scan."""

    row: dict[str, Any]

    @property
    def what(self) -> str:
        """The decoder, or the notebook where a run holds several results."""
        r = self.row
        if r["notebook"] in results.DECODERS:
            return r["model"]
        return (
            f"{r['notebook']}-{r['model']}" if r["notebook"] == "08_ssl_pretext" else r["notebook"]
        )

    @property
    def variant(self) -> str:
        r = self.row
        own = r["variant"] if r["notebook"] in results.DECODERS else ""
        split = r["group"].removeprefix(r["base"]).strip(" ()")
        return ", ".join(filter(None, [own, r["changed"], split]))

    @property
    def slug(self) -> str:
        r = self.row
        return (
            f"{r['recipe']}-{r['recording']}-{self.what}-f{r['fold']}-s{r['seed']}-{r['key'][:8]}"
        )

    @property
    def title(self) -> str:
        r = self.row
        variant = f" ({self.variant})" if self.variant else ""
        return f"{self.what} on {r['recording']}, fold {r['fold']}, seed {r['seed']}{variant}"

    @property
    def short_title(self) -> str:
        r = self.row
        more = [f"{k} {r[k]}" for k in ("fold", "seed") if r[k]]
        return ", ".join(filter(None, [self.what, r["recording"], *more, self.variant]))

    @property
    def folder(self) -> Path:
        return Path(self.row["folder"])

    @property
    def has_page(self) -> bool:
        return bool(self.row["executed"]) and self.row["flag"] not in results.WITHOUT_SCORES


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """A scan as the results page shows it: decoders first, as their scores compare, the best first.

    Runs with a flag come last.
    """
    other = table["notebook"].where(~table["notebook"].isin(results.DECODERS), "")
    by = {"_flagged": table["flag"] != "", "_other": other}
    return (
        table.assign(**by)
        .sort_values([*by, "value"], ascending=[True, True, False], kind="stable")
        .drop(columns=list(by))
    )


def run_pages(table: pd.DataFrame) -> list[RunPage]:
    """The runs of a scan that get a page, newest last: at most 60.

    First those that validation chooses, as prose and figures speak of them; then those that the
    results table shows first.
    """
    best = choice.chosen(results.comparable(table))["run"]
    first = in_order(table).drop_duplicates("folder")  # a run of several results has one page
    first = first.assign(_chosen=first["run"].isin(best)).sort_values(
        "_chosen", ascending=False, kind="stable"
    )
    paged = [page for page in map(RunPage, first.to_dict("records")) if page.has_page]
    return sorted(paged[:MOST_RUN_PAGES], key=lambda page: (page.row["created"], page.row["key"]))


# --- executed notebooks --------------------------------------------------------------------------


def provenance(folder: Path, up: str) -> str:
    """The lines under a title that say where the page's numbers come from; `up` leads to the root."""
    manifest = store.read_manifest(folder)
    seconds = manifest.get("wall_s")
    parts = [
        f"recording <code>{in_html(manifest['recording'])}</code>",
        f"key <code>{in_html(manifest['key'])}</code>",
        f"nblib {in_html(manifest['code_version'])}",
        f"made {in_html(manifest['created'][:10])}",
        f"{seconds:.1f} s" if seconds is not None else "",
        f'<a href="{up}{artifact_path(folder)}">manifest</a>',
    ]
    if "metrics.json" in manifest["outputs"]:
        parts.append(f'<a href="{up}{artifact_path(folder, "metrics.json")}">scores</a>')
    return f'<div class="provenance"><p>Run: {" · ".join(filter(None, parts))}</p></div>'


def page_notebook(folder: Path, up: str, links: Links, title: str = "") -> str:
    """The executed notebook of an artifact as a page: its provenance under the title, and nothing that cannot show.

    Widget views are left out, as a static page cannot show them (each has a picture beside it),
    and so are the paths of this machine. Runs named in tables, and marks that stand for runs, are
    linked to them. A `title` goes above the notebook's own.
    """
    notebook = store.read_attached(folder)
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            cell["source"] = LINK_TO_SIBLING.sub(rf"]({up}notebooks/\1)", text) if title else text
        elif cell["cell_type"] == "code":
            found = [o for o in map(shown, cell["outputs"]) if o is not None]
            name_pictures(cell, found)
            cell["outputs"] = [linked(o, up, links) for o in found]
    first = notebook["cells"][0]
    head, _, rest = "".join(first["source"]).partition("\n")
    if title:
        head = f"# {in_markdown(title)}\n\n{provenance(folder, up)}\n\n#{head}"
    else:
        head = f"{head}\n\n{provenance(folder, up)}"
    first["source"] = f"{head}\n{rest}"
    return json.dumps(notebook, indent=1, ensure_ascii=False)


def shown(output: dict[str, Any]) -> dict[str, Any] | None:
    """A cell's output as the page shows it, or None."""
    data = output.get("data", {})
    if WIDGET in data:
        return None
    texts = {**{k: v for k, v in data.items() if k.startswith("text/")}, "": output.get("text", "")}
    for kind, text in texts.items():
        text = "".join(text)
        for path, name in ((store.home(), "NBLIB_HOME"), (store.project_root(), "nblib")):
            text = text.replace(str(path), name)
        if kind:
            data[kind] = text
        elif "text" in output:
            output["text"] = text
    return output


def name_pictures(cell: dict[str, Any], outputs: list[dict[str, Any]]) -> None:
    """Say in the metadata of a cell what its pictures show, where the page takes their `alt` from.

    A picture that brings no words of its own is called by the code that made it.
    """
    code = "".join(cell["source"]).strip().splitlines()
    names = []
    for output in outputs:
        if "image/png" in output.get("data", {}):
            told = output.setdefault("metadata", {}).setdefault("image/png", {})
            names.append(told.setdefault("alt", f"Figure: {code[-1]}"))
    if names:
        cell["metadata"]["mystnb"] = {"image": {"alt": " ".join(names)}}


def linked(output: dict[str, Any], up: str, links: Links) -> dict[str, Any]:
    """A cell's output with links to the runs that it shows."""
    data = output.get("data", {})
    told = output.get("metadata", {}).get("image/png", {})
    if marks := told.pop("runs", []):
        png = "".join(data["image/png"]).replace("\n", "")
        shown_as = {"text/html": links.over_picture(png, marks, up, told["alt"])}
        return {"output_type": "display_data", "metadata": {}, "data": shown_as}
    if "text/html" in data:
        data["text/html"] = links.in_table("".join(data["text/html"]), up)
    return output


# --- tables --------------------------------------------------------------------------------------


TABLE = {
    "model": "model", "flag": "flag", "value": "score", "metric": "of", "ci_low": "95 % low", "ci_high": "95 % high",
    "chance": "chance", "oracle": "oracle", "p": "p", "val_accuracy": "validation",
    "variant": "variant", "changed": "settings", "notebook": "from", "top5": "top-5",
    "balanced_accuracy": "balanced", "group": "recipe", "recording": "recording", "fold": "fold",
    "seed": "seed", "n_test": "test n", "n_classes": "classes", "n_units": "units",
    "n_bins": "bins", "fit_s": "fit [s]", "split_hash": "split", "key": "key",
}  # fmt: skip
DECIMALS = {
    "score": 3, "95 % low": 3, "95 % high": 3, "chance": 4, "oracle": 3, "p": 4,
    "validation": 3, "top-5": 3, "balanced": 3, "fit [s]": 1,
}  # fmt: skip


def results_frame(table: pd.DataFrame, links: Links) -> pd.DataFrame:
    """The scan as the results page shows it: best first, each row linked to notebook and manifest."""
    frame = in_order(table)
    notebook = [
        f'<a href="{links.href(k, "../")}">notebook</a>' if k in links.slugs else ""
        for k in frame["run"]
    ]
    manifest = [f'<a href="../{artifact_path(folder)}">manifest</a>' for folder in frame["folder"]]
    shown = frame[list(TABLE)].rename(columns=TABLE).round(DECIMALS)
    for name in ("variant", "settings", "flag", "oracle"):
        if not shown[name].replace("", None).notna().any():
            shown = shown.drop(columns=name)  # a column that says nothing
    words = shown.select_dtypes(include=["object", "string"]).columns
    shown[words] = shown[words].map(in_html)
    shown.insert(1, "run", notebook)
    shown.insert(2, "record", manifest)
    return shown


def itables_files() -> str:
    """itables' code and style, as a script that hands them to `_static/results.js`."""
    from importlib.resources import files

    folder = files("itables") / "html"
    packed = {
        name: base64.b64encode((folder / file).read_bytes()).decode()
        for name, file in (("code", "dt_bundle.js"), ("style", "dt_bundle.css"))
    }
    return f"window.itablesFiles = {json.dumps(packed)};\n"


def results_table(table: pd.DataFrame, links: Links) -> str:
    """The results as a plain HTML table, which a script makes sortable, searchable, exportable."""
    if table.empty:
        return "No run yet. Train one with `nblib run 05_train_lstm --with-upstream`."
    made = results_frame(table, links).to_html(
        index=False, escape=False, border=0, table_id="all-runs", classes="display compact nowrap",
        justify="left", na_rep="",
    )  # fmt: skip
    scripts = "".join(
        f'<script src="../_static/{name}.js"></script>\n' for name in ("itables", "results")
    )
    left_out = table["folder"].nunique() - len(links.slugs)
    note = (
        f"\n\n{left_out} of these runs have no page here, only their manifest: run in Jupyter, corrupt, "
        f"or below the first {MOST_RUN_PAGES}."
    )
    block = f'````{{raw}} html\n<div class="results-table">\n{made}\n</div>\n{scripts}````'
    return block + note * bool(left_out)


def headline(table: pd.DataFrame, links: Links) -> str:
    """The decoder that validation chooses on the demo, beside chance and oracle, with its run."""
    demo = results.comparable(table)
    demo = demo[demo["group"] == "demo"]
    if demo["val_accuracy"].isna().all():
        return ""
    best = demo.loc[demo["val_accuracy"].idxmax()]
    top = (
        ""
        if best["oracle"] != best["oracle"]
        else f", and the best possible is **{best['oracle']:.3f}**"
    )
    return (
        "## What comes out\n\n"
        f"On the simulated recording with {best['n_units']} units and {best['n_classes']} classes, validation chooses "
        f"{_to_run(best, links)} out of {demo['model'].nunique()} decoders. It is right in "
        f"**{best['accuracy']:.3f}** of {best['n_test']} test presentations (95 % interval {best['ci_low']:.3f} "
        f"to {best['ci_high']:.3f}). Chance is {best['chance']:.3f}{top}. "
        "The [results](results.md) hold every number."
    )


def _to_run(row: Any, links: Links) -> str:
    """A decoder's name that leads to its run."""
    return f'<a href="{links.href(row["run"], "../")}">{in_markdown(row["model"])}</a>'


def comparison(table: pd.DataFrame, links: Links) -> str:
    """The figure of all decoders, its marks linked to their runs; nothing without a run to compare."""
    fair = results.comparable(table)
    if fair.empty:
        return ""
    from nblib import plots

    figure = plots.compare_runs(fair)
    return linked_figure(figure, links, "../", COMPARISON)


def bench_table(path: Path) -> str:
    """The table of `make bench`, from the file that it writes."""
    if not path.is_file():
        return "Not measured on this machine yet. `make bench` measures and writes the table here."
    bench = json.loads(path.read_text(encoding="utf-8"))
    rows = [[str(cell).replace("|", "\\|") for cell in row.values()] for row in bench["rows"]]
    lines = [list(bench["rows"][0]), ["---"] * len(bench["rows"][0]), *rows]
    on = ", ".join(f"{name} {value}" for name, value in bench["machine"].items())
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\nMeasured on: {on}. The whole bench took {bench['seconds']:.0f} s."
