"""Explorers: moving a control changes the picture; in a batch there is a picture and no widget."""

import base64

import numpy as np
import pandas as pd
import pytest
from handmade import recording

from nblib.report import explore, plots, response_explorer


@pytest.fixture
def session():
    rng = np.random.default_rng(0)
    start = 5 + 0.25 * np.arange(60)
    labels = np.tile([-1, 0, 1], 20)
    spikes = [np.sort(rng.uniform(0, 25, 60)) for _ in range(4)]
    spikes[2] = np.sort(np.concatenate([spikes[2], start[1::3] + 0.08]))
    return recording(spikes, labels, start, areas=["VISp", "VISp", "CA1", "LGd"])


def test_opens_at_the_clearest_response(session):
    explorer = response_explorer.ResponseExplorer(session)
    assert explorer.unit == 102 and explorer.label == 0


def test_every_control_changes_the_picture(session):
    explorer = response_explorer.ResponseExplorer(session)
    area, unit, label, window, _ = explorer.widget.children
    seen = [plots.png_bytes(explorer.widget.result, dpi=50)]
    for control, value in (
        (unit, 101),
        (label, -1),
        (window, (-0.05, 0.3)),
        (area, "LGd"),
    ):
        control.value = value
        seen.append(plots.png_bytes(explorer.widget.result, dpi=50))
        assert seen[-1] not in seen[:-1]
    assert unit.value == 103 and list(unit.options) == [103]
    area.value = None
    assert len(unit.options) == 4 and unit.value == 103
    window.value = (0.1, 0.1)  # between two choices: the view that it opened with
    assert explorer.widget.result.axes[0].get_xlim() == explorer.window


def test_an_area_of_other_units_chooses_its_first(session):
    explorer = response_explorer.ResponseExplorer(session)
    area, unit, label, *_ = explorer.widget.children
    unit.value, label.value = 103, 1
    area.value = "VISp"
    assert "Unit 100 (VISp), frame 1" in explorer.widget.result.axes[0].get_title(loc="left")


def test_recording_without_areas():
    plain = recording([np.array([1.01, 2.01]), np.array([1.5])], [0, 1], [1.0, 2.0])
    explorer = response_explorer.ResponseExplorer(plain)
    assert [text for text, _ in explorer.widget.children[0].options] == ["all", "no area"]


def test_in_a_batch_there_is_a_picture_and_no_widget(session, monkeypatch):
    import ipywidgets

    def refuse(*args, **kwargs):
        raise AssertionError("a widget was made where nobody can use it")

    monkeypatch.setattr(ipywidgets.Widget, "__init__", refuse)
    assert not response_explorer.is_interactive()
    bundle, told = response_explorer.ResponseExplorer(session)._repr_mimebundle_()
    assert "Raster and PSTH of one unit" in told["image/png"]["alt"]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert set(bundle) == {"image/png", "text/plain"}


def test_before_a_reader_there_are_controls(session, monkeypatch):
    monkeypatch.setattr(response_explorer, "is_interactive", lambda: True)
    bundle, _ = response_explorer.ResponseExplorer(session)._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= set(bundle)


def test_a_table_on_a_page_shows_whole_cells_and_says_what_is_left_out():
    long = "a sentence of more than fifty characters, so that pandas would cut it off"
    shown = explore.show_table(pd.DataFrame({"found": [long] * 26}))
    assert shown._repr_html_().count(long) == 25 and repr(shown).count(long) == 25
    assert "The first 25 rows; 1 more." in shown._repr_html_() and "1 more" in repr(shown)
    assert "more" not in explore.show_table(pd.DataFrame({"found": ["x"]}))._repr_html_()
    assert "Nothing to show" in explore.show_table(pd.DataFrame())._repr_html_()
