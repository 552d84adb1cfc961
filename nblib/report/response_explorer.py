"""The explorer of responses (02): a picture with controls in Jupyter, the same picture alone in a rendered book.

It is the last line of a cell. Where a person sits at the notebook, it shows its controls; run by papermill
or any other batch, it shows its default view as a plain picture and makes no widget, so that an executed
notebook holds no widget state that a page cannot show.
"""

from __future__ import annotations

import base64
import functools
from typing import Any

import numpy as np
import pandas as pd

from nblib.data.counts_dataset import areas_of
from nblib.data.recording import Recording
from nblib.data.trials import labelling
from nblib.prepare import responses
from nblib.report import plots
from nblib.report.plots.responses import unit_response
from nblib.report.plots.style import Picture
from nblib.road.notebook_code import is_interactive


class ResponseExplorer:
    """Raster and PSTH of one unit over the presentations of one label.

    It opens at the unit and label with the clearest response.
    """

    def __init__(self, recording: Recording):
        self.recording = recording
        trials = responses.drawn_trials(recording)
        self.labels = np.unique(labelling.as_array(trials["label"])).tolist()
        self.shown_s = responses.shown_s(trials)
        place, label = responses.clearest_example(recording)
        self.unit, self.label = (
            recording.units.index[place],
            getattr(label, "item", lambda: label)(),
        )
        self.window = (-0.4 * self.shown_s, 1.6 * self.shown_s)
        self.areas = pd.Series(areas_of(recording.units), index=recording.units.index)

    def figure(self, unit: int, label: Any, window: tuple[float, float]) -> Picture:
        """The picture of a unit, a label and a window [s from onset]."""
        window = window if window[0] < window[1] else self.window
        place = self.recording.units.index.get_loc(unit)
        onset = responses.onsets(self.recording, label)
        trial, time = responses.align(self.recording.spike_times(place), onset, window)
        area = self.areas.loc[unit]
        name = f"{self.recording.label} {plots.label_text(label)}"
        title = f"Unit {unit}{f' ({area})' if area else ''}, {name}"
        look = {"title": title, "colour": plots.area_colour(area)}
        return unit_response(trial, time, len(onset), window, self.shown_s, **look)

    @functools.cached_property
    def widget(self) -> Any:
        """The controls above the picture, as one ipywidget: area, unit, label, window."""
        import ipywidgets as w

        look = {"style": {"description_width": "5em"}}

        def choice(name: str, options: list, value: Any = None) -> w.Dropdown:
            return w.Dropdown(options=options, value=value, description=name, **look)

        areas = [(area or "no area", area) for area in sorted(set(self.areas))]
        area = choice("area", [("all", None), *areas])
        unit = choice("unit", list(self.areas.index), self.unit)
        labels = [(plots.label_text(value), value) for value in self.labels]
        label = choice(self.recording.label, labels, self.label)
        reach = 3 * self.shown_s
        window = w.FloatRangeSlider(
            value=self.window, min=-reach, max=reach, step=reach / 60, description="window (s)",
            readout_format=".2f", continuous_update=False, **look,
        )  # fmt: skip

        def choose_area(change: Any) -> None:
            chosen, before = change["new"], unit.value
            inside = self.areas if chosen is None else self.areas[self.areas == chosen]
            unit.options = list(inside.index)  # takes the first of them
            if before in inside.index:
                unit.value = before

        area.observe(choose_area, names="value")
        controls = {"unit": unit, "label": label, "window": window}
        shown = w.interactive(self.figure, {"auto_display": True}, **controls)
        shown.children = (area, *shown.children)
        return shown

    def _repr_mimebundle_(
        self, include=None, exclude=None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        png, shown = self.figure(self.unit, self.label, self.window)._repr_png_()
        picture = base64.b64encode(png).decode()
        bundle = {"image/png": picture, "text/plain": f"<{type(self).__name__}: default view>"}
        if is_interactive():  # the picture stays for pages that show the saved notebook
            bundle |= self.widget._repr_mimebundle_(include=include, exclude=exclude)
        return bundle, {"image/png": shown}


def explore_responses(session: Recording | None) -> ResponseExplorer | Picture:
    """The explorer of a recording; a word of explanation for counts without spike times."""
    if session is None:
        return plots.say("These are counts: the file holds no spike times to look at one by one.")
    if session.series and not session.n_units:
        return plots.say(
            "A field potential has no spikes to look at one by one; 01 shows its traces."
        )
    if not session.trials:
        return plots.say("Nothing was presented one by one: the averages above show each unit.")
    return ResponseExplorer(session)
