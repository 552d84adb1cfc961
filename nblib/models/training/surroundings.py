"""What surrounds a fit and is put back after it: random numbers, threads, noise, loggers."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from nblib.core.errors import BadParameter, RunFailed


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


@contextlib.contextmanager
def deterministic():
    """Repeatable algorithms where torch has them, else a warning; as it was on leaving."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
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
def quiet():
    """Hold back Lightning's greetings and the warnings that cannot apply here; keep the rest."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for told in (
                ".*LeafSpec.* is deprecated",  # between Lightning and torch
                ".*GPU available but not used",  # device = "cpu" was asked for
                ".*smaller than the logging interval",  # we log by epoch
                ".*`srun` command is available",  # one process; a cluster's login node has srun
                ".*`validation_step` but have no `val_dataloader`",  # val = None was asked for
                ".*module\\(s\\) in eval mode at the start",  # a frozen encoder is meant to be
            ):
                warnings.filterwarnings("ignore", told)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def wandb_logger(folder: Path, config: dict[str, Any]):
    """A Weights & Biases logger: offline in `folder`, unless WANDB_MODE says online."""
    try:
        import wandb
    except ImportError:
        raise BadParameter("logger = 'wandb': not installed; pip install 'nblib[train]'.") from None
    from lightning.pytorch.loggers import WandbLogger

    mode = os.environ.get("WANDB_MODE", "offline")
    silent = wandb.Settings(silent=True, console="off")
    logger = WandbLogger(
        "nblib", folder, project="nblib", config=config, mode=mode, settings=silent
    )
    try:
        yield logger
    finally:
        wandb.finish()


def run(trainer, lit, batches, validation, resume) -> None:
    """trainer.fit with errors that people can use, and Ctrl-C as Python means it."""
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
    except RuntimeError as error:  # such as an LSTM in bfloat16 on a CPU that cannot
        precision = lit.settings.precision
        if precision == "32":
            raise
        raise RunFailed(
            f"training in precision '{precision}' is refused here ({str(error).splitlines()[0]}); "
            "take precision '32'."
        ) from error
