"""Graphs of units: which edges there are, and that nothing but activity or anatomy decides."""

import numpy as np
import pandas as pd
import pytest

from nblib.core.errors import BadInput, BadParameter
from nblib.models import graphs


def activity(n_rows=400, n_units=12, seed=0):
    """Units 0-3 share one source, 4-7 another; the rest are noise. (B, T, N)"""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_rows, 3, n_units))
    x[..., :4] += 2 * rng.standard_normal((n_rows, 3, 1))
    x[..., 4:8] += 1 * rng.standard_normal((n_rows, 3, 1))
    return x.astype(np.float32)


def sources(graph, unit, g=0):
    """The units that this unit listens to, itself left out."""
    return set(graph.source[g, unit, 1:][graph.present[g, unit, 1:]].tolist())


def test_correlation_is_numpy_s():
    x = activity()
    expected = np.abs(np.corrcoef(x.reshape(-1, 12).T))
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(graphs.correlation(x)[0], expected, atol=1e-6)
    x[..., 5] = 3.0
    r = graphs.correlation(x)[0]
    assert (r[5] == 0).all() and (r[:, 5] == 0).all() and np.isfinite(r).all()


def test_units_that_fire_together_are_joined():
    graph = graphs.strongest(graphs.correlation(activity()), 3)
    for unit in range(4):
        assert sources(graph, unit) == set(range(4)) - {unit}
    assert graph.source.shape == (1, 12, 4) and graph.n_edges == 36
    np.testing.assert_array_equal(graph.source[0, :, 0], np.arange(12))  # itself, always
    assert (graph.weight[0, :, 0] == 1).all()


def test_a_threshold_removes_edges():
    x = activity()
    r = graphs.correlation(x)[0]
    for threshold in (0.1, 0.3, 0.6):
        graph = graphs.strongest(graphs.correlation(x), 0, threshold)
        assert graph.n_edges == (r >= threshold).sum()
        matrix = graph.matrix() - np.eye(12)
        np.testing.assert_allclose(matrix, np.where(r >= threshold, r, 0), atol=1e-6)
    nobody = graphs.strongest(graphs.correlation(x), 0, 1.0)
    assert nobody.n_edges == 0 and nobody.present.all() and nobody.source.shape == (1, 12, 1)


def test_one_graph_a_bin_sees_that_bin_alone():
    x = activity()
    x[:, 2] = activity(seed=1)[:, 2][:, ::-1]  # in the last bin other units go together
    by_bin = graphs.strongest(graphs.correlation(x, by_bin=True), 3)
    assert by_bin.source.shape[0] == 3
    for t in range(3):
        alone = graphs.strongest(graphs.correlation(x[:, t : t + 1]), 3)
        np.testing.assert_array_equal(by_bin.source[t], alone.source[0])
    assert sources(by_bin, 0, 0) == {1, 2, 3} and sources(by_bin, 11, 2) == {8, 9, 10}


def test_full_joins_everyone():
    graph = graphs.full_graph(5)
    np.testing.assert_array_equal(graph.matrix(), np.ones((5, 5)))


def units(**columns):
    return pd.DataFrame(columns, index=pd.Index(range(100, 106), name="unit_id"))


def test_anatomy_by_place_on_the_probe():
    y = [0.0, 10.0, 20.0, 0.0, 10.0, 500.0]
    graph = graphs.anatomy_graph(units(probe=list("AAABBB"), y=y, area=["VISp"] * 6), 1)
    assert [sources(graph, u) for u in range(6)] == [{1}, {0}, {1}, {4}, {3}, {4}]
    assert (graph.weight[graph.present] == 1).all()


def test_anatomy_by_area_where_no_place_is_known():
    area = ["VISp", "VISp", "CA1", "CA1", "", "VISp"]
    graph = graphs.anatomy_graph(units(area=area, probe=[""] * 6), 1)
    assert sources(graph, 0) == {1, 5} and sources(graph, 2) == {3} and sources(graph, 4) == set()


@pytest.mark.parametrize("table", [None, units(), units(area=[""] * 6, y=[np.nan] * 6)])
def test_anatomy_needs_areas_or_places(table):
    with pytest.raises(BadInput, match="neither the area of its units nor their place"):
        graphs.anatomy_graph(table, 4)


def test_too_much_memory_is_refused_with_the_amount():
    needed = graphs.step_bytes(2000, 1999, 5 * 16, 32)
    with pytest.raises(BadParameter, match=r"would take about 246 GB.*memory_gb = 6"):
        graphs.check_memory(needed, 6.0, "graph 'full' of 2000 units")
    graphs.check_memory(graphs.step_bytes(2000, 16, 5 * 16, 32), 6.0, "k = 16")
    with pytest.raises(BadParameter, match=r"20,000 units .* about 16 GB.*a decoder of 05"):
        graphs.check_units(20_000, 1, 6.0)
    graphs.check_units(4_000, 1, 6.0)
