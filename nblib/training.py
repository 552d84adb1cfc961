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
import logging
import math
import os
import pickle
import signal
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.nn import functional

from nblib.errors import BadInput, BadParameter, RunFailed
from nblib.windows import DeviceBatches, Samples

# (network, x, y) -> (loss to minimise, number of right answers or None)
Loss = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor | None]]

# Checkpoints may take about this share of the training time; the last one is always written.
_CHECKPOINT_SHARE = 0.05
# What a resumed run may change without ceasing to be the same run.
_FREE_TO_CHANGE = {"max_epochs", "patience", "device", "threads", "logger", "progress"}


@dataclass(frozen=True)
class FitSettings:
    """How to train. clip_norm: largest gradient norm; patience [epochs]; threads: 0 = as is."""

    max_epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 5
    clip_norm: float = 1.0
    device: str = "auto"
    precision: str = "32"
    threads: int = 0
    logger: str = "csv"
    seed: int = 0
    progress: bool = True

    @classmethod
    def of(cls, settings: Any, defaults: dict[str, Any]) -> FitSettings:
        """The attributes of `settings` (a `TrainParams`, say) over a model's own defaults."""
        given = {f.name: getattr(settings, f.name, None) for f in fields(cls)}
        return cls(**{**defaults, **{k: v for k, v in given.items() if v is not None}})


