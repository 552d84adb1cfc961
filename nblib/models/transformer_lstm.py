"""Transformer, then LSTM, trained end to end."""

from __future__ import annotations

from torch import Tensor, nn

from nblib.models.base import require
from nblib.models.lstm import RecurrentNet
from nblib.models.network import TorchDecoder
from nblib.models.transformer import BinEncoder, Transformer, check_sizes


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
