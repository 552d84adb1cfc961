"""StagerNet: an embedder of windows of field potentials (Chambon et al. 2018, IEEE TNSRE 26:758).

Input (B, T, C), z-scored windows; output (B, 100). Two presets: `lab`, the layers of the lab's
saved networks, in samples; `banville`, kernels and pools in seconds (Banville et al. 2020, J Neural
Eng 18:046020), for windows that two pools leave something of: 3 s up to 200 Hz.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nblib.core.errors import BadInput, BadParameter
from nblib.core.tensors import read_network, read_tensors, write_network

CONFIG, WEIGHTS = "embedder.json", "embedder.safetensors"
EMBEDDING = 100
FILTERS = 16
LAB_KERNEL, LAB_POOL = 50, 13  # samples
KERNEL_S, POOL_S = 0.5, 0.125
AT_ONCE = 2e8  # bytes of the largest layer of the windows embedded at a time
# The lab's files call the layers so; ours have the same names.
LAB_LAYERS = ("conv1", "conv2", "conv3", "dense1", "batchnorm1", "batchnorm2")


class StagerNet(nn.Module):
    """Mix channels, filter twice along time, project.

    conv1 (1 -> C, kernel over channels), then twice: convolution along time with 16 filters, batch
    norm, ReLU, max-pool, in the order of the preset; then dropout and a linear layer.
    `lab`: pool, ReLU, batch norm, no padding; `banville`: batch norm, ReLU, pool, padded, as
    braindecode's SleepStagerChambon2018.
    """

    def __init__(
        self,
        n_channels: int,
        n_samples: int,
        rate_hz: float,
        preset: str = "banville",
        embedding: int = EMBEDDING,
        dropout: float = 0.5,
    ):
        super().__init__()
        if preset not in ("lab", "banville"):
            raise BadParameter(f"preset = {preset!r}; there are lab and banville.")
        self.config = {
            "n_channels": n_channels, "n_samples": n_samples, "rate_hz": rate_hz, "preset": preset,
            "embedding": embedding, "dropout": dropout,
        }  # fmt: skip
        self.lab = preset == "lab"
        kernel = LAB_KERNEL if self.lab else max(2, int(KERNEL_S * rate_hz))
        pool = LAB_POOL if self.lab else max(2, int(POOL_S * rate_hz))
        pad = 0 if self.lab else kernel // 2
        left = n_samples
        for _ in range(2):
            left = (left + 2 * pad - kernel + 1) // pool
        if left < 1:
            raise BadParameter(
                f"windows of {n_samples} samples are too short for preset {preset!r} at {rate_hz:g} Hz "
                f"(kernel {kernel}, pool {pool} samples, twice); take longer windows, a lower resample_hz or the other preset."
            )
        self.conv1 = nn.Conv2d(1, n_channels, (1, n_channels))
        self.conv2 = nn.Conv2d(1, FILTERS, (kernel, 1), padding=(pad, 0))
        self.batchnorm1 = nn.BatchNorm1d(FILTERS)
        self.conv3 = nn.Conv2d(FILTERS, FILTERS, (kernel, 1), padding=(pad, 0))
        self.batchnorm2 = nn.BatchNorm1d(FILTERS)
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.dense1 = nn.Linear(FILTERS * left * n_channels, embedding)

    def forward(self, x: Tensor) -> Tensor:
        # The layers of the docstring, laid out for speed: channels side by side in the batch.
        n, _, c = x.shape
        x = functional.linear(x, self.conv1.weight[:, 0, 0], self.conv1.bias)  # (B, T, C)
        x = x.transpose(1, 2).reshape(n * c, 1, -1)
        for conv, norm in ((self.conv2, self.batchnorm1), (self.conv3, self.batchnorm2)):
            x = functional.conv1d(x, conv.weight[..., 0], conv.bias, padding=conv.padding[0])
            if self.lab:
                x = norm(torch.relu(functional.max_pool1d(x, self.pool)))
            else:
                x = functional.max_pool1d(torch.relu(norm(x)), self.pool)
        x = x.view(n, c, FILTERS, -1).permute(0, 2, 3, 1)  # (B, 16, left, C)
        return self.dense1(self.dropout(x.flatten(1)))  # (B, 100)


def embed(net: StagerNet, x: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Embeddings (W, 100) float32 of windows (W, T, C): the net in eval mode, nothing in it changes."""
    was = net.training
    net.eval()
    net.to(device)
    with torch.inference_mode():
        step = max(1, int(AT_ONCE / (4 * FILTERS * x[0].size)))
        parts = [net(part.to(device)).cpu() for part in torch.from_numpy(x).split(step)]
    net.to("cpu").train(was)
    return torch.cat(parts).numpy()


