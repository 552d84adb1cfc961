"""Pages that come from the data root: the page of a run, its executed notebook, links to runs, the bench."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nblib.core import store
from nblib.core.markup import in_html, in_markdown
from nblib.report import all_runs, model_choice, summary
from nblib.road.stage_registry import DECODERS, STAGES

if TYPE_CHECKING:
    from nblib.report.plots.style import Picture

WIDGET = "application/vnd.jupyter.widget-view+json"
ROOT = "../"  # of the book, from any of its pages
MOST_RUN_PAGES = 60  # a page takes the renderer about a second
LINK_TO_SIBLING = re.compile(r"\]\((?:\./)?(\d\d_\w+\.ipynb)\)")

RUN_CELL = re.compile(r"<td>([\w.-]+/[0-9a-f]{16})</td>")
SAID = ("model", "variant", "changed", "recording")  # of a run, in a few words
HEAD = "<tr><th>run</th><th>what</th><th>score</th></tr>"


@dataclass(frozen=True)
class RunPage:
    """One finished run as the book shows it; `row` is its row of the results scan."""

    row: dict[str, Any]

    @property
    def what(self) -> str:
        """The decoder, or the notebook where a run holds several results."""
        r = self.row
        if r["notebook"] in DECODERS:
            return r["model"]
        return f"{r['notebook']}-{r['model']}" if STAGES[r["notebook"]].chosen else r["notebook"]

    @property
    def variant(self) -> str:
        r = self.row
        settings = r["variant"] if r["notebook"] in DECODERS else ""
        split = r["group"].removeprefix(r["base"]).strip(" ()")
        return ", ".join(filter(None, [settings, r["changed"], split]))

    @property
    def slug(self) -> str:
        r, fold = self.row, fold_of(self.row) or "all"
        return f"{r['recipe']}-{r['recording']}-{self.what}-f{fold}-s{r['seed']}-{r['key'][:8]}"

    @property
    def title(self) -> str:
        r = self.row
        variant = f" ({self.variant})" if self.variant else ""
        fold = f", fold {number}" if (number := fold_of(r)) else ""
        return f"{self.what} on {r['recording']}{fold}, seed {r['seed']}{variant}"

    @property
    def short_title(self) -> str:
        r = self.row
        numbers = {"fold": fold_of(r), "seed": str(r["seed"])}
        more = [f"{name} {number}" for name, number in numbers.items() if number not in ("", "0")]
        return ", ".join(filter(None, [self.what, r["recording"], *more, self.variant]))

    @property
    def folder(self) -> Path:
        return Path(self.row["folder"])

    @property
    def has_page(self) -> bool:
        return bool(self.row["executed"]) and self.row["flag"] not in all_runs.WITHOUT_SCORES


def fold_of(row: dict[str, Any]) -> str:
    """The fold of a run, "" where it is of all folds or has none."""
    return "" if pd.isna(row["fold"]) else f"{row['fold']:g}"


def run_pages(table: pd.DataFrame) -> list[RunPage]:
    """The runs of a scan that get a page, newest last: at most 60.

    First those that validation chooses, as prose and figures speak of them; then those that the
    results table shows first.
    """
    best = model_choice.chosen(all_runs.comparable(table))["run"]
    first = summary.in_order(table).drop_duplicates(
        "folder"
    )  # a run of several results has one page
    first = first.assign(_chosen=first["run"].isin(best)).sort_values(
        "_chosen", ascending=False, kind="stable"
    )
    paged = [page for page in map(RunPage, first.to_dict("records")) if page.has_page]
    return sorted(paged[:MOST_RUN_PAGES], key=lambda page: (page.row["created"], page.row["key"]))


# --- links to runs -------------------------------------------------------------------------------


def artifact_path(folder: Path | str, name: str = store.MANIFEST) -> str:
    """Path of an artifact's file inside the built book."""
    return "/".join(("artifacts", *Path(folder).parts[-3:], name))


