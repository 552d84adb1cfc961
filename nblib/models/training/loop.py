"""What happens in a step and between epochs: the module and the callback that Lightning drives."""

from __future__ import annotations

import contextlib
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from nblib.core import store
from nblib.core.errors import RunFailed
from nblib.models.training.settings import FitSettings

# (network, x, y) -> (loss to minimise, logits (B, C) or None)
Loss = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor | None]]

# Checkpoints may take about this share of the training time; the last one is always written.
_CHECKPOINT_SHARE = 0.05


def classify(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """Cross-entropy [nats] of the logits net(x) (B, C)."""
    logits = net(x)
    return functional.cross_entropy(logits, y), logits


def reconstruct(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean squared error of an autoencoder: net(x) has the shape of x; labels are not used."""
    return functional.mse_loss(net(x), x), None


# Told of every epoch of a fit; what it raises ends the fit.
WATCH: ContextVar[Callable[[dict[str, float]], None] | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watching(watch: Callable[[dict[str, float]], None]) -> Iterator[None]:
    """Call `watch` with the row of each epoch (epoch, train_loss, val_loss, val_accuracy) of the
    decoders fitted inside; what it raises ends the fit."""
    token = WATCH.set(watch)
    try:
        yield
    finally:
        WATCH.reset(token)


class Watcher(lightning.Callback):
    """Passes on the newest epoch of the history, once the keeper has dealt with it."""

    def __init__(self, keeper: Keeper, watch: Callable[[dict[str, float]], None]):
        self.keeper, self.watch = keeper, watch

    def on_train_epoch_end(self, trainer: lightning.Trainer, lit: Lit) -> None:
        self.watch(self.keeper.history[-1])


class Lit(lightning.LightningModule):
    """The step that Lightning repeats. Sums stay on the device: nothing waits for a number."""

    def __init__(self, net: nn.Module, loss: Loss, settings: FitSettings):
        super().__init__()
        self.net, self.loss, self.settings = net, loss, settings
        self.sums: dict[str, Tensor] = {}

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return batch  # already there

    def configure_optimizers(self) -> torch.optim.Optimizer:
        weights = [p for p in self.net.parameters() if p.requires_grad]
        s = self.settings
        # One fused kernel for all weights; Lightning cannot clip under it with mixed precision.
        fused = s.precision == "32"
        return torch.optim.AdamW(weights, s.learning_rate, weight_decay=s.weight_decay, fused=fused)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss, _ = self.loss(self.net, *batch)
        self._add("train_loss", loss.detach(), len(batch[1]))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        loss, logits = self.loss(self.net, *batch)
        self._add("val_loss", loss, len(batch[1]))
        if logits is not None:
            self._add("val_accuracy", (logits.argmax(dim=1) == batch[1]).sum(), 1)

    def _add(self, name: str, value: Tensor, weight: int) -> None:
        if name in self.sums:
            self.sums[name].add_(value, alpha=weight)
        else:
            self.sums[name] = value.float() * weight

    def means(self, n_train: int, n_val: int) -> dict[str, float]:
        """Per-sample means of the epoch that just ended; starts the next sums."""
        sums, self.sums = self.sums, {}
        n = {"train_loss": n_train, "val_loss": n_val, "val_accuracy": n_val}
        return {k: sums[k].item() / n[k] if k in sums else math.nan for k in n}


class Keeper(lightning.Callback):
    """History, best weights, early stopping, checkpoints and the progress bar, once an epoch."""

    def __init__(self, settings: FitSettings, path: Path, batches: Any, n_val: int, same: dict):
        self.settings, self.path, self.batches = settings, path, batches
        self.n_val = n_val  # 0: no validation, the last weights count
        self.same = same  # what a checkpoint must share to be resumed
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_loss, self.best_epoch = math.inf, -1
        self.written = time.perf_counter()
        self.cost_s = 0.0
        self.bar: Any = None

    def on_fit_start(self, trainer: lightning.Trainer, lit: Lit) -> None:
        from tqdm.auto import tqdm

        total = self.settings.max_epochs
        hidden = not self.settings.progress
        self.bar = tqdm(total=total, unit="epoch", desc=self.path.stem, leave=False, disable=hidden)

    def on_train_start(self, trainer: lightning.Trainer, lit: Lit) -> None:
        self.bar.update(len(self.history))
        self._maybe_stop(trainer)  # a checkpoint of a run that had stopped early

    def on_train_epoch_start(self, trainer: lightning.Trainer, lit: Lit) -> None:
        epoch = trainer.current_epoch
        self.batches.set_epoch(epoch)
        # Dropout of an epoch depends on (seed, epoch) alone: a resumed run repeats it.
        mixed = np.random.SeedSequence([self.settings.seed, epoch, 1]).generate_state(1)[0]
        torch.manual_seed(int(mixed))

    def on_train_epoch_end(self, trainer: lightning.Trainer, lit: Lit) -> None:
        means = lit.means(self.batches.n, self.n_val)
        row = {"epoch": trainer.current_epoch, **means}
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
        elif row["val_loss"] < self.best_loss:
            self.best_epoch, self.best_loss = row["epoch"], row["val_loss"]
            self.best = {k: v.detach().clone() for k, v in lit.net.state_dict().items()}
        self._maybe_stop(trainer)
        pd.DataFrame(self.history).to_csv(self.path.with_suffix(".csv"), index=False)
        if trainer.logger is not None:
            trainer.logger.log_metrics({k: v for k, v in row.items() if v == v}, step=row["epoch"])
        last = trainer.should_stop or len(self.history) >= self.settings.max_epochs
        if last or time.perf_counter() - self.written >= self.cost_s / _CHECKPOINT_SHARE:
            self._write(trainer)
        self.bar.set_postfix({k: f"{row[k]:.3g}" for k in means}, refresh=False)
        self.bar.update(1)

    def _maybe_stop(self, trainer: lightning.Trainer) -> None:
        if self.n_val and self.history:
            since = self.history[-1]["epoch"] - self.best_epoch
            trainer.should_stop = since >= self.settings.patience

    def _write(self, trainer: lightning.Trainer) -> None:
        started = time.perf_counter()
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            trainer.save_checkpoint(beside)
            # As the folder: the library that writes it remembers the umask of an earlier moment.
            beside.chmod(stat.S_IMODE(beside.parent.stat().st_mode) & 0o666)
            beside.replace(self.path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            lost = f"the checkpoint of epoch {trainer.current_epoch} was not written"
            raise store.storage_error(error, self.path, lost) from error
        self.written = time.perf_counter()
        self.cost_s = self.written - started

    def teardown(self, trainer: lightning.Trainer, lit: Lit, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: lightning.Trainer, lit: Lit, exception: BaseException) -> None:
        self.teardown(trainer, lit, "fit")
        if isinstance(exception, KeyboardInterrupt):
            kept = f"kept in {self.path}; run the same again, and it goes on from there"
            kept = kept if self.path.is_file() else "too short for a checkpoint, so it begins again"
            print(f"Stopped after {len(self.history)} epochs: {kept}.", flush=True)

    def on_save_checkpoint(self, trainer: lightning.Trainer, lit: Lit, checkpoint: dict) -> None:
        checkpoint["nblib"] = self.same

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best": self.best, "best_loss": self.best_loss,
                "best_epoch": self.best_epoch}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history, self.best = list(state["history"]), dict(state["best"])
        self.best_loss, self.best_epoch = state["best_loss"], state["best_epoch"]
