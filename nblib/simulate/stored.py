"""A simulated recording in the store: made once, found again by its settings and who it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nblib.core import store


def truth_path(path: Path) -> Path:
    """Where the truth of a simulated file lies: `<stem>_truth.h5` beside it."""
    return path.with_name(f"{path.stem}_truth.h5")


@dataclass(frozen=True)
class Simulator:
    """One kind of simulated recording.

    version: raised whenever the same settings would give other numbers. simulate(path, settings,
    recording) writes the file.
    """

    stage: str
    version: int
    file_name: str
    simulate: Callable[[Path, Any, str], Any]

    def key(self, settings: Any, recording: str) -> str:
        """Key of a recording in the store."""
        in_key = settings.model_dump() | {"recording": recording}
        return store.make_key(self.stage, self.version, in_key, [])

    def make(self, settings: Any, recording: str) -> Path:
        """The NWB file of a recording, made and stored when it does not exist yet.

        Raises BadParameter for settings that cannot be met, StorageError when the disk is full.
        """
        params = settings.model_dump()
        extra = {"stage_version": self.version, "in_key": params | {"recording": recording}}
        folder = store.commit(
            self.stage, recording, self.key(settings, recording),
            lambda folder: self.simulate(folder / self.file_name, settings, recording),
            params=params, upstream=[], seed=settings.seed, extra=extra,
        )  # fmt: skip
        return folder / self.file_name