def classify(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """Cross-entropy [nats] and right answers: net(x) is (B, C)."""
    logits = net(x)
    return functional.cross_entropy(logits, y), (logits.argmax(dim=1) == y).sum()


def reconstruct(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean squared error of an autoencoder: net(x) has the shape of x; labels are not used."""
    return functional.mse_loss(net(x), x), None


def gpu_problem() -> str:
    """Why no GPU can be used; "" when one can. Tries it, since a driver may be there in vain."""
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no GPU; look at the driver and CUDA_VISIBLE_DEVICES"
    try:
        torch.zeros(1, device="cuda").add_(1).item()
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return ""


def pick_device(settings: FitSettings) -> tuple[torch.device, str]:
    """The device and one sentence that says which; BadParameter when it cannot do what was asked.

    "auto" is a usable GPU, else the CPU; "cuda" without a usable GPU is an error.
    """
    problem = "" if settings.device == "cpu" else gpu_problem()
    if settings.device == "cuda" and problem:
        raise BadParameter(
            f"device = 'cuda': no usable GPU ({problem}); mend that, or choose 'auto' or 'cpu'."
        )
    on_gpu = settings.device != "cpu" and not problem
    if settings.precision == "16-mixed" and not on_gpu:
        raise BadParameter("precision = '16-mixed' needs a GPU; choose '32' or 'bf16-mixed'.")
    if on_gpu:
        return torch.device("cuda", 0), f"Training on the GPU {torch.cuda.get_device_name(0)}."
    return torch.device("cpu"), f"Training on the CPU{f' (no GPU: {problem})' if problem else ''}."


@contextlib.contextmanager
def reproducible(seed: int, threads: int = 0):
    """Seeded random numbers and a set number of threads inside; as they were outside."""
    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if threads:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def fit(
    module: nn.Module,
    train: Samples,
    val: Samples | None,
    settings: FitSettings,
    folder: Path | str | None = None,
    *,
    loss: Loss = classify,
    stage: str = "fit",
    resume: Path | str = "",
    identity: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Train `module` in place; it ends on the CPU, in eval mode, with its best weights.

    module: x (b, T, N) -> whatever `loss` takes; val: chooses the epoch (None: the last one
    counts and nothing stops early); folder: gets `<stage>.ckpt` and `<stage>.csv`; resume: "",
    "auto" (from the folder's own checkpoint, when there is one) or a checkpoint; identity: plain
    values that a checkpoint must share to be resumed.
    Returns one row per epoch: epoch, train_loss, val_loss, val_accuracy, epoch_s; `.attrs` says
    device, best_epoch, best_val_loss, stopped_early, fit_s and the settings in force.
    Raises BadParameter (device, precision, foreign checkpoint), BadInput (unreadable checkpoint)
    and RunFailed (loss not finite, GPU memory full).
    """
    device, words = pick_device(settings)
    if settings.progress and stage == "fit":
        print(words)
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nblib-fit-"))
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stage}.ckpt"
        if resume == "auto":
            resume = path if path.is_file() else ""
        same = {"stage": stage, "data": _fingerprint(train, val), **asdict(settings), **(identity or {})}
        if resume:
            _check_checkpoint(Path(resume), same)
        stack.enter_context(_quiet())
        stack.enter_context(reproducible(settings.seed, settings.threads))
        stack.enter_context(_deterministic())
        batches = _batches(train, settings, device, shuffle=True)
        keeper = _Keeper(settings, path, batches, same, patient=val is not None)
        logger = stack.enter_context(_wandb(folder, same)) if settings.logger == "wandb" else False
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            # On purpose: Lightning would take over a Slurm job's own environment otherwise.
            plugins=[LightningEnvironment()],
            precision="32-true" if settings.precision == "32" else settings.precision,
            max_epochs=settings.max_epochs,
            gradient_clip_val=settings.clip_norm or None,
            callbacks=[keeper],
            logger=logger,
            default_root_dir=folder,
            limit_val_batches=0 if val is None else 1.0,
            log_every_n_steps=1_000_000,  # one line per epoch; a line per step costs time
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,  # `_Keeper` writes them, with the best weights inside
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        lit = _Lit(module, loss, settings)
        validation = None if val is None else _batches(val, settings, device, shuffle=False)
        started = time.perf_counter()
        _run(trainer, lit, batches, validation, resume)
        module.cpu()
        if keeper.best:
            module.load_state_dict(keeper.best)
        module.eval()
    history = pd.DataFrame(keeper.history)
    history.attrs = {
        "device": words,
        "best_epoch": keeper.best_epoch,
        "best_val_loss": keeper.best_loss if math.isfinite(keeper.best_loss) else None,
        "stopped_early": len(history) < settings.max_epochs,
        "fit_s": round(time.perf_counter() - started, 3),
        **asdict(settings),
    }
    return history


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint of plain tensors and numbers onto the CPU.

    Raises BadInput when the file is missing, damaged or holds any other kind of object, which
    could run code when it is loaded.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error}).") from None
    except pickle.UnpicklingError:
        raise BadInput(
            f"{path}: not a checkpoint of plain tensors. It is damaged, or it holds objects that "
            "could run code when loaded; it was not loaded. Start without resume."
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        text = str(error).strip().splitlines()[:1]
        raise BadInput(f"{path}: a damaged checkpoint ({''.join(text)}); start without resume.") from None
    if not isinstance(checkpoint, dict) or "nblib" not in checkpoint:
        raise BadInput(f"{path}: not a checkpoint that nblib wrote.")
    return checkpoint


def stage_of(resume: Path | str) -> str:
    """Which stage a `resume` argument goes on with: "", "auto" or the checkpoint's own."""
    return str(resume) if resume in ("", "auto") else load_checkpoint(resume)["nblib"]["stage"]


class _Lit(lightning.LightningModule):
    """The step that Lightning repeats. Sums stay on the device: nothing waits for a number."""

    def __init__(self, net: nn.Module, loss: Loss, settings: FitSettings):
        super().__init__()
        self.net, self.loss, self.settings = net, loss, settings
        self.sums: dict[str, Tensor] = {}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # already there

    def configure_optimizers(self) -> torch.optim.Optimizer:
        weights = [p for p in self.net.parameters() if p.requires_grad]
        s = self.settings
        # One fused kernel for all weights; loss scaling has to look at the gradients in between.
        fused = s.precision != "16-mixed"
        return torch.optim.AdamW(weights, s.learning_rate, weight_decay=s.weight_decay, fused=fused)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss, _ = self.loss(self.net, *batch)
        self._add("train_loss", loss.detach(), len(batch[1]))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        loss, right = self.loss(self.net, *batch)
        self._add("val_loss", loss, len(batch[1]))
        if right is not None:
            self._add("val_accuracy", right, 1)

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


class _Keeper(lightning.Callback):
    """History, best weights, early stopping, checkpoints and the progress bar, once an epoch."""

    def __init__(
        self, settings: FitSettings, path: Path, batches: DeviceBatches, same: dict, patient: bool
    ):
        self.settings, self.path, self.batches = settings, path, batches
        self.same, self.patient = same, patient
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_loss, self.best_epoch = math.inf, -1
        self.n_val = 0
        self.clock = self.written = time.perf_counter()
        self.cost_s = 0.0
        self.bar: Any = None

    def on_fit_start(self, trainer: lightning.Trainer, lit: _Lit) -> None:
        from tqdm.auto import tqdm

        total = self.settings.max_epochs
        hidden = not self.settings.progress
        self.bar = tqdm(total=total, unit="epoch", desc=self.path.stem, leave=False, disable=hidden)

    def on_train_start(self, trainer: lightning.Trainer, lit: _Lit) -> None:
        self.bar.update(len(self.history))
        self.clock = time.perf_counter()
        self._maybe_stop(trainer)  # a checkpoint of a run that had stopped early

    def on_train_epoch_start(self, trainer: lightning.Trainer, lit: _Lit) -> None:
        epoch = trainer.current_epoch
        self.batches.set_epoch(epoch)
        # Dropout of an epoch depends on (seed, epoch) alone: a resumed run repeats it.
        mixed = np.random.SeedSequence([self.settings.seed, epoch, 1]).generate_state(1)[0]
        torch.manual_seed(int(mixed))

    def on_train_epoch_end(self, trainer: lightning.Trainer, lit: _Lit) -> None:
        n_val = 0 if not self.patient else len(trainer.val_dataloaders.y)
        means = lit.means(len(self.batches.y), n_val)
        now = time.perf_counter()
        row = {"epoch": trainer.current_epoch, **means, "epoch_s": now - self.clock}
        if not math.isfinite(row["train_loss"]) or (self.patient and not math.isfinite(row["val_loss"])):
            raise RunFailed(
                f"the loss of epoch {row['epoch']} is not finite (train {row['train_loss']}, "
                f"validation {row['val_loss']}); lower learning_rate (now "
                f"{self.settings.learning_rate}) or take precision '32'."
            )
        self.history.append(row)
        if not self.patient or row["val_loss"] < self.best_loss:
            self.best_epoch = row["epoch"]
            self.best_loss = row["val_loss"] if self.patient else math.inf
            self.best = {k: v.detach().clone() for k, v in lit.net.state_dict().items()}
        self._maybe_stop(trainer)
        pd.DataFrame(self.history).to_csv(self.path.with_suffix(".csv"), index=False)
        if trainer.logger is not None:
            trainer.logger.log_metrics({k: v for k, v in row.items() if v == v}, step=row["epoch"])
        last = trainer.should_stop or len(self.history) >= self.settings.max_epochs
        if last or now - self.written >= self.cost_s / _CHECKPOINT_SHARE:
            self._write(trainer)
        self.bar.set_postfix({k: f"{row[k]:.3g}" for k in means}, refresh=False)
        self.bar.update(1)
        self.clock = time.perf_counter()

    def _maybe_stop(self, trainer: lightning.Trainer) -> None:
        if self.patient and self.history:
            since = self.history[-1]["epoch"] - self.best_epoch
            trainer.should_stop = since >= self.settings.patience

    def _write(self, trainer: lightning.Trainer) -> None:
        started = time.perf_counter()
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        trainer.save_checkpoint(beside)
        beside.replace(self.path)
        self.written = time.perf_counter()
        self.cost_s = self.written - started

    def teardown(self, trainer: lightning.Trainer, lit: _Lit, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: lightning.Trainer, lit: _Lit, exception: BaseException) -> None:
        self.teardown(trainer, lit, "fit")

    def on_save_checkpoint(self, trainer: lightning.Trainer, lit: _Lit, checkpoint: dict) -> None:
        checkpoint["nblib"] = self.same

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best": self.best, "best_loss": self.best_loss,
                "best_epoch": self.best_epoch}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history, self.best = list(state["history"]), dict(state["best"])
        self.best_loss, self.best_epoch = state["best_loss"], state["best_epoch"]


