"""What more data would buy (92): how the score grows with presentations, units and bins.

`runs` are rows of `results.comparable`: of one recipe, and of recipes derived from it that differ in
one of these numbers alone.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core.errors import MissingInput
from nblib.core.markup import in_markdown
from nblib.report import results, summary
from nblib.road.stage_registry import ReportParams

# What each size is called, and the settings that change it.
SIZES = {
    "n_a_class": ("training presentations of each image", r"n_repeats=\d+"),
    "n_units": ("units", r"(?:n_units|units_seed)=\d+"),
    "n_bins": ("bins a presentation", r"n_bins=\d+"),
}
AVERAGED = ("value", "ci_low", "ci_high", "chance", "oracle", "val_accuracy")
POWER = "nblib sweep params/sweeps/power.yml"


class Params(ReportParams):
    """Parameters of 92."""

    recipe: str = Field("power", description="recipe that was run with more and with less data")


def keys_read(params: Params) -> list[str]:
    """Keys of what a report would be of if it were made now."""
    return summary.inputs(results.scan(params.recipe))


def changes(runs: pd.DataFrame) -> pd.Series:
    """All that the recipe of each run changes of its `base`, as text; "" where it is that one."""
    judged = [g.removeprefix(b).strip(" ()") for g, b in zip(runs["group"], runs["base"], strict=True)]  # fmt: skip
    both = zip(judged, runs["changed"], strict=True)
    return pd.Series([", ".join(filter(None, pair)) for pair in both], runs.index, dtype=object)


def by_size(runs: pd.DataFrame, size: str) -> pd.DataFrame:
    """Means over runs that differ in one of `SIZES` alone, a row a decoder and size.

    Columns: those of `AVERAGED`, the size, `is_base` for the recipe's own size, and `run`. Decoders
    that were run with one size have no row.
    """
    runs = runs.assign(n_a_class=(runs["n_train"] / runs["n_classes"]).astype(float).round(1))
    changed = changes(runs)
    rest = changed.str.replace(rf"(?:^|, ){SIZES[size][1]}", "", regex=True).str.lstrip(", ")
    runs = runs.assign(is_base=changed == "", changed=rest)
    alike = ["base", "recording", "model", "variant", "changed"]
    columns = dict.fromkeys(AVERAGED, "mean") | {"is_base": "any", "run": list}
    table = runs.groupby([*alike, size], as_index=False).agg(columns)
    return table[table.groupby(alike)[size].transform("size") > 1]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """All rows of `by_size` as people read them. MissingInput where no size was changed."""
    parts = [
        by_size(runs, size).assign(size=name, at=lambda part, size=size: part[size])
        for size, (name, _) in SIZES.items()
    ]
    found = pd.concat([part[part["changed"] == ""] for part in parts])
    if found.empty:
        raise MissingInput(
            f"no runs that differ in how much data there is. Make some with:  {POWER}"
        )
    kept = ["size", "at", "model", "value", "ci_low", "ci_high", "oracle", "chance", "is_base"]
    return found[kept].sort_values(["size", "model", "at"], ignore_index=True)


def in_words(table: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What twice the data are worth to the decoder that validation chooses, of those that were run
    with several sizes, as Markdown. MissingInput where none was run with the recipe's own.

    Measured from the recipe's own size to the next larger one, or from the next smaller one where
    there is none. table: as `table` gives it.
    """
    own = runs[(changes(runs) == "") & runs["model"].isin(table["model"])]
    if own.empty:
        raise MissingInput(
            f"no run of the recipe's own size to start from. Make one with:  {POWER}"
        )
    own = own.groupby("model")[list(AVERAGED)].mean()
    model = own["val_accuracy"].idxmax()
    worth, steps = [], []
    for name, part in table[table["model"] == model].groupby("size", sort=False):
        part = part.sort_values("at").reset_index(drop=True)
        base = int(part["is_base"].argmax())
        first = min(base, len(part) - 2)
        low, high = part.iloc[first], part.iloc[first + 1]
        doublings = np.log2(high["at"] / low["at"])
        points = 100 * (high["value"] - low["value"]) / doublings
        worth.append(f"twice the {name} {points:+.1f} points")
        steps.append(
            f"{low['at']:g} to {high['at']:g} {name}: {low['value']:.1%} to {high['value']:.1%}"
            + (f" (best possible {high['oracle']:.1%})" if np.isfinite(high["oracle"]) else "")
        )
    best = own.loc[model, "oracle"]
    gap = f", where {best:.1%} are possible" if np.isfinite(best) else ""
    return (
        f"**Result.** {in_markdown(model)}, which validation chooses, names {own.loc[model, 'value']:.1%} of test "
        f"presentations{gap}. From there, {'; '.join(worth)}. Seen from {'; from '.join(steps)}."
    )
