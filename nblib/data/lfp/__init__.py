"""Field potentials: one channel a region, whose electrodes are averaged; from NWB or MATLAB files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nblib.core.params import Recipe
from nblib.data.files import require_file

SERIES = "lfp"  # name of the averaged signal in a Recording
STATES = ("home_cage", "open_field", "tail_suspension")
# The lab's order; other regions follow by name. A file's own order says nothing: HDF5 sorts names.
REGIONS = (
    "PrL_Cx", "Md_Thal", "IL_Cx", "BLA", "Acb_Sh", "Acb_Core", "mSNC", "mDHip", "lSNC", "lDHip",
    "VTA",
)  # fmt: skip


def in_order(regions: Iterable[str]) -> list[str]:
    """Regions, each once, in the order in which every recording has its channels."""
    place = {region: i for i, region in enumerate(REGIONS)}
    return sorted(set(regions), key=lambda r: (place.get(r, len(place)), *_numbered(r)))


def _numbered(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d*)", name)
    return match[1], int(match[2] or 0)


def times_file(recipe: Recipe, recording_id: str, usual: Path | None = None) -> dict[str, Path]:
    """The file of the intervals where it is another one: the recipe's `times`, else the `usual` one.

    Raises MissingInput when it is not there.
    """
    path = recipe.file(recording_id, "times") or usual
    if path is None:
        return {}
    require_file(
        path,
        f"it should hold the intervals of recording {recording_id!r}. Set `times` in recipe "
        f"{recipe.recipe!r} if they lie elsewhere",
    )
    return {"times": path}
