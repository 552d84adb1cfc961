"""The masked network, fitted to all sessions of a recipe together."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, distributed
from torch.nn import functional

from nblib.models import FitSettings, going_on, pick_device, reproducible, training
from nblib.models.multimodal.branch import Branch
from nblib.models.multimodal.masks import Mix
from nblib.models.multimodal.model import Multimodal, batch_of, tensors_of
from nblib.models.multimodal.network import MaskedNetwork, Shape
from nblib.models.multimodal.tasks import BEHAVIOUR
from nblib.prepare.sessions import Session

SHARPER = 0.25  # the width of the Gaussian loss of a signal, in what the mean course is off
JUDGED = Mix({"decode": 1.0})  # on validation trials, whose loss a search goes by


class TrialBatches:
    """Batches of trials, each of one session, with masks drawn for the same (seed, epoch) alike.

    fixed: in the order of the trials and with the same masks in every epoch.
    """

    pieces = 1  # a step takes its batch whole

    def __init__(
        self,
        data: list[dict[str, Tensor]],
        sessions: list[Session],
        role: str,
        settings: FitSettings,
        mix: Mix,
        fixed: bool = False,
    ):
        self.data, self.sessions, self.settings, self.mix = data, sessions, settings, mix
        self.rows = [one.rows(role) for one in sessions]
        self.n = sum(map(len, self.rows))
        self.fixed, self.epoch = fixed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose what the next pass draws."""
        self.epoch = epoch

    def fingerprint(self) -> str:
        """8 hex digits of the counts and signals."""
        crc = zlib.crc32(repr((self.settings.seed, self.mix, self.n)).encode())
        for one in self.sessions:
            for values in (one.counts, one.signals, one.variables):
                crc = zlib.crc32(np.ascontiguousarray(values), crc)
        return f"{crc:08x}"

    def __len__(self) -> int:
        return sum(-(-len(rows) // self.settings.batch_size) for rows in self.rows)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        rng = np.random.default_rng([self.settings.seed, 0 if self.fixed else self.epoch, 12])
        size, plan = self.settings.batch_size, []
        for k, rows in enumerate(self.rows):
            order = rows if self.fixed else rng.permutation(rows)
            plan += [(k, order[at : at + size]) for at in range(0, len(rows), size)]
        mine, of = training.share()
        for i in range(len(plan)) if self.fixed else rng.permutation(len(plan)):
            k, rows = plan[i]
            hidden = self.mix.draw(len(rows), self.sessions[k], rng)
            part = {name: mask[mine::of] for name, mask in hidden.items()}
            yield batch_of(self.data[k], k, rows[mine::of], part), torch.from_numpy(rows)


def nats(net: MaskedNetwork, batch: dict[str, Any], rows: Tensor) -> tuple[Tensor, None]:
    """Loss of what is hidden [nats per hidden number]: Poisson, Gaussian of the `width` of each signal, and
    cross-entropy. A variable of a trial is one number."""
    rates, signals, variables = net(batch)
    no_spikes, no_signals = batch["hide_spikes"], batch["hide_signals"]
    spikes = ((rates.exp() - batch["counts"] * rates) * no_spikes).sum()
    error = (signals - batch["signals"]) / batch["width"]
    total = spikes + 0.5 * (error**2 * no_signals).sum()
    n = no_spikes.sum() + no_signals.sum()
    for q, log in enumerate(variables):
        hidden = batch["hide_variables"][:, q]
        loss = functional.nll_loss(log, batch["variables"][:, q], reduction="none")
        total, n = total + (loss * hidden).sum(), n + hidden.sum()
    if (of := training.share()[1]) > 1:  # the mean over processes is that of the whole batch
        distributed.all_reduce(n)
        total = total * of
    return total / n.clamp(min=1), None


def fit(
    sessions: list[Session],
    branch: Branch,
    settings: FitSettings,
    shape: dict[str, Any],
    mix: Mix,
    folder: Path | None = None,
    taught: Multimodal | None = None,
    how: str = "full",
    compiled: bool = False,
    processes: int = 1,
) -> tuple[Multimodal, pd.DataFrame]:
    """Train on the train trials of all sessions.

    taught: a model of other sessions to begin with; then the layers of the sessions alone are trained
    (how = "stitch"), and after them everything at a tenth of the rate ("full"). compiled: the
    blocks of a transformer by `torch.compile`, which takes a minute once. processes: that share each batch. folder: of log and
    checkpoint; a training that was killed goes on. Returns the model, which
    trusts its network fully, and the history of the last training.
    """
    first, (device, _) = sessions[0], pick_device(settings)
    data = []
    for k, one in enumerate(sessions):
        data.append(tensors_of(one, branch.rest[k], device))
        off = (data[k]["rest_signals"] - data[k]["signals"])[one.rows("train")]
        width = SHARPER * off.square().mean(dim=(0, 1)).sqrt()
        data[k]["width"] = width.clamp(min=1e-3).expand(len(one.x), 1, -1)
    n_units, n_classes = [len(one.area) for one in sessions], list(map(len, first.classes.values()))
    with reproducible(settings.seed, settings.threads):
        n_bins, n_signals = first.signals.shape[1:]
        net = MaskedNetwork(Shape(n_units, n_bins, n_signals, n_classes, **shape))
    train = TrialBatches(data, sessions, "train", settings, mix)
    val = TrialBatches(data, sessions, "val", settings, JUDGED, fixed=True)
    more = {"processes": processes, "blocks": net.trunk.layers if compiled else ()}
    learn = partial(training.fit, net, train, val, folder=folder, loss=nats, **more)
    if taught is not None:
        net.take_over(taught.net)
        net.train_only_sessions(True)
        history = learn(settings=settings, stage="stitch")
        net.train_only_sessions(False)
        settings = replace(settings, learning_rate=settings.learning_rate / 10)
    if taught is None or how == "full":
        history = going_on(partial(learn, settings=settings), folder)
    trust = dict.fromkeys((*first.behaviour, BEHAVIOUR), 1.0)
    return Multimodal(net, sessions, branch.rest, branch.maps, trust, branch.factors), history
