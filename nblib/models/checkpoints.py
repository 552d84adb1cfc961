"""What a training keeps, and when it stops: history, best weights, and checkpoints that only their run goes on from.

Lightning's own checkpoints and early stopping are left off: a run that is resumed shall end with the
numbers of an unbroken one, and they neither end a run again that had stopped early nor replace a
file whole. Every checkpoint `<folder>/<stage>.ckpt` lies on an epoch boundary and is written beside
its place and renamed. It holds weights, optimiser, history and the best weights so far, all as plain
tensors and numbers. Random numbers of an epoch depend on (seed, epoch) alone.
"""

from __future__ import annotations

import math
import os
import pickle
import stat
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from nblib.core import store
from nblib.core.errors import BadInput, RunFailed
from nblib.models import FitSettings
from nblib.prepare.decoder_inputs import Samples

# Told of every epoch of a fit; what it raises ends the fit.
Watch = Callable[[dict[str, float]], None]
# Checkpoints may take about this share of the training time; the last one is always written.
_CHECKPOINT_SHARE = 0.05

# What a resumed run may change without ceasing to be the same run.
_FREE_TO_CHANGE = {"max_epochs", "patience", "device", "threads", "logger", "progress"}


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint of plain tensors and numbers onto the CPU.

    Raises BadInput when the file is missing, damaged or holds any other kind of object, which
    could run code when it is loaded.
    """
    try:
        with warnings.catch_warnings():  # of a foreign file: refused below
            warnings.filterwarnings("ignore", ".*pickle protocol")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from None
    except pickle.UnpicklingError:
        raise BadInput(
            f"{path}: not a checkpoint of plain tensors. It is damaged, or it holds objects that "
            "could run code when loaded; it was not loaded. Start without resume."
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        first = "".join(str(error).strip().splitlines()[:1])
        raise BadInput(f"{path}: a damaged checkpoint ({first}); start without resume.") from None
    if not isinstance(checkpoint, dict) or "nblib" not in checkpoint:
        raise BadInput(f"{path}: not a checkpoint that nblib wrote.")
    return checkpoint


def stage_of(resume: Path | str) -> str:
    """Which stage a `resume` argument goes on with: "", "auto" or the checkpoint's own."""
    return str(resume) if resume in ("", "auto") else load_checkpoint(resume)["nblib"]["stage"]


def check_checkpoint(path: Path, same: dict[str, Any]) -> None:
    """BadInput for the checkpoint of a run that differs in one of these values."""
    before = load_checkpoint(path)["nblib"]
    other = [k for k in same if k not in _FREE_TO_CHANGE and before.get(k) != same[k]]
    if other:
        words = "; ".join(f"{k} was {before.get(k)!r}, now {same[k]!r}" for k in other)
        raise BadInput(f"{path}: the checkpoint of another run ({words}); start without resume.")


def layout(module: nn.Module) -> str:
    """8 hex digits of the names and shapes of a network's weights."""
    shapes = [(name, tuple(weight.shape)) for name, weight in module.state_dict().items()]
    return f"{zlib.crc32(repr(shapes).encode()):08x}"


def fingerprint(train: Any, val: Any) -> str:
    """8 hex digits of the samples that a fit sees; batches that draw their own tell theirs."""
    crc = 0
    for samples in (train, val):
        if isinstance(samples, Samples):
            crc = zlib.crc32(np.ascontiguousarray(samples.y), crc)
            crc = zlib.crc32(np.ascontiguousarray(samples.x), crc)
        elif samples is not None:
            crc = zlib.crc32(samples.fingerprint().encode(), crc)
    return f"{crc:08x}"


