"""The published cells of a retina: what every model of 13 reaches on them, slowly."""

import time

import numpy as np
import pytest

from nblib.core import recipes
from nblib.evaluate import spike_trains
from nblib.experiments.spikes import prediction, trains
from nblib.run.execute import attempt

pytestmark = pytest.mark.slow
CELLS = {"recipe": "chicken_retina", "recording": "chicken_retina"}


@pytest.fixture
def loaded(home, real_data):
    """The data as 13 loads them, with some parameters."""
    real_data("chicken_retina.nwb")
    split, counts = (
        attempt(stage, CELLS, with_upstream=True).folder for stage in ("04_split", "03_clean")
    )
    recipe = recipes.find_recipe("chicken_retina")
    return lambda **given: prediction.load(
        split, counts, recipe, prediction.Params(**CELLS, **given)
    )


def pooled(result, data, name):
    """Bits a spike of every third cell by rate in train, pooled over their spikes."""
    third, n = np.argsort(data.inputs.rate)[1::3], data.spikes("test").sum(axis=1)
    return np.average(result.tables["cells"][name].to_numpy()[third], weights=n[third])


def ahead(result, name, other):
    """In which share of all cells a model is ahead of another, and by how much, over cells."""
    table = result.tables["cells"]
    more = (table[name] - table[other]).to_numpy()
    return (more > 0).mean(), spike_trains.over_cells(more, "bits/spike")


def test_one_step_ahead(loaded):
    data, began = loaded(encoders=["glm", "net"]), time.process_time()
    assert data.lnp and data.glm
    assert time.process_time() - began < 90  # three times as many cells as are allowed 30 s
    known = prediction.predict(data)
    assert pooled(known, data, "glm") >= 1.25 and pooled(known, data, "net") >= 1.38
    share, gap = ahead(known, "net", "glm")
    assert share >= 0.7 and gap.ci_low > 0
    assert (known.tables["calibration"]["z"].abs() < 3).sum() >= 8
    blind = prediction.predict(loaded(encoders=["lnp", "net"], history=False))
    assert pooled(blind, data, "lnp") >= 0.58 and pooled(blind, data, "net") >= 0.77
    share, gap = ahead(blind, "net", "lnp")
    assert share >= 0.65 and gap.ci_low > 0


def test_trains_ahead_beat_both_published_inferences(loaded):
    data = loaded(encoders=list(prediction.AHEAD))
    result = prediction.predict(data)
    assert pooled(result, data, "intensity") >= 0.78
    assert pooled(result, data, "chain") >= pooled(result, data, "intensity") - 0.05
    table = result.tables["trains"].set_index("trains")
    assert set(spike_trains.REFERENCES) < set(table.index) and trains.GREEDY in table.index
    row = table.loc["chain: most like"]
    assert 0.8 < row["count_ratio"] < 1.25
    for measure in trains.HELD:
        assert row[f"{measure}_over_greedy_low"] > 0 and row[f"{measure}_over_twin_low"] > 0
