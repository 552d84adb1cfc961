"""Transformers over the bins of a presentation, each bin a token; alone, or read by an LSTM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from nblib.models import FitSettings, reproducible
from nblib.models.base import require
from nblib.models.network import LSTMNet, TorchDecoder
from nblib.prepare.decoder_inputs import Samples


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
        tokens = self.embed(self.input_dropout(x)) + self.place
        return self.blocks(self.dropout(tokens))  # (B, T, D)


def attention_blocks(
    d_model: int, heads: int, layers: int, feedforward: int, dropout: float
) -> nn.TransformerEncoder:
    """Self-attention blocks that normalise first, which trains without a warm-up."""
    block = nn.TransformerEncoderLayer(
        d_model, heads, feedforward, dropout, "gelu", batch_first=True, norm_first=True
    )
    norm = nn.LayerNorm(d_model)
    return nn.TransformerEncoder(block, layers, norm, enable_nested_tensor=False)


class TransformerNet(nn.Module):
    """(B, T, N) -> tokens (B, T, D) -> mean over bins (B, D) -> (B, C)."""

    def __init__(
        self, n_bins: int, n_units: int, n_classes: int,
        *, d_model: int = 128, heads: int = 4, layers: int = 1, feedforward: int = 256,
        dropout: float = 0.2, input_dropout: float = 0.3,
    ):  # fmt: skip
        super().__init__()
        self.encoder = BinEncoder(
            n_bins, n_units, d_model, heads, layers, feedforward, dropout, input_dropout
        )
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(dim=1))


class Transformer(TorchDecoder):
    """Transformer encoder (Vaswani et al. 2017, NeurIPS), averaged over the bins, read out.

    d_model: size of a token; heads: attention heads; layers: blocks; feedforward: hidden size of
    each block; dropout: inside the blocks; input_dropout: share of units hidden at each step.
    """

    name = "transformer"
    title = "Transformer"
    network = TransformerNet
    training = {"max_epochs": 20, "learning_rate": 2e-3, "weight_decay": 1e-2, "patience": 5}

    def check(self) -> None:
        super().check()
        fits = self.params["d_model"] % self.params["heads"] == 0
        require(fits, self, "d_model must be a multiple of heads")


class EncoderLSTM(nn.Module):
    """(B, T, N) -> tokens (B, T, D) -> LSTM, last state (B, H) -> (B, C)."""

    frozen = False  # then the encoder does not drop tokens, whatever mode the rest is in

    def __init__(
        self, n_bins: int, n_units: int, n_classes: int,
        *, d_model: int = 128, heads: int = 4, layers: int = 1, feedforward: int = 256,
        hidden: int = 128, dropout: float = 0.2, input_dropout: float = 0.3,
    ):  # fmt: skip
        super().__init__()
        self.encoder = BinEncoder(
            n_bins, n_units, d_model, heads, layers, feedforward, dropout, input_dropout
        )
        self.reader = LSTMNet(
            n_bins, d_model, n_classes, hidden=hidden, dropout=dropout, input_dropout=0.0
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.encoder(x))

    def train(self, mode: bool = True) -> EncoderLSTM:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self


class TransformerLSTM(Transformer):
    """The transformer's tokens, one per bin, are read by an LSTM; both learn from the labels.

    hidden: state of the LSTM; the rest as in the transformer.
    """

    name = "transformer_lstm"
    title = "Transformer → LSTM"
    network = EncoderLSTM


class Autoencoder(nn.Module):
    """(B, T, N) -> tokens (B, T, D) -> blocks of the same kind -> rebuilt (B, T, N)."""

    def __init__(self, encoder: BinEncoder, n_units: int, d_model: int, **sizes):
        super().__init__()
        self.encoder = encoder
        self.blocks = attention_blocks(d_model, **sizes)
        self.rebuild = nn.Linear(d_model, n_units)

    def forward(self, x: Tensor) -> Tensor:
        return self.rebuild(self.blocks(self.encoder(x)))


class AutoencoderLSTM(Transformer):
    """The lab's two steps: an autoencoder rebuilds the train counts, then an LSTM reads its tokens.

    The autoencoder sees train rows only and no label; validation rows choose its epoch by the
    error of rebuilding them. freeze: keep the encoder as pre-trained (the lab's way), or let the
    labels change it; pretrain_epochs: passes of the first step; hidden: state of the LSTM; the
    rest as in the transformer.
    """

    name = "autoencoder_lstm"
    title = "Autoencoder → LSTM"
    network = EncoderLSTM
    more = Transformer.more | {"input_dropout": 0.2, "pretrain_epochs": 5, "freeze": True}
    encoder: BinEncoder | None = None  # as pre-trained

    def check(self) -> None:
        super().check()
        require(self.params["pretrain_epochs"] >= 1, self, "pretrain_epochs >= 1 needed")

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        net = super().build(n_bins, n_units, n_classes)
        net.frozen = self.params["freeze"]
        net.encoder = (self.encoder or net.encoder).requires_grad_(not net.frozen)
        return net

    def _train(
        self, train: Samples, val: Samples | None, settings: FitSettings, **checkpoint: Any
    ) -> pd.DataFrame:
        from nblib.models import training
        from nblib.models.checkpoints import stage_of

        stage = stage_of(checkpoint.get("resume", ""))
        self.encoder = first = None
        if stage != "fit":  # a checkpoint of the second step holds the encoder already
            sizes = ("d_model", "heads", "layers", "feedforward", "dropout")
            with reproducible(settings.seed):
                encoder = self.build(self.n_bins, self.n_units, self.n_classes).encoder
                autoencoder = Autoencoder(
                    encoder, self.n_units, **{name: self.params[name] for name in sizes}
                ).requires_grad_(True)
            before = replace(settings, max_epochs=self.params["pretrain_epochs"])
            options = {
                "loss": training.reconstruct,
                "stage": "pretrain",
                "identity": self._identity(),
            }
            first = training.fit(autoencoder, train, val, before, **options, **checkpoint)
            self.encoder = encoder
        if stage == "pretrain":
            checkpoint["resume"] = ""
        history = super()._train(train, val, settings, **checkpoint)
        if first is not None:
            losses = ["train_loss"] if val is None else ["train_loss", "val_loss"]
            self.fitted["pretrain"] = first[["epoch", *losses]].to_dict("records")
        return history
