"""Feature spaces: what an image is, in numbers. Those that learn are fitted on training images.

Images are float32 (n, H, W) in [0, 1]; features float64 (n, D).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nblib.core.errors import BadParameter
from nblib.data.images import load_lab_latents
from nblib.models import FitSettings

if TYPE_CHECKING:
    from nblib.experiments.images import from_spikes
    from nblib.models import vae


class Space:
    """A feature space; `fit` sees training images alone, `val` (or None) chooses what is chosen."""

    name: ClassVar[str]

    def fit(self, train: np.ndarray, val: np.ndarray | None) -> None:
        """Learn from training images; most spaces have nothing to learn."""

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Features (n, D) of images."""
        raise NotImplementedError

    def decode(self, features: np.ndarray) -> np.ndarray | None:
        """Images of features; None where the space does not lead back to an image."""
        return None

    def save(self, folder: Path) -> None:
        """Write what was learnt."""


class PCA(Space):
    """Principal components of the pixels."""

    name = "pca"

    def __init__(self, n_latents: int):
        self.n_latents = n_latents

    def fit(self, train: np.ndarray, val: np.ndarray | None) -> None:
        pixels = train.reshape(len(train), -1).astype(np.float64)
        self.mean = pixels.mean(axis=0)
        n = min(self.n_latents, len(train) - 1)
        self.axes = np.linalg.svd(pixels - self.mean, full_matrices=False)[2][:n]  # (D, H*W)
        self.shape = train.shape[1:]

    def encode(self, images: np.ndarray) -> np.ndarray:
        return (images.reshape(len(images), -1) - self.mean) @ self.axes.T

    def decode(self, features: np.ndarray) -> np.ndarray:
        pixels = features @ self.axes + self.mean
        return pixels.reshape(len(features), *self.shape).clip(0, 1)

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"mean": self.mean, "axes": self.axes}, folder / "pca.safetensors")


class Gabor(Space):
    """Energy of Gabor filters, pooled over a grid: local contrast by orientation and scale.

    Quadrature pairs at 4 orientations and 3 wavelengths (6, 12, 24 px), their amplitude averaged
    over 4 x 5 patches and taken to the root (after Adelson and Bergen 1985, J Opt Soc Am A 2:284).
    """

    name = "gabor"
    wavelengths_px = (6.0, 12.0, 24.0)
    n_orientations = 4
    grid = (4, 5)

    def encode(self, images: np.ndarray) -> np.ndarray:
        spectrum, fy, fx = _fourier(images)
        parts = []
        for wavelength in self.wavelengths_px:
            for i in range(self.n_orientations):
                angle = np.pi * i / self.n_orientations
                centre = np.array([np.sin(angle), np.cos(angle)]) / wavelength
                sd = 0.4 / wavelength  # of the filter's passband [cycles/px]
                # One side of the spectrum alone: its inverse is the quadrature pair.
                passed = np.exp(-((fy - centre[0]) ** 2 + (fx - centre[1]) ** 2) / (2 * sd**2))
                amplitude = np.abs(np.fft.ifft2(spectrum * passed))
                parts.append(np.sqrt(_patches(amplitude, self.grid)))
        return np.concatenate(parts, axis=1)


class Spectrum(Space):
    """Log power by spatial frequency and orientation: what an image is like, wherever it is.

    6 octave-spaced rings x 6 orientations of the Fourier power, and the mean grey and contrast.
    """

    name = "spectrum"
    n_rings, n_orientations = 6, 6

    def encode(self, images: np.ndarray) -> np.ndarray:
        spectrum, fy, fx = _fourier(images)
        radius, angle = np.hypot(fy, fx), np.arctan2(fy, fx) % np.pi
        power = np.abs(spectrum) ** 2
        edges = np.geomspace(1.0 / max(images.shape[1:]), 0.5, self.n_rings + 1)
        turn = np.pi / self.n_orientations
        parts = [images.mean(axis=(1, 2)), np.log(images.std(axis=(1, 2)) + 1e-3)]
        for low, high in pairwise(edges):
            for i in range(self.n_orientations):
                off = np.abs((angle - i * turn + np.pi / 2) % np.pi - np.pi / 2)
                inside = (radius >= low) & (radius < high) & (off <= turn / 2)
                if inside.any():
                    parts.append(np.log(power[:, inside].mean(axis=1) + 1e-3))
        return np.stack(parts, axis=1)


