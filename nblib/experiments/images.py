"""From spikes to images (10): decode an image's features, then find the image, or draw it.

Some scenes are held out as a whole (see `scenes`). What is judged are test presentations, of
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
from nblib.core import store
from nblib.data import images, sources
from nblib.evaluate import scores as metrics
from nblib.evaluate.retrieval import (
    agreement,
    best_agreement,
    reconstruction,
    retrieval_scores,
    similarity,
)
from nblib.experiments import decode
from nblib.experiments.features import check_spaces, make_spaces
from nblib.experiments.regression import Regressor, check_regressor
from nblib.experiments.scenes import Scenes, split_scenes

if TYPE_CHECKING:
    from nblib.data.images import Images
    from nblib.experiments.decode import Data
    from nblib.experiments.features import Space
    from nblib.road.stages import Stage


class Params(P.Judge, P.Fit, P.StageParams):
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
RETRIEVAL, COMPARISON, LATENTS = "retrieval.parquet", "spaces.parquet", "latents.safetensors"


@dataclass
class Decoded:
    """What came of one feature space."""

    space: Space
    features: np.ndarray  # (S, D) of every image, standardised on training images
    centre: np.ndarray  # what standardised them: mean and sd (D,)
    spread: np.ndarray
    chosen: dict[str, Any]  # of the decoder
    decoded: dict[str, np.ndarray]  # "choose", "seen" and "unseen": (B, D)
    scores: dict[str, dict[str, metrics.Score]]  # by the names of SETS
    # "seen" and "unseen": r, reliability, and the noise ceiling where the truth is known
    fit: dict[str, dict[str, float]] = field(default_factory=dict)
    pictures: np.ndarray | None = None  # held-out images drawn from spikes
    limit: np.ndarray | None = None  # the same drawn from their true features
    weights: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Outcome:
    """All feature spaces of a run, and the best possible scores where the truth is known."""

    scenes: Scenes
    spaces: dict[str, Decoded]
    oracle: dict[str, dict[str, metrics.Score]]
    n_test: int

    def pictures(self) -> dict[str, np.ndarray | None]:
        """Held-out images as each space draws them: from its true features, and from spikes."""
        drawn = {}
        for name, one in self.spaces.items():
            drawn |= {f"{name} itself": one.limit, f"{name} from spikes": one.pictures}
        return drawn


def open_shown(data: Data, stage: Stage) -> Images:
    """The images behind the classes of a recording (see `images.open_images`)."""
    labels = images.scene_labels(
        data.classes, f"recording {stage.recording!r}", stage.recipe.label_rules.blank
    )
    return images.open_images(stage.recipe, stage.recording, labels, stage.params.images)


def run(data: Data, shown: Images, stage: Stage) -> Outcome:
    """Fit every feature space and its decoder; judge each on the same test presentations."""
    scenes = split_scenes(data, shown, stage)
    how = {k: v for k, v in decode.resampling(data, stage).items() if k != "group"}
    folder = store.log_dir(stage.name, stage.recording, stage.key)
    regressor = Regressor(scenes.presentations, stage.params, folder)
    spaces = {}
    for space in make_spaces(stage, shown):
        space.fit(shown.pixels[scenes.train], shown.pixels[scenes.val])
        raw = space.encode(shown.pixels)
        known = raw[np.concatenate([scenes.train, scenes.val])]
        centre, spread = known.mean(axis=0), known.std(axis=0)
        spread = np.where(spread > 1e-9 * max(1.0, float(np.abs(centre).max())), spread, np.inf)
        features = (raw - centre) / spread
        decoded, chosen, weights = regressor.decode(features)
        one = Decoded(space, features, centre, spread, chosen, decoded, {}, weights=weights)
        near = {name: similarity(d, features) for name, d in decoded.items()}
        one.scores = retrieval(near, scenes, how)
        for part in ("seen", "unseen") if len(scenes.held) else ("seen",):
            one.fit[part] = agreement(decoded[part], features, scenes.presentations[part].y)
        if len(scenes.held):
            one.pictures = draw(one, scenes)
            one.limit = space.decode(raw[scenes.held])
        if one.pictures is not None:
            held, mean = shown.pixels[scenes.held], shown.pixels[scenes.train].mean(axis=0)
            one.scores["reconstruction"] = {
                "pixel_correlation": reconstruction(one.pictures, held, mean, **how),
                "of_the_true_features": reconstruction(one.limit, held, mean, **how),
            }
        spaces[space.name] = one
    truth = decode.oracle_log_proba(data, stage)
    oracle: dict[str, dict[str, metrics.Score]] = {}
    if truth is not None:
        labels = images.scene_labels(data.classes, stage.recording, stage.recipe.label_rules.blank)
        columns = np.flatnonzero(np.isin(data.classes, labels))
        order = np.argsort(shown.rows(data.classes[columns].astype(int)))
        every = np.full((len(truth), len(shown.label)), -np.inf)
        every[:, np.sort(shown.rows(labels))] = truth[:, columns[order]]
        place = {int(t): i for i, t in enumerate(data.test.trial)}
        near = {
            name: every[[place[int(t)] for t in scenes.presentations[name].trial]]
            for name in ("seen", "unseen")
        }
        oracle = retrieval(near, scenes, how)
        for one in spaces.values():
            for part, found in one.fit.items():
                shown_y = scenes.presentations[part].y
                found["ceiling"] = best_agreement(np.exp(near[part]), one.features, shown_y)
    n_test = sum(len(scenes.presentations[name]) for name in ("seen", "unseen"))
    return Outcome(scenes, spaces, oracle, n_test)


def retrieval(
    near: dict[str, np.ndarray], scenes: Scenes, how: dict[str, int]
) -> dict[str, dict[str, metrics.Score]]:
    """Top-1, top-5 and median rank of the true image for each of SETS.

    near: "seen" and "unseen", (B, S), larger is nearer.
    """
    draws = {"n_permutations": how["n_permutations"], "seed": how["seed"]}
    shown = np.sort(np.concatenate([scenes.train, scenes.val, scenes.held]))
    asked = {"seen": ("seen", shown)}
    if len(scenes.held):
        asked |= {"unseen_held": ("unseen", scenes.held), "unseen_all": ("unseen", shown)}
    return {
        name: retrieval_scores(near[part][:, cand], np.searchsorted(cand, scenes.presentations[part].y), **draws)
        for name, (part, cand) in asked.items()
    }  # fmt: skip


def draw(one: Decoded, scenes: Scenes) -> np.ndarray | None:
    """Held-out images (n, H, W) from features averaged over the test presentations of each.

    Rows as in `scenes.held`; None where the space leads to no image.
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