def _run(trainer, lit, batches, validation, resume) -> None:
    """trainer.fit with errors that people can use, and Ctrl-C as Python means it."""
    handler = signal.getsignal(signal.SIGINT)
    checkpoint = str(resume) if resume else None
    try:
        trainer.fit(lit, batches, validation, ckpt_path=checkpoint, weights_only=True)
    except SIGTERMException:
        raise
    except SystemExit as error:  # Lightning leaves the process on Ctrl-C; a notebook must not
        raise KeyboardInterrupt from error
    except torch.OutOfMemoryError as error:
        raise RunFailed(
            f"GPU memory is full ({str(error).splitlines()[0]}); lower batch_size "
            f"(now {batches.batch_size}) or the model's size."
        ) from error
    finally:
        if handler is not None and signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)


def _batches(samples: Samples, settings: FitSettings, device: torch.device, *, shuffle: bool) -> DeviceBatches:
    # Validation keeps no gradients, so it may take more at a time.
    size = settings.batch_size if shuffle else max(256, settings.batch_size)
    return DeviceBatches(samples.x, samples.y, size, shuffle=shuffle, seed=settings.seed, device=device)


def _fingerprint(train: Samples, val: Samples | None) -> str:
    crc = 0
    for samples in (train, val):
        if samples is not None:
            crc = zlib.crc32(np.ascontiguousarray(samples.y), crc)
            crc = zlib.crc32(np.ascontiguousarray(samples.x), crc)
    return f"{crc:08x}"


