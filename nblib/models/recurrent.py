"""Recurrent networks over the bins of a presentation: LSTM (the lab's best decoder) and GRU."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from nblib.models.network import TorchDecoder


class LSTMNet(nn.Module):
    """(B, T, N) -> states (B, T, H) -> the last one (B, H) -> (B, C); any number of bins."""

    cell: ClassVar[type[nn.RNNBase]] = nn.LSTM

    def __init__(
        self, n_bins: int, n_units: int, n_classes: int,
        *, hidden: int = 200, layers: int = 1, dropout: float = 0.5, input_dropout: float = 0.5,
    ):  # fmt: skip
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout)
        between = dropout if layers > 1 else 0.0
        self.recurrent = self.cell(n_units, hidden, layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(self.input_dropout(x))  # (B, T, N) -> (B, T, H)
        return self.head(self.dropout(states[:, -1]))  # (B, H) -> (B, C)


class GRUNet(LSTMNet):
    """The same around gated recurrent units."""

    cell = nn.GRU


class LSTM(TorchDecoder):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), read out at the last bin.

    hidden: size of the state (500 and more for a GPU); layers: stacked LSTMs; dropout: before the read-out;
    input_dropout: share of units hidden at each step of training.
    """

    name = "lstm"
    title = "LSTM"
    network = LSTMNet
    training: ClassVar[dict[str, Any]] = {
        "max_epochs": 30, "batch_size": 64, "learning_rate": 2e-3, "weight_decay": 1e-2,
        "patience": 5, "clip_norm": 1.0,
    }  # fmt: skip


class GRU(LSTM):
    """Gated recurrent units (Cho et al. 2014, EMNLP), the LSTM's lighter sibling; settings alike."""

    name = "gru"
    title = "GRU"
    network = GRUNet
