"""Recurrent networks over the bins of a presentation: LSTM (the lab's best decoder) and GRU."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from nblib.models.base import require, require_shares
from nblib.models.network import TorchDecoder


class LSTM(TorchDecoder):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), read out at the last bin.

    hidden: size of the state; layers: stacked LSTMs; dropout: before the read-out;
    input_dropout: share of units hidden at each step of training.
    """

    name = "lstm"
    title = "LSTM"
    training: ClassVar[dict[str, Any]] = {
        "max_epochs": 30, "batch_size": 64, "learning_rate": 2e-3, "weight_decay": 1e-2,
        "patience": 5, "clip_norm": 1.0,
    }  # fmt: skip
    cell = nn.LSTM

    def __init__(
        self,
        *,
        hidden: int = 200,
        layers: int = 1,
        dropout: float = 0.5,
        input_dropout: float = 0.5,
    ):
        require(hidden >= 1 and layers >= 1, self, "hidden >= 1 and layers >= 1 needed")
        require_shares(self, "dropout", "input_dropout")

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        return RecurrentNet(self.cell, n_units, n_classes, **self.params)


class RecurrentNet(nn.Module):
    """(B, T, N) -> states (B, T, H) -> the last one (B, H) -> (B, C)."""

    def __init__(
        self, cell: type[nn.RNNBase], n_inputs: int, n_classes: int,
        hidden: int, layers: int, dropout: float, input_dropout: float,
    ):  # fmt: skip
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout)
        between = dropout if layers > 1 else 0.0
        self.recurrent = cell(n_inputs, hidden, layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(self.input_dropout(x))  # (B, T, N) -> (B, T, H)
        return self.head(self.dropout(states[:, -1]))  # (B, H) -> (B, C)


class GRU(LSTM):
    """Gated recurrent units (Cho et al. 2014, EMNLP), read out at the last bin.

    hidden, layers and dropout as in the LSTM.
    """

    name = "gru"
    title = "GRU"
    cell = nn.GRU

    def __init__(
        self,
        *,
        hidden: int = 200,
        layers: int = 1,
        dropout: float = 0.5,
        input_dropout: float = 0.5,
    ):
        super().__init__(hidden=hidden, layers=layers, dropout=dropout, input_dropout=input_dropout)
