"""Files that the tests of sources begin with."""

import nwb_files
import pytest


@pytest.fixture
def layout(tmp_path):
    """A minimal NWB file: `layout(change)` lets `change(file)` add to it and returns the path."""

    def make(change=None, spikes=None, name="x.nwb"):
        return nwb_files.make(tmp_path / name, change, spikes)

    return make
