"""From spikes to images (10): decode an image's features, then find the image, or draw it.

Some scenes are held out as a whole (see `split.split_scenes`). What is judged are test presentations, of
training scenes ("seen") and of held-out ones ("unseen").

Shapes: B presentations, S images, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core import params as P
from nblib.data import images
from nblib.evaluate import retrieval
from nblib.evaluate.result import Result, Row
from nblib.evaluate.scores import Score
from nblib.experiments.images.features import Space, check_spaces, make_spaces
from nblib.experiments.images.regression import Regressor, check_regressor
from nblib.experiments.images.split import Scenes, rows_of_classes, shown_labels, split_scenes
from nblib.road.stage_registry import StageParams

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.data.images import Images
    from nblib.experiments.decode import Data


class Params(P.Judge, P.Fit, StageParams):
    """Parameters of 10: which features of the images, decoded how."""

    spaces: list[str] = Field(
        ["vae", "pca", "gabor", "spectrum"],
        min_length=1,
        description="feature spaces of images, also lab",
    )
    regressor: str = Field("ridge", description="from counts to features: ridge, pls or a network")
    n_latents: int = Field(24, ge=1, le=500, description="latents of vae and pca [count]")
    held_out: float = Field(
        0.2, ge=0, lt=0.8, description="share of the images never seen in training"
    )
    images: str = Field("", description="folder of pictures or .npy; empty = the recording's own")
    latents: str = Field("", description="the lab's .pt file of latents, for the space 'lab'")
    vae_epochs: int | None = Field(None, ge=1, description="None = the VAE's own [count]")

    def check(self) -> None:
        check_spaces(self)
        check_regressor(self)

    def files(self) -> dict[str, str]:
        paths = {name: getattr(self, name) for name in ("images", "latents")}
        return {f"content of {name}": path for name, path in paths.items() if path}


MOST_GAIN = 3.0
SETS = {
    "seen": "training images, among all",
    "unseen_held": "held-out images, among the held-out",
    "unseen_all": "held-out images, among all",
}


@dataclass
class Decoded:
    """What came of one feature space."""

    space: Space
    features: np.ndarray  # (S, D) of every image, standardised on training images
    centre: np.ndarray  # what standardised them: mean and sd (D,)
    spread: np.ndarray
    chosen: dict[str, Any]  # of the decoder
    decoded: dict[str, np.ndarray]  # "choose", "seen" and "unseen": (B, D)
    weights: dict[str, np.ndarray]
    scores: dict[str, dict[str, Score]] = field(default_factory=dict)  # by the names of SETS
    # "seen" and "unseen": r, reliability, and the noise ceiling where the truth is known
    fit: dict[str, dict[str, float]] = field(default_factory=dict)
    pictures: np.ndarray | None = None  # held-out images drawn from spikes
    limit: np.ndarray | None = None  # the same drawn from their true features


@dataclass
class Decoding:
    """All feature spaces of a run, and the best possible scores where the truth is known."""

    scenes: Scenes
    spaces: dict[str, Decoded]
    best: dict[str, dict[str, Score]]

    def pictures(self) -> dict[str, np.ndarray | None]:
        """Held-out images as each space draws them: from its true features, and from spikes."""
        drawn = {}
        for name, one in self.spaces.items():
            drawn |= {f"{name} itself": one.limit, f"{name} from spikes": one.pictures}
        return drawn


def open_shown(data: Data, recipe: Recipe, params: Params) -> Images:
    """The images behind the classes of a recording (see `images.open_images`)."""
    labels = shown_labels(data, params, recipe)
    return images.open_images(recipe, params.recording, labels, params.images)


def decode_images(
    data: Data,
    shown: Images,
    params: Params,
    recipe: Recipe,
    folder: Path,
    ideal: np.ndarray | None = None,
) -> Decoding:
    """Fit every feature space and its decoder; judge each on the same test presentations.

    Parameters
    ----------
    data
        With the counts of all units (`decode.load_data`, every_unit=True).
    recipe
        Says which label is a grey screen, and which units 04 leaves out.
    folder
        Where networks keep their log and checkpoints.
    ideal
        Log-probabilities (B, C) of the best possible decoder, where they are known.
    """
    scenes = split_scenes(data, shown, params, recipe)
    draws = params.model_dump(include={"n_permutations", "seed"})
    regressor = Regressor(scenes.presentations, params, folder)
    spaces = {}
    for space in make_spaces(params, len(shown.label), folder):
        one = decode_space(space, scenes, regressor)
        near = {part: retrieval.similarity(d, one.features) for part, d in one.decoded.items()}
        one.scores = find_images(near, scenes, draws)
        for part in ("seen", "unseen") if len(scenes.held) else ("seen",):
            y = scenes.presentations[part].y
            one.fit[part] = retrieval.agreement(one.decoded[part], one.features, y)
        if one.pictures is not None:
            pixels = shown.pixels
            against = pixels[scenes.held], pixels[scenes.train].mean(axis=0)
            resampling = {**draws, "n_bootstrap": params.n_bootstrap}
            one.scores["reconstruction"] = {
                "pixel_correlation": retrieval.reconstruction(one.pictures, *against, **resampling),
                "of_the_true_features": retrieval.reconstruction(one.limit, *against, **resampling),
            }
        spaces[space.name] = one
    best: dict[str, dict[str, Score]] = {}
    if ideal is not None:
        row = rows_of_classes(data, shown, params, recipe)
        every = np.full((len(ideal), len(shown.label)), -np.inf)
        every[:, row[row >= 0]] = ideal[:, row >= 0]
        place = pd.Index(data.test.trial)
        near = {
            part: every[place.get_indexer(scenes.presentations[part].trial)]
            for part in ("seen", "unseen")
        }
        best = find_images(near, scenes, draws)
        for one in spaces.values():
            for part, fit in one.fit.items():
                y = scenes.presentations[part].y
                fit["ceiling"] = retrieval.best_agreement(np.exp(near[part]), one.features, y)
    return Decoding(scenes, spaces, best)


def decode_space(space: Space, scenes: Scenes, regressor: Regressor) -> Decoded:
    """A feature space fitted on training images, decoded, and where it can, drawn."""
    pixels = scenes.shown.pixels
    space.fit(pixels[scenes.train], pixels[scenes.val])
    raw = space.encode(pixels)
    known = raw[np.concatenate([scenes.train, scenes.val])]
    centre, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 1e-9 * max(1.0, float(np.abs(centre).max())), spread, np.inf)
    features = (raw - centre) / spread
    decoded, chosen, weights = regressor.decode(features)
    one = Decoded(space, features, centre, spread, chosen, decoded, weights)
    if len(scenes.held):
        one.pictures = draw(one, scenes)
        one.limit = space.decode(raw[scenes.held])
    return one


def find_images(
    near: dict[str, np.ndarray], scenes: Scenes, draws: dict[str, int]
) -> dict[str, dict[str, Score]]:
    """Top-1, top-5 and median rank of the true image for each of SETS.

    near: "seen" and "unseen", (B, S), larger is nearer; draws: n_permutations and seed.
    """
    candidates = {"seen": ("seen", scenes.all)}
    if len(scenes.held):
        candidates |= {"unseen_held": ("unseen", scenes.held), "unseen_all": ("unseen", scenes.all)}
    return {
        name: retrieval.retrieval_scores(
            near[part][:, rows], np.searchsorted(rows, scenes.presentations[part].y), **draws
        )
        for name, (part, rows) in candidates.items()
    }


def draw(one: Decoded, scenes: Scenes) -> np.ndarray | None:
    """Held-out images (n, H, W) from features averaged over the test presentations of each.

    Rows as in `split.held`; None where the space leads to no image.
    """
    y, decoded = scenes.presentations["unseen"].y, one.decoded["unseen"]
    mean = np.stack(
        [decoded[y == r].mean(axis=0) if (y == r).any() else 0 * one.centre for r in scenes.held]
    )
    # Decoded features are drawn towards the mean, 0; the spread of training images, 1, is given
    # back by as much as the validation images lack it.
    chose, image = one.decoded["choose"], scenes.presentations["choose"].y
    reach = np.sqrt(np.mean([chose[image == r].mean(axis=0) ** 2 for r in scenes.val], axis=0))
    gain = np.minimum(1.0 / np.maximum(reach, 1e-6), MOST_GAIN)
    spread = np.where(np.isinf(one.spread), 0.0, one.spread)
    return one.space.decode(mean * gain * spread + one.centre)


# --- what is stored ------------------------------------------------------------------------------


def result_of(decoding: Decoding, data: Data, params: Params) -> Result:
    """Scores of each space and set of images, beside what was decoded.

    Tables: spaces (see `comparison`), retrieval (see `ranks`). Arrays: latents, the standardised
    features of every image with what standardised them; decoder_SPACE, the weights.
    """
    scenes, rows = decoding.scenes, []
    latents = {"label": scenes.shown.label.astype(np.int64)}
    for name, one in decoding.spaces.items():
        for which, scores in one.scores.items():
            best, of = decoding.best.get(which, {}), {}
            if which in SETS:
                part = "seen" if which == "seen" else "unseen"
                of = {
                    "model": f"{name} by {params.regressor}",
                    "variant": SETS[which],
                    "n_test": len(scenes.presentations[part]),
                    "n_train": len(scenes.presentations["fit, all"]),
                }
            rows += [
                Row(f"{name}, {which}, {metric}", score, best.get(metric), of, metric)
                for metric, score in scores.items()
            ]
        spread = np.where(np.isinf(one.spread), 0.0, one.spread)
        latents |= {name: one.features, f"{name}.centre": one.centre, f"{name}.spread": spread}
    about = {
        "regressor": params.regressor,
        "n_test": sum(len(scenes.presentations[part]) for part in ("seen", "unseen")),
        "images": scenes.shown.origin,
        "held_out": scenes.shown.label[scenes.held].tolist(),
    }
    by_space = [ranks(decoding, name) for name in decoding.spaces]
    weights = {f"decoder_{n}": one.weights for n, one in decoding.spaces.items() if one.weights}
    return Result(
        rows,
        data.about | about,
        tables={
            "spaces": comparison(decoding),
            "retrieval": pd.concat(by_space, ignore_index=True),
        },
        arrays={"latents": latents, **weights},
        files=[one.space for one in decoding.spaces.values()],
    )


def comparison(decoding: Decoding) -> pd.DataFrame:
    """One row a feature space and set of images; scores with interval, chance and p, best possible."""
    rows = []
    for name, one in decoding.spaces.items():
        for which, text in SETS.items():
            if which not in one.scores:
                continue
            row = {"space": name, "which": text, "n_features": one.features.shape[1]}
            for kind, score in one.scores[which].items():
                row |= {kind: score.value, f"{kind}_low": score.ci_low, f"{kind}_high": score.ci_high,
                        f"{kind}_chance": score.chance, f"{kind}_p": score.p}  # fmt: skip
                if which in decoding.best:
                    row[f"{kind}_best_possible"] = decoding.best[which][kind].value
            rows.append(row | one.fit["seen" if which == "seen" else "unseen"])
    return pd.DataFrame(rows)


def ranks(decoding: Decoding, space: str) -> pd.DataFrame:
    """One row a test presentation: trial, label, set, rank of its image among all."""
    scenes, one = decoding.scenes, decoding.spaces[space]
    parts = []
    for part in ("seen", "unseen"):
        p = scenes.presentations[part]
        near = retrieval.similarity(one.decoded[part], one.features[scenes.all])
        true = near[np.arange(len(p)), np.searchsorted(scenes.all, p.y)]
        rank = (near >= true[:, None]).sum(axis=1)
        shown = {"space": space, "trial": p.trial, "label": scenes.shown.label[p.y]}
        parts.append(pd.DataFrame(shown | {"images": part, "rank": rank}))
    return pd.concat(parts, ignore_index=True)
