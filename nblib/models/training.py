"""`fit()`: the one trainer of all torch networks, on Lightning.

Each epoch ends with one line in the log, the best weights by validation loss are kept, training
stops when they no longer improve, and the best weights are what the module holds afterwards.
The test set is never seen here.

Lightning brings devices, precision, clipping, deterministic algorithms and loggers. Checkpoints and
early stopping are those of `checkpoints.Keeper`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, distributed, nn
from torch.nn import functional

from nblib.core import store
from nblib.core.errors import BadParameter, RunFailed
from nblib.models import FitSettings, pick_device, reproducible
from nblib.models.checkpoints import (
    Keeper,
    Watch,
    check_checkpoint,
    fingerprint,
    layout,
    load_checkpoint,
)
from nblib.prepare.decoder_inputs import DeviceBatches, Samples

# (network, x, y) -> (loss to minimise, logits (B, C) or None)
Loss = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor | None]]
_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


def classify(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """Cross-entropy [nats] of the logits net(x) (B, C)."""
    logits = net(x)
    return functional.cross_entropy(logits, y), logits


def reconstruct(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean squared error of an autoencoder: net(x) has the shape of x; labels are not used."""
    return functional.mse_loss(net(x), x), None


def fit(
    module: nn.Module,
    train: Samples | Any,
    val: Samples | Any | None,
    settings: FitSettings,
    folder: Path | str | None = None,
    *,
    loss: Loss = classify,
    stage: str = "fit",
    resume: Path | str = "",
    identity: dict[str, Any] | None = None,
    at_once: int = 0,
    processes: int = 1,
    blocks: Sequence[nn.Module] = (),
) -> pd.DataFrame:
    """Train `module` in place; it ends on the CPU, in eval mode, with its best weights.

    Raises BadParameter (device, precision), BadInput (a checkpoint that is unreadable or another
    run's) and RunFailed (loss not finite, GPU memory full).

    Parameters
    ----------
    module : x (b, T, N) -> whatever `loss` takes.
    train, val : samples, or batches of a task that draws its own (as `stagernet.DrawnBatches`),
        already on the device. val chooses the epoch; None: the last one counts and nothing stops
        early.
    folder : gets `<stage>.ckpt` and `<stage>.csv`.
    resume : "", "auto" (from the folder's own checkpoint, when there is one) or a checkpoint.
    identity : plain values that a checkpoint must share to be resumed.
    at_once : how many samples are looked at in one go, 0: a batch. A step adds up the gradients of
        such pieces.
    processes : GPUs, or processes on the CPU, that share each batch. The batches deal out their own
        (as `fitting.TrialBatches`), by `share`.
    blocks : parts of the module that are compiled while it is taught. Those alike share one code, so that
        a deep network compiles no longer than a flat one.

    Returns
    -------
    DataFrame
        One row per epoch: epoch, train_loss, val_loss, val_accuracy; `.attrs` says device,
        best_epoch, best_val_loss, stopped_early, fit_s and the settings in force.
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
        same = {
            "stage": stage,
            "data": fingerprint(train, val),
            "network": layout(module),
            **asdict(settings),
            **(identity or {}),
        }
        if same.pop("anneal"):
            same["max_epochs of a rate that falls"] = settings.max_epochs
        if resume:
            check_checkpoint(Path(resume), same)
        stack.enter_context(reproducible(settings.seed, settings.threads))
        stack.enter_context(_quiet_and_put_back())
        size, most = settings.batch_size, max(256, settings.batch_size)
        batches = _batches(train, size, settings, device, shuffle=True, at_once=at_once)
        validation = None
        if val is not None:  # keeps no gradients, so it may take more at a time
            validation = _batches(val, most, settings, device, shuffle=False, at_once=at_once)
        strategy: Any = "auto"
        if processes > 1:  # a layer may have no gradient, where it is another session's
            method = "spawn" if device.type == "cuda" else "fork"
            strategy = DDPStrategy(start_method=method, find_unused_parameters=True)
        # Earlier stages of a decoder, such as an autoencoder's, say nothing of how it will decode.
        watch = _WATCH.get() if stage == "fit" else None
        n_val = 0 if validation is None else validation.n
        keeper = Keeper(settings, path, batches, n_val, same, watch)
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=processes,
            strategy=strategy,
            # On purpose: Lightning would take over a Slurm job's own environment otherwise.
            plugins=[LightningEnvironment()],
            precision="32-true" if settings.precision == "32" else settings.precision,
            max_epochs=settings.max_epochs,
            deterministic="warn",  # repeatable algorithms where torch has them
            callbacks=[keeper],
            logger=_wandb(stack, folder, same) if settings.logger == "wandb" else False,
            default_root_dir=folder,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        started = time.perf_counter()
        module.train()  # an earlier training of it ended in eval mode
        step, checkpoint = Step(module, loss, settings, batches, blocks), str(resume) or None
        epochs = Whole(batches), validation
        try:
            with _clear_errors(settings):
                trainer.fit(step, *epochs, ckpt_path=checkpoint, weights_only=True)
        finally:  # its parts hold each other, and the batches, until somebody collects
            vars(trainer).clear()
            for block in blocks:  # what is asked later is asked of the processor, as it stands
                vars(block).pop("forward", None)
        if processes > 1:  # what the first of them kept
            state = load_checkpoint(path)["callbacks"][keeper.state_key]
            keeper.load_state_dict(state)
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


def share() -> tuple[int, int]:
    """Which of how many processes this one is, in a fit that several share."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def _batches(
    samples: Samples | Any, size: int, settings: FitSettings, device: torch.device, **options: Any
) -> Any:
    """Batches on the device; those that a task draws itself stay as they are."""
    if not isinstance(samples, Samples):
        return samples
    x, y = samples.x, samples.y
    return DeviceBatches(x, y, size, seed=settings.seed, device=device, **options)


