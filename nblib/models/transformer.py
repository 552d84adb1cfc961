"""Transformer over the bins of a presentation: each bin is a token."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nblib.models.base import require, require_shares
from nblib.models.network import TorchDecoder


class Transformer(TorchDecoder):
    """Transformer encoder (Vaswani et al. 2017, NeurIPS), averaged over the bins, read out.

    d_model: size of a token; heads: attention heads; layers: blocks; feedforward: hidden size of
    each block; dropout: inside the blocks; input_dropout: share of units hidden at each step.
    """

    name = "transformer"
    title = "Transformer"
    training: ClassVar[dict[str, Any]] = {
        "max_epochs": 20, "batch_size": 64, "learning_rate": 2e-3, "weight_decay": 1e-2,
        "patience": 5, "clip_norm": 1.0,
    }  # fmt: skip

    def __init__(
        self, *, d_model: int = 128, heads: int = 4, layers: int = 1, feedforward: int = 256,
        dropout: float = 0.2, input_dropout: float = 0.3,
    ):  # fmt: skip
        check_sizes(self)

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        return TransformerNet(n_bins, n_units, n_classes, **self.params)


class TransformerNet(nn.Module):
    """(B, T, N) -> tokens (B, T, D) -> mean over bins (B, D) -> (B, C)."""

    def __init__(self, n_bins: int, n_units: int, n_classes: int, d_model: int, **sizes):
        super().__init__()
        self.encoder = BinEncoder(n_bins, n_units, d_model, **sizes)
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(dim=1))


class BinEncoder(nn.Module):
    """(B, T, N) -> tokens (B, T, D): units to a token, plus a learned place, then attention."""

    def __init__(
        self, n_bins: int, n_units: int, d_model: int,
        heads: int, layers: int, feedforward: int, dropout: float, input_dropout: float,
    ):  # fmt: skip
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout)  # hides units, so that none is relied on
        self.embed = nn.Linear(n_units, d_model)
        # Attention alone cannot tell one bin from another; this vector per bin can.
        self.place = nn.Parameter(0.02 * torch.randn(n_bins, d_model))  # (T, D)
        self.dropout = nn.Dropout(dropout)
        self.blocks = attention_blocks(d_model, heads, layers, feedforward, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(
            self.dropout(self.embed(self.input_dropout(x)) + self.place)
        )  # (B, T, D)


def attention_blocks(
    d_model: int, heads: int, layers: int, feedforward: int, dropout: float
) -> nn.TransformerEncoder:
    """Self-attention blocks that normalise first, which trains without a warm-up."""
    block = nn.TransformerEncoderLayer(
        d_model, heads, feedforward, dropout, "gelu", batch_first=True, norm_first=True
    )
    norm = nn.LayerNorm(d_model)
    return nn.TransformerEncoder(block, layers, norm, enable_nested_tensor=False)


def check_sizes(model: TorchDecoder) -> None:
    """Bounds that every transformer shares."""
    p = model.params
    sizes = ("d_model", "heads", "layers", "feedforward")
    require(all(p[k] >= 1 for k in sizes), model, f"{', '.join(sizes)} >= 1 needed")
    require(p["d_model"] % p["heads"] == 0, model, "d_model must be a multiple of heads")
    require_shares(model, "dropout", "input_dropout")
