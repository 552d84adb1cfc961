"""Graph attention on counts summed over the presentation."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from nblib.models.graph_network import GraphDecoder, UnitAttention


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
