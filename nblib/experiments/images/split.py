"""Which images may teach and which may judge (10).

Some scenes are held out as a whole: no presentation of theirs, of any role, has a part in fitting
what scales the counts, the feature spaces or the decoder, nor in choosing a penalty or an epoch.
Choices are made on validation scenes, which lie inside the training scenes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput
from nblib.data import images
from nblib.experiments import few_shot
from nblib.prepare.decoder_inputs import Samples

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.data.images import Images
    from nblib.experiments.decode import Data
    from nblib.experiments.images import from_spikes

VAL_SHARE = 0.15  # of the training scenes: they choose penalties and epochs
LEAST_SCENES = 10


@dataclass(frozen=True)
class Scenes:
    """Who may teach: rows of images by role, and the presentations of each role.

    train, val and held (rows of `shown`): training scenes, those of them that choose, held-out.
    `presentations[role]`: x (B, T, N) scaled on the fit rows alone, y (B,) row of `shown`.
    """

    shown: Images
    train: np.ndarray
    val: np.ndarray
    held: np.ndarray
    presentations: dict[str, Samples]

    @property
    def all(self) -> np.ndarray:
        """Rows of all images that were shown, in order."""
        return np.sort(np.concatenate([self.train, self.val, self.held]))

    def table(self) -> pd.DataFrame:
        """How many images and presentations each role has."""
        n = {"fit": len(self.train), "choose": len(self.val), "fit, all": len(self.train) + len(self.val),
             "seen": len(self.train) + len(self.val), "unseen": len(self.held)}  # fmt: skip
        rows = {k: {"images": n[k], "presentations": len(p)} for k, p in self.presentations.items()}
        return pd.DataFrame(rows).T


def rows_of_classes(
    data: Data, shown: Images, params: from_spikes.Params, recipe: Recipe
) -> np.ndarray:
    """Row of the image of each class (C,); -1 for the grey screen."""
    labels = shown_labels(data, params, recipe)
    rows = np.full(len(data.classes), -1)
    rows[np.isin(data.classes, labels)] = shown.rows(labels)
    return rows


def shown_labels(data: Data, params: from_spikes.Params, recipe: Recipe) -> np.ndarray:
    """The classes that are images (see `images.scene_labels`)."""
    who = f"recording {params.recording!r}"
    return images.scene_labels(data.classes, who, recipe.label_rules.blank)


def split_scenes(data: Data, shown: Images, params: from_spikes.Params, recipe: Recipe) -> Scenes:
    """Deal the images into training, validation and held-out ones; scale on fit rows alone.

    Raises BadInput when too few images remain to fit on.
    """
    row_of_class = rows_of_classes(data, shown, params, recipe)
    rows = np.sort(row_of_class[row_of_class >= 0])
    rng = np.random.default_rng([params.seed, 31])
    order = rng.permutation(rows)
    n_held = round(params.held_out * len(rows))
    n_val = max(1, round(VAL_SHARE * (len(rows) - n_held)))
    held, val, train = np.split(order, [n_held, n_held + n_val])
    if len(train) < LEAST_SCENES or (params.held_out > 0 and n_held < 2):
        raise BadInput(
            f"recording {params.recording!r} shows {len(rows)} images; with held_out = {params.held_out} "
            f"that leaves {len(train)} to fit on and {n_held} held out, fewer than {LEAST_SCENES} and 2."
        )
    whole = {role: few_shot.counts(data, getattr(data, role)) for role in ("train", "val", "test")}

    def some(roles: tuple[str, ...], scenes: np.ndarray) -> Samples:
        samples = Samples.together([whole[role] for role in roles])
        samples = replace(samples, y=row_of_class[samples.y])
        return samples.rows(np.isin(samples.y, scenes))

    seen = np.concatenate([train, val])
    parts = {
        "fit": some(("train",), train),
        "choose": some(("train", "val"), val),
        "fit, all": some(("train",), seen),
        "seen": some(("test",), seen),
        "unseen": some(("test",), held),
    }
    scale = few_shot.scaling(parts["fit"], recipe, zscore=True)
    parts = {name: few_shot.scaled(samples, *scale) for name, samples in parts.items()}
    return Scenes(shown, np.sort(train), np.sort(val), np.sort(held), parts)
