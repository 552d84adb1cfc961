"""What is seen of a kernel while it works: one line per cell, its peak memory, its GPU memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nblib.run.kernel import Kernel


class Stopped(Exception):
    """The runner was told to stop while no cell was running."""


class Watch:
    """Samples the kernel's memory in a thread and writes one line per code cell."""

    def __init__(self, kernel: Kernel, label: str, progress: bool):
        self.kernel, self.label, self.progress = kernel, label, progress
        self.live = progress and sys.stdout.isatty()
        self.peak_rss = self.peak_gpu = 0
        self.cell, self.n_cells, self.began = 0, 0, time.monotonic()
        self.title = "starting the kernel"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self.live:
            print("\r\x1b[K", end="", flush=True)

    def start(self, notebook: Any) -> None:
        self.n_cells = sum(c.cell_type == "code" for c in notebook.cells)

    def cell_start(self, cell: Any, cell_index: int) -> None:
        if self.kernel.signals:
            raise Stopped
        if cell.cell_type == "code":
            self.cell += 1
            self.began = time.monotonic()
            first = next((line for line in cell.source.split("\n") if line.strip()), "")
            self.title = first[:48]
            self._show()

    def cell_end(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        self._measure(gpu=False)
        if self.progress:
            print(("\r\x1b[K" if self.live else "") + self._line(), flush=True)

    def _line(self) -> str:
        seconds = time.monotonic() - self.began
        place = f"{self.label}  cell {self.cell:2d}/{self.n_cells}"
        peak = f"{self.peak_rss / 1e9:6.2f} GB"
        gpu = f"  GPU {self.peak_gpu / 1e9:.2f} GB" if self.peak_gpu else ""
        return f"{place}  {seconds:7.1f} s  {peak}{gpu}  {self.title}"

    def _show(self) -> None:
        if self.live:
            columns = shutil.get_terminal_size().columns
            print("\r\x1b[K" + self._line()[: columns - 1], end="", flush=True)

    def _sample(self) -> None:
        with_gpu, ticks = shutil.which("nvidia-smi") is not None, 0
        while not self._over.wait(0.5):
            ticks += 1
            self._measure(gpu=with_gpu and ticks % 4 == 0)  # nvidia-smi itself takes 0.1 s and more
            self._show()

    def _measure(self, gpu: bool) -> None:
        import psutil

        if self.kernel.process is None:
            return
        try:
            root = psutil.Process(self.kernel.process.pid)
            family = [root, *root.children(recursive=True)]
            self.peak_rss = max(self.peak_rss, sum(p.memory_info().rss for p in family))
        except psutil.Error:
            return  # gone meanwhile
        if gpu:
            self.peak_gpu = max(self.peak_gpu, gpu_bytes({p.pid for p in family}))


def gpu_bytes(pids: set[int]) -> int:
    """GPU memory that these processes hold, as nvidia-smi tells it; 0 when it tells nothing."""
    ask = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    rows = [line.split(",") for line in told.splitlines() if line.count(",") == 1]
    return sum(int(mb) * 2**20 for pid, mb in rows if mb.strip().isdigit() and int(pid) in pids)
