"""Tables to explore: in Jupyter to search, sort and export, in a rendered book as they are."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nblib.road.notebook_code import is_interactive


class PlainTable:
    """A table as a page shows it: whole cells, no row numbers, the first rows of a long one."""

    most = 25

    def __init__(self, table: pd.DataFrame):
        self.table, more = table.head(self.most), len(table) - self.most
        self.left_out = f"The first {self.most} rows; {more:,} more." if more > 0 else ""

    def __repr__(self) -> str:
        return f"{self.table.to_string(index=False)}\n{self.left_out}".rstrip()

    def _repr_html_(self) -> str:
        if self.table.empty:
            return "<p>Nothing to show yet.</p>"
        with pd.option_context("display.max_colwidth", None):
            shown = self.table.to_html(index=False, border=0, na_rep="")
        return shown + (f"<p>{self.left_out}</p>" if self.left_out else "")


def show_table(table: pd.DataFrame) -> Any:
    """A table to search, sort and export where a person sits at it; the plain table elsewhere.

    The plain one shows whole cells of the first 25 rows, and says how many more there are.
    """
    if not is_interactive():
        return PlainTable(table)
    try:
        import itables
    except ImportError:  # the extra `book` is not installed: a plain table says the same
        return PlainTable(table)
    from IPython.display import HTML

    itables.init_notebook_mode(all_interactive=False, connected=False)
    look = {"showIndex": False, "buttons": ["copyHtml5", "csvHtml5"]}
    look["classes"] = "display nowrap compact"
    return HTML(itables.to_html_datatable(table, connected=False, **look))
