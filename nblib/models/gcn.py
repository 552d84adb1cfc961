"""Graph convolution: units averaged with their neighbours, twice."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nblib.models.graph_network import FixedEdges, GraphDecoder


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
