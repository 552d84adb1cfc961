"""One notebook, one kernel on a private Unix socket, nothing left behind.

papermill executes the cells; what is added here: the socket and its folder, signals passed on,
the kernel's peak memory, one line per cell on the terminal, and a verdict that tells a kernel
that died from a notebook that raised.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nblib.core.markup import in_markdown
from nblib.road.stages import REPLACE
from nblib.run import warm
from nblib.run.watch import Stopped, Watch

GRACE_S = 5.0  # a kernel told to end by SIGTERM is killed after so long


@dataclass
class End:
    """How an execution ended. `result` is the folder that the notebook says it committed."""

    notebook: Any = None
    result: Path | None = None
    error: str = ""
    error_name: str = ""
    died: bool = False
    signal: int = 0
    peak_rss_bytes: int = 0
    peak_gpu_bytes: int = 0


@dataclass
class Kernel:
    """The kernel process of one execution and what was seen of it."""

    folder: Path
    process: subprocess.Popen | warm.Process | None = None
    signals: list[int] = field(default_factory=list)

    def send(self, number: int) -> None:
        """Signal the kernel and its children (it leads a process group of its own)."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def sweep(self) -> None:
        """Kill what a kernel that did not end by itself left running."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def last_words(self) -> str:
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


def execute(
    source: Path,
    target: Path,
    values: dict[str, Any],
    *,
    label: str,
    progress: bool,
    replace: bool = False,
) -> End:
    """Execute `source` with `values` injected; keep the notebook at `target` up to date.

    replace: what it commits takes the place of what is there.

    Never raises for what the notebook does; OSError when `target` cannot be written.
    """
    papermill = _papermill()
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # unknown names were settled before
    end, words = End(), ""
    with warm.private_folder() as folder:
        kernel = Kernel(folder)
        env = {"NBLIB_NOTEBOOK": str(source), "NBLIB_RESULT": str(folder / "result")}
        env[REPLACE] = "yes" if replace else ""
        watch = Watch(kernel, label, progress)
        try:
            with _signals_to(kernel), watch:
                end.notebook = papermill.execute_notebook(
                    str(source),
                    str(target),
                    parameters=values,
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    kernel_manager_class=_manager_class(kernel, env),
                    on_notebook_start=watch.start,
                    on_cell_start=watch.cell_start,
                    on_cell_executed=watch.cell_end,
                )
        except papermill.PapermillExecutionError as error:
            end.error_name, end.error = error.ename, _sentence(error)
        except (DeadKernelError, RuntimeError) as error:
            end.died = isinstance(error, DeadKernelError) or "died" in str(error)
            end.error_name, end.error = type(error).__name__, str(error) or type(error).__name__
        except Stopped:
            end.error_name = end.error = "Stopped"
        except TimeoutError as error:  # no start within a minute, or no output from a lost kernel
            end.died, end.error_name, end.error = True, "Timeout", str(error).split("\n")[0]
        if end.error:
            kernel.sweep()
        if end.died:
            words = end.error = kernel.last_words()
        end.signal = kernel.signals[-1] if kernel.signals and end.error else 0
        end.peak_rss_bytes, end.peak_gpu_bytes = watch.peak_rss, watch.peak_gpu
        if (folder / "result").is_file():
            end.result = Path((folder / "result").read_text())
    if end.signal:
        words = f"stopped by {signal.Signals(end.signal).name}"
    if words:
        _mark_ended(target, words)
    return end


def _papermill() -> Any:
    """papermill, without the grammar of web addresses that its JSON validator would compile.

    That grammar takes a second at each start and no notebook needs it: jsonschema does without
    when it cannot be imported.
    """
    grammar = "rfc3987_syntax"
    hidden = grammar not in sys.modules and "papermill" not in sys.modules
    if hidden:
        sys.modules[grammar] = None
    try:
        import papermill
    finally:
        if hidden:
            del sys.modules[grammar]
    return papermill


def _manager_class(kernel: Kernel, env: dict[str, str]) -> type:
    """A kernel manager whose sockets, connection file and log live in the private folder.

    The kernel is this very Python, whatever kernels are registered on the machine.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class PrivateKernelManager(AsyncKernelManager):
        def __init__(self, **options: Any):
            folder = kernel.folder
            options |= {"transport": "ipc", "ip": str(folder / "k")}
            super().__init__(**options, connection_file=str(folder / "kernel.json"))
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            self._kernel_spec = KernelSpec(argv=argv, language="python", display_name="Python 3")

        async def start_kernel(self, **options: Any) -> None:
            with (kernel.folder / "kernel.log").open("wb") as log:
                await super().start_kernel(
                    **options, env={**os.environ, **env}, stdout=log.fileno(), stderr=log.fileno()
                )
            kernel.process = self.provisioner.process

        async def _async_launch_kernel(self, command: list[str], **options: Any) -> None:
            if warm.ADDRESS not in os.environ:
                return await super()._async_launch_kernel(command, **options)
            p = self.provisioner
            with (kernel.folder / "kernel.log").open("ab") as log, Path(os.devnull).open() as null:
                p.process = warm.Process(
                    os.environ[warm.ADDRESS], "kernel", [self.connection_file], [null, log, log],
                    env=options["env"], cwd=options.get("cwd"), tied=True,
                )  # fmt: skip
            p.pid = p.pgid = p.process.pid
            self._reconcile_connection_info(p.connection_info)
            return None

    return PrivateKernelManager


@contextlib.contextmanager
def _signals_to(kernel: Kernel):
    """Pass SIGINT on to the kernel; SIGTERM, SIGHUP or a second SIGINT end it."""
    timers: list[threading.Timer] = []

    def forward(number: int, _frame: Any) -> None:
        polite = number == signal.SIGINT and not kernel.signals
        kernel.signals.append(number)
        kernel.send(signal.SIGINT if polite else signal.SIGTERM)
        if not polite:
            timers.append(threading.Timer(GRACE_S, kernel.send, [signal.SIGKILL]))
            timers[-1].daemon = True
            timers[-1].start()

    try:
        with warm.signals_to(forward):
            yield
    finally:
        for timer in timers:
            timer.cancel()


def _sentence(error: Any) -> str:
    """An error in a notebook as one sentence; nblib's own errors are sentences already."""
    from nblib.core import errors

    if isinstance(getattr(errors, error.ename, None), type):
        return str(error.evalue)
    said = str(error.evalue).strip().split("\n")[-1]
    return f"cell {error.exec_count} raised {error.ename}" + (f": {said}" if said else "")


def _mark_ended(target: Path, words: str) -> None:
    """Say in the kept notebook why it ended early; by itself it looks as if all had gone well."""
    try:
        notebook = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # died before anything was written
    cells = notebook["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    ran = [c for c in code if c["metadata"].get("papermill", {}).get("start_time")]
    if ran:
        text = {"output_type": "stream", "name": "stderr", "text": f"Here {words}.\n"}
        ran[-1]["outputs"].append(text)
        ran[-1]["metadata"]["papermill"] |= {"status": "failed", "exception": True}
    notebook["metadata"]["papermill"]["exception"] = True
    said = f"**This run did not end well: {in_markdown(words)}.**"
    note = {"cell_type": "markdown", "metadata": {}, "source": said}
    if notebook.get("nbformat_minor", 0) >= 5:
        note["id"] = "kernel-died"
    cells.insert(0, note)
    target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
