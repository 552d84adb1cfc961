"""Arrays for the decoders: one set of samples per role, and batches that stay on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, BadParameter

if TYPE_CHECKING:
    import torch
    import xarray as xr

ROLES = ("train", "val", "test")


@dataclass(frozen=True)
class Samples:
    """Presentations of one role: x (B, T, N) float32, y (B,) class index, trial (B,) row index."""

    x: np.ndarray
    y: np.ndarray
    trial: np.ndarray

    def __post_init__(self):
        if self.x.ndim != 3 or self.y.shape != self.x.shape[:1] or self.trial.shape != self.y.shape:
            raise BadInput(
                "samples need x (B, T, N), y (B,) and trial (B,), not "
                f"{self.x.shape}, {self.y.shape} and {self.trial.shape}."
            )

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, rows: np.ndarray) -> Samples:
        """Some of them: numbers of rows, or (B,) bool."""
        return Samples(self.x[rows], self.y[rows], self.trial[rows])

    @classmethod
    def together(cls, parts: list[Samples]) -> Samples:
        """One after the other."""
        return cls(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("x", "y", "trial")))


def role_samples(
    binned: xr.Dataset, split: pd.DataFrame, stats: Any, fold: int
) -> dict[str, Samples]:
    """Cut a binned recording into train, validation and test samples of one fold.

    binned: `counts (trial, time, unit)` with coordinates trial, label and unit; split: rows
    trial x fold with role and label; stats: the fold's `TrainStatistics`, fitted on train rows.
    Presentations keep their order in time. Raises BadParameter for an unknown fold, BadInput when
    the split was made from another recording or a label is not among the train classes.
    """
    if binned.attrs.get("label_name") == "":
        raise BadInput(
            f"recording {binned.attrs['recording']!r} has no label to decode; it was binned without trials "
            "(binning: continuous)."
        )
    rows = split[split["fold"] == fold]
    if rows.empty:
        known = sorted(int(f) for f in split["fold"].unique())
        raise BadParameter(f"fold = {fold}: this split has the folds {known}.")
    if stats.fold != fold:
        raise BadInput(f"fold {fold} was asked with the statistics of fold {stats.fold}.")
    position = pd.Index(binned["trial"].to_numpy()).get_indexer(rows["trial"])
    if (position < 0).any():
        gone = rows["trial"].to_numpy()[position < 0][0]
        raise BadInput(
            f"trial {gone} of the split is not in the binned recording; "
            "the two do not belong together, run 04 again."
        )
    label = binned["label"].to_numpy()
    if not (pd.Series(label[position]).astype(str).to_numpy() == rows["label"].astype(str)).all():
        raise BadInput(
            "the labels of the split differ from those of the binned recording; "
            "the two do not belong together, run 04 again."
        )
    unit_ids = binned["unit"].to_numpy()
    samples = {}
    for role in ROLES:
        index = np.sort(position[(rows["role"] == role).to_numpy()])
        x = stats.transform(binned["counts"][index].to_numpy(), unit_ids)  # (B, T, N)
        samples[role] = Samples(
            x=np.ascontiguousarray(x, dtype=np.float32),
            y=stats.encode(label[index]),
            trial=binned["trial"].to_numpy()[index].astype(np.int64),
        )
    return samples


def shuffle_labels(samples: dict[str, Samples], seed: int) -> dict[str, Samples]:
    """The control: labels permuted within each role, so every class count stays as it was."""
    rng = np.random.default_rng([seed, 20240])
    return {role: replace(s, y=rng.permutation(s.y)) for role, s in samples.items()}


class DeviceBatches:
    """Batches of (x, y) cut by index from tensors that already lie on the device.

    x (B, T, N) and y (B,) move to `device` once; a batch is then one gather, with no worker
    process and no copy between host and device. The order of epoch e depends on (seed, e) alone,
    so a resumed run sees the batches that an unbroken run would have seen. The last batch may be
    smaller; no sample is dropped. at_once: a batch comes in pieces of so many samples, 0 whole.
    """

    def __init__(
        self,
        x: np.ndarray | torch.Tensor,
        y: np.ndarray | torch.Tensor,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        device: str | torch.device = "cpu",
        at_once: int = 0,
    ):
        import torch

        if len(x) != len(y) or len(x) == 0:
            raise BadInput(
                f"batches need one label a sample, at least one: {len(x)} samples, {len(y)} labels."
            )
        if batch_size < 1:
            raise BadParameter(f"batch_size = {batch_size}: must be at least 1.")
        self.x = torch.as_tensor(x).to(device)  # (B, T, N)
        self.y = torch.as_tensor(y).to(device)  # (B,)
        self.batch_size, self.shuffle, self.seed, self.epoch = batch_size, shuffle, seed, 0
        self.at_once = min(at_once or batch_size, batch_size)

    @property
    def n(self) -> int:
        """Samples of a pass."""
        return len(self.y)

    @property
    def pieces(self) -> int:
        """Pieces of a whole batch."""
        return -(-self.batch_size // self.at_once)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.y), self.batch_size)
        return whole * self.pieces + -(-rest // self.at_once)

    def weight(self, piece: int) -> float:
        """What the mean loss of a piece counts in that of its batch."""
        batch, place = divmod(piece, self.pieces)
        size = min(self.batch_size, len(self.y) - batch * self.batch_size)
        return min(self.at_once, size - place * self.at_once) / size

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def order(self) -> torch.Tensor:
        """The permutation (B,) of the current epoch; the same on every device."""
        import torch

        # SeedSequence mixes the pair: (0, 1) and (1, 0) give unrelated orders.
        mixed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        return torch.randperm(len(self.y), generator=torch.Generator().manual_seed(mixed))

    def __iter__(self):
        import torch

        # A generator: nothing is drawn before the first batch is asked for.
        order = self.order() if self.shuffle else torch.arange(self.n)
        for batch in order.to(self.x.device).split(self.batch_size):
            for index in batch.split(self.at_once):
                yield self.x.index_select(0, index), self.y.index_select(0, index)
