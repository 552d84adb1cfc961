"""Decoders on a graph of units, which is made before training from train rows or anatomy."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from nblib.core.errors import BadParameter
from nblib.models import graphs
from nblib.models.base import require, require_shares
from nblib.models.graph_layers import FixedEdges, LearnedEdges, UnitAttention
from nblib.models.network import TorchDecoder
from nblib.models.recurrent import RecurrentNet
from nblib.models.training import FitSettings
from nblib.prepare.samples import Samples

START_WEIGHT = 0.1  # of every edge of a graph that is learned from the full one


class GraphDecoder(TorchDecoder):
    """A decoder with a graph of units, made before training from train rows or anatomy.

    `units`, one row a unit with area, probe and place, is needed for graph "anatomy" alone.
    """

    kinds: tuple[str, ...] = graphs.KINDS
    by_bin = False
    edges: nn.Module

    def check(self) -> None:
        """Refuse settings of the graph and of the layers on it that mean nothing: BadParameter."""
        p = self.params
        sizes = [name for name in ("channels", "heads", "embedding", "hidden") if name in p]
        require(min(p[name] for name in sizes) >= 1, self, f"{', '.join(sizes)} >= 1 needed")
        require(p.get("explore", 0) >= 0, self, "explore >= 0 needed")
        require(p["graph"] in self.kinds, self, f"graph must be one of {', '.join(self.kinds)}")
        require(
            p["k"] >= 0 and 0 <= p["threshold"] <= 1, self, "k >= 0, 0 <= threshold <= 1 needed"
        )
        require(p["memory_gb"] > 0, self, "memory_gb > 0 needed")
        require(
            p["threshold"] == 0 or p["graph"] == "correlation",
            self,
            "a threshold belongs to graph 'correlation'",
        )
        require(p.get("start", "correlation") in ("correlation", "full"), self, "start must be correlation or full")  # fmt: skip
        require_shares(self, *(name for name in p if name.endswith("dropout")))

    def _fit(
        self, train: Samples, val: Samples | None, settings: Any, folder: Any, resume: Any
    ) -> pd.DataFrame:
        wanted = FitSettings.of(settings, self.training)
        self.edges = self.make_edges(train.x, wanted.batch_size)
        return super()._fit(train, val, settings, folder, resume)

    def make_edges(self, x: np.ndarray, batch_size: int) -> nn.Module:
        """The edges that training starts from; x (B, T, N) train rows. BadParameter if too many."""
        p, n_units = self.params, x.shape[2]
        kind = p["graph"]
        graphs.check_units(n_units, x.shape[1] if self.by_bin else 1, p["memory_gb"])
        k = n_units - 1 if kind == "full" else min(p["k"] or n_units - 1, n_units - 1)
        width = p.get("heads", 1) * p.get("channels", 1)
        more = p.get("explore", 0) if kind == "learned" else 0
        needed = graphs.step_bytes(n_units, k + more, self.bins_seen(x), batch_size, width)
        if kind == "learned":
            needed += graphs.learned_bytes(n_units, x.shape[1] if self.by_bin else 1)
        graphs.check_memory(needed, p["memory_gb"], f"graph {kind!r} of {n_units} units")
        if kind == "full":
            return FixedEdges(graphs.full_graph(n_units))
        if kind == "anatomy":
            graph = graphs.anatomy_graph(self.units, p["k"])
            most = graph.source.shape[2] - 1  # by area there may be more than k
            needed = graphs.step_bytes(n_units, most, self.bins_seen(x), batch_size, width)
            graphs.check_memory(needed, p["memory_gb"], f"graph {kind!r} of {n_units} units")
            return FixedEdges(graph)
        if kind == "correlation":
            graph = graphs.correlation_graph(x, p["k"], p["threshold"], by_bin=self.by_bin)
            if p["threshold"] and not graph.n_edges:
                most = max(graphs.correlation(part).max() for part in self.rows_of(x))
                raise BadParameter(
                    f"threshold = {p['threshold']}: no two of the {n_units} units are correlated so "
                    f"much on train rows (the largest |r| is {most:.3f}), so no edge is left."
                )
            return FixedEdges(graph)
        start = np.stack([graphs.correlation(part) for part in self.rows_of(x)])
        if p["start"] == "full":  # all alike, but for what breaks the ties
            rng = np.random.default_rng([0, n_units])
            start = START_WEIGHT * (1 + 0.01 * rng.standard_normal(start.shape))
        return LearnedEdges(torch.as_tensor(start, dtype=torch.float32), p["k"], p["explore"])

    def rows_of(self, x: np.ndarray) -> list[np.ndarray]:
        """The train rows behind each graph: all of them, or bin by bin."""
        return [x[:, t] for t in range(x.shape[1])] if self.by_bin else [x]

    def bins_seen(self, x: np.ndarray) -> int:
        """How many bins of a presentation lie on the graph at once."""
        return x.shape[1]

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


class STGAT(GraphDecoder):
    """GATv2 over units in each time bin, then an LSTM over bins, read out at the last one.

    graph: correlation, learned, anatomy or full; k: incoming edges a unit; threshold: least |r|;
    channels, heads: of the attention; embedding: trained numbers that say who a unit is; explore:
    random edges tried at each step of training a learned graph; start: correlation or full, what a
    learned graph begins as; hidden, dropout, input_dropout:
    as in `lstm`; memory_gb: most memory a training step may take.
    """

    name = "st_gat"
    title = "ST-GAT"
    training: ClassVar[dict[str, Any]] = {
        "max_epochs": 20, "batch_size": 64, "learning_rate": 2e-3, "weight_decay": 1e-2,
        "patience": 4, "clip_norm": 1.0,
    }  # fmt: skip

    def __init__(
        self,
        *,
        graph: str = "correlation",
        k: int = 8,
        threshold: float = 0.0,
        channels: int = 8,
        heads: int = 1,
        embedding: int = 4,
        explore: int = 2,
        start: str = "correlation",
        hidden: int = 200,
        dropout: float = 0.5,
        input_dropout: float = 0.5,
        memory_gb: float = 6.0,
    ):
        self.check()

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        p = self.params
        return STGATNet(
            self.edges,
            UnitAttention(n_units, p["channels"], p["heads"], p["embedding"]),
            RecurrentNet(nn.LSTM, n_units, n_classes, p["hidden"], 1, p["dropout"], 0.0),
            p["input_dropout"],
        )


class STGATNet(nn.Module):
    """(B, T, N) -> units mixed along the edges (B, T, N) -> LSTM -> (B, C)."""

    def __init__(
        self, edges: nn.Module, attention: UnitAttention, recurrent: RecurrentNet, dropout: float
    ):
        super().__init__()
        self.edges, self.attention, self.recurrent = edges, attention, recurrent
        self.input_dropout = nn.Dropout(dropout)

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


class DynamicSTGAT(STGAT):
    """As `st_gat`, with a graph of its own for each time bin.

    The graphs come from the activity in that bin on train rows (correlation), or start there and
    are learned. No label is looked at.
    """

    name = "st_gat_dynamic"
    title = "ST-GAT, a graph per bin"
    kinds = ("correlation", "learned")
    by_bin = True


class GAT(GraphDecoder):
    """GATv2 over units, one value a unit: its counts summed over bins. Settings as in `st_gat`."""

    name = "gat"
    title = "GAT"
    training: ClassVar[dict[str, Any]] = {
        "max_epochs": 40, "batch_size": 64, "learning_rate": 3e-3, "weight_decay": 1e-2,
        "patience": 5, "clip_norm": 1.0,
    }  # fmt: skip

    def __init__(
        self,
        *,
        graph: str = "correlation",
        k: int = 8,
        threshold: float = 0.0,
        channels: int = 8,
        heads: int = 1,
        embedding: int = 4,
        explore: int = 2,
        start: str = "correlation",
        hidden: int = 200,
        dropout: float = 0.5,
        input_dropout: float = 0.3,
        memory_gb: float = 6.0,
    ):
        self.check()

    def bins_seen(self, x: np.ndarray) -> int:
        return 1

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        p = self.params
        return GATNet(
            self.edges,
            UnitAttention(n_units, p["channels"], p["heads"], p["embedding"]),
            nn.Sequential(
                nn.Linear(n_units, p["hidden"]), nn.ReLU(), nn.Dropout(p["dropout"]),
                nn.Linear(p["hidden"], n_classes),
            ),
            p["input_dropout"],
        )  # fmt: skip


class GATNet(nn.Module):
    """(B, T, N) -> summed (B, N) -> units mixed along the edges (B, N) -> (B, C)."""

    def __init__(self, edges: nn.Module, attention: UnitAttention, head: nn.Module, dropout: float):
        super().__init__()
        self.edges, self.attention, self.head = edges, attention, head
        self.input_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        source, weight, present = self.edges()  # (1, N, K)
        summed = self.input_dropout(x.sum(dim=1)).T  # (N, B)
        return self.head(self.attention(summed, source[0], weight[0], present[0]).T)


class GCN(GraphDecoder):
    """Two graph convolutions (Kipf and Welling 2017, ICLR); a unit's features are its counts by bin.

    The read-out sees the counts and both convolutions. graph: correlation, anatomy or full; k,
    threshold, memory_gb: as in `st_gat`; channels: features a unit after a convolution.
    """

    name = "gcn"
    title = "GCN"
    kinds = ("correlation", "anatomy", "full")
    training: ClassVar[dict[str, Any]] = {
        "max_epochs": 40, "batch_size": 64, "learning_rate": 2e-3, "weight_decay": 3e-2,
        "patience": 5, "clip_norm": 1.0,
    }  # fmt: skip

    def __init__(
        self,
        *,
        graph: str = "correlation",
        k: int = 8,
        threshold: float = 0.0,
        channels: int = 8,
        dropout: float = 0.5,
        input_dropout: float = 0.3,
        memory_gb: float = 6.0,
    ):
        self.check()

    def bins_seen(self, x: np.ndarray) -> int:
        return 1

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        p = self.params
        sizes = (n_bins, n_units, n_classes, p["channels"], p["dropout"], p["input_dropout"])
        return GCNNet(self.edges, *sizes)


AT_ONCE = 64  # samples at a time without gradients: every edge of every sample takes memory


class GCNNet(nn.Module):
    """(B, T, N) -> features of each unit (B, N, T + 2 F) -> (B, C)."""

    def __init__(
        self, edges: FixedEdges, n_bins: int, n_units: int, n_classes: int, channels: int,
        dropout: float, input_dropout: float,
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
        if not torch.is_grad_enabled() and len(x) > AT_ONCE:
            return torch.cat([self(part) for part in x.split(AT_ONCE)])
        counts = self.input_dropout(x).transpose(1, 2)  # (B, N, T): one graph for all samples
        once = self.first(counts, edge_index, weight[present]).relu()  # (B, N, F)
        twice = self.second(once, edge_index, weight[present]).relu()
        return self.head(self.dropout(torch.cat([counts, once, twice], dim=2).flatten(1)))
