"""`fit()`: the one trainer of all torch decoders, on Lightning.

Each epoch ends with one line in the log, the best weights by validation loss are kept, training
stops when they no longer improve, and the best weights are what the module holds afterwards.
The test set is never seen here.

Resuming: every checkpoint `<folder>/<stage>.ckpt` lies on an epoch boundary and is written beside
its place and renamed. It holds weights, optimiser, history and the best weights so far, all as
plain tensors and numbers (`torch.load(weights_only=True)`). Random numbers of an epoch depend on
(seed, epoch) alone, so a resumed run ends with the numbers of an unbroken one.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import lightning
import pandas as pd
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import nn

from nblib.core import store
from nblib.models.training.checkpoints import (
    check_checkpoint,
    fingerprint,
    layout,
    load_checkpoint,
    stage_of,
)
from nblib.models.training.loop import (
    WATCH,
    Keeper,
    Lit,
    Loss,
    Watcher,
    classify,
    reconstruct,
    watching,
)
from nblib.models.training.settings import FitSettings, gpu_problem, pick_device, say_device
from nblib.models.training.surroundings import deterministic, quiet, reproducible, run, wandb_logger
from nblib.prepare.samples import DeviceBatches, Samples

__all__ = [
    "Batches", "FitSettings", "classify", "fit", "gpu_problem", "load_checkpoint", "pick_device",
    "reconstruct", "reproducible", "say_device", "stage_of", "watching",
]  # fmt: skip


def fit(
    module: nn.Module,
    train: Samples | Batches,
    val: Samples | Batches | None,
    settings: FitSettings,
    folder: Path | str | None = None,
    *,
    loss: Loss = classify,
    stage: str = "fit",
    resume: Path | str = "",
    identity: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Train `module` in place; it ends on the CPU, in eval mode, with its best weights.

    module: x (b, T, N) -> whatever `loss` takes; train, val: samples, or batches that a task of its
    own draws (see `Batches`), already on the device; val: chooses the epoch (None: the last one
    counts and nothing stops early); folder: gets `<stage>.ckpt` and `<stage>.csv`; resume: "",
    "auto" (from the folder's own checkpoint, when there is one) or a checkpoint; identity: plain
    values that a checkpoint must share to be resumed.
    Returns one row per epoch: epoch, train_loss, val_loss, val_accuracy; `.attrs` says
    device, best_epoch, best_val_loss, stopped_early, fit_s and the settings in force.
    Raises BadParameter (device, precision), BadInput (a checkpoint that is unreadable or another
    run's) and RunFailed (loss not finite, GPU memory full).
    """
    device, words = pick_device(settings)
    if stage == "fit" and (settings.progress or settings.device == "auto"):
        print(words)  # "auto" never chooses in silence
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nblib-fit-"))
        folder = Path(folder)
        stack.enter_context(store.shared())  # a colleague may go on from the checkpoint
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stage}.ckpt"
        if resume == "auto":
            resume = path if path.is_file() else ""
        same = {"stage": stage, "data": fingerprint(train, val), "network": layout(module)}
        same |= {**asdict(settings), **(identity or {})}
        if resume:
            check_checkpoint(Path(resume), same)
        stack.enter_context(quiet())
        stack.enter_context(reproducible(settings.seed, settings.threads))
        stack.enter_context(deterministic())
        batches = _batches(train, settings, device, shuffle=True)
        keeper = Keeper(settings, path, batches, 0 if val is None else _size(val), same)
        callbacks = [keeper]
        # Earlier stages of a decoder, such as an autoencoder's, say nothing of how it will decode.
        if stage == "fit" and (watch := WATCH.get()) is not None:
            callbacks.append(Watcher(keeper, watch))
        logger = False  # the CSV log is the keeper's
        if settings.logger == "wandb":
            logger = stack.enter_context(wandb_logger(folder, same))
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            # On purpose: Lightning would take over a Slurm job's own environment otherwise.
            plugins=[LightningEnvironment()],
            precision="32-true" if settings.precision == "32" else settings.precision,
            max_epochs=settings.max_epochs,
            gradient_clip_val=settings.clip_norm or None,
            callbacks=callbacks,
            logger=logger,
            default_root_dir=folder,
            limit_val_batches=0 if val is None else 1.0,
            log_every_n_steps=1_000_000,  # one line per epoch; a line per step costs time
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,  # `Keeper` writes them, with the best weights inside
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        lit = Lit(module, loss, settings)
        validation = None if val is None else _batches(val, settings, device, shuffle=False)
        started = time.perf_counter()
        run(trainer, lit, batches, validation, resume)
        module.cpu()
        if keeper.best:
            module.load_state_dict(keeper.best)
        module.eval()
    history = pd.DataFrame(keeper.history)
    history.attrs = {
        **asdict(settings),
        "device": words,
        "best_epoch": keeper.best_epoch,
        "best_val_loss": keeper.best_loss if math.isfinite(keeper.best_loss) else None,
        "stopped_early": len(history) < settings.max_epochs,
        "fit_s": round(time.perf_counter() - started, 3),
    }
    return history


class Batches(Protocol):
    """Batches (x, y) of a task that draws its own samples; n samples in all, on the device."""

    n: int

    def set_epoch(self, epoch: int) -> None:
        """Choose what the next pass draws, by the number of the epoch alone."""

    def fingerprint(self) -> str:
        """What a checkpoint must share to be resumed."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, torch.Tensor]]: ...


def _size(part: Samples | Batches) -> int:
    return len(part) if isinstance(part, Samples) else part.n


def _batches(
    samples: Samples | Batches, settings: FitSettings, device: torch.device, *, shuffle: bool
) -> DeviceBatches | Batches:
    if not isinstance(samples, Samples):
        return samples
    # Validation keeps no gradients, so it may take more at a time.
    size = settings.batch_size if shuffle else max(256, settings.batch_size)
    return DeviceBatches(
        samples.x, samples.y, size, shuffle=shuffle, seed=settings.seed, device=device
    )
