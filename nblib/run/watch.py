"""A kernel's process while it works: signals passed on to it, one line per cell, its peak memory, its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nblib.run.kernel import Fork

GRACE_S = 5.0  # a kernel told to end by SIGTERM is killed after so long
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The runner was told to stop while no cell was running."""


@contextlib.contextmanager
def signals_to(handle: Callable[[int, Any], None]) -> Iterator[None]:
    """Have `handle` called for SIGINT, SIGTERM and SIGHUP while the block lasts."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watch:
    """The kernel of one execution; `folder` holds its log. It leads a process group of its own."""

    def __init__(self, folder: Path, label: str, progress: bool):
        self.folder, self.label, self.progress = folder, label, progress
        self.process: subprocess.Popen | Fork | None = None
        self.signals: list[int] = []
        self.live = progress and sys.stdout.isatty()
        self.peak_rss = 0
        self.cell, self.n_cells, self.began = 0, 0, time.monotonic()
        self.title = "starting the kernel"
        self._over = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Sample its memory in a thread, and pass signals on to it, while the block lasts."""
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        try:
            with signals_to(self._pass_on):
                yield
        finally:
            self._over.set()
            thread.join()
            if self.live:
                print("\r\x1b[K", end="", flush=True)

    # --- signals and the end ---

    def _pass_on(self, number: int, _frame: Any) -> None:
        """SIGINT interrupts the cell at work; SIGTERM, SIGHUP or a second SIGINT end the kernel."""
        polite = number == signal.SIGINT and not self.signals
        self.signals.append(number)
        self._send(signal.SIGINT if polite else signal.SIGTERM)
        if not polite:
            threading.Thread(target=self._kill_later, daemon=True).start()

    def _kill_later(self) -> None:
        if not self._over.wait(GRACE_S):
            self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def sweep(self) -> None:
        """Kill what a kernel that did not end by itself left running."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def exit_reason(self) -> str:
        """Why the kernel is gone, as far as its exit status and its last line tell."""
        status = self.process.poll() if self.process else None
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            cause = "; often that is the system running out of memory" if name == "SIGKILL" else ""
            text = f"the kernel was killed by {name}{cause}"
        elif status is not None:
            text = f"the kernel ended by itself with exit status {status}"
        else:
            text = "the kernel did not start"
        log = self.folder / "kernel.log"
        lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
        lines = [line.strip() for line in lines if line.strip()]
        return text + (f" (its last words: {lines[-1][:200]})" if lines else "")

    # --- cells ---

    def start(self, notebook: Any) -> None:
        self.n_cells = sum(c.cell_type == "code" for c in notebook.cells)

    def cell_start(self, cell: Any, cell_index: int) -> None:
        if self.signals:
            raise Stopped
        if cell.cell_type == "code":
            self.cell += 1
            self.began = time.monotonic()
            self.title = next((line for line in cell.source.split("\n") if line.strip()), "")[:48]

    def cell_end(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        self._measure()
        if self.progress:
            print(("\r\x1b[K" if self.live else "") + self._line(), flush=True)

    def _line(self) -> str:
        seconds = time.monotonic() - self.began
        place = f"{self.label}  cell {self.cell:2d}/{self.n_cells}"
        return f"{place}  {seconds:7.1f} s  {self.peak_rss / 1e9:6.2f} GB  {self.title}"

    def _sample(self) -> None:
        while not self._over.wait(0.5):
            self._measure()
            if self.live:
                columns = shutil.get_terminal_size().columns
                print("\r\x1b[K" + self._line()[: columns - 1], end="", flush=True)

    def _measure(self) -> None:
        import psutil

        if self.process is None:
            return
        try:
            root = psutil.Process(self.process.pid)
            family = [root, *root.children(recursive=True)]
            self.peak_rss = max(self.peak_rss, sum(p.memory_info().rss for p in family))
        except psutil.Error:
            return  # gone meanwhile
