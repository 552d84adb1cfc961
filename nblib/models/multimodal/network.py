"""The masked network: one token a bin, the sum of what is visible of spikes, signals and variables.

A token a bin, not one a modality and bin, makes it some eight times faster at these sizes. Layers in and
out belong to a session, the trunk and the heads of signals and variables to all. Its answers are what
is said where a trial is not looked at, plus what it has learned.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOST_LOG_RATE = 5.0
SMOOTH = 2.0  # width of the Gaussian that smooths counts, causal: of its earlier half [bins]
OF_SESSION = ("units_in", "units_out", "session")  # layers that belong to one


@dataclass(frozen=True)
class Shape:
    """n_units: of each session; n_classes: of each variable; causal: a bin sees no later one; trunk: how bins
    learn of each other, "gru" or "transformer"."""

    n_units: list[int]
    n_bins: int
    n_signals: int
    n_classes: list[int]
    width: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.3
    input_dropout: float = 0.2
    causal: bool = False
    trunk: str = "gru"


class MaskedNetwork(nn.Module):
    """A network of this shape, which has learned nothing yet."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.config, width = asdict(shape), shape.width
        self.units_in = nn.ModuleList(nn.Linear(2 * n, width) for n in shape.n_units)
        self.units_out = nn.ModuleList(nn.Linear(width, n) for n in shape.n_units)
        self.session = nn.Parameter(torch.zeros(len(shape.n_units), width))
        self.time = nn.Parameter(0.02 * torch.randn(shape.n_bins, width))
        self.signals_in = nn.Linear(2 * shape.n_signals, width)
        self.variables_in = nn.ModuleList(nn.Embedding(c + 1, width) for c in shape.n_classes)
        self.drop = nn.Dropout(shape.input_dropout)
        if shape.trunk == "gru":
            dropout = shape.dropout if shape.layers > 1 else 0.0  # between layers alone
            ways = {"dropout": dropout, "bidirectional": not shape.causal, "batch_first": True}
            self.trunk = nn.GRU(width, width if shape.causal else width // 2, shape.layers, **ways)
        else:
            block = nn.TransformerEncoderLayer(
                width,
                shape.heads,
                2 * width,
                shape.dropout,
                "gelu",
                batch_first=True,
                norm_first=True,
            )
            self.trunk = nn.TransformerEncoder(
                block, shape.layers, nn.LayerNorm(width), enable_nested_tensor=False
            )
        self.signals_out = nn.Linear(width, shape.n_signals)
        self.variables_out = nn.ModuleList(nn.Linear(width, c) for c in shape.n_classes)
        for head in (*self.units_out, self.signals_out, *self.variables_out):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        later = torch.ones(shape.n_bins, shape.n_bins, dtype=torch.bool).triu(1)
        self.register_buffer("later", later if shape.causal else None, persistent=False)
        t = torch.arange(shape.n_bins, dtype=torch.float32)
        near = torch.exp(-0.5 * ((t[:, None] - t) / SMOOTH) ** 2)
        near = near.tril() if shape.causal else near
        self.register_buffer("near", near / near.sum(dim=1, keepdim=True), persistent=False)

    def take_over(self, other: MaskedNetwork) -> None:
        """Begin with what a network of other sessions learned, and with the mean of its sessions."""
        shared = {n: w for n, w in other.state_dict().items() if not n.startswith(OF_SESSION)}
        self.load_state_dict(shared, strict=False)
        with torch.no_grad():
            self.session[:] = other.session.mean(dim=0)

    def train_only_sessions(self, only: bool) -> None:
        """Whether only the layers that belong to a session learn."""
        for name, weight in self.named_parameters():
            weight.requires_grad_(not only or name.startswith(OF_SESSION))

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Log rates (B, T, N), signals (B, T, S), log-probabilities (B, C) of each variable.

        batch: session, its number; x (B, T, N), signals (B, T, S), variables (B, Q); what of these is hidden
        as `hide_spikes`, `hide_signals`, `hide_variables`; and what the answers begin with: `rest_rates`
        (B, T, N), `rest_signals` (B, T, S) and `rest_0`, … (B, C).
        """
        k, no_spikes, no_signals = batch["session"], batch["hide_spikes"], batch["hide_signals"]
        no_variables = batch["hide_variables"]
        # Smoothed when what is hidden is gone, so that none of it gets into the bins around.
        x = self.near @ self.drop(batch["x"].masked_fill(no_spikes, 0))
        signals = batch["signals"].masked_fill(no_signals, 0)
        token = self.units_in[k](torch.cat([x, no_spikes.to(x.dtype)], dim=-1))
        token = token + self.time + self.session[k]
        token = token + self.signals_in(torch.cat([signals, no_signals.to(x.dtype)], dim=-1))
        for q, embed in enumerate(self.variables_in):
            none = embed.num_embeddings - 1
            variable = batch["variables"][:, q].masked_fill(no_variables[:, q], none)
            token = token + embed(variable)[:, None]
        gru = isinstance(self.trunk, nn.GRU)
        h = self.trunk(token)[0] if gru else self.trunk(token, mask=self.later)  # (B, T, D)
        rates = batch["rest_rates"] + self.units_out[k](h)
        signals = batch["rest_signals"] + self.signals_out(h)
        middle = h.mean(dim=1)
        variables = [
            torch.log_softmax(batch[f"rest_{q}"] + head(middle), dim=-1)
            for q, head in enumerate(self.variables_out)
        ]
        return rates.clamp(max=MOST_LOG_RATE), signals, variables
