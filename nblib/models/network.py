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

from nblib.models import MODELS, FitSettings, make, reproducible
from nblib.models.base import Decoder, keyword_defaults, require
from nblib.models.linear import LinearDecoder
from nblib.models.poisson import holds_counts
from nblib.prepare.decoder_inputs import Samples


class LinearStart(nn.Module):
    """Logits of a linear decoder that training leaves alone: x (B, T, N) -> (B, C).

    hidden: share of the numbers that it does not see at a step of training. It knows the train rows
    too well: were it to see all of them, the network would find nothing to learn.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray, hidden: float):
        super().__init__()
        self.hide = nn.Dropout(hidden)
        self.register_buffer("weight", torch.as_tensor(weight, dtype=torch.float32))  # (T*N, C)
        self.register_buffer("bias", torch.as_tensor(bias, dtype=torch.float32))  # (C,)

    def forward(self, x: Tensor) -> Tensor:
        return self.hide(x).flatten(1) @ self.weight + self.bias


def _add_logits(net: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
    return logits + net.linear(*inputs)


class TorchDecoder(Decoder):
    """A decoder around a network: x (B, T, N) -> logits (B, C).

    `network` is a module made by (n_bins, n_units, n_classes) and keyword-only arguments, which are
    hyper-parameters of the decoder. Its last linear layer makes the logits. What all networks have:

    linear: a linear decoder, learnt from the train rows, to whose logits the network adds its own, none
    at first; so training begins where that one ends, and validation says how far it goes. "" for none;
    there is none either where samples are no counts (see `scaling`). linear_dropout: share of the
    counts hidden from it at each step of training.
    """

    is_network = True
    more: ClassVar[dict[str, Any]] = {"linear": "bayes_poisson", "linear_dropout": 0.5}
    at_once = 0  # samples that training looks at in one go; 0: a whole batch
    predict_batch = 512
    network: ClassVar[type[nn.Module]]
    net: nn.Module
    first: LinearDecoder | None = None  # what it starts from

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
        self, train: Samples, val: Samples | None, settings: FitSettings, **checkpoint: Any
    ) -> pd.DataFrame:
        self.first, pair = None, None if val is None else (val.x, val.y)
        if self.params["linear"] and holds_counts(train.x, self):
            self.first = make(self.params["linear"], settings=settings, scaling=self.scaling)
            self.first.fit(train.x, train.y, pair, n_classes=self.n_classes)
        return self._train(train, val, settings, **checkpoint)

    def _refit(self, both: Samples, settings: FitSettings) -> None:
        """From fresh weights, for as many epochs as the best one had."""
        from nblib.models import training

        if self.first is not None:
            self.first._refit(both, settings)
        settings = replace(settings, max_epochs=self.fitted["best_epoch"] + 1)
        with training.watching(None):  # who watches has seen how validation went
            self._train(both, None, settings)

    def _train(
        self, train: Samples, val: Samples | None, settings: FitSettings, **checkpoint: Any
    ) -> pd.DataFrame:
        """Make the network and teach it; its history. Fills `fitted`."""
        # Brings Lightning, which loading and predicting do without.
        from nblib.models import training

        with reproducible(settings.seed):
            self.net = self.build(self.n_bins, self.n_units, self.n_classes)
        self.begin()
        options = {"identity": self._identity(), "at_once": self.at_once, **checkpoint}
        history = training.fit(self.net, train, val, settings, **options)
        self.fitted, history.attrs = dict(history.attrs), {}
        return history

    def begin(self) -> None:
        """Let the network begin where the linear decoder ends: its own logits are 0 at first."""
        if self.first is not None:
            *_, read_out = (m for m in self.net.modules() if isinstance(m, nn.Linear))
            nn.init.zeros_(read_out.weight)
            nn.init.zeros_(read_out.bias)
            self._add_linear(self.first.weight, self.first.bias)

    def _add_linear(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.net.linear = LinearStart(weight, bias, self.params["linear_dropout"])
        self.net.register_forward_hook(_add_logits)

    def _identity(self) -> dict[str, Any]:
        # Lists, not tuples: checkpoints hold plain values.
        params = {k: list(v) if isinstance(v, tuple) else v for k, v in self.params.items()}
        return {"model": self.name, "params": params}

    def _log_proba(self, x: np.ndarray) -> np.ndarray:
        self.net.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(np.ascontiguousarray(x)).split(self.predict_batch)
            logits = [self.net(part).double() for part in parts]  # (b, C) each
            return torch.cat(logits).log_softmax(dim=1).numpy()

    def _weights(self) -> dict[str, np.ndarray]:
        return {k: v.detach().cpu().numpy() for k, v in self.net.state_dict().items()}

    def _set_weights(self, weights: dict[str, np.ndarray]) -> None:
        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, then replaced
            self.net = self.build(self.n_bins, self.n_units, self.n_classes)
        if "linear.weight" in weights:
            self._add_linear(weights["linear.weight"], weights["linear.bias"])
        self.net.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})


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
    training = {"max_epochs": 60, "learning_rate": 1e-3, "weight_decay": 1e-2, "patience": 8}

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
    training = {"max_epochs": 40, "learning_rate": 1e-3, "weight_decay": 1e-2, "patience": 6}

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
    training = {"max_epochs": 30, "learning_rate": 2e-3, "weight_decay": 1e-2, "patience": 5}


class GRU(LSTM):
    """Gated recurrent units (Cho et al. 2014, EMNLP), the LSTM's lighter sibling; settings alike."""

    name = "gru"
    title = "GRU"
    network = GRUNet
