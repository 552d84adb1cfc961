"""Spatio-temporal graph attention: attention between units in each bin, LSTM over the bins."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nblib.models.graph_network import GraphDecoder, UnitAttention
from nblib.models.lstm import RecurrentNet


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
