"""Decoders on graphs: each test here fails on a way in which such decoders have gone wrong."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from easy_task import N_BINS, N_CLASSES, N_UNITS, QUICK, SMALL, easy, fit, quick

from nblib.core.errors import BadInput, BadParameter
from nblib.models import ON_GRAPHS, graph_decoders, graphs, load, make
from nblib.models.graph_layers import FixedEdges, GATv2, LearnedEdges
from nblib.prepare.decoder_inputs import Samples


def trained(name, train, val, epochs=2, **params):
    decoder = make(name, {**SMALL[name], **params})
    fit(decoder, train, val, n_classes=N_CLASSES, settings=quick(max_epochs=epochs))
    return decoder


@pytest.fixture(scope="module")
def task():
    return easy(160, 0), easy(60, 1)


def some_graph(n_units=7, k=3, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.random((1, n_units, n_units))
    weight[0][np.diag_indices(n_units)] = 0
    graph = graphs.strongest(weight, k, threshold=0.4)  # units with fewer than k edges too
    return (
        torch.as_tensor(graph.source),
        torch.as_tensor(graph.weight),
        torch.as_tensor(graph.present),
    )


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_equals_pytorch_geometric_s(heads):
    """Against GATv2Conv on one edge list a sample, with edge weights as its edge features."""
    conv_module = pytest.importorskip("torch_geometric.nn")
    n, m, n_in, channels = 7, 5, 3, 4
    source, weight, present = (part[0] for part in some_graph(n))
    torch.manual_seed(0)
    ours = GATv2(n_in, channels, heads)
    theirs = conv_module.GATv2Conv(n_in, channels, heads=heads, edge_dim=1, add_self_loops=False)
    with torch.no_grad():
        ours.bias.normal_()
        theirs.lin_l.load_state_dict(ours.left.state_dict())
        theirs.lin_r.load_state_dict(ours.right.state_dict())
        theirs.lin_edge.weight.copy_(ours.edge[:, None])
        theirs.att.copy_(ours.attention[None])
        theirs.bias.copy_(ours.bias)
    x = torch.randn(n, m, n_in)
    target = torch.arange(n)[:, None].expand_as(source)
    edge_index = torch.stack([source[present], target[present]])
    expected = torch.stack(
        [theirs(x[:, i], edge_index, weight[present][:, None]) for i in range(m)], dim=1
    )
    torch.testing.assert_close(ours(x, source, weight, present), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_the_edges_are_used(name, task):
    """What a unit hears changes the answer: another graph, the same weights, another output."""
    decoder = trained(name, *task)
    x = torch.as_tensor(task[1].x[:9])
    with torch.no_grad():
        before = decoder.net(x)
        edges = decoder.net.edges
        edges.source = edges.source.flip(1).contiguous()
        assert not torch.allclose(decoder.net(x), before, atol=1e-4)


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_the_graph_does_not_depend_on_labels(name, task):
    train, val = task
    assert "y" not in inspect.signature(make(name).make_edges).parameters
    turned = Samples(train.x, np.roll(train.y, 1), train.trial)
    one, two = trained(name, train, val), trained(name, turned, val)
    for a, b in zip(*(vars(d.graph()).values() for d in (one, two)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(inspect.signature(one.net.forward).parameters) == ["x"]


def test_the_graph_comes_from_train_rows_alone(task):
    train, val = task
    decoder = trained("st_gat", train, val)
    expected = graphs.strongest(graphs.correlation(train.x), SMALL["st_gat"]["k"])
    np.testing.assert_array_equal(decoder.graph().source, expected.source)
    poisoned = Samples(val.x * 50, val.y, val.trial)
    np.testing.assert_array_equal(
        trained("st_gat", train, poisoned).graph().source, expected.source
    )


def test_a_threshold_changes_what_the_decoder_listens_to(task):
    few = trained("st_gat", *task, k=0, threshold=0.2)
    many = trained("st_gat", *task, k=0)
    assert many.graph().n_edges == N_UNITS * (N_UNITS - 1) > few.graph().n_edges
    r = graphs.correlation(task[0].x)[0]
    assert few.graph().n_edges == (r >= 0.2).sum()


def test_one_graph_a_bin(task):
    decoder = trained("st_gat_dynamic", *task)
    graph = decoder.graph()
    assert len(graph.source) == task[0].x.shape[1]
    assert any((graph.source[0] != graph.source[t]).any() for t in range(1, len(graph.source)))


@pytest.mark.parametrize("name", ["st_gat", "st_gat_dynamic", "gat"])
def test_a_learned_graph_gets_gradients_and_moves(name, task):
    decoder = trained(name, *task, graph="learned", epochs=3)
    start = decoder.make_edges(task[0].x, 32).score.detach()
    score = decoder.net.edges.score.detach()
    assert (score != start).float().mean() > 0.5
    assert decoder.graph().n_edges == len(score) * N_UNITS * SMALL[name]["k"]  # sparse


def test_gradients_reach_the_edges_in_use_and_those_tried():
    edges = LearnedEdges(torch.rand(1, 8, 8), k=2, explore=1)
    layer = GATv2(1, 4, 1)
    source, weight, present = (part[0] for part in edges())
    layer(torch.randn(8, 5, 1), source, weight, present).square().sum().backward()
    gradient = edges.score.grad[0]
    for unit in range(8):
        used = set(source[unit].tolist()) - {unit}
        assert set(gradient[unit].nonzero().ravel().tolist()) == used and len(used) == 3


def test_a_dropped_edge_can_return():
    """An edge far below the others is tried now and then; a pull on its weight brings it back."""
    torch.manual_seed(0)
    start = torch.rand(1, 6, 6) * 0.1 + 0.5
    start[0, 0, 5] = 0.0

    def pulled(explore):
        edges = LearnedEdges(start, k=2, explore=explore).train()
        optimiser = torch.optim.SGD(edges.parameters(), lr=0.1)
        for _ in range(60):
            optimiser.zero_grad()
            source, weight, _ = edges()
            (-(weight[0, 0] * (source[0, 0] == 5)).sum()).backward()
            optimiser.step()
        edges.eval()
        return 5 in edges()[0][0, 0].tolist()

    assert pulled(1) and not pulled(0)


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_the_graph_is_stored_with_the_run(name, task, tmp_path):
    kinds = ["correlation"] if name == "gcn" else ["correlation", "learned"]
    for kind in kinds:
        decoder = trained(name, *task, graph=kind)
        decoder.save(tmp_path)
        again = load(tmp_path)
        np.testing.assert_array_equal(again.graph().matrix(), decoder.graph().matrix())
        x = task[1].x
        np.testing.assert_array_equal(again.predict_log_proba(x), decoder.predict_log_proba(x))


def test_a_learned_graph_can_begin_as_the_full_one(task):
    decoder = make("gat", {**SMALL["gat"], "graph": "learned", "start": "full"})
    start = decoder.make_edges(task[0].x, 32).score.detach().numpy()
    assert abs(start.mean() - 0.1) < 0.01 and start.std() < 0.01
    fit(decoder, *task, n_classes=N_CLASSES, settings=quick(max_epochs=1))
    assert decoder.graph().n_edges == N_UNITS * min(decoder.params["k"], N_UNITS - 1)
    with pytest.raises(BadParameter, match="start must be"):
        make("gat", {"start": "empty"})


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_it_answers_piece_by_piece_as_at_once(name, task, monkeypatch):
    decoder = trained(name, *task)
    whole = decoder.predict_log_proba(task[1].x)
    monkeypatch.setattr(graph_decoders, "_NUMBERS_IN_CACHE", 1)
    assert decoder.predict_batch == 1
    np.testing.assert_allclose(decoder.predict_log_proba(task[1].x), whole, atol=1e-5)


def test_anatomy_comes_from_the_recording(task):
    decoder = make("gat", {**SMALL["gat"], "graph": "anatomy"})
    with pytest.raises(BadInput, match="neither the area"):
        fit(decoder, *task, n_classes=N_CLASSES, settings=QUICK)
    decoder.units = pd.DataFrame({"area": ["VISp"] * 4 + ["CA1"] * 6})
    fit(decoder, *task, n_classes=N_CLASSES, settings=quick(max_epochs=1))
    matrix = decoder.graph().matrix()
    assert (matrix[:4, 4:] == 0).all() and (matrix[:4, :4] == 1).all()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("st_gat", {"graph": "small_world"}, "graph must be one of"),
        ("st_gat_dynamic", {"graph": "full"}, "graph must be one of correlation, learned"),
        ("gcn", {"graph": "learned"}, "graph must be one of"),
        ("st_gat", {"threshold": 1.5}, "threshold <= 1"),
        ("gat", {"graph": "full", "threshold": 0.2}, "belongs to graph 'correlation'"),
        ("gat", {"k": -1}, "k >= 0"),
        ("gat", {"memory_gb": 0.0}, "memory_gb > 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(name, params, message):
    with pytest.raises(BadParameter, match=message):
        make(name, params)


LEARNED = {"graph": "learned", "k": 1, "explore": 0, "channels": 1, "memory_gb": 0.15}


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("st_gat", {"graph": "full"}, "graph 'full' of 3000 units would take about"),
        ("st_gat", {"graph": "anatomy"}, "graph 'anatomy' of 3000 units would take about"),
        ("st_gat_dynamic", LEARNED, "a graph of 3,000 units compares each with each"),
    ],
)
def test_a_graph_that_would_not_fit_is_refused_before_training(name, params, says):
    train = Samples(np.zeros((8, 5, 3000), np.float32), np.arange(8) % 2, np.arange(8))
    decoder = make(name, params)
    decoder.units = pd.DataFrame({"area": ["VISp"] * 3000})  # all in one area
    with pytest.raises(BadParameter, match=says):
        fit(decoder, train, train, n_classes=2, settings=QUICK)


def test_a_threshold_that_leaves_no_edge_is_refused(task):
    with pytest.raises(BadParameter, match="so no edge is left"):
        fit(
            make("gat", {**SMALL["gat"], "threshold": 0.999}),
            *task,
            n_classes=N_CLASSES,
            settings=QUICK,
        )


BIG = """
import sys, time, numpy as np, torch
from pathlib import Path
from nblib.models import make
torch.set_num_threads(2)
n_units, k = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
decoder = make("st_gat", {"k": k, "channels": 16, "hidden": 100})
x = rng.standard_normal((32, 5, n_units)).astype(np.float32)
decoder.edges = decoder.make_edges(x, 32)
net = decoder.build(5, n_units, 10)
batch = torch.as_tensor(x)
times = []
for _ in range(3):
    began = time.perf_counter()
    net(batch).square().mean().backward()
    times.append(time.perf_counter() - began)
