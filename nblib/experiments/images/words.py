"""Images from spikes as people read them (10): tables, examples and a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.data import sources
from nblib.evaluate import retrieval
from nblib.evaluate.result import readable, with_interval

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.experiments.images.from_spikes import Decoding


def short_table(spaces: pd.DataFrame) -> pd.DataFrame:
    """The comparison of spaces as people read it."""
    columns = {
        "space": "{space}",
        "which": "{which}",
        "nearest": "{accuracy:.1%}",
        "chance": "{accuracy_chance:.1%}",
        "among 5": "{top5:.1%}",
        "chance of 5": "{top5_chance:.1%}",
        "median rank": "{median_rank:.0f} ({median_rank_chance:.0f})",
        "p, image permutation": "{accuracy_p:.2g}",
    }
    return readable(spaces, columns)


def drawn_table(decoding: Decoding) -> pd.DataFrame:
    """How much of the held-out images is drawn, space by space, as people read it."""
    rows = []
    for name, one in decoding.spaces.items():
        if scores := one.scores.get("reconstruction"):
            limit = scores["of_the_true_features"].value
            rows.append({"space": name, "limit": limit} | scores["pixel_correlation"].fields())
    if not rows:
        none = "No space of this run leads back to an image, or no image was held out."
        return pd.DataFrame([{"nothing drawn": none}])
    columns = {
        "space": "{space}",
        "from spikes": "{value:.2f}",
        "95 % interval": "{ci_low:.2f} to {ci_high:.2f}",
        "with other images": "{chance:.2f}",
        "p, image permutation": "{p:.2g}",
        "from the true features": "{limit:.2f}",
    }
    return readable(pd.DataFrame(rows), columns)


def preferred(decoding: Decoding) -> str:
    """The space whose decoded features find most validation presentations among validation images.

    Test presentations have no part in it. The first of equals.
    """
    scenes, right = decoding.scenes, {}
    y = np.searchsorted(scenes.val, scenes.presentations["choose"].y)
    for name, one in decoding.spaces.items():
        near = retrieval.similarity(one.decoded["choose"], one.features[scenes.val])
        right[name] = (near.argmax(axis=1) == y).mean()
    return max(right, key=right.get)


def examples(decoding: Decoding) -> pd.DataFrame:
    """Five test presentations of held-out images (or seen ones), spread over ranks, with their answers.

    Columns: space, the one that validation prefers; row of the image, rank, answers (rows of the
    five nearest images).
    """
    space = preferred(decoding)
    scenes, one = decoding.scenes, decoding.spaces[space]
    part = "unseen" if len(scenes.held) else "seen"
    y = scenes.presentations[part].y
    near = retrieval.similarity(one.decoded[part], one.features[scenes.all])
    order = scenes.all[np.argsort(-near, axis=1, kind="stable")]
    rank = (order == y[:, None]).argmax(axis=1) + 1
    first = np.unique(y, return_index=True)[1]  # one presentation an image
    picked = first[np.argsort(rank[first], kind="stable")]
    picked = picked[np.linspace(0, len(picked) - 1, min(5, len(picked))).astype(int)]
    answers = [order[i, :5].tolist() for i in picked]
    return pd.DataFrame(
        {"space": space, "row": y[picked], "rank": rank[picked], "answers": answers}
    )


def in_words(decoding: Decoding, regressor: str, recipe: Recipe) -> str:
    """The result in a sentence a feature space, and what to make of it."""
    held = decoding.scenes.held
    which, n = (
        ("unseen_held", len(held)) if len(held) else ("seen", len(decoding.scenes.shown.label))
    )
    scores = {name: one.scores[which]["accuracy"] for name, one in decoding.spaces.items()}
    lines = [
        f"- **{name}**: {with_interval(s)}, p = {s.p:.2g} by {s.null}" for name, s in scores.items()
    ]
    first = next(iter(scores.values()))
    best = note = ""
    if which in decoding.best:
        value = decoding.best[which]["accuracy"].value
        best = f" The best possible decoder, which knows the truth, finds {value:.1%}."
    if sources.is_simulated(recipe.source):
        note = (
            " In this simulated recording the units *are* filters on the image, so features made "
            "of filters have an advantage here that real recordings need not give them."
        )
    what = "images never seen in training" if which == "unseen_held" else "images"
    return (
        f"**Result.** From one presentation, {regressor} finds the right one of {n} {what} "
        f"in so many of {first.n:,} test presentations; guessing would in {first.chance:.1%}:\n\n"
        + "\n".join(lines)
        + f"\n\n{best}{note}".rstrip()
    )