@dataclass(frozen=True)
class Links:
    """Where the book shows each run: its page, or else its manifest. Runs that it does not know stay text.

    rows: run, as recording/run -> its row of the scan; slugs: run -> name of its page.
    """

    rows: dict[str, dict[str, Any]]
    slugs: dict[str, str]

    @classmethod
    def of(cls, table: pd.DataFrame, paged: list[RunPage]) -> Links:
        """The links of a scan and of the runs that have a page."""
        rows = {row["run"]: row for row in table.drop_duplicates("run").to_dict("records")}
        return cls(rows, {page.row["run"]: page.slug for page in paged})

    def href(self, run: str) -> str:
        """Address of a run, from a page of the book."""
        page = f"runs/{self.slugs[run]}.html" if run in self.slugs else ""
        return ROOT + (page or artifact_path(self.rows[run]["folder"]))

    def in_table(self, text: str) -> str:
        """The HTML of a table with each cell that names a run made a link."""

        def link(cell: re.Match) -> str:
            run = cell[1]
            href = self.href(run) if run in self.rows else ""
            return f'<td><a href="{href}">{run}</a></td>' if href else cell[0]

        return RUN_CELL.sub(link, text)

    def over_picture(self, png: str, marks: list[list[Any]], alt: str) -> str:
        """A picture (base64) whose marks are links, and below it the runs behind them as a table.

        marks: [run, x, y], x and y as shares of width and height from the top left.
        """
        places, rows = "", {}
        for run, x, y in [mark for mark in marks if mark[0] in self.rows]:
            row, href = self.rows[run], self.href(run)
            fold = f"fold {number}" if (number := fold_of(row)) else ""
            words = [*(row[name] for name in SAID), fold, f"seed {row['seed']}"]
            what = in_html(", ".join(str(word) for word in words if word))
            score = "" if pd.isna(row["value"]) else f"{row['value']:.3f}"
            at = f"left:{100 * x:.2f}%;top:{100 * y:.2f}%"
            places += f'<a href="{href}" title="{what}" style="{at}"></a>'
            link = f'<a href="{href}">{run}</a>'
            rows[run] = f"<tr><td>{link}</td><td>{what}</td><td>{score}</td></tr>"
        image = f'<img src="data:image/png;base64,{png}" alt="{in_html(alt)}">'
        table = f"<table>{HEAD}{''.join(rows.values())}</table>"
        behind = f"<summary>The runs behind these marks</summary>{table}"
        return f'<div class="marks">{image}{places}</div><details class="runs-behind">{behind}</details>'


def linked_figure(figure: Picture, links: Links, caption: str) -> str:
    """A figure of a page of prose, its marks linked to their runs."""
    png, shown = figure._repr_png_()
    image = base64.b64encode(png).decode()
    inside = links.over_picture(image, shown.get("runs", []), shown["alt"])
    return f"````{{raw}} html\n<figure>{inside}<figcaption>{in_html(caption)}</figcaption></figure>\n````"


# --- executed notebooks --------------------------------------------------------------------------


def provenance(folder: Path) -> str:
    """The lines under a title that say where the page's numbers come from."""
    manifest = store.read_manifest(folder)
    seconds = manifest.get("wall_s")
    parts = [
        f"recording <code>{in_html(manifest['recording'])}</code>",
        f"key <code>{in_html(manifest['key'])}</code>",
        f"nblib {in_html(manifest['code_version'])}",
        f"made {in_html(manifest['created'][:10])}",
        f"{seconds:.1f} s" if seconds is not None else "",
        f'<a href="{ROOT}{artifact_path(folder)}">manifest</a>',
    ]
    if "metrics.json" in manifest["outputs"]:
        parts.append(f'<a href="{ROOT}{artifact_path(folder, "metrics.json")}">scores</a>')
    return f'<div class="provenance"><p>Run: {" · ".join(filter(None, parts))}</p></div>'


def page_notebook(folder: Path, links: Links, title: str = "") -> str:
    """The executed notebook of an artifact as a page: under the title its result and where that comes from, and nothing that cannot show.

    Widget views are left out, as a static page cannot show them (each has a picture beside it),
    and so are the paths of this machine. Runs named in tables, and marks that stand for runs, are
    linked to them. A `title` goes above the notebook's own.
    """
    notebook = store.read_attached(folder)
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            cell["source"] = LINK_TO_SIBLING.sub(rf"]({ROOT}notebooks/\1)", text) if title else text
        elif cell["cell_type"] == "code":
            outputs = [o for o in map(shown, cell["outputs"]) if o is not None]
            name_pictures(cell, outputs)
            cell["outputs"] = [linked(o, links) for o in outputs]
    first = notebook["cells"][0]
    head, _, rest = "".join(first["source"]).partition("\n")
    about = f"{provenance(folder)}\n\n{result_of(notebook)}"
    head = f"# {in_markdown(title)}\n\n{about}\n\n#{head}" if title else f"{head}\n\n{about}"
    first["source"] = f"{head}\n{rest}"
    return json.dumps(notebook, indent=1, ensure_ascii=False)


def result_of(notebook: dict[str, Any]) -> str:
    """The last sentence of a notebook, which begins with "Result"; "" without one."""
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", ())]
    texts = [o["data"]["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    return next((text for text in reversed(texts) if text.startswith("**Result.**")), "")


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
            about = output.setdefault("metadata", {}).setdefault("image/png", {})
            names.append(about.setdefault("alt", f"Figure: {code[-1]}"))
    if names:
        cell["metadata"]["mystnb"] = {"image": {"alt": " ".join(names)}}


def linked(output: dict[str, Any], links: Links) -> dict[str, Any]:
    """A cell's output with links to the runs that it shows."""
    data = output.get("data", {})
    about = output.get("metadata", {}).get("image/png", {})
    if marks := about.pop("runs", []):
        png = "".join(data["image/png"]).replace("\n", "")
        shown_as = {"text/html": links.over_picture(png, marks, about["alt"])}
        return {"output_type": "display_data", "metadata": {}, "data": shown_as}
    if "text/html" in data:
        data["text/html"] = links.in_table("".join(data["text/html"]))
    return output


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
