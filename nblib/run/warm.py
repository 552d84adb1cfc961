"""A process that has imported what notebooks need, and forks: a job or a kernel then starts at once.

The server imports, computes nothing and starts no thread, so that its forks are as clean as a new
interpreter. It listens on a Unix socket; one connection is one process. Over it go the request
with the process's stdin, stdout and stderr, and back its pid and, when it ended, its exit status.
Children find the server by the variable `ADDRESS`, so that the kernels of a job come from it too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nblib.core.errors import RunFailed

ADDRESS = "NBLIB_WARM"
LIGHT = (
    "nbclient", "ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "matplotlib_inline.config",
    "IPython.core.completer", "xarray", "h5py", "pynwb", "scipy.signal", "scipy.stats", "seaborn",
    "matplotlib.pyplot", "nblib.run.execute", "nblib.run.kernel", "nblib.simulate.allen", "nblib.prepare.binning_stage",
    "nblib.prepare.cleaning", "nblib.prepare.splits", "nblib.report.plots.recordings",
    "nblib.report.plots.preparation", "nblib.report.explore",
)  # fmt: skip
HEAVY = ("torch", "torch._dynamo", "lightning", "sklearn.linear_model", "nblib.models.training", "nblib.experiments.decode", "nblib.report.plots.runs")  # fmt: skip
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
GRACE_S = 10.0  # what is told to end is killed after so long; a job ends its kernel in half of it
SOCKET_PATH_MAX = 78  # Unix socket paths end at 104 (macOS) or 108 bytes


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


@contextlib.contextmanager
def signals_to(handle: Callable[[int, Any], None]) -> Iterator[None]:
    """Have `handle` called for SIGINT, SIGTERM and SIGHUP while the block lasts."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def server(modules: tuple[str, ...], environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A server of its own while the block lasts; yields the environment that leads to it.

    When this process ends, the server goes on until its last child has ended.
    """
    with private_folder() as folder:
        environment = {**environment, ADDRESS: str(folder / "warm")}
        # Figures of every kernel go into its notebook, whichever process read this first.
        environment.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        command = [
            sys.executable,
            "-c",
            "from nblib.run import warm; warm.main()",
            *modules,
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, env={**os.environ, **environment}, process_group=0
        )
        try:
            while not Path(environment[ADDRESS]).is_socket():
                if process.poll() is not None:
                    raise RuntimeError(f"the warm server ended with status {process.returncode}")
                time.sleep(0.01)
            yield environment
        finally:
            process.stdin.close()  # its sign to end
            process.wait()


def _gone(where: str) -> RunFailed:
    return RunFailed(
        f"the process that begins jobs and kernels is gone ({where}): it was killed, perhaps for want of "
        f"memory. What is committed stays; call the command again, in a shell without {ADDRESS}."
    )


class Process:
    """A process forked by the server at `address`; used like subprocess.Popen.

    task: a name in `TASKS`, called with `arguments`; files: stdin, stdout and stderr; tied: ended
    with its process group when this process ends or drops it.
    """

    stdin = stdout = stderr = None

    def __init__(self, address: str, task: str, arguments: list[Any], files: list[Any], *, env: dict[str, str], cwd: str | None = None, tied: bool = False):  # fmt: skip
        self.returncode: int | None = None
        self.connection = socket.socket(socket.AF_UNIX)
        try:
            self.connection.connect(address)
        except OSError as error:
            raise _gone(f"{address}: {error.strerror}") from None
        request = {"task": task, "arguments": arguments, "env": env, "cwd": cwd or str(Path.cwd()), "tied": tied}  # fmt: skip
        text = json.dumps(request).encode() + b"\n"
        socket.send_fds(self.connection, [text[:1]], [f.fileno() for f in files])
        self.connection.sendall(text[1:])
        self.told = self.connection.makefile("r")
        self.pid = int(self._line() or 0)
        if not self.pid:
            raise _gone(address)

    def _line(self) -> str:
        with contextlib.suppress(ConnectionResetError):
            return self.told.readline()
        return ""

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            with selectors.DefaultSelector() as ready:
                ready.register(self.connection, selectors.EVENT_READ)
                if ready.select(0):
                    self.wait()
        return self.returncode

    def wait(self) -> int:
        """Wait for its end; the status of a process whose server was killed is that of SIGKILL."""
        if self.returncode is None:
            self.returncode = int(self._line() or -signal.SIGKILL)
            self.told.close()
            self.connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


# --- in the server -------------------------------------------------------------------------------


def main() -> None:
    """Import the modules named on the command line, then fork until stdin is closed."""
    listener = socket.socket(socket.AF_UNIX)
    unready = f"{os.environ[ADDRESS]}.0"
    listener.bind(unready)
    listener.listen(64)
    Path(unready).rename(os.environ[ADDRESS])  # its name says that it listens
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # shared pages stay shared
    request = _serve(listener)
    if request is not None:
        sys.exit(_become(request))
    shutil.rmtree(Path(os.environ[ADDRESS]).parent, ignore_errors=True)


def _serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns None at the end, and in a child its request."""
    clients: dict[int, socket.socket] = {}
    tied: set[int] = set()
    doomed: dict[int, float] = {}  # told to end by SIGTERM; killed at this time
    selector = selectors.DefaultSelector()
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    for source in (listener, woken, sys.stdin):
        selector.register(source, selectors.EVENT_READ)
    parent = True
    while parent or clients:
        for pid in [pid for pid, end in doomed.items() if time.monotonic() > end]:
            del doomed[pid]
            _kill(pid, signal.SIGKILL)
        for key, _ in selector.select(GRACE_S / 5 if doomed else None):
            if key.fileobj is listener:
                connection, _ = listener.accept()
                request, files = _receive(connection)
                if not request:
                    connection.close()
                    continue
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.setpgid(0, 0)
                    _die_with_the_server()
                    for number, file in enumerate(files):
                        os.dup2(file, number)
                    for other in (*files, *(s.fileno() for s in (connection, listener, woken, wake, *clients.values()))):  # fmt: skip
                        os.close(other)
                    os.close(selector.fileno())
                    return request
                for file in files:
                    os.close(file)
                clients[pid] = connection
                if request["tied"]:
                    tied.add(pid)
                _tell(connection, pid)
                selector.register(connection, selectors.EVENT_READ, pid)
            elif key.fileobj is woken:
                woken.recv(4096)
                for pid, status in _ended(clients):
                    connection = clients.pop(pid)
                    with contextlib.suppress(KeyError):  # it was closed on the other side
                        selector.unregister(connection)
                    _tell(connection, status)
                    connection.close()
                    tied.discard(pid)
                    doomed.pop(pid, None)
            elif key.fileobj is sys.stdin:  # its parent has ended or wants no more
                selector.unregister(sys.stdin)
                parent = False
            elif key.data in clients:  # nobody listens any more
                selector.unregister(key.fileobj)
                if key.data in tied:
                    _kill(key.data, signal.SIGTERM)
                    doomed[key.data] = time.monotonic() + GRACE_S
    return None


