"""What torch decoders share, a network that `nblib.models.training.fit` trains; and the small networks.

A perceptron on summed counts, filters that slide over the bins, LSTM and GRU.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from nblib.models.base import Decoder, keyword_defaults, require
from nblib.models.settings import FitSettings, reproducible
from nblib.prepare.decoder_inputs import Samples

_PREDICT_BATCH = 512


class TorchDecoder(Decoder):
    """A decoder around a network: x (B, T, N) -> logits (B, C).

    `network` is a module made by (n_bins, n_units, n_classes) and keyword-only arguments, which are
    the decoder's hyper-parameters.
    """

    is_network = True
    at_once = 0  # samples whose gradients a training step makes at a time; 0: its whole batch
    network: ClassVar[type[nn.Module]]
    net: nn.Module

    @classmethod
    def source(cls) -> type[nn.Module] | None:
        return getattr(cls, "network", None)

    def check(self) -> None:
        """Whole numbers are sizes, at least 1; names that end in dropout are shares in [0, 1)."""
        values = self.network_params()
        sizes = [name for name, value in values.items() if type(value) is int]
        at_least = all(values[name] >= 1 for name in sizes)
        require(at_least, self, f"{', '.join(sizes)} >= 1 needed")
        for name in values:
            if name.endswith("dropout"):
                require(0 <= values[name] < 1, self, f"0 <= {name} < 1 needed")

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        """The network with fresh weights."""
        return self.network(n_bins, n_units, n_classes, **self.network_params())

    def network_params(self) -> dict[str, Any]:
        """The hyper-parameters that are the network's."""
        return {name: self.params[name] for name in keyword_defaults(self.network)}

    def _fit(
        self, train: Samples, val: Samples | None, settings: FitSettings, folder: Any, resume: Any
    ) -> pd.DataFrame:
        # Brings Lightning, which loading and predicting do without.
        from nblib.models import training

        with reproducible(settings.seed):
            self.net = self.build(self.n_bins, self.n_units, self.n_classes)
        history = training.fit(
            self.net, train, val, settings, folder, resume=resume, identity=self._identity(),
            at_once=self.at_once,
        )  # fmt: skip
        self.fitted, history.attrs = dict(history.attrs), {}
        return history

    def _refit(self, both: Samples, settings: FitSettings) -> None:
        """From fresh weights, for as many epochs as the best one had."""
        from nblib.models import training

        epochs = self.fitted["best_epoch"] + 1
        with training.watching(None):  # who watches has seen how validation went
            self._fit(both, None, replace(settings, max_epochs=epochs), None, "")

    def _identity(self) -> dict[str, Any]:
        # Lists, not tuples: checkpoints hold plain values.
        params = {k: list(v) if isinstance(v, tuple) else v for k, v in self.params.items()}
        return {"model": self.name, "params": params}

    def _log_proba(self, x: np.ndarray) -> np.ndarray:
        self.net.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(np.ascontiguousarray(x)).split(_PREDICT_BATCH)
            logits = [self.net(part).double() for part in parts]  # (b, C) each
            return torch.cat(logits).log_softmax(dim=1).numpy()

    def _weights(self) -> dict[str, np.ndarray]:
        return {k: v.detach().cpu().numpy() for k, v in self.net.state_dict().items()}

    def _set_weights(self, weights: dict[str, np.ndarray]) -> None:
        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, then replaced
            self.net = self.build(self.n_bins, self.n_units, self.n_classes)
        self.net.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
        self.net.eval()


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
