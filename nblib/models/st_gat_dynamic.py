"""ST-GAT whose graph changes with the time bin."""

from __future__ import annotations

from nblib.models.st_gat import STGAT


class DynamicSTGAT(STGAT):
    """As `st_gat`, with a graph of its own for each time bin.

    The graphs come from the activity in that bin on train rows (correlation), or start there and
    are learned. No label is looked at.
    """

    name = "st_gat_dynamic"
    title = "ST-GAT, a graph per bin"
    kinds = ("correlation", "learned")
    by_bin = True