def _die_with_the_server() -> None:
    """Have Linux kill this process when the server is killed.

    Otherwise a cluster that kills a job's processes one by one could miss those whose parent was
    killed before them, and they would work on beside the job's next try.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The request of a new connection and its three files; {} from one that ends before."""
    first, files, *_ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as told:
        rest = told.readline()
    return (json.loads(first + rest) if rest.endswith(b"\n") else {}), list(files)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _tell(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(f"{number}\n".encode())


def _ended(clients: dict[int, socket.socket]) -> Iterator[tuple[int, int]]:
    for pid in list(clients):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            yield pid, os.waitstatus_to_exitcode(status)


# --- in a child ----------------------------------------------------------------------------------


def _become(request: dict[str, Any]) -> int:
    """Do the task of a request in a forked process, as a new interpreter would."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    return TASKS[request["task"]](*request["arguments"])


def _kernel(connection_file: str) -> int:
    from ipykernel.kernelapp import IPKernelApp

    # Parent 1: nobody to watch; the server watches.
    IPKernelApp.launch_instance(["-f", connection_file, "--IPKernelApp.parent_handle=1"])
    return 0


def _job() -> int:
    """One call on stdin, one `Exit` on stdout."""
    call = json.load(sys.stdin)
    module, _, name = call.pop("call", "nblib.run.execute:attempt").partition(":")
    end = getattr(importlib.import_module(module), name)(**call)
    print(json.dumps(asdict(end), default=str))
    return end.code


TASKS = {"kernel": _kernel, "job": _job}
