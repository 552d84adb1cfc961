"""StagerNet: an embedder of windows of field potentials (Chambon et al. 2018, IEEE TNSRE 26:758).

Input (B, T, C), z-scored windows; output (B, 100). Two presets: `lab`, the layers of the lab's
saved networks, in samples; `banville`, kernels and pools in seconds (Banville et al. 2020, J Neural
Eng 18:046020), for windows that two pools leave something of: 3 s up to 200 Hz.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nblib.core.errors import BadInput, BadParameter, CorruptArtifact
from nblib.core.tensors import read_tensors

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
    from safetensors.torch import save_file

    (folder / CONFIG).write_text(json.dumps(net.config) + "\n", encoding="utf-8")
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / WEIGHTS)


def load(folder: Path | str) -> StagerNet:
    """Read what `save` wrote; CorruptArtifact when a file is missing, damaged or foreign."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        net = StagerNet(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        net.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise CorruptArtifact(f"{folder}: not readable as an embedder ({error}).") from None
    return net.eval()


def load_weights(path: Path | str, n_channels: int, n_samples: int) -> StagerNet:
    """A `.pth` file: one that 08 exported, beside its embedder.json, or one of the lab's.

    Raises BadInput when it is of other channels or windows, and what `load_lab_weights` raises.
    """
    path = Path(path).expanduser()
    if not (path.parent / CONFIG).is_file():
        return load_lab_weights(path, n_channels, n_samples)
    net = load(path.parent)
    found = (net.config["n_channels"], net.config["n_samples"])
    if found != (n_channels, n_samples):
        raise BadInput(
            f"{path}: of {found[0]} channels and windows of {found[1]} samples; the recordings have "
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
    found = {
        layer: v for k, v in state.items()
        if (layer := ".".join(k.split(".")[-2:])).split(".")[0] in LAB_LAYERS
    }  # fmt: skip
    for name, shape in wanted.items():
        if name not in found:
            raise BadInput(f"{path}: no {name}; this is not a StagerNet of preset 'lab'.")
        if tuple(found[name].shape) != shape:
            raise BadInput(
                f"{path}: {name} has shape {tuple(found[name].shape)}, expected {shape} for {n_channels} "
                f"channels and windows of {n_samples} samples."
            )
    net.load_state_dict({name: found[name] for name in wanted})
    return net.eval()
