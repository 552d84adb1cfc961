"""Which images may teach and which may judge (10).

Some scenes are held out as a whole: no presentation of theirs, of any role, has a part in fitting
what scales the counts, the feature spaces or the decoder, nor in choosing a penalty or an epoch.
Choices are made on validation scenes, which lie inside the training scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput
from nblib.data import images
from nblib.experiments import few_shot
from nblib.prepare.samples import Samples

if TYPE_CHECKING:
    from nblib.data.images import Images
    from nblib.experiments.decode import Data
    from nblib.road.stages import Stage

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

    def table(self) -> pd.DataFrame:
        """How many images and presentations each role has."""
        n = {"fit": len(self.train), "choose": len(self.val), "fit, all": len(self.train) + len(self.val),
             "seen": len(self.train) + len(self.val), "unseen": len(self.held)}  # fmt: skip
        rows = {k: {"images": n[k], "presentations": len(p)} for k, p in self.presentations.items()}
        return pd.DataFrame(rows).T


def split_scenes(data: Data, shown: Images, stage: Stage) -> Scenes:
    """Deal the images into training, validation and held-out ones; scale on fit rows alone.

    Raises BadInput when too few images remain to fit on.
    """
    labels = images.scene_labels(
        data.classes, f"recording {stage.recording!r}", stage.recipe.label_rules.blank
    )
    row_of_class = np.full(len(data.classes), -1)
    row_of_class[np.isin(data.classes, labels)] = shown.rows(labels)
    rows = np.sort(row_of_class[row_of_class >= 0])
    rng = np.random.default_rng([stage.params.seed, 31])
    order = rng.permutation(rows)
    n_held = round(stage.params.held_out * len(rows))
    n_val = max(1, round(VAL_SHARE * (len(rows) - n_held)))
    held, val, train = np.split(order, [n_held, n_held + n_val])
    if len(train) < LEAST_SCENES or (stage.params.held_out > 0 and n_held < 2):
        raise BadInput(
            f"recording {stage.recording!r} shows {len(rows)} images; with held_out = {stage.params.held_out} "
            f"that leaves {len(train)} to fit on and {n_held} held out, fewer than {LEAST_SCENES} and 2."
        )
    whole = {role: few_shot.counts(data, getattr(data, role)) for role in ("train", "val", "test")}

    def some(roles: tuple[str, ...], scenes: np.ndarray) -> Samples:
        parts = []
        for role in roles:
            s = whole[role]
            y = row_of_class[s.y]
            keep = np.isin(y, scenes)
            parts.append(Samples(s.x[keep], y[keep], s.trial[keep]))
        return Samples(
            *(np.concatenate([getattr(p, n) for p in parts]) for n in ("x", "y", "trial"))
        )

    seen = np.concatenate([train, val])
    parts = {
        "fit": some(("train",), train),
        "choose": some(("train", "val"), val),
        "fit, all": some(("train",), seen),
        "seen": some(("test",), seen),
        "unseen": some(("test",), held),
    }
    how = few_shot.scaling(parts["fit"], stage.recipe, zscore=True)
    parts = {name: few_shot.scaled(p, how) for name, p in parts.items()}
    return Scenes(shown, np.sort(train), np.sort(val), np.sort(held), parts)