status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's memory too
print(min(times), status.split("VmHWM:")[1].split()[0])
"""


def step(n_units: int, k: int) -> tuple[float, float]:
    """Seconds and peak GB of one training step, batch 32, 5 bins, 16 channels, in its own process."""
    out = subprocess.run(
        [sys.executable, "-c", BIG, str(n_units), str(k)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak = out.stdout.split()
    return float(seconds), int(peak) / 1e6


def test_on_many_edges_a_step_goes_in_pieces_that_fit_the_cache(task, monkeypatch):
    still = {"dropout": 0.0}
    whole = trained("st_gat", *task, **still)
    assert whole.at_once > QUICK.batch_size  # few edges: the batch at once
    numbers = N_UNITS * 3 * 4 * N_BINS  # edges, channels and bins of a sample
    monkeypatch.setattr(graph_decoders, "_NUMBERS_IN_CACHE", 5 * numbers)
    pieces = trained("st_gat", *task, **still)
    assert pieces.at_once == 5
    x = task[1].x
    np.testing.assert_allclose(pieces.predict_proba(x), whole.predict_proba(x), atol=1e-4)


@pytest.mark.slow
def test_two_thousand_units_fit_and_cost_grows_with_edges():
    """Memory, since time depends on who else is there: twice the units, twice the edges."""
    _, peak = step(2000, 16)
    assert peak < 6.0
    _, half = step(1000, 16)
    _, dense = step(1000, 32)
    assert peak / half < 2.2
    assert dense == pytest.approx(peak, rel=0.2)  # as many edges, half the units


def test_fixed_edges_are_not_trained(task):
    decoder = trained("st_gat", *task)
    assert isinstance(decoder.net.edges, FixedEdges)
    assert not list(decoder.net.edges.parameters())
