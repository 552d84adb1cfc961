"""The torch decoders' common part: a network that `nblib.models.training.fit` trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import nn

from nblib.models.base import Decoder, keyword_defaults, require
from nblib.models.settings import FitSettings
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

        with training.reproducible(settings.seed):
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
