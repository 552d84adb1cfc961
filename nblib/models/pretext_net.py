"""An embedder under a pretext task, and the batches it learns from.

The windows of a step are embedded once, however many samples they take part in: each step draws
its samples from a few recordings.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nblib.models.stagernet import StagerNet

CONTEXT = 100  # units of the GRU of CPC
# rng -> rows of the windows (P, ...), y (P,)
Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


class PretextNet(nn.Module):
    """Embedder and head of one task: (windows (U, T, C), index) -> logits (P, K), the truth at y.

    rp: index (P, 2), linear on |h1 - h2|; ts: (P, 3), linear on [|h1 - h2|, |h2 - h3|]; cpc: index
    (P, n_context + n_ahead * (1 + n_negatives)), a GRU over the context and a bilinear map for each
    step ahead (van den Oord et al. 2018); its logits are (P * n_ahead, 1 + n_negatives).
    """

    def __init__(self, embedder: StagerNet, task: str, n_context: int = 0, n_ahead: int = 0):
        super().__init__()
        self.embedder, self.task = embedder, task
        self.n_context, self.n_ahead = n_context, n_ahead
        size = embedder.config["embedding"]
        if task == "cpc":
            self.context = nn.GRU(size, CONTEXT, batch_first=True)
            self.ahead = nn.Parameter(torch.empty(n_ahead, CONTEXT, size))
            nn.init.xavier_uniform_(self.ahead)
        else:
            self.head = nn.Linear(size * (2 if task == "ts" else 1), 1)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        windows, index = batch
        h = self.embedder(windows)  # (U, E)
        if self.task == "cpc":
            return self._cpc(h, index)
        a = h[index]  # (P, 2 or 3, E)
        apart = (a[:, 1:] - a[:, :-1]).abs().flatten(1)
        score = self.head(apart)
        return torch.cat([torch.zeros_like(score), score], dim=1)  # (P, 2)

    def _cpc(self, h: Tensor, index: Tensor) -> Tensor:
        context, told = index[:, : self.n_context], index[:, self.n_context :]
        state = self.context(h[context])[0][:, -1]  # (P, CONTEXT)
        told = h[told.reshape(len(index), self.n_ahead, -1)]  # (P, A, K, E)
        expected = torch.einsum("pc,ace->pae", state, self.ahead)
        return torch.einsum("pae,pake->pak", expected, told).flatten(0, 1)


def pretext_loss(net: PretextNet, x: tuple[Tensor, Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy [nats]: the logistic loss for rp and ts, InfoNCE for cpc."""
    logits = net(x)
    return functional.cross_entropy(logits, y), logits


class DrawnBatches:
    """Batches ((windows, index), y) of freshly drawn samples, the same for the same (seed, epoch).

    draw: rng -> (rows of `x` (P, ...), y (P,)), P always the same. With `fixed`, every epoch
    repeats the first. n: samples of an epoch.
    """

    def __init__(self, x: Tensor, draw: Draw, n_steps: int, seed: int, *, fixed: bool = False):
        self.x, self.draw, self.n_steps, self.seed, self.fixed = x, draw, n_steps, seed, fixed
        self.epoch = 0
        self.kept: list | None = None
        self.batch_size = len(self._drawn(0, 0)[2])
        self.n = self.batch_size * n_steps

    def __len__(self) -> int:
        return self.n_steps

    def set_epoch(self, epoch: int) -> None:
        """Choose what the next pass draws."""
        self.epoch = epoch

    def fingerprint(self) -> str:
        """8 hex digits of the signals, the seed and what the first step draws."""
        crc = zlib.crc32(np.ascontiguousarray(self.x[:: max(1, len(self.x) // 64)].cpu().numpy()))
        for part in self._drawn(0, 0):
            crc = zlib.crc32(part.cpu().numpy(), crc)
        return f"{zlib.crc32(repr((self.n_steps, self.seed, len(self.x))).encode(), crc):08x}"

    def _drawn(self, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        index, y = self.draw(np.random.default_rng([self.seed, epoch, step, 43]))
        rows, place = np.unique(index, return_inverse=True)
        parts = (rows, place.reshape(index.shape), np.ascontiguousarray(y))
        return tuple(torch.from_numpy(p).to(self.x.device) for p in parts)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        if self.fixed and self.kept is None:
            self.kept = [self._drawn(0, step) for step in range(self.n_steps)]
        for step in range(self.n_steps):
            rows, index, y = self.kept[step] if self.fixed else self._drawn(self.epoch, step)
            yield (self.x.index_select(0, rows), index), y
