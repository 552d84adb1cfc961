"""What more data would buy (92): how the score grows with presentations, units and bins.

`runs` are rows of `all_runs.comparable`: of one recipe, and of recipes derived from it that differ in
one of these numbers alone.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core.errors import MissingInput
from nblib.core.markup import in_markdown
from nblib.report import all_runs, summary
from nblib.road.stage_registry import ReportParams

# What each size is called, and the settings that change it.
SIZES = {
    "n_a_class": ("training presentations of each image", r"n_repeats=\d+"),
    "n_units": ("units", r"(?:n_units|units_seed)=\d+"),
    "n_bins": ("bins a presentation", r"n_bins=\d+"),
}
ALIKE = ["base", "recording", "model", "variant", "changed"]
AVERAGED = ("value", "ci_low", "ci_high", "oracle", "chance", "val_accuracy")
POWER = "nblib sweep params/sweeps/power.yml"


class Params(ReportParams):
    """Parameters of 92."""

    recipe: str = Field("power", description="recipe that was run with more and with less data")


def keys_read(params: Params) -> list[str]:
    """Keys of what a report would be of if it were made now."""
    return summary.inputs(all_runs.scan(params.recipe))


def changes(runs: pd.DataFrame) -> pd.Series:
    """All that the recipe of each run changes of its `base`, as text; "" where it is that one."""
    judged = [
        g.removeprefix(b).strip(" ()") for g, b in zip(runs["group"], runs["base"], strict=True)
    ]
    both = zip(judged, runs["changed"], strict=True)
    return pd.Series([", ".join(filter(None, pair)) for pair in both], runs.index, dtype=object)


def by_size(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over runs that differ in one of `SIZES` alone: a row a decoder, size and number.

    Columns: what a decoder is (`ALIKE`), `size` and the number `at`, those of `AVERAGED`, `is_base`
    for the recipe's own number, and `run`. Decoders that were run with one number have no row.
    """
    runs = runs.assign(n_a_class=(runs["n_train"] / runs["n_classes"]).astype(float).round(1))
    changed = changes(runs)
    columns = dict.fromkeys(AVERAGED, "mean") | {"is_base": "any", "run": list}
    parts = []
    for column, (size, settings) in SIZES.items():
        rest = changed.str.replace(rf"(?:^|, ){settings}", "", regex=True).str.lstrip(", ")
        part = runs.assign(is_base=changed == "", changed=rest, size=size, at=runs[column])
        part = part.groupby([*ALIKE, "size", "at"], as_index=False).agg(columns)
        parts.append(part[part.groupby(ALIKE)["at"].transform("size") > 1])
    return pd.concat(parts, ignore_index=True)


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """All rows of `by_size` as people read them. MissingInput where no size was changed."""
    sizes = by_size(runs).query("changed == ''")
    if sizes.empty:
        raise MissingInput(
            f"no runs that differ in how much data there is. Make some with:  {POWER}"
        )
    sizes = sizes[["size", "at", "model", *AVERAGED, "is_base"]]
    return sizes.sort_values(["size", "model", "at"], ignore_index=True)


def in_words(table: pd.DataFrame) -> str:
    """What twice the data are worth, as Markdown, to the decoder that validation prefers among those that
    were run with several sizes.

    Measured from the recipe's own size to the next larger one, or from the next smaller one where
    there is none. table: as `table` gives it. MissingInput where it lacks the recipe's own size.
    """
    chosen = table[table["is_base"]]
    if chosen.empty:
        raise MissingInput(
            f"no run of the recipe's own size to start from. Make one with:  {POWER}"
        )
    chosen = chosen.loc[chosen["val_accuracy"].idxmax()]
    simulated, worth, steps = np.isfinite(chosen["oracle"]), [], []
    for name, part in table[table["model"] == chosen["model"]].groupby("size", sort=False):
        first = min(int(part["is_base"].argmax()), len(part) - 2)
        low, high = part.iloc[first], part.iloc[first + 1]
        points = 100 * (high["value"] - low["value"]) / np.log2(high["at"] / low["at"])
        worth.append(f"twice the {name} {points:+.1f} points")
        step = f"{low['at']:g} to {high['at']:g} {name}: {low['value']:.1%} to {high['value']:.1%}"
        if simulated:
            step += f" (best possible {high['oracle']:.1%})"
        steps.append(step)
    gap = f", where {chosen['oracle']:.1%} are possible" if simulated else ""
    return (
        f"**Result.** {in_markdown(chosen['model'])}, of these decoders the best on validation, names {chosen['value']:.1%} of "
        f"test presentations{gap}. From there, {'; '.join(worth)}. Seen from {'; from '.join(steps)}."
    )
