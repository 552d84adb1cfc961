"""The embedders of 09 by name: trained by runs of 08, random, band power, fresh, or from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nblib.core.errors import BadInput, BadParameter
from nblib.experiments.pretext import EMBEDDINGS, TASKS
from nblib.prepare.potentials.spectra import log_band_power

if TYPE_CHECKING:
    from nblib.experiments import label_budget
    from nblib.experiments.self_supervision import Params as PretextParams
    from nblib.models.stagernet import StagerNet
    from nblib.prepare.potentials.stored_windows import Cohort

BAND_POWER = "bandpower"  # the embedder that learns nothing: log power by channel and band


def trains_a_network(name: str, head: str) -> bool:
    """Whether an embedder's own weights are trained on the labels."""
    return head == "finetune" or name == "supervised"


def check_embedders(params: label_budget.Params) -> None:
    """BadParameter for an embedder, or one of `compare`, that is unknown or cannot be joined."""
    for text in params.compare:
        if text.count(" - ") != 1:
            raise BadParameter(f"compare: {text!r}; expected two embedders, as in 'rp - random'.")
    for name in [*params.embedders, *(n for text in params.compare for n in text.split(" - "))]:
        parts = name.split("+")
        if len(parts) > 1 and any(trains_a_network(part, params.head) for part in parts):
            raise BadParameter(
                f"embedder {name!r}: only embedders that stay as they are can be joined."
            )
        for part in parts:
            if part == BAND_POWER and params.head == "finetune":
                raise BadParameter(
                    "embedder 'bandpower' has no weights that head 'finetune' could train; take head "
                    "'logistic' or 'linear', or leave it out."
                )
            known = part in ("random", "supervised", BAND_POWER) or part.endswith(".pth")
            if not known and params.pretext_run(part, 0) is None:
                raise BadParameter(
                    f"embedder {part!r}: expected {', '.join(TASKS)} (or one followed by @all), "
                    "random, bandpower, supervised or a path to a .pth file."
                )


@dataclass(frozen=True)
class Embedders:
    """Embeds all windows of a cohort by a named embedder.

    pretext_folder: where the run of 08 with these parameters lies (`Stage.needed`).
    """

    cohort: Cohort
    params: label_budget.Params
    pretext_folder: Callable[[PretextParams], Path]
    _embeddings: dict[tuple[str, int | None], np.ndarray] = field(default_factory=dict)

    def embed(self, name: str, fold: int) -> np.ndarray:
        """Embeddings (W, E) of all windows, by several embedders where they are joined with `+`."""
        parts = []
        for part in name.split("+"):
            run = self.params.pretext_run(part, fold)
            where = (part, run.fold if run else None)
            if where not in self._embeddings:
                self._embeddings[where] = self._embed(part, run)
            parts.append(self._embeddings[where])
        return np.concatenate(parts, axis=1)

    def net(self, name: str, fold: int) -> StagerNet:
        """The network behind a name, to be trained further."""
        return self._net(name, self.params.pretext_run(name, fold))

    def _embed(self, part: str, run: PretextParams | None) -> np.ndarray:
        from nblib.models import stagernet

        if run is not None:
            from safetensors.numpy import load_file

            stored = load_file(self.pretext_folder(run) / f"{EMBEDDINGS}.safetensors")
            if not np.array_equal(stored["start_s"], self.cohort.start_s):
                raise BadInput(
                    f"the embeddings of {part!r}, fold {run.fold}, are of other windows."
                )
            return stored["h"]
        if part == BAND_POWER:
            return log_band_power(self.cohort.x, self.cohort.rate_hz)
        return stagernet.embed(self._net(part, None), self.cohort.x)

    def _net(self, part: str, run: PretextParams | None) -> Any:
        from nblib.models import reproducible, stagernet

        if run is not None:
            return stagernet.load(self.pretext_folder(run))
        n_samples, n_channels = self.cohort.x.shape[1:]
        if part.endswith(".pth"):
            return stagernet.load_weights(part, n_channels, n_samples)
        with reproducible(self.params.seed + 1000):
            return stagernet.StagerNet(
                n_channels, n_samples, self.cohort.rate_hz, self.params.preset
            ).eval()
