"""A multi-layer perceptron on summed counts: how far does the count alone go?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn

from nblib.models.base import require, require_shares
from nblib.models.network import TorchDecoder


class MLP(TorchDecoder):
    """Sums each unit over the bins, then hidden layers. hidden: units per layer; layers: count."""

    name = "mlp"
    title = "MLP on summed counts"
    training: ClassVar[dict[str, Any]] = {
        "max_epochs": 60, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 1e-2,
        "patience": 8, "clip_norm": 1.0,
    }  # fmt: skip

    def __init__(self, *, hidden: int = 256, layers: int = 1, dropout: float = 0.5):
        require(hidden >= 1 and layers >= 1, self, "hidden >= 1 and layers >= 1 needed")
        require_shares(self, "dropout")

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        return MLPNet(n_units, n_classes, **self.params)


class MLPNet(nn.Module):
    """(B, T, N) -> sum over bins (B, N) -> hidden layers (B, H) -> (B, C)."""

    def __init__(self, n_units: int, n_classes: int, hidden: int, layers: int, dropout: float):
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
