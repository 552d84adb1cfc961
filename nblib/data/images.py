"""The images of a recording: what was on the screen, as pixels, one row a label."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nblib.core.errors import BadInput, MissingInput
from nblib.core.tensors import read_tensors
from nblib.data import sources
from nblib.data.files.plain import read_npy
from nblib.data.trials.labelling import is_one_of

if TYPE_CHECKING:
    from nblib.core.params import Recipe

SHAPE = (64, 80)  # height and width that features see [px]
PICTURES = (".png", ".tif", ".tiff", ".jpg", ".bmp")


@dataclass(frozen=True)
class Images:
    """pixels (n, 64, 80) float32, 0 black to 1 white; label (n,) of each; origin in words."""

    pixels: np.ndarray
    label: np.ndarray
    origin: str

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """Row of each label; BadInput for a label without an image."""
        place = {int(name): i for i, name in enumerate(self.label)}
        absent = sorted({int(x) for x in labels} - set(place))
        if absent:
            raise BadInput(
                f"no image of label {absent[0]} ({len(absent)} labels lack one); {self.origin} holds "
                f"{len(self.label)} images, {self.label.min()} to {self.label.max()}."
            )
        return np.array([place[int(x)] for x in labels])


def scene_labels(classes: np.ndarray, who: str, blank: str) -> np.ndarray:
    """The classes that are images, without the grey screen `blank`; BadInput when classes are no image
    numbers."""
    if not np.issubdtype(np.asarray(classes).dtype, np.number) or (classes % 1 != 0).any():
        raise BadInput(
            f"{who}: its classes ({', '.join(map(str, classes[:3]))}, …) are not numbers of images."
        )
    grey = [is_one_of(c, [blank]) for c in classes.tolist()]
    return classes[~np.array(grey, bool)].astype(int)


def open_images(recipe: Recipe, recording: str, labels: np.ndarray, given: str = "") -> Images:
    """The images behind `labels`, reduced to SHAPE.

    given: a folder of pictures whose names end in their label, or a .npy file (n, height, width)
    of uint8 whose row is the label; "": those that the recording's source has. Raises MissingInput where a recording has none, BadInput
    for a file that cannot be read or a label without an image.
    """
    if given:
        images = _from_path(Path(given).expanduser())
    else:
        behind = sources.offered(recipe.source, "images")
        images = behind(recipe, recording, labels) if behind else None
    if images is None:
        raise MissingInput(
            f"recording {recording!r} of recipe {recipe.recipe!r} (source {recipe.source!r}, intervals "
            f"{recipe.intervals!r}) holds no images. Give them: images = a folder of pictures named by "
            "their label, or a .npy file."
        )
    images.rows(labels)
    return images


def _from_path(path: Path) -> Images:
    if path.suffix == ".npy" and path.is_file():
        pixels = read_npy(path)
        if pixels.ndim != 3 or pixels.dtype != np.uint8:
            raise BadInput(
                f"{path}: expected uint8 (images, height, width), not {pixels.dtype} {pixels.shape}."
            )
        return Images(reduced(pixels), np.arange(len(pixels)), str(path))
    if not path.is_dir():
        raise MissingInput(f"images = {str(path)!r}: neither a folder nor a .npy file.")
    pictures: dict[int, Path] = {}
    for picture in sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES):
        number = re.search(r"(\d+)$", picture.stem)
        if number is None:
            continue
        if int(number[1]) in pictures:
            raise BadInput(
                f"{picture} and {pictures[int(number[1])].name} are both of label {number[1]}."
            )
        pictures[int(number[1])] = picture
    if not pictures:
        raise BadInput(f"{path}: no picture whose name ends in a number ({', '.join(PICTURES)}).")
    label = np.array(sorted(pictures))
    pixels = [reduced(read_picture(pictures[int(i)])[None]) for i in label]
    return Images(np.concatenate(pixels), label, str(path))


def read_picture(path: Path) -> np.ndarray:
    """A picture as grey uint8 (height, width)."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except OSError as error:
        raise BadInput(f"{path}: not readable as an image ({error}).") from None


def reduced(pixels: np.ndarray) -> np.ndarray:
    """uint8 (n, height, width) -> float32 (n, 64, 80) in [0, 1], each pixel the mean of its part."""
    from PIL import Image

    if pixels.shape[1:] == SHAPE:
        return pixels.astype(np.float32) / 255
    small = [
        Image.fromarray(p).convert("F").resize(SHAPE[::-1], Image.Resampling.BOX) for p in pixels
    ]
    return np.stack([np.asarray(p, np.float32) for p in small]) / 255


def load_lab_latents(path: Path | str, n: int) -> np.ndarray:
    """The lab's image latents: a .pt file of one tensor (n, D), or of a dict or list with one.

    Read as tensors only (`weights_only`): nothing in the file can run. Raises BadInput for any
    other content, MissingInput when there is no file.
    """
    import torch

    path = Path(path).expanduser()
    latents = read_tensors(path, "latents")
    if isinstance(latents, (dict, list, tuple)):
        parts = latents.values() if isinstance(latents, dict) else latents
        tensors = [x for x in parts if isinstance(x, torch.Tensor)]
        if len(tensors) == 1 and tensors[0].ndim > 1 and len(tensors[0]) == n:
            latents = tensors[0]
        else:  # one tensor a row: (D,) or (1, D) for each image
            same = len({x.numel() for x in tensors}) == 1
            latents = torch.stack([x.reshape(-1) for x in tensors]) if same else None
    if not isinstance(latents, torch.Tensor) or latents.ndim < 2 or len(latents) != n:
        shape = (
            tuple(latents.shape) if isinstance(latents, torch.Tensor) else type(latents).__name__
        )
        raise BadInput(f"{path}: expected latents of {n} images, one row each, not {shape}.")
    latents = latents.detach().to(torch.float64).reshape(n, -1).numpy()
    if not np.isfinite(latents).all():
        raise BadInput(f"{path}: the latents hold NaN or infinite values.")
    return latents