@dataclass
class Whole:
    """An epoch as Lightning's one batch: what Lightning does beside a batch takes longer than the step of a
    small network."""

    batches: Any

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        yield iter(self.batches)


class Step(lightning.LightningModule):
    """The steps of an epoch. Sums stay on the device: nothing waits for a number."""

    automatic_optimization = False

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        settings: FitSettings,
        batches: Any,
        blocks: Sequence[nn.Module] = (),
    ):
        super().__init__()
        self.net, self.loss, self.settings, self.batches = net, loss, settings, batches
        self.blocks = tuple(blocks)
        self.sums: dict[str, Tensor] = {}

    def on_fit_start(self) -> None:
        for block in self.blocks:  # batches differ in length
            block.forward = torch.compile(block.forward, dynamic=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        weights = [p for p in self.net.parameters() if p.requires_grad]
        s = self.settings
        # One kernel for all weights; half precision's gradients are scaled, which has to be undone before.
        fused = s.precision != "16-mixed"
        return torch.optim.AdamW(weights, s.learning_rate, weight_decay=s.weight_decay, fused=fused)

    def training_step(self, epoch: Iterator[tuple[Tensor, Tensor]], _: int) -> None:
        optimizer, pieces, n = self.optimizers(), self.batches.pieces, len(self.batches)
        if (s := self.settings).anneal:
            left = (1 + math.cos(math.pi * self.current_epoch / s.max_epochs)) / 2
            for group in optimizer.param_groups:
                group["lr"] = left * s.learning_rate
        for piece, batch in enumerate(epoch):
            batch = self.transfer_batch_to_device(batch, self.device, 0)
            loss, _ = self.loss(self.net, *batch)
            self._add("train_loss", loss, len(batch[1]))
            self.manual_backward(loss * self.batches.weight(piece) if pieces > 1 else loss)
            if (piece + 1) % pieces == 0 or piece + 1 == n:
                optimizer.step()
                optimizer.zero_grad()
                torch.clear_autocast_cache()  # of weights in half precision, which have just changed
            # Lightning would look after the epoch, and does so where other processes must stop too.
            if self.trainer.received_sigterm and share()[1] == 1:
                raise SIGTERMException

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.settings.clip_norm:
            # Lightning's own refuses a fused step beside any mixed precision.
            nn.utils.clip_grad_norm_(self.net.parameters(), self.settings.clip_norm)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        loss, logits = self.loss(self.net, *batch)
        self._add("val_loss", loss, len(batch[1]))
        if logits is not None:
            self._add("val_accuracy", (logits.argmax(dim=1) == batch[1]).sum(), 1)

    def _add(self, name: str, value: Tensor, weight: int) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value.detach().float() * weight

    def means(self, n_train: int, n_val: int) -> dict[str, float]:
        """Per-sample means of the epoch that just ended; starts the next sums."""
        sums, self.sums = self.sums, {}
        for value in sums.values() if share()[1] > 1 else ():
            distributed.all_reduce(value)
            value /= share()[1]
        n = {"train_loss": n_train, "val_loss": n_val, "val_accuracy": n_val}
        return {k: sums[k].item() / n[k] if k in sums else math.nan for k in n}


@contextlib.contextmanager
def watching(watch: Watch | None) -> Iterator[None]:
    """Call `watch`, if any, with the row of each epoch (epoch, train_loss, val_loss, val_accuracy) of the
    decoders fitted inside; what it raises ends the fit."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


# --- what surrounds a fit ------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet_and_put_back() -> Iterator[None]:
    """Hold back Lightning's greetings and advice, which cannot apply here; put torch's flags back."""
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid, and slow
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        torch.utils.deterministic.fill_uninitialized_memory = fill
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _wandb(stack: contextlib.ExitStack, folder: Path, config: dict[str, Any]) -> Any:
    """A Weights & Biases logger: offline in `folder`, unless WANDB_MODE says online."""
    try:
        import wandb
    except ImportError:
        raise BadParameter("logger = 'wandb': not installed; pip install 'nblib[train]'.") from None
    from lightning.pytorch.loggers import WandbLogger

    stack.callback(wandb.finish)
    mode = os.environ.get("WANDB_MODE", "offline")
    silent = wandb.Settings(silent=True, console="off")
    return WandbLogger("nblib", folder, project="nblib", config=config, mode=mode, settings=silent)


@contextlib.contextmanager
def _clear_errors(settings: FitSettings) -> Iterator[None]:
    """Errors that people can use, and Ctrl-C as Python means it."""
    try:
        yield
    except SIGTERMException:
        raise
    except SystemExit as error:  # Lightning leaves the process on Ctrl-C; a notebook must not
        raise KeyboardInterrupt from error
    except torch.OutOfMemoryError as error:
        raise RunFailed(
            f"GPU memory is full ({str(error).splitlines()[0]}); lower batch_size "
            f"(now {settings.batch_size}) or the model's size."
        ) from error
    except RuntimeError as error:  # such as an LSTM in bfloat16 on a CPU that cannot
        if settings.precision == "32":
            raise
        raise RunFailed(
            f"training in precision '{settings.precision}' is refused here "
            f"({str(error).splitlines()[0]}); take precision '32'."
        ) from error