def _check_checkpoint(path: Path, same: dict[str, Any]) -> None:
    found = load_checkpoint(path)["nblib"]
    other = [k for k in same if k not in _FREE_TO_CHANGE and found.get(k) != same[k]]
    if other:
        told = "; ".join(f"{k} was {found.get(k)!r}, now {same[k]!r}" for k in other)
        raise BadParameter(f"{path}: the checkpoint of another run ({told}); start without resume.")


@contextlib.contextmanager
def _deterministic():
    """Repeatable algorithms where torch has them, else a warning; as it was on leaving."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by CUDA's matrix products
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill


@contextlib.contextmanager
def _quiet():
    """Hold back Lightning's greetings and the warnings that cannot apply here; keep the rest."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for told in (
                ".*GPU available but not used",  # device = "cpu" was asked for
                ".*smaller than the logging interval",  # we log by epoch
                ".*module\\(s\\) in eval mode at the start",  # a frozen encoder is meant to be
            ):
                warnings.filterwarnings("ignore", told)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _wandb(folder: Path, config: dict[str, Any]):
    """A Weights & Biases logger: offline in `folder`, unless WANDB_MODE says online."""
    try:
        import wandb
    except ImportError:
        raise BadParameter("logger = 'wandb': not installed; pip install 'nblib[train]'.") from None
    from lightning.pytorch.loggers import WandbLogger

    mode = os.environ.get("WANDB_MODE", "offline")
    quiet = wandb.Settings(silent=True, console="off")
    run = WandbLogger(project="nblib", save_dir=folder, config=config, mode=mode, settings=quiet)
    try:
        yield run
    finally:
        wandb.finish()
