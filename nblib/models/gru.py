"""GRU over the bins of a presentation: the LSTM's lighter sibling."""

from __future__ import annotations

from torch import nn

from nblib.models.lstm import LSTM


class GRU(LSTM):
    """Gated recurrent units (Cho et al. 2014, EMNLP), read out at the last bin.

    hidden, layers and dropout as in the LSTM.
    """

    name = "gru"
    title = "GRU"
    cell = nn.GRU

    def __init__(
        self,
        *,
        hidden: int = 200,
        layers: int = 1,
        dropout: float = 0.5,
        input_dropout: float = 0.5,
    ):
        super().__init__(hidden=hidden, layers=layers, dropout=dropout, input_dropout=input_dropout)
