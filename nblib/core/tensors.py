"""Foreign files of tensors, read so that nothing in them can run."""

from __future__ import annotations

import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

from nblib.core.errors import BadInput, MissingInput


def read_tensors(path: Path, parameter: str = "") -> Any:
    """What a .pt or .pth file holds, on the CPU.

    Read as tensors, plain values, lists and dicts of them only (`weights_only`). parameter: the
    one that named the file, told when it is not there. Raises MissingInput when there is no file,
    BadInput for one that is damaged or holds anything else.
    """
    import torch

    if not path.is_file():
        told = f"{parameter} = {str(path)!r}" if parameter else path
        raise MissingInput(f"{told}: no such file.")
    try:
        with warnings.catch_warnings():  # of protocols it was not tried with; what counts is below
            warnings.filterwarnings("ignore", category=UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    # What torch's own reader raises for damaged bytes, as found by feeding it such files.
    except (
        OSError, RuntimeError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError,
        pickle.UnpicklingError, struct.error,
    ) as error:  # fmt: skip
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path}: not readable as tensors ({first}).") from None
