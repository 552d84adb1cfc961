"""One notebook, one kernel on a private Unix socket, nothing left behind.

papermill executes the cells; what is added here: the socket and its folder, signals passed on,
the kernel's peak memory, one line per cell on the terminal, and a verdict that tells a kernel
that died from a notebook that raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nblib.core import store
from nblib.core.markup import in_markdown
from nblib.road.stages import REPLACE
from nblib.run.watch import SIGNALS, Stopped, Watch

SOCKET_PATH_MAX = 78  # Unix socket paths end at 104 (macOS) or 108 bytes


@contextlib.contextmanager
def _without_grammar() -> Iterator[None]:
    """Hide the grammar of web addresses, which papermill's JSON validator would compile.

    That takes a second at each start and no notebook needs it: jsonschema does without when it
    cannot be imported.
    """
    grammar = "rfc3987_syntax"
    hidden = grammar not in sys.modules
    if hidden:
        sys.modules[grammar] = None
    try:
        yield
    finally:
        if hidden:
            del sys.modules[grammar]


with _without_grammar():  # here, so that forks of a process that imported this begin at once
    import papermill
    from nbclient.exceptions import DeadKernelError


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


class Fork(multiprocessing.get_context("fork").Process):
    """A kernel forked from this process, which has imported what it needs; used like a Popen."""

    stdin = stdout = stderr = None

    def __init__(self, connection_file: str, log: int, environment: dict[str, str], folder: str):
        super().__init__()
        self.connection_file, self.log, self.environment = connection_file, log, environment
        self.folder = folder

    def run(self) -> None:
        """Become a kernel, as a new interpreter would; it ends when its parent does."""
        from ipykernel.kernelapp import IPKernelApp

        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for number in (1, 2):
            os.dup2(self.log, number)
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()
        asyncio.set_event_loop(asyncio.new_event_loop())  # not its parent's
        parent = f"--IPKernelApp.parent_handle={os.getppid()}"
        IPKernelApp.launch_instance(["-f", self.connection_file, parent])

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


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

    Never raises for what the notebook does, nor when `target` cannot be written: it is gone then.
    """
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # unknown names were settled before
    end, words = End(), ""
    with private_folder() as folder:
        env = {"NBLIB_NOTEBOOK": str(source), "NBLIB_RESULT": str(folder / "result")}
        env[REPLACE] = "yes" if replace else ""
        watch = Watch(folder, label, progress)
        try:
            with watch.watching():
                end.notebook = papermill.execute_notebook(
                    str(source),
                    str(target),
                    parameters=values,
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    kernel_manager_class=_manager_class(watch, env),
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
        except OSError as error:  # of the runner's own: the disk is full
            target.unlink(missing_ok=True)
            lost = "the executed notebook could not be written"
            end.error_name = "StorageError"
            end.error = str(store.storage_error(error, target.parent, lost))
        if end.error:
            watch.sweep()
        if end.died:
            words = end.error = watch.exit_reason()
        end.signal = watch.signals[-1] if watch.signals and end.error else 0
        end.peak_rss_bytes = watch.peak_rss
        if (folder / "result").is_file():
            end.result = Path((folder / "result").read_text())
    if end.signal:
        words = f"stopped by {signal.Signals(end.signal).name}"
    if words:
        _mark_ended(target, words)
    return end


def _manager_class(watch: Watch, env: dict[str, str]) -> type:
    """A kernel manager whose sockets, connection file and log live in the private folder.

    The kernel is this very Python, whatever kernels are registered on the machine.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class PrivateKernelManager(AsyncKernelManager):
        def __init__(self, **options: Any):
            folder = watch.folder
            options |= {"transport": "ipc", "ip": str(folder / "k")}
            super().__init__(**options, connection_file=str(folder / "kernel.json"))
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            self._kernel_spec = KernelSpec(argv=argv, language="python", display_name="Python 3")

        async def start_kernel(self, **options: Any) -> None:
            with (watch.folder / "kernel.log").open("wb") as log:
                await super().start_kernel(
                    **options, env={**os.environ, **env}, stdout=log.fileno(), stderr=log.fileno()
                )
            watch.process = self.provisioner.process

        async def _async_launch_kernel(self, command: list[str], **options: Any) -> None:
            if multiprocessing.parent_process() is None:
                return await super()._async_launch_kernel(command, **options)
            # A job of `run_many`, which was forked with all imports done.
            p = self.provisioner
            folder = options.get("cwd") or str(Path.cwd())
            p.process = Fork(self.connection_file, options["stderr"], options["env"], folder)
            p.process.start()
            p.pid = p.pgid = p.process.pid
            self._reconcile_connection_info(p.connection_info)
            return None

    return PrivateKernelManager


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can enter, with a path short enough for a socket; gone afterwards."""
    base = tempfile.gettempdir()
    base = base if len(base) < SOCKET_PATH_MAX else "/tmp"
    folder = Path(tempfile.mkdtemp(prefix="nblib-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sentence(error: Any) -> str:
    """An error in a notebook as one sentence; nblib's own errors are sentences already."""
    from nblib.core import errors

    if isinstance(getattr(errors, error.ename, None), type):
        return str(error.evalue)
    last = str(error.evalue).strip().split("\n")[-1]
    return f"cell {error.exec_count} raised {error.ename}" + (f": {last}" if last else "")


def _mark_ended(target: Path, words: str) -> None:
    """Say in the kept notebook why it ended early; by itself it looks as if all had gone well."""
    import nbformat

    try:
        notebook = nbformat.read(target, as_version=4)
    except (OSError, ValueError):
        return  # died before anything was written
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if ran := [cell for cell in code if cell.metadata.get("papermill", {}).get("start_time")]:
        text = f"Here {words}.\n"
        ran[-1].outputs.append(nbformat.v4.new_output("stream", name="stderr", text=text))
        ran[-1].metadata.papermill |= {"status": "failed", "exception": True}
    notebook.metadata.papermill.exception = True
    note = f"**This run did not end well: {in_markdown(words)}.**"
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(note))
    nbformat.write(notebook, target)
