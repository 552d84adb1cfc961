"""Files of tensors: those we write, and foreign ones, read so that nothing in them can run."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nblib.core.errors import BadInput, CorruptArtifact, MissingInput

if TYPE_CHECKING:
    import torch

# What torch's own reader raises for damaged bytes, as found by feeding it such files.
DAMAGED = (
    OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError,
    pickle.UnpicklingError, struct.error,
)  # fmt: skip


def write_weights(
    config: Path,
    values: dict[str, Any],
    weights: Path,
    arrays: Mapping[str, np.ndarray],
    indent: int | None = None,
) -> None:
    """Write plain values as JSON and arrays as safetensors: nothing in them can run."""
    from safetensors.numpy import save_file

    config.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=indent, allow_nan=False)
    config.write_text(text + "\n", encoding="utf-8")
    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, weights)


def read_weights(config: Path, weights: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_weights` wrote; CorruptArtifact when a file is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    values = read_values(config)
    try:
        return values, load_file(weights)
    except (OSError, SafetensorError) as error:
        raise CorruptArtifact(f"{weights}: not readable as safetensors ({error}).") from None


def read_values(config: Path) -> dict[str, Any]:
    """The names and values of a JSON file; CorruptArtifact when it is missing or damaged."""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptArtifact(f"{config}: not a readable description ({error}).") from None
    if not isinstance(values, dict):
        raise CorruptArtifact(f"{config}: not a readable description (no names and values in it).")
    return values


def write_network(config: Path, net: torch.nn.Module, weights: Path) -> None:
    """Write a network's `config`, the arguments that make it, and its weights."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in net.state_dict().items()}
    write_weights(config, net.config, weights, arrays)


def read_network(config: Path, cls: type, weights: Path) -> Any:
    """The network that `write_network` wrote, in eval mode; CorruptArtifact for other files."""
    import torch

    values, arrays = read_weights(config, weights)
    try:
        net = cls(**values)
        net.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    except (ValueError, TypeError, RuntimeError) as error:
        raise CorruptArtifact(f"{weights}: does not fit its {config.name} ({error}).") from None
    return net.eval()


def read_tensors(path: Path, parameter: str = "") -> Any:
    """What a .pt or .pth file holds, on the CPU.

    Read as tensors, plain values, lists and dicts of them only (`weights_only`). parameter: the
    one that named the file, told when it is not there. Raises MissingInput when there is no file,
    BadInput for one that is damaged or holds anything else.
    """
    import torch

    if not path.is_file():
        name = f"{parameter} = {str(path)!r}" if parameter else path
        raise MissingInput(f"{name}: no such file.")
    try:
        with warnings.catch_warnings():  # of protocols it was not tried with; what counts is below
            warnings.filterwarnings("ignore", category=UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path}: not readable as tensors ({first}).") from None