class Latents(Space):
    """Latents of a convolutional VAE (see `vae`)."""

    name = "vae"

    def __init__(self, n_latents: int, settings: FitSettings, folder: Path | None = None):
        self.n_latents, self.settings, self.folder = n_latents, settings, folder

    net: vae.ConvVAE

    def fit(self, train: np.ndarray, val: np.ndarray | None) -> None:
        from nblib.models import vae

        self.net, self.history = vae.fit_vae(
            train, val, n_latents=self.n_latents, settings=self.settings, folder=self.folder
        )

    def encode(self, images: np.ndarray) -> np.ndarray:
        from nblib.models import vae

        return vae.encode(self.net, images)

    def decode(self, features: np.ndarray) -> np.ndarray:
        from nblib.models import vae

        return vae.decode(self.net, features)

    def save(self, folder: Path) -> None:
        from nblib.models import vae

        vae.save(self.net, folder)
        self.history.to_parquet(folder / "vae_history.parquet", index=False)


class Given(Space):
    """Latents that were made elsewhere: one row for each image, in the order of the images.

    Nothing is known of the images they were fitted on: held-out images may have been among them.
    """

    name = "lab"

    def __init__(self, latents: np.ndarray):
        self.latents = latents

    def encode(self, images: np.ndarray) -> np.ndarray:
        if len(images) != len(self.latents):
            raise BadParameter("given latents stand for all images together, not for some.")
        return self.latents


SPACES = {space.name: space for space in (PCA, Latents, Gabor, Spectrum, Given)}


def check_spaces(p: from_spikes.Params) -> None:
    """BadParameter for an unknown space, one named twice, or lab latents without their file."""
    if unknown := [name for name in p.spaces if name not in SPACES]:
        raise BadParameter(f"spaces: no {unknown[0]!r}; there are {', '.join(SPACES)}.")
    if len(set(p.spaces)) != len(p.spaces):
        raise BadParameter(f"spaces = {p.spaces}: named twice.")
    if ("lab" in p.spaces) != bool(p.latents):
        raise BadParameter("the space 'lab' and the parameter latents (a .pt file) go together.")


def make_spaces(params: from_spikes.Params, n_images: int, folder: Path) -> list[Space]:
    """The feature spaces that were asked for, not yet fitted; BadParameter as in `check_spaces`.

    folder: where a network keeps its log and checkpoints.
    """
    check_spaces(params)
    spaces: list[Space] = []
    for name in params.spaces:
        made = ()
        if name == "pca":
            made = (params.n_latents,)
        elif name == "lab":
            made = (load_lab_latents(params.latents, n_images),)
        elif name == "vae":
            from nblib.models import vae

            of_vae = params.model_copy(update={"max_epochs": params.vae_epochs})
            made = (params.n_latents, FitSettings.of(of_vae, vae.FIT, progress=False), folder)
        spaces.append(SPACES[name](*made))
    return spaces


def _fourier(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fourier transform of images without their mean, (n, H, W), and its frequencies (H, 1), (1, W)."""
    height, width = images.shape[1:]
    spectrum = np.fft.fft2(images - images.mean(axis=(1, 2), keepdims=True))
    return spectrum, np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]


def _patches(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Mean over each patch of a grid: (n, H, W) -> (n, rows * columns)."""
    rows = np.array_split(maps, grid[0], axis=1)
    means = [p.mean(axis=(1, 2)) for row in rows for p in np.array_split(row, grid[1], axis=2)]
    return np.stack(means, axis=1)