# --- tables, files and words ---------------------------------------------------------------------


def comparison(outcome: Outcome) -> pd.DataFrame:
    """One row a feature space and set of images; scores with interval, chance and p, best possible."""
    rows = []
    for name, one in outcome.spaces.items():
        for which, text in SETS.items():
            if which not in one.scores:
                continue
            row = {"space": name, "which": text, "n_features": one.features.shape[1]}
            for kind, score in one.scores[which].items():
                row |= {kind: score.value, f"{kind}_low": score.ci_low, f"{kind}_high": score.ci_high,
                        f"{kind}_chance": score.chance, f"{kind}_p": score.p}  # fmt: skip
                if which in outcome.oracle:
                    row[f"{kind}_best_possible"] = outcome.oracle[which][kind].value
            rows.append(row | one.fit["seen" if which == "seen" else "unseen"])
    return pd.DataFrame(rows)


def short_table(outcome: Outcome) -> pd.DataFrame:
    """The comparison as people read it."""
    rows = []
    for row in comparison(outcome).to_dict("records"):
        rows.append(
            {"space": row["space"], "which": row["which"],
             "nearest": f"{row['accuracy']:.1%}", "chance": f"{row['accuracy_chance']:.1%}",
             "among 5": f"{row['top5']:.1%}", "chance of 5": f"{row['top5_chance']:.1%}",
             "median rank": f"{row['median_rank']:.0f} ({row['median_rank_chance']:.0f})",
             "p": f"{row['accuracy_p']:.2g}"}
        )  # fmt: skip
    return pd.DataFrame(rows)


def preferred(outcome: Outcome) -> str:
    """The space whose decoded features find most validation presentations among validation images.

    Test presentations have no part in it. The first of equals.
    """
    scenes, right = outcome.scenes, {}
    y = np.searchsorted(scenes.val, scenes.presentations["choose"].y)
    for name, one in outcome.spaces.items():
        near = similarity(one.decoded["choose"], one.features[scenes.val])
        right[name] = (near.argmax(axis=1) == y).mean()
    return max(right, key=right.get)


def examples(outcome: Outcome, space: str = "", n: int = 5) -> pd.DataFrame:
    """Test presentations of held-out images (or seen ones), spread over ranks, with their answers.

    space: a name; "" = the one that validation prefers. Columns: space, row of the image, rank,
    answers (rows of the five nearest images).
    """
    space = space or preferred(outcome)
    scenes, one = outcome.scenes, outcome.spaces[space]
    part = "unseen" if len(scenes.held) else "seen"
    y = scenes.presentations[part].y
    shown = np.sort(np.concatenate([scenes.train, scenes.val, scenes.held]))
    near = similarity(one.decoded[part], one.features[shown])
    order = shown[np.argsort(-near, axis=1, kind="stable")]
    rank = (order == y[:, None]).argmax(axis=1) + 1
    first = np.unique(y, return_index=True)[1]  # one presentation an image
    picked = first[np.argsort(rank[first], kind="stable")]
    picked = picked[np.linspace(0, len(picked) - 1, min(n, len(picked))).astype(int)]
    return pd.DataFrame(
        {
            "space": space,
            "row": y[picked],
            "rank": rank[picked],
            "answers": [order[i, :5].tolist() for i in picked],
        }
    )


