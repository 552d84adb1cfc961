"""The lab's two-step decoder: a transformer autoencoder without labels, then an LSTM with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from torch import Tensor, nn

from nblib.models.base import require
from nblib.models.network import TorchDecoder
from nblib.models.transformer import BinEncoder, Transformer, attention_blocks, check_sizes
from nblib.models.transformer_lstm import EncoderLSTM
from nblib.prepare.samples import Samples


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
