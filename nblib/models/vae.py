"""A convolutional variational autoencoder of small grey images (Kingma and Welling 2014, ICLR)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from nblib.core.errors import BadParameter
from nblib.core.tensors import read_network, write_network
from nblib.models import FitSettings, reproducible, training
from nblib.prepare.decoder_inputs import Samples

CONFIG, WEIGHTS = "vae.json", "vae.safetensors"
FIT = {
    "max_epochs": 150, "batch_size": 32, "learning_rate": 2e-3, "patience": 40, "clip_norm": 5.0,
}  # fmt: skip
MOST_SHIFT = 6  # pixels by which a training image may be moved


class ConvVAE(nn.Module):
    """Image (B, H, W) in [0, 1] -> latent mean and log-variance (B, D) -> image (B, H, W).

    Three convolutions of stride 2, a linear layer, and the same way back. height and width must
    be multiples of 8. beta weighs the divergence from the standard normal prior (Higgins et al.
    2017, ICLR); noise is the standard deviation of a pixel given its latent.
    """

    def __init__(
        self,
        n_latents: int = 24,
        height: int = 64,
        width: int = 80,
        channels: int = 16,
        beta: float = 1.0,
        noise: float = 0.1,
    ):
        super().__init__()
        if height % 8 or width % 8 or n_latents < 1:
            raise BadParameter(
                f"a VAE needs sides that are multiples of 8 and a latent, not {height} x {width}, {n_latents}."
            )
        self.config = {
            "n_latents": n_latents, "height": height, "width": width, "channels": channels,
            "beta": beta, "noise": noise,
        }  # fmt: skip
        c = channels
        self.down = nn.Sequential(
            nn.Conv2d(1, c, 5, 2, 2),
            nn.SiLU(),
            nn.Conv2d(c, 2 * c, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(2 * c, 2 * c, 3, 2, 1),
            nn.SiLU(),
        )
        self.inner = (2 * c, height // 8, width // 8)
        n_inner = int(np.prod(self.inner))
        self.mean, self.log_var = nn.Linear(n_inner, n_latents), nn.Linear(n_inner, n_latents)
        self.spread = nn.Linear(n_latents, n_inner)
        self.up = nn.Sequential(
            nn.SiLU(),
            nn.ConvTranspose2d(2 * c, 2 * c, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(2 * c, c, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(c, 1, 4, 2, 1),
        )

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.down(image[:, None] - 0.5).flatten(1)
        return self.mean(inner), self.log_var(inner).clamp(-8, 4)

    def decode(self, latent: Tensor) -> Tensor:
        image = self.up(self.spread(latent).unflatten(1, self.inner))[:, 0]
        return torch.sigmoid(image)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.encode(image)
        drawn = mean + torch.randn_like(mean) * (0.5 * log_var).exp() if self.training else mean
        return self.decode(drawn), mean, log_var


def elbo(net: ConvVAE, x: Tensor, _: Tensor) -> tuple[Tensor, None]:
    """Minus the evidence lower bound [nats an image]; training images are moved and mirrored."""
    if net.training:
        up, left = torch.randint(-MOST_SHIFT, MOST_SHIFT + 1, (2,)).tolist()
        x = x.roll((up, left), (1, 2))
        x = x.flip(2) if torch.rand(()) < 0.5 else x
    shown, mean, log_var = net(x)
    error = functional.mse_loss(shown, x, reduction="sum") / (2 * net.config["noise"] ** 2)
    divergence = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()
    return (error + net.config["beta"] * divergence) / len(x), None


def fit_vae(
    train: np.ndarray,
    val: np.ndarray | None,
    *,
    n_latents: int,
    settings: FitSettings,
    folder: Path | None = None,
) -> tuple[ConvVAE, pd.DataFrame]:
    """A VAE of images (n, H, W); `val` chooses the epoch. Returns it with its history."""
    with reproducible(settings.seed):
        net = ConvVAE(n_latents, *train.shape[1:])
    history = training.fit(
        net,
        _samples(train),
        None if val is None else _samples(val),
        settings,
        folder,
        loss=elbo,
        stage="vae",
        identity={"vae": json.dumps(net.config)},
    )
    return net, history.drop(columns="val_accuracy")


def _samples(images: np.ndarray) -> Samples:
    rows = np.arange(len(images))
    return Samples(np.ascontiguousarray(images, np.float32), rows, rows)


def encode(net: ConvVAE, images: np.ndarray) -> np.ndarray:
    """Latent means (n, D) float64 of images (n, H, W)."""
    with torch.inference_mode():
        return net.encode(torch.as_tensor(images, dtype=torch.float32))[0].double().numpy()


def decode(net: ConvVAE, latents: np.ndarray) -> np.ndarray:
    """Images (n, H, W) of latents (n, D)."""
    with torch.inference_mode():
        return net.decode(torch.as_tensor(latents, dtype=torch.float32)).numpy()


def save(net: ConvVAE, folder: Path) -> None:
    """Write vae.json and vae.safetensors."""
    write_network(folder / CONFIG, net, folder / WEIGHTS)


def load(folder: Path | str) -> ConvVAE:
    """Read what `save` wrote; CorruptArtifact when a file is missing, damaged or foreign."""
    return read_network(Path(folder) / CONFIG, ConvVAE, Path(folder) / WEIGHTS)