def save(folder: Path, stage: Stage, data: Data, outcome: Outcome) -> None:
    """Write metrics.json (a row for each space and set), tables, features and weights."""
    from safetensors.numpy import save_file

    shared = {
        **decode.identity(stage, data), "regressor": stage.params.regressor, "n_test": outcome.n_test,
        "images": outcome.scenes.shown.origin, "held_out": outcome.scenes.shown.label[outcome.scenes.held].tolist(),
    }  # fmt: skip
    rows, every = [], {}
    for name, one in outcome.spaces.items():
        for which, scores in one.scores.items():
            every |= {f"{name}, {which}, {kind}": s for kind, s in scores.items()}
            if which in SETS:
                part = "seen" if which == "seen" else "unseen"
                rows.append(
                    {"model": f"{name} by {stage.params.regressor}", "variant": SETS[which],
                     "n_test": len(outcome.scenes.presentations[part]),
                     "n_train": len(outcome.scenes.presentations["fit, all"]),
                     "scores": scores, "oracle": outcome.oracle.get(which, {})}
                )  # fmt: skip
        one.space.save(folder)
        if one.weights:
            save_file(
                {k: np.ascontiguousarray(v) for k, v in one.weights.items()},
                folder / f"decoder_{name}.safetensors",
            )
    metrics.write_metrics(folder, {**shared, "scores": every, "rows": rows, "oracle": {}})
    save_file(
        {n: np.ascontiguousarray(o.features) for n, o in outcome.spaces.items()}
        | {f"{n}.{k}": np.ascontiguousarray(np.where(np.isinf(v), 0.0, v)) for n, o in outcome.spaces.items()
           for k, v in (("centre", o.centre), ("spread", o.spread))}
        | {"label": np.ascontiguousarray(outcome.scenes.shown.label.astype(np.int64))},
        folder / LATENTS,
    )  # fmt: skip
    comparison(outcome).to_parquet(folder / COMPARISON, index=False)
    decode.forget_checkpoints(store.log_dir(stage.name, stage.recording, stage.key))
    found = [ranks(outcome, name) for name in outcome.spaces]
    pd.concat(found, ignore_index=True).to_parquet(folder / RETRIEVAL, index=False)


def ranks(outcome: Outcome, space: str) -> pd.DataFrame:
    """One row a test presentation: trial, label, set, rank of its image among all."""
    scenes, one = outcome.scenes, outcome.spaces[space]
    shown = np.sort(np.concatenate([scenes.train, scenes.val, scenes.held]))
    parts = []
    for part in ("seen", "unseen"):
        p = scenes.presentations[part]
        near = similarity(one.decoded[part], one.features[shown])
        own = near[np.arange(len(p)), np.searchsorted(shown, p.y)]
        parts.append(
            pd.DataFrame(
                {"space": space, "trial": p.trial, "label": scenes.shown.label[p.y], "images": part,
                 "rank": (near >= own[:, None]).sum(axis=1)}
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def drawn_in_words(outcome: Outcome) -> str:
    """How much of the held-out images is drawn, space by space."""
    lines = []
    for name, one in outcome.spaces.items():
        if found := one.scores.get("reconstruction"):
            s, limit = found["pixel_correlation"], found["of_the_true_features"]
            lines.append(
                f"- **{name}** from spikes: pixel correlation {s.value:.2f} (95 % interval {s.ci_low:.2f} to "
                f"{s.ci_high:.2f}, with other images {s.chance:.2f}, p = {s.p:.2g}); from the true features {limit.value:.2f}"
            )
    return (
        "\n".join(lines) or "No space of this run leads back to an image, or no image was held out."
    )


def in_words(stage: Stage, outcome: Outcome) -> str:
    """The result in a sentence a feature space, and what to make of it."""
    lines = []
    which = "unseen_held" if len(outcome.scenes.held) else "seen"
    n = len(outcome.scenes.held) if len(outcome.scenes.held) else len(outcome.scenes.shown.label)
    for name, one in outcome.spaces.items():
        s = one.scores[which]["accuracy"]
        lines.append(
            f"- **{name}**: {s.value:.1%} (95 % interval {s.ci_low:.1%} to {s.ci_high:.1%}, p = {s.p:.2g})"
        )
    first = next(iter(outcome.spaces.values())).scores[which]["accuracy"]
    best = ""
    if which in outcome.oracle:
        best = f" The best possible decoder, which knows the truth, finds {outcome.oracle[which]['accuracy'].value:.1%}."
    told = "images never seen in training" if which == "unseen_held" else "images"
    note = ""
    if sources.is_simulated(stage.recipe.source):
        note = (
            " In this simulated recording the units *are* filters on the image, so features made "
            "of filters have an advantage here that real recordings need not give them."
        )
    return (
        f"**Result.** From one presentation, {stage.params.regressor} finds the right one of {n} {told} "
        f"in so many of {first.n:,} test presentations; guessing would in {first.chance:.1%}:\n\n"
        + "\n".join(lines)
        + f"\n\n{best}{note}".rstrip()
    )
