"""Explorers: pictures with controls in Jupyter, and the same pictures alone in a rendered book.

An explorer is the last line of a cell. Where a person sits at the notebook, it shows its
controls; run by papermill or any other batch, it shows its default view as a plain picture and
makes no widget, so that an executed notebook holds no widget state that a page cannot show.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd

from nblib.core.errors import BadParameter
from nblib.data.recording import Recording
from nblib.data.trials import labelling
from nblib.prepare import responses
from nblib.report import plots
from nblib.report.plots.responses import unit_response
from nblib.report.plots.style import Picture
from nblib.road.notebooks import is_interactive


class ResponseExplorer:
    """Raster and PSTH of one unit over the presentations of one label.

    It opens at the unit and label with the clearest response; `unit` (its id) and `label` choose
    others. Raises BadParameter for a unit or label that the recording does not hold.
    """

    def __init__(self, recording: Recording, unit: int | None = None, label: Any = None):
        self._widget = None
        self.recording = recording
        trials = responses.drawn_trials(recording)
        self.labels = np.unique(labelling.as_array(trials["label"])).tolist()
        self.shown_s = responses.shown_s(trials)
        place, clearest = responses.clearest_example(recording)
        ids = recording.units.index
        if unit is not None and unit not in ids:
            raise BadParameter(f"unit {unit!r} is not in recording {recording.id!r}.")
        if label is not None and label not in self.labels:
            raise BadParameter(f"label {label!r} was never shown in recording {recording.id!r}.")
        self.unit = ids[place] if unit is None else unit
        self.label = (
            (clearest.item() if hasattr(clearest, "item") else clearest) if label is None else label
        )
        self.window = (-0.4 * self.shown_s, 1.6 * self.shown_s)
        self.area = pd.Series(responses.areas_of(recording.units), index=ids)

    def widget(self):
        """The controls above the picture, as one ipywidget; made once."""
        if self._widget is None:
            import ipywidgets

            self.image = ipywidgets.Image(format="png")
            rows = self.controls()
            for control in rows:
                control.observe(self._redraw, names="value")
            self._redraw()
            self._widget = ipywidgets.VBox([*rows, self.image])
        return self._widget

    def _repr_mimebundle_(
        self, include=None, exclude=None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        png, shown = self.figure()._repr_png_()
        picture = base64.b64encode(png).decode()
        bundle = {"image/png": picture, "text/plain": f"<{type(self).__name__}: default view>"}
        if is_interactive():  # the picture stays for pages that show the saved notebook
            bundle |= self.widget()._repr_mimebundle_(include=include, exclude=exclude)
        return bundle, {"image/png": shown}

    def figure(self) -> Picture:
        """The view that is chosen."""
        place = self.recording.units.index.get_loc(self.unit)
        onset = responses.onsets(self.recording, self.label)
        trial, time = responses.align(self.recording.spike_times(place), onset, self.window)
        area = self.area.loc[self.unit]
        where = f" ({area})" if area else ""
        name = f"{self.recording.label} {plots.label_text(self.label)}"
        return unit_response(
            trial, time, len(onset), self.window, self.shown_s,
            title=f"Unit {self.unit}{where}, {name}", colour=plots.area_colour(area),
        )  # fmt: skip

    def controls(self) -> list:
        """The widgets that change the view."""
        import ipywidgets as w

        style = {"description_width": "5em"}
        self.area_box = w.Dropdown(
            options=[("all", None), *((a or "no area", a) for a in sorted(set(self.area)))],
            description="area", style=style,
        )  # fmt: skip
        self.unit_box = w.Dropdown(
            options=list(self.recording.units.index),
            value=self.unit,
            description="unit",
            style=style,
        )
        self.label_box = w.Dropdown(
            options=[(plots.label_text(v), v) for v in self.labels], value=self.label,
            description=self.recording.label, style=style,
        )  # fmt: skip
        reach = 3 * self.shown_s
        self.window_box = w.FloatRangeSlider(
            value=self.window, min=-reach, max=reach, step=reach / 60, description="window (s)",
            readout_format=".2f", continuous_update=False, style=style,
        )  # fmt: skip
        self.area_box.observe(self._choose_area, names="value")
        return [self.area_box, self.unit_box, self.label_box, self.window_box]

    def _choose_area(self, change: Any) -> None:
        area, before = change["new"], self.unit
        ids = self.area.index if area is None else self.area.index[self.area == area]
        self.unit_box.options = list(ids)  # takes the first of them
        if before in ids:
            self.unit_box.value = before

    def _redraw(self, change: Any = None) -> None:
        low, high = self.window_box.value
        if self.unit_box.value is None or high <= low:
            return  # between two choices: keep the last picture
        self.unit, self.label, self.window = self.unit_box.value, self.label_box.value, (low, high)
        self.image.value = plots.png_bytes(self.figure(), dpi=100)


def explore_responses(session: Recording | None) -> ResponseExplorer | Picture:
    """The explorer of a recording; a word of explanation for counts without spike times."""
    if session is None:
        return plots.say("These are counts: the file holds no spike times to look at one by one.")
    if session.series and not session.n_units:
        return plots.say(
            "A field potential has no spikes to look at one by one; 01 shows its traces."
        )
    return ResponseExplorer(session)


class PlainTable:
    """A table as a page shows it: whole cells, no row numbers, the first rows of a long one."""

    most = 25

    def __init__(self, table: pd.DataFrame):
        self.table = table

    def _left_out(self) -> str:
        more = len(self.table) - self.most
        return f"The first {self.most} rows; {more:,} more." if more > 0 else ""

    def __repr__(self) -> str:
        told = self.table.head(self.most).to_string(index=False)
        return f"{told}\n{self._left_out()}".rstrip()

    def _repr_html_(self) -> str:
        if self.table.empty:
            return "<p>Nothing to show yet.</p>"
        with pd.option_context("display.max_colwidth", None):
            shown = self.table.head(self.most).to_html(index=False, border=0, na_rep="")
        return shown + (f"<p>{self._left_out()}</p>" if self._left_out() else "")


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
    look["classes"] = "display nowrap compact tex2jax_ignore"
    return HTML(itables.to_html_datatable(table, connected=False, **look))
