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
        if run in self.slugs:
            return f"{up}runs/{self.slugs[run]}.html"
        return up + artifact_path(self.rows[run]["folder"])

    def what(self, run: str) -> str:
        """A run in a few words."""
        r = self.rows[run]
        parts = (r["model"], r["variant"], r["changed"], r["recording"], f"fold {r['fold']}", f"seed {r['seed']}")  # fmt: skip
        return ", ".join(str(part) for part in parts if part)

    def in_table(self, text: str, up: str) -> str:
        """The HTML of a table with each cell that names a run made a link."""

        def link(cell: re.Match) -> str:
            if cell[1] not in self.rows:
                return cell[0]
            return f'<td><a href="{self.href(cell[1], up)}">{cell[1]}</a></td>'

        return RUN_CELL.sub(link, text)

    def over_picture(self, png: str, marks: list[list[Any]], up: str, alt: str) -> str:
        """A picture (base64) whose marks are links, and below it the runs behind them as a table.

        marks: [run, x, y], x and y as shares of width and height from the top left.
        """
        known = [mark for mark in marks if mark[0] in self.rows]
        places = "".join(
            f'<a href="{self.href(run, up)}" title="{in_html(self.what(run))}" '
            f'style="left:{100 * x:.2f}%;top:{100 * y:.2f}%"></a>'
            for run, x, y in known
        )
        rows = "".join(
            f'<tr><td><a href="{self.href(run, up)}">{run}</a></td>'
            f"<td>{in_html(self.what(run))}</td><td>{self._score(run)}</td></tr>"
            for run in dict.fromkeys(run for run, _, _ in known)
        )
        return (
            f'<div class="marks"><img src="data:image/png;base64,{png}" alt="{in_html(alt)}">{places}</div>'
            f'<details class="runs-behind"><summary>The runs behind these marks</summary><table><tr><th>run</th>'
            f"<th>what</th><th>score</th></tr>{rows}</table></details>"
        )

    def _score(self, run: str) -> str:
        value = self.rows[run]["value"]
        return "" if value is None or value != value else f"{value:.3f}"


def linked_figure(figure: Picture, links: Links, up: str, caption: str) -> str:
    """A figure of a page of prose, its marks linked to their runs."""
    from nblib.report import plots

    png = base64.b64encode(plots.png_bytes(figure)).decode()
    inside = links.over_picture(png, figure.marks(), up, figure.alt())
    return f"````{{raw}} html\n<figure>{inside}<figcaption>{in_html(caption)}</figcaption></figure>\n````"