class Keeper(lightning.Callback):
    """History, best weights, early stopping, checkpoints and the progress bar, once an epoch."""

    def __init__(
        self, settings: FitSettings, path: Path, batches: Any, n_val: int, same: dict, watch: Watch | None
    ):  # fmt: skip
        self.settings, self.path, self.batches, self.watch = settings, path, batches, watch
        self.n_val = n_val  # 0: no validation, the last weights count
        self.same = same  # what a checkpoint must share to be resumed
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_loss, self.best_epoch = math.inf, -1
        self.written, self.cost_s = time.perf_counter(), 0.0
        self.bar: Any = None

    def on_train_start(self, trainer: lightning.Trainer, step: Any) -> None:
        from tqdm.auto import tqdm

        shown = self.settings.progress and trainer.is_global_zero
        look = {"desc": self.path.stem, "leave": False, "disable": not shown}
        done, total = len(self.history), self.settings.max_epochs
        self.bar = tqdm(total=total, initial=done, unit="epoch", **look)
        self._stop_when_done(trainer)  # a checkpoint of a run that had stopped early

    def on_train_epoch_start(self, trainer: lightning.Trainer, step: Any) -> None:
        epoch = trainer.current_epoch
        self.batches.set_epoch(epoch)
        # Dropout of an epoch depends on (seed, epoch) alone: a resumed run repeats it.
        mixed = np.random.SeedSequence([self.settings.seed, epoch, 1]).generate_state(1)[0]
        torch.manual_seed(int(mixed))

    def on_train_epoch_end(self, trainer: lightning.Trainer, step: Any) -> None:
        means = step.means(self.batches.n, self.n_val)
        row = {"epoch": trainer.current_epoch, **means}
        known = {k: v for k, v in means.items() if not math.isnan(v)}  # of validation only with it
        losses = ["train_loss", "val_loss"] if self.n_val else ["train_loss"]
        if not all(math.isfinite(row[name]) for name in losses):
            raise RunFailed(
                f"the loss of epoch {row['epoch']} is not finite (train {row['train_loss']}, "
                f"validation {row['val_loss']}); lower learning_rate (now "
                f"{self.settings.learning_rate}) or take precision '32'."
            )
        self.history.append(row)
        if not self.n_val:
            self.best_epoch = row["epoch"]
        elif row["val_loss"] < self.best_loss or self.settings.anneal:
            self.best_epoch, self.best_loss = row["epoch"], row["val_loss"]
            self.best = {k: v.detach().clone() for k, v in step.net.state_dict().items()}
        self._stop_when_done(trainer)
        if trainer.is_global_zero:
            pd.DataFrame(self.history).to_csv(self.path.with_suffix(".csv"), index=False)
        if trainer.logger is not None:
            trainer.logger.log_metrics(known | {"epoch": row["epoch"]}, step=row["epoch"])
        last = trainer.should_stop or len(self.history) >= self.settings.max_epochs
        due = last or time.perf_counter() - self.written >= self.cost_s / _CHECKPOINT_SHARE
        if trainer.strategy.broadcast(due):  # all processes write together, or wait for ever
            self._write(trainer)
        self.bar.set_postfix({k: f"{v:.3g}" for k, v in known.items()}, refresh=False)
        self.bar.update(1)
        if self.watch is not None:
            self.watch(row)

    def _stop_when_done(self, trainer: lightning.Trainer) -> None:
        if self.n_val and self.history:
            since = self.history[-1]["epoch"] - self.best_epoch
            trainer.should_stop = since >= self.settings.patience

    def _write(self, trainer: lightning.Trainer) -> None:
        started = time.perf_counter()
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            trainer.save_checkpoint(beside)
            if not trainer.is_global_zero:
                return
            # As the folder: the library that writes it remembers the umask of an earlier moment.
            beside.chmod(stat.S_IMODE(beside.parent.stat().st_mode) & 0o666)
            beside.replace(self.path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            lost = f"the checkpoint of epoch {trainer.current_epoch} was not written"
            raise store.storage_error(error, self.path, lost) from error
        self.written = time.perf_counter()
        self.cost_s = self.written - started

    def teardown(self, trainer: lightning.Trainer, step: Any, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: lightning.Trainer, step: Any, error: BaseException) -> None:
        self.teardown(trainer, step, "fit")
        if isinstance(error, KeyboardInterrupt):
            kept = f"kept in {self.path}; run the same again, and it goes on from there"
            kept = kept if self.path.is_file() else "too short for a checkpoint, so it begins again"
            print(f"Stopped after {len(self.history)} epochs: {kept}.", flush=True)

    def on_save_checkpoint(self, trainer: lightning.Trainer, step: Any, checkpoint: dict) -> None:
        checkpoint["nblib"] = self.same

    def state_dict(self) -> dict[str, Any]:
        best = {"best": self.best, "best_loss": self.best_loss, "best_epoch": self.best_epoch}
        return {"history": self.history, **best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history, self.best = list(state["history"]), dict(state["best"])
        self.best_loss, self.best_epoch = state["best_loss"], state["best_epoch"]
