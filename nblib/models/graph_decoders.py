"""Decoders on a graph of units, which is made before training from train rows or anatomy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from nblib.core.errors import BadParameter
from nblib.models import FitSettings, graphs, pick_device
from nblib.models.base import require
from nblib.models.graph_layers import FixedEdges, LearnedEdges, UnitAttention
from nblib.models.network import LSTMNet, TorchDecoder
from nblib.prepare.decoder_inputs import Samples

START_WEIGHT = 0.1  # of every edge of a graph that is learned from the full one
_NUMBERS_IN_CACHE = 5_000_000  # edge features, 20 MB
GRAPH = {"graph": "correlation", "k": 8, "threshold": 0.0, "memory_gb": 6.0}
LEARNED = {"explore": 2, "start": "correlation"}  # beside these, where a graph can be learned


class GraphDecoder(TorchDecoder):
    """A decoder with a graph of units, made before training from train rows or anatomy.

    graph: correlation, learned, anatomy or full; k: incoming edges a unit (0: all); threshold:
    least `|r|`; memory_gb: most memory that a training step may take; explore: random edges tried at
    each step of training a learned graph; start: correlation or full, what a learned graph begins
    as. The rest is the network's, whose first argument is the module of the edges. `units`, one
    row a unit with area, probe and place, is needed for graph "anatomy" alone.
    """

    kinds: tuple[str, ...] = graphs.KINDS
    by_bin = False
    more = TorchDecoder.more | GRAPH | LEARNED
    edges: nn.Module

    def check(self) -> None:
        super().check()
        p = self.params
        require(p.get("explore", 0) >= 0, self, "explore >= 0 needed")
        require(p["graph"] in self.kinds, self, f"graph must be one of {', '.join(self.kinds)}")
        bounds = p["k"] >= 0 and 0 <= p["threshold"] <= 1
        require(bounds, self, "k >= 0, 0 <= threshold <= 1 needed")
        require(p["memory_gb"] > 0, self, "memory_gb > 0 needed")
        alone = p["threshold"] == 0 or p["graph"] == "correlation"
        require(alone, self, "a threshold belongs to graph 'correlation'")
        starts = p.get("start", "correlation") in ("correlation", "full")
        require(starts, self, "start must be correlation or full")

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        return self.network(n_bins, n_units, n_classes, self.edges, **self.network_params())

    def _train(
        self, train: Samples, val: Samples | None, settings: FitSettings, **checkpoint: Any
    ) -> pd.DataFrame:
        on_cpu = pick_device(settings)[0].type == "cpu"
        self.at_once = self.in_cache(*train.x.shape[1:]) if on_cpu else settings.batch_size
        self.edges = self.make_edges(train.x, min(self.at_once, settings.batch_size))
        return super()._train(train, val, settings, **checkpoint)

    def width(self, n_bins: int) -> int:
        """Numbers that a sample has on each edge: heads, channels, and bins where these lie on the graph."""
        features = self.params.get("heads", 1) * self.params["channels"]
        return features * (n_bins if self.network.sees_bins else 1)

    def in_cache(self, n_bins: int, n_units: int) -> int:
        """How many samples' edge features a processor's cache holds: more at a time are slower."""
        p = self.params
        k = n_units if p["graph"] == "full" else p["k"] or n_units
        k += p["explore"] if p["graph"] == "learned" else 0
        return max(1, _NUMBERS_IN_CACHE // (n_units * k * self.width(n_bins)))

    @property
    def predict_batch(self) -> int:
        return min(super().predict_batch, self.in_cache(self.n_bins, self.n_units))

    def make_edges(self, x: np.ndarray, at_once: int) -> nn.Module:
        """The edges that training starts from; x (B, T, N) train rows, at_once of them in a piece of
        a step. BadParameter if they take too much memory."""
        p, (_, n_bins, n_units) = self.params, x.shape
        kind, n_graphs = p["graph"], n_bins if self.by_bin else 1
        graphs.check_units(n_units, n_graphs, p["memory_gb"])
        if kind in ("correlation", "learned"):
            r = graphs.correlation(x, self.by_bin)  # (G, N, N)
        beside = 0
        if kind == "learned":
            if p["start"] == "full":  # all alike, but for what breaks the ties
                noise = np.random.default_rng([0, n_units]).standard_normal(r.shape)
                r = START_WEIGHT * (1 + 0.01 * noise)
            edges = LearnedEdges(torch.as_tensor(r, dtype=torch.float32), p["k"], p["explore"])
            n_edges, beside = edges.k + edges.explore, graphs.learned_bytes(n_units, n_graphs)
        else:
            if kind == "correlation":
                graph = graphs.strongest(r, p["k"], p["threshold"])
            elif kind == "anatomy":
                graph = graphs.anatomy_graph(self.units, p["k"])
            else:
                graph = graphs.full_graph(n_units)
            if p["threshold"] and not graph.n_edges:
                raise BadParameter(
                    f"threshold = {p['threshold']}: no two of the {n_units} units are correlated so "
                    f"much on train rows (the largest |r| is {r.max():.3f}), so no edge is left."
                )
            edges, n_edges = FixedEdges(graph), graph.source.shape[2] - 1  # by area more than k
        needed = graphs.step_bytes(n_units, n_edges, self.width(n_bins), at_once) + beside
        graphs.check_memory(needed, p["memory_gb"], f"graph {kind!r} of {n_units} units")
        return edges

    def _set_weights(self, weights: dict[str, np.ndarray]) -> None:
        if "edges.score" in weights:
            start = torch.as_tensor(weights["edges.score"])
            self.edges = LearnedEdges(start, self.params["k"], self.params["explore"])
        else:
            names = ("source", "weight", "present")
            self.edges = FixedEdges(graphs.Graph(*(weights[f"edges.{n}"] for n in names)))
        super()._set_weights(weights)

    def graph(self) -> graphs.Graph:
        """The graph in force, as arrays; after training the learned one."""
        if not self.n_classes:
            raise BadParameter(f"this {self.name} is not fitted yet; it has no graph.")
        self.net.eval()
        with torch.no_grad():
            source, weight, present = (part.numpy() for part in self.net.edges())
        return graphs.Graph(source, weight, present)


class STGATNet(nn.Module):
    """(B, T, N) -> units mixed along the edges (B, T, N) -> LSTM -> (B, C)."""

    sees_bins = True  # every bin of a presentation lies on the graph at once

    def __init__(
        self, n_bins: int, n_units: int, n_classes: int, edges: nn.Module,
        *, channels: int = 8, heads: int = 1, embedding: int = 4, hidden: int = 200,
        dropout: float = 0.5, input_dropout: float = 0.5,
    ):  # fmt: skip
        super().__init__()
        self.edges = edges
        self.attention = UnitAttention(n_units, channels, heads, embedding)
        self.recurrent = LSTMNet(
            n_bins, n_units, n_classes, hidden=hidden, dropout=dropout, input_dropout=0.0
        )
        self.input_dropout = nn.Dropout(input_dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, n_bins, n_units = x.shape
        source, weight, present = self.edges()  # (G, N, K), G = 1 or T
        x = self.input_dropout(x).permute(2, 1, 0)  # (N, T, B)
        per = n_bins if len(source) == 1 else 1  # bins that share one graph
        mixed = [
            self.attention(part.reshape(n_units, -1), s, w, p).view(n_units, per, batch)
            for part, s, w, p in zip(x.split(per, dim=1), source, weight, present, strict=True)
        ]
        return self.recurrent(torch.cat(mixed, dim=1).permute(2, 1, 0))  # (B, T, N) -> (B, C)


class STGAT(GraphDecoder):
    """Spatio-temporal: GATv2 over units in each time bin, then an LSTM over bins, read at the last.

    channels, heads: of the attention; embedding: trained numbers that say who a unit is; hidden,
    dropout, input_dropout: as in `lstm`; the graph's settings as in `GraphDecoder`.
    """

    name = "st_gat"
    title = "ST-GAT"
    network = STGATNet
    training = {"max_epochs": 20, "learning_rate": 2e-3, "weight_decay": 1e-2, "patience": 4}


class DynamicSTGAT(STGAT):
    """As `st_gat`, with a graph of its own for each time bin.

    The graphs come from the activity in that bin on train rows (correlation), or start there and
    are learned. No label is looked at.
    """

    name = "st_gat_dynamic"
    title = "ST-GAT, a graph per bin"
    kinds = ("correlation", "learned")
    by_bin = True


class GATNet(nn.Module):
    """(B, T, N) -> summed (B, N) -> units mixed along the edges (B, N) -> (B, C)."""

    sees_bins = False

    def __init__(
        self, n_bins: int, n_units: int, n_classes: int, edges: nn.Module,
        *, channels: int = 8, heads: int = 1, embedding: int = 4, hidden: int = 200,
        dropout: float = 0.5, input_dropout: float = 0.3,
    ):  # fmt: skip
        super().__init__()
        self.edges = edges
        self.attention = UnitAttention(n_units, channels, heads, embedding)
        self.head = nn.Sequential(
            nn.Linear(n_units, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, n_classes)
        )
        self.input_dropout = nn.Dropout(input_dropout)

    def forward(self, x: Tensor) -> Tensor:
        source, weight, present = self.edges()  # (1, N, K)
        summed = self.input_dropout(x.sum(dim=1)).T  # (N, B)
        return self.head(self.attention(summed, source[0], weight[0], present[0]).T)


class GAT(GraphDecoder):
    """GATv2 over units, one value a unit: its counts summed over bins. Settings as in `STGAT`.

    A linear decoder sees every bin, so none is beside it unless it is asked for.
    """

    name = "gat"
    title = "GAT"
    network = GATNet
    more = GraphDecoder.more | {"linear": ""}
    training = {"max_epochs": 40, "learning_rate": 3e-3, "weight_decay": 1e-2, "patience": 5}


class GCNNet(nn.Module):
    """(B, T, N) -> features of each unit (B, N, T + 2 F) -> (B, C)."""

    sees_bins = False

    def __init__(
        self, n_bins: int, n_units: int, n_classes: int, edges: FixedEdges,
        *, channels: int = 8, dropout: float = 0.5, input_dropout: float = 0.3,
    ):  # fmt: skip
        super().__init__()
        from torch_geometric.nn import GCNConv  # a second to import, and only here

        self.edges = edges
        self.input_dropout, self.dropout = nn.Dropout(input_dropout), nn.Dropout(dropout)
        # The units' edges to themselves are in the graph already.
        self.first = GCNConv(n_bins, channels, add_self_loops=False)
        self.second = GCNConv(channels, channels, add_self_loops=False)
        self.head = nn.Linear(n_units * (n_bins + 2 * channels), n_classes)

    def forward(self, x: Tensor) -> Tensor:
        source, weight, present = (part[0] for part in self.edges())  # (N, K)
        target = torch.arange(len(source), device=x.device)[:, None].expand_as(source)
        edge_index = torch.stack([source[present], target[present]])  # (2, E)
        counts = self.input_dropout(x).transpose(1, 2)  # (B, N, T): one graph for all samples
        once = self.first(counts, edge_index, weight[present]).relu()  # (B, N, F)
        twice = self.second(once, edge_index, weight[present]).relu()
        return self.head(self.dropout(torch.cat([counts, once, twice], dim=2).flatten(1)))


class GCN(GraphDecoder):
    """Two graph convolutions (Kipf and Welling 2017, ICLR); a unit's features are its counts by bin.

    The read-out sees the counts and both convolutions. graph: correlation, anatomy or full;
    channels: features a unit after a convolution; the rest as in `GraphDecoder`.
    """

    name = "gcn"
    title = "GCN"
    network = GCNNet
    kinds = ("correlation", "anatomy", "full")
    more = TorchDecoder.more | GRAPH
    training = {"max_epochs": 40, "learning_rate": 2e-3, "weight_decay": 3e-2, "patience": 5}
