"""Small networks: a perceptron on summed counts, filters that slide over the bins, LSTM and GRU."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn

from nblib.models.base import require
from nblib.models.network import TorchDecoder


class MLPNet(nn.Module):
    """(B, T, N) -> sum over bins (B, N) -> hidden layers (B, H) -> (B, C)."""

    def __init__(
        self, n_bins: int, n_units: int, n_classes: int,
        *, hidden: int = 256, layers: int = 1, dropout: float = 0.5,
    ):  # fmt: skip
        super().__init__()
        sizes = [n_units] + [hidden] * layers
        blocks = []
        for n_in, n_out in pairwise(sizes):
            blocks += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*blocks)
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        # The root keeps the spread near 1 whatever the number of bins.
        count = x.sum(dim=1) / x.shape[1] ** 0.5  # (B, T, N) -> (B, N)
        return self.head(self.hidden(count))  # (B, H) -> (B, C)


class MLP(TorchDecoder):
    """How far does the count alone go? Sums each unit over the bins, then hidden layers.

    hidden: units per layer; layers: count.
    """

    name = "mlp"
    title = "MLP on summed counts"
    network = MLPNet
    training: ClassVar[dict[str, Any]] = {
        "max_epochs": 60, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 1e-2,
        "patience": 8, "clip_norm": 1.0,
    }  # fmt: skip


class CNNNet(nn.Module):
    """(B, T, N) -> convolutions (B, F, T) -> every filter at every bin (B, F*T) -> (B, C)."""

    def __init__(
        self, n_bins: int, n_units: int, n_classes: int,
        *, filters: int = 128, kernel: int = 3, layers: int = 2, dropout: float = 0.5,
    ):  # fmt: skip
        super().__init__()
        blocks = []
        for i in range(layers):
            n_in = n_units if i == 0 else filters
            # Zeros at both ends keep the number of bins, also where there is only one.
            conv = nn.Conv1d(n_in, filters, kernel, padding=kernel // 2)
            blocks += [conv, nn.ReLU(), nn.Dropout(dropout)]
        self.convolve = nn.Sequential(*blocks)
        self.head = nn.Linear(filters * n_bins, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.convolve(x.transpose(1, 2))  # (B, T, N) -> (B, N, T) -> (B, F, T)
        return self.head(maps.flatten(1))  # (B, F*T) -> (B, C)


class CNN(TorchDecoder):
    """Filters slide over the bins, units are the channels.

    filters: per layer; kernel: width [bins], odd; layers: convolutions.
    """

    name = "cnn"
    title = "1-D CNN"
    network = CNNNet
    training: ClassVar[dict[str, Any]] = {
        "max_epochs": 40, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 1e-2,
        "patience": 6, "clip_norm": 1.0,
    }  # fmt: skip

    def check(self) -> None:
        super().check()
        require(self.params["kernel"] % 2 == 1, self, "kernel must be odd")


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