def save(net: StagerNet, folder: Path) -> None:
    """Write embedder.json and embedder.safetensors."""
    write_network(folder / CONFIG, net, folder / WEIGHTS)


def load(folder: Path | str) -> StagerNet:
    """Read what `save` wrote; CorruptArtifact when a file is missing, damaged or foreign."""
    return read_network(Path(folder) / CONFIG, StagerNet, Path(folder) / WEIGHTS)


def load_weights(path: Path | str, n_channels: int, n_samples: int) -> StagerNet:
    """A `.pth` file: one that 08 exported, beside its embedder.json, or one of the lab's.

    Raises BadInput when it is of other channels or windows, and what `load_lab_weights` raises.
    """
    path = Path(path).expanduser()
    if not (path.parent / CONFIG).is_file():
        return load_lab_weights(path, n_channels, n_samples)
    net = load(path.parent)
    stored = (net.config["n_channels"], net.config["n_samples"])
    if stored != (n_channels, n_samples):
        raise BadInput(
            f"{path}: of {stored[0]} channels and windows of {stored[1]} samples; the recordings have "
            f"{n_channels} and {n_samples}."
        )
    return net


def load_lab_weights(path: Path | str, n_channels: int = 11, n_samples: int = 3000) -> StagerNet:
    """The lab's `RP_/TS_/CPC_*.pth`: a state dict of preset `lab`, read as tensors only.

    Raises MissingInput for no such file, BadInput for one that holds anything but these layers, or
    layers for other channels or windows.
    """
    path = Path(path).expanduser()
    state = read_tensors(path)
    try:
        net = StagerNet(n_channels, n_samples, 1000.0, "lab")
    except BadParameter as error:
        raise BadInput(f"{path}: taken for one of the lab's, but {error}") from None
    wanted = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BadInput(f"{path}: expected a state dict of tensors, not a {type(state).__name__}.")
    # Some files hold the whole pretext network, the embedder under a name of its own.
    weights = {
        layer: v
        for k, v in state.items()
        if (layer := ".".join(k.split(".")[-2:])).split(".")[0] in LAB_LAYERS
    }
    for name, shape in wanted.items():
        if name not in weights:
            raise BadInput(f"{path}: no {name}; this is not a StagerNet of preset 'lab'.")
        if tuple(weights[name].shape) != shape:
            raise BadInput(
                f"{path}: {name} has shape {tuple(weights[name].shape)}, expected {shape} for {n_channels} "
                f"channels and windows of {n_samples} samples."
            )
    net.load_state_dict({name: weights[name] for name in wanted})
    return net.eval()


CONTEXT = 100  # units of the GRU of CPC
# rng -> rows of the windows (P, ...), y (P,)
Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


class PretextNet(nn.Module):
    """Embedder and head of one task: (windows (U, T, C), index) -> logits (P, K), the truth at y.

    rp: index (P, 2), linear on `|h1 - h2|`; ts: (P, 3), linear on `[|h1 - h2|, |h2 - h3|]`; cpc: index
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
        context, ahead = index[:, : self.n_context], index[:, self.n_context :]
        state = self.context(h[context])[0][:, -1]  # (P, CONTEXT)
        ahead = h[ahead.reshape(len(index), self.n_ahead, -1)]  # (P, A, K, E)
        expected = torch.einsum("pc,ace->pae", state, self.ahead)
        return torch.einsum("pae,pake->pak", expected, ahead).flatten(0, 1)


class DrawnBatches:
    """Batches ((windows, index), y) of freshly drawn samples, the same for the same (seed, epoch).

    draw: rng -> (rows of `x` (P, ...), y (P,)), P always the same. With `fixed`, every epoch
    repeats the first. n: samples of an epoch.
    """

    pieces = 1  # a step takes its batch whole

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
