"""Checkpoints of plain tensors: read with care, resumed only by the run that wrote them."""

from __future__ import annotations

import pickle
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nblib.core.errors import BadInput
from nblib.prepare.decoder_inputs import Samples

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
