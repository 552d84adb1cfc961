"""What torch decoders share, a network that `nblib.models.training.fit` trains; and the small networks.

A perceptron, filters that slide over the bins, LSTM and GRU.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from nblib.models import MODELS, make
from nblib.models.base import Decoder, keyword_defaults, require
from nblib.models.linear import LinearDecoder
from nblib.models.poisson import holds_counts
from nblib.models.settings import FitSettings, reproducible
from nblib.prepare.decoder_inputs import Samples

_PREDICT_BATCH = 512


class Started(nn.Module):
    """Logits of a network, added to those of a linear decoder that training leaves alone.

    hidden: share of the numbers that the linear decoder does not see at a step of training. It knows
    the train rows too well: were it to see all of them, the network would find nothing to learn.
    """

    def __init__(self, net: nn.Module, weight: Tensor, bias: Tensor, hidden: float):
        super().__init__()
        self.net, self.hide = net, nn.Dropout(hidden)
        self.register_buffer("weight", weight)  # (T*N, C)
        self.register_buffer("bias", bias)  # (C,)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.hide(x).flatten(1) @ self.weight + self.bias


class TorchDecoder(Decoder):
    """A decoder around a network: x (B, T, N) -> logits (B, C).

    `network` is a module made by (n_bins, n_units, n_classes) and keyword-only arguments, which are
    hyper-parameters of the decoder. Its last linear layer makes the logits. What all networks have:

    linear: a linear decoder, learnt from the train rows, to whose logits the network adds its own, none
    at first; so training begins where that one ends, and validation says how far it goes. "" for
    none; there is none either where samples are no counts (see `scaling`). linear_dropout: share of the
    counts hidden from it at each step of training.
    """

    is_network = True
    common: ClassVar[dict[str, Any]] = {"linear": "bayes_poisson", "linear_dropout": 0.5}
    at_once = 0  # samples whose gradients a training step makes at a time; 0: its whole batch
    network: ClassVar[type[nn.Module]]
    net: nn.Module
    first: LinearDecoder | None = None  # what it started from
    chosen: LinearDecoder | None = None  # what it starts from, once validation has chosen
    whole: nn.Module  # the network, and what it starts from

    @classmethod
    def source(cls) -> type[nn.Module] | None:
        return getattr(cls, "network", None)

    def check(self) -> None:
        """Whole numbers are sizes, at least 1; names that end in dropout are shares in [0, 1)."""
        values = self.network_params() | {"linear_dropout": self.params["linear_dropout"]}
        sizes = [name for name, value in values.items() if type(value) is int]
        at_least = all(values[name] >= 1 for name in sizes)
        require(at_least, self, f"{', '.join(sizes)} >= 1 needed")
        for name in values:
            if name.endswith("dropout"):
                require(0 <= values[name] < 1, self, f"0 <= {name} < 1 needed")
        linear = self.params["linear"]
        known = not linear or (linear in MODELS and issubclass(MODELS[linear], LinearDecoder))
        require(known, self, 'linear must be a linear decoder, or ""')

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
        self.begin(train, val, settings)
        history = training.fit(
            self.whole, train, val, settings, folder, resume=resume, identity=self._identity(),
            at_once=self.at_once,
        )  # fmt: skip
        self.fitted, history.attrs = dict(history.attrs), {}
        return history

    def begin(self, train: Samples, val: Samples | None, settings: FitSettings) -> None:
        """Make the whole that learns: fresh weights, and what they start from."""
        if self.chosen is not None:
            self.first = self.chosen
            self.first._refit(train, settings)
        elif self.params["linear"] and holds_counts(train.x, self):
            pair = None if val is None else (val.x, val.y)
            self.first = make(self.params["linear"], settings=settings, scaling=self.scaling)
            self.first.fit(train.x, train.y, pair, n_classes=self.n_classes)
        else:
            self.first = None
        self.whole = self.net
        if self.first is not None:
            self._start_from(self.first.weight, self.first.bias)
            *_, read_out = (m for m in self.net.modules() if isinstance(m, nn.Linear))
            nn.init.zeros_(read_out.weight)
            nn.init.zeros_(read_out.bias)

    def _start_from(self, weight: np.ndarray, bias: np.ndarray) -> None:
        linear = (torch.as_tensor(values, dtype=torch.float32) for values in (weight, bias))
        self.whole = Started(self.net, *linear, self.params["linear_dropout"])

    def _refit(self, both: Samples, settings: FitSettings) -> None:
        """From fresh weights, for as many epochs as the best one had."""
        from nblib.models import training

        epochs = self.fitted["best_epoch"] + 1
        self.chosen = self.first
        with training.watching(None):  # who watches has seen how validation went
            self._fit(both, None, replace(settings, max_epochs=epochs), None, "")
        self.chosen = None

    def _identity(self) -> dict[str, Any]:
        # Lists, not tuples: checkpoints hold plain values.
        params = {k: list(v) if isinstance(v, tuple) else v for k, v in self.params.items()}
        return {"model": self.name, "params": params}

    def _log_proba(self, x: np.ndarray) -> np.ndarray:
        self.whole.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(np.ascontiguousarray(x)).split(_PREDICT_BATCH)
            logits = [self.whole(part).double() for part in parts]  # (b, C) each
            return torch.cat(logits).log_softmax(dim=1).numpy()

    def _weights(self) -> dict[str, np.ndarray]:
        tensors = self.net.state_dict()
        if self.whole is not self.net:
            tensors |= {"linear.weight": self.whole.weight, "linear.bias": self.whole.bias}
        return {k: v.detach().cpu().numpy() for k, v in tensors.items()}

    def _set_weights(self, weights: dict[str, np.ndarray]) -> None:
        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, then replaced
            self.net = self.build(self.n_bins, self.n_units, self.n_classes)
        start = [weights[k] for k in ("linear.weight", "linear.bias") if k in weights]
        own = {k: torch.from_numpy(v) for k, v in weights.items() if not k.startswith("linear.")}
        self.net.load_state_dict(own)
        self.whole = self.net
        if start:
            self._start_from(*start)


class MLPNet(nn.Module):
    """(B, T, N) -> every count (B, T*N), or sums over bins (B, N) -> hidden layers (B, H) -> (B, C)."""

    def __init__(
        self, n_bins: int, n_units: int, n_classes: int,
        *, hidden: int = 256, layers: int = 1, dropout: float = 0.5, summed: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.summed = summed
        sizes = [n_units if summed else n_bins * n_units] + [hidden] * layers
        blocks = []
        for n_in, n_out in pairwise(sizes):
            blocks += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*blocks)
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        # The root keeps the spread near 1 whatever the number of bins.
        counts = x.sum(dim=1) / x.shape[1] ** 0.5 if self.summed else x.flatten(1)
        return self.head(self.hidden(counts))  # (B, H) -> (B, C)


class MLP(TorchDecoder):
    """Hidden layers on the counts of every unit and bin.

    hidden: units per layer; layers: count; summed: each unit is summed over the bins first. How far
    does the count alone go? That takes `linear` "" beside it, which sees the bins.
    """

    name = "mlp"
    title = "MLP"
    network = MLPNet
    training: ClassVar[dict[str, Any]] = {
        "max_epochs": 60, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 1e-2,
        "patience": 8, "clip_norm": 1.0,
    }  # fmt: skip

    def check(self) -> None:
        super().check()
        alone = not (self.params["summed"] and self.params["linear"])
        require(alone, self, 'summed counts need linear "", which sees every bin')


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
