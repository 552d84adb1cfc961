"""Transformers over the bins of a presentation, each bin a token; alone, or read by an LSTM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import Tensor, nn

from nblib.models.base import require, require_shares
from nblib.models.network import TorchDecoder
from nblib.models.recurrent import RecurrentNet
from nblib.prepare.samples import Samples


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


class TransformerLSTM(TorchDecoder):
    """The transformer's tokens, one per bin, are read by an LSTM; both learn from the labels.

    hidden: state of the LSTM; the rest as in the transformer.
    """

    name = "transformer_lstm"
    title = "Transformer → LSTM"
    training = Transformer.training

    def __init__(
        self, *, d_model: int = 128, heads: int = 4, layers: int = 1, feedforward: int = 256,
        hidden: int = 128, dropout: float = 0.2, input_dropout: float = 0.3,
    ):  # fmt: skip
        check_sizes(self)
        require(hidden >= 1, self, "hidden >= 1 needed")

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        sizes = dict(self.params)
        hidden = sizes.pop("hidden")
        encoder = BinEncoder(n_bins, n_units, **sizes)
        return EncoderLSTM(encoder, sizes["d_model"], n_classes, hidden, sizes["dropout"])


class EncoderLSTM(nn.Module):
    """(B, T, N) -> tokens (B, T, D) -> LSTM, last state (B, H) -> (B, C)."""

    def __init__(
        self, encoder: nn.Module, d_model: int, n_classes: int, hidden: int, dropout: float
    ):
        super().__init__()
        self.encoder = encoder
        self.reader = RecurrentNet(
            nn.LSTM, d_model, n_classes, hidden, layers=1, dropout=dropout, input_dropout=0.0
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.encoder(x))


class AutoencoderLSTM(TorchDecoder):
    """A transformer autoencoder learns to rebuild the train counts; an LSTM reads its tokens.

    The autoencoder sees train rows only and no label; validation rows choose its epoch by the
    error of rebuilding them. freeze: keep the encoder as pre-trained (the lab's way), or let the
    labels change it; pretrain_epochs: passes of the first step; hidden: state of the LSTM; the
    rest as in the transformer.
    """

    name = "autoencoder_lstm"
    title = "Autoencoder → LSTM"
    training = Transformer.training

    def __init__(
        self, *, d_model: int = 128, heads: int = 4, layers: int = 1, feedforward: int = 256,
        hidden: int = 128, dropout: float = 0.2, input_dropout: float = 0.2,
        pretrain_epochs: int = 5, freeze: bool = True,
    ):  # fmt: skip
        check_sizes(self)
        require(hidden >= 1 and pretrain_epochs >= 1, self, "hidden, pretrain_epochs >= 1 needed")

    def build(self, n_bins: int, n_units: int, n_classes: int) -> nn.Module:
        encoder = BinEncoder(n_bins, n_units, **self._sizes())
        net = FrozenEncoderLSTM if self.params["freeze"] else EncoderLSTM
        hidden, dropout = self.params["hidden"], self.params["dropout"]
        return net(encoder, self.params["d_model"], n_classes, hidden, dropout)

    def _fit(
        self, train: Samples, val: Samples | None, settings: Any, folder: Any, resume: Any
    ) -> pd.DataFrame:
        from nblib.models import training

        wanted = training.FitSettings.of(settings, self.training)
        identity = self._identity()
        stage = training.stage_of(resume)
        with training.reproducible(wanted.seed):
            self.net = self.build(self.n_bins, self.n_units, self.n_classes)
            autoencoder = Autoencoder(self.net.encoder, self.n_units, **self._sizes())
        first = None
        if stage != "fit":  # a checkpoint of the second step holds the encoder already
            first = training.fit(
                autoencoder, train, val, replace(wanted, max_epochs=self.params["pretrain_epochs"]),
                folder, loss=training.reconstruct, stage="pretrain", identity=identity,
                resume=resume if stage in ("auto", "pretrain") else "",
            )  # fmt: skip
        self.net.encoder.requires_grad_(not self.params["freeze"])
        history = training.fit(
            self.net, train, val, wanted, folder, identity=identity,
            resume=resume if stage in ("auto", "fit") else "",
        )  # fmt: skip
        self.fitted, history.attrs = dict(history.attrs), {}
        if first is not None:
            self.fitted["pretrain"] = first[["epoch", "train_loss", "val_loss"]].to_dict("records")
        return history

    def _sizes(self) -> dict[str, Any]:
        names = ("d_model", "heads", "layers", "feedforward", "dropout", "input_dropout")
        return {k: self.params[k] for k in names}


class Autoencoder(nn.Module):
    """(B, T, N) -> tokens (B, T, D) -> blocks of the same kind -> rebuilt (B, T, N)."""

    def __init__(self, encoder: BinEncoder, n_units: int, d_model: int, **sizes):
        super().__init__()
        self.encoder = encoder
        sizes.pop("input_dropout")  # the encoder's own
        self.blocks = attention_blocks(d_model, **sizes)
        self.rebuild = nn.Linear(d_model, n_units)

    def forward(self, x: Tensor) -> Tensor:
        return self.rebuild(self.blocks(self.encoder(x)))


class FrozenEncoderLSTM(EncoderLSTM):
    """The encoder neither learns nor drops tokens, whatever mode the rest is in."""

    def train(self, mode: bool = True) -> FrozenEncoderLSTM:
        super().train(mode)
        self.encoder.eval()
        return self
