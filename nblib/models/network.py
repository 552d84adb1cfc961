"""The torch decoders' common part: a network that `nblib.models.training.fit` trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from nblib.models.base import Decoder
from nblib.prepare.samples import Samples

_PREDICT_BATCH = 512


class TorchDecoder(Decoder):
    """A decoder whose subclass builds the network: x (B, T, N) -> logits (B, C)."""

    net: nn.Module

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        """The network with fresh weights."""
        raise NotImplementedError

    def _fit(
        self, train: Samples, val: Samples | None, settings: Any, folder: Any, resume: Any
    ) -> pd.DataFrame:
        from nblib.models import (
            training,  # brings Lightning, which loading and predicting do without
        )

        wanted = training.FitSettings.of(settings, self.training)
        with training.reproducible(wanted.seed):
            self.net = self.build(self.n_bins, self.n_units, self.n_classes)
        history = training.fit(
            self.net, train, val, wanted, folder, resume=resume, identity=self._identity()
        )
        self.fitted, history.attrs = dict(history.attrs), {}
        return history

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
