"""From a mark or a row to its run: links over figures and in tables of the book's pages."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nblib.core import store
from nblib.core.markup import in_html

if TYPE_CHECKING:
    import pandas as pd

    from nblib.book.pages import RunPage
    from nblib.report.plots.style import Picture

RUN_CELL = re.compile(r"<td>([\w.-]+/[0-9a-f]{16})</td>")
SAID = ("model", "variant", "changed", "recording")  # of a run, in a few words
HEAD = "<tr><th>run</th><th>what</th><th>score</th></tr>"


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

    def href(self, run: str, up: str) -> str:
        """Address of a run; `up` leads to the root of the book."""
        page = f"runs/{self.slugs[run]}.html" if run in self.slugs else ""
        return up + (page or artifact_path(self.rows[run]["folder"]))

    def in_table(self, text: str, up: str) -> str:
        """The HTML of a table with each cell that names a run made a link."""

        def link(cell: re.Match) -> str:
            run = cell[1]
            known = run in self.rows
            return f'<td><a href="{self.href(run, up)}">{run}</a></td>' if known else cell[0]

        return RUN_CELL.sub(link, text)

    def over_picture(self, png: str, marks: list[list[Any]], up: str, alt: str) -> str:
        """A picture (base64) whose marks are links, and below it the runs behind them as a table.

        marks: [run, x, y], x and y as shares of width and height from the top left.
        """
        places, rows = "", {}
        for run, x, y in marks:
            if (row := self.rows.get(run)) is not None:
                said = [*(row[name] for name in SAID), f"fold {row['fold']}", f"seed {row['seed']}"]
                what = in_html(", ".join(str(part) for part in said if part))
                score = (
                    ""
                    if row["value"] is None or row["value"] != row["value"]
                    else f"{row['value']:.3f}"
                )
                href, at = self.href(run, up), f"left:{100 * x:.2f}%;top:{100 * y:.2f}%"
                places += f'<a href="{href}" title="{what}" style="{at}"></a>'
                rows[run] = (
                    f'<tr><td><a href="{href}">{run}</a></td><td>{what}</td><td>{score}</td></tr>'
                )
        image = f'<img src="data:image/png;base64,{png}" alt="{in_html(alt)}">'
        table = f"<table>{HEAD}{''.join(rows.values())}</table>"
        behind = f"<summary>The runs behind these marks</summary>{table}"
        return f'<div class="marks">{image}{places}</div><details class="runs-behind">{behind}</details>'


def linked_figure(figure: Picture, links: Links, up: str, caption: str) -> str:
    """A figure of a page of prose, its marks linked to their runs."""
    png, shown = figure._repr_png_()
    inside = links.over_picture(
        base64.b64encode(png).decode(), shown.get("runs", []), up, shown["alt"]
    )
    return f"````{{raw}} html\n<figure>{inside}<figcaption>{in_html(caption)}</figcaption></figure>\n````"
