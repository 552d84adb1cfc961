"""The Allen Institute's warehouse: allensdk asks it, everything that can lose data is done here.

A download goes to a temporary name, is verified, and only then takes its place.

Retries: a file or a list is tried `TRIES` times in all, after pauses of 1, 2, 4 and 8 s, for
broken connections, stalls of 60 s, bodies that end early and answers 429 or 5xx; other answers
are final. A retry goes on where the last one stopped when the server names the file's version.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from nblib.core import integrity, store
from nblib.core.errors import BadParameter, MissingInput, StorageError

WAREHOUSE = "http://api.brain-map.org"  # allensdk's own; NBLIB_ALLEN_WAREHOUSE names another
TRIES = 5
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
CONNECT_S, STALL_S = 20.0, 60.0
CHUNK_BYTES = 1 << 20  # at most so much is fetched twice after a break
RETRY_STATUS = (429, 500, 502, 503, 504)


class _Unusable(Exception):
    """An answer that is not what was asked for."""


@store.shared()
def fetch(
    place: Path, what: str, link: Callable[[Any], str], verify: Callable[[Path], Any]
) -> Path:
    """Download a file to a name of its own beside `place`, verify it, and only then rename it.

    link: asks the warehouse's API for the file's address.
    """
    part = integrity.unfinished(place)
    made = [folder for folder in place.parents[:3] if not folder.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for left in integrity.leftovers(place.parent):  # by processes that were killed
            left.unlink(missing_ok=True)
        address = persist(lambda: link(api()), what)
        with part.open("wb") as file:
            download = _Download(address, what, file)
            persist(download.go_on, what)
            os.fsync(file.fileno())
        verify(part)
        part.replace(place)
    except OSError as error:
        raise store.storage_error(error, place, "nothing was kept") from error
    finally:
        part.unlink(missing_ok=True)
        for folder in made:  # only while empty
            with contextlib.suppress(OSError):
                folder.rmdir()
    return place


class _Download:
    """A file being filled, over several tries."""

    def __init__(self, address: str, what: str, file: BinaryIO):
        self.address, self.what, self.file = address, what, file
        self.version = ""  # what names this version of the file to the server
        self.total: int | None = None  # bytes, where the server tells

    def go_on(self) -> None:
        """Ask for the rest when the server can tell that it is the rest of the same file, else for all."""
        from tqdm.auto import tqdm

        have, headers = self.file.tell(), {}
        if have and self.version and (self.total is None or have < self.total):
            headers = {"Range": f"bytes={have}-", "If-Range": self.version}
        with _get(self.address, headers) as response:
            if response.status_code == 206:
                self._check_part(response.headers.get("Content-Range", ""))
            else:
                self._start_over(response.headers)
            have = self.file.tell()
            with tqdm(
                desc=self.what, total=self.total, initial=have, unit="B", unit_scale=True
            ) as bar:
                for chunk in response.iter_content(CHUNK_BYTES):
                    bar.update(self.file.write(chunk))
        have = self.file.tell()
        if not have or (self.total is not None and have != self.total):
            raise _Unusable(f"{have} of {self.total} bytes came")

    def _check_part(self, content_range: str) -> None:
        span, _, total = content_range.removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(self.file.tell()) or total != str(self.total):
            self.version = ""
            raise _Unusable("the server sent another part of the file than was asked for")

    def _start_over(self, headers: Any) -> None:
        self.file.seek(0)
        self.file.truncate()
        plain = "Content-Length" in headers and "Content-Encoding" not in headers
        self.total = int(headers["Content-Length"]) if plain else None
        strong = headers.get("ETag", "")
        # Without byte ranges or a strong name for this version, a retry starts over.
        self.version = strong if strong.startswith('"') else headers.get("Last-Modified", "")
        folder = Path(self.file.name).parent
        free = shutil.disk_usage(folder).free
        if self.total is not None and self.total > free:
            raise StorageError(
                f"{folder}: the file needs {self.total / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; "
                "nothing was kept. Free space there or point NBLIB_HOME at a larger disk."
            )


def _get(address: str, headers: dict[str, str] | None = None) -> Any:
    """The answer to a request, its body unread; an error page is an error."""
    import requests

    headers = {"Accept-Encoding": "identity", **(headers or {})}
    response = requests.get(address, stream=True, headers=headers, timeout=(CONNECT_S, STALL_S))
    response.raise_for_status()
    return response


def persist(work: Callable[[], Any], what: str) -> Any:
    """Run `work`, again after a pause when the network failed; MissingInput after `TRIES` times."""
    import requests

    for k in range(TRIES):
        try:
            return work()
        except requests.HTTPError as error:
            fault = f"HTTP {error.response.status_code}"
            if error.response.status_code not in RETRY_STATUS:
                break
        except (ValueError, LookupError) as error:
            fault = f"an answer that is not a warehouse's ({type(error).__name__})"
        except (requests.RequestException, _Unusable) as error:
            fault = f"{type(error).__name__.strip('_')}: {str(error)[:160]}"
        if k + 1 < TRIES:
            pause = PAUSES_S[min(k, len(PAUSES_S) - 1)]
            print(
                f"{what}: {fault}; again in {pause:g} s (try {k + 2} of {TRIES})", file=sys.stderr
            )
            time.sleep(pause)
    scheme, host = _address()
    raise MissingInput(
        f"{what} could not be fetched from {scheme}://{host} in {k + 1} tries (last: {fault}); "
        "nothing was kept. Check the network, or NBLIB_ALLEN_WAREHOUSE, and run it again."
    )


def check_reachable(patience_s: float = 3.0) -> None:
    """MissingInput within `patience_s` seconds on a machine that the warehouse cannot be reached from."""
    if urllib.request.getproxies():  # it is the proxy that knows
        return
    scheme, host = _address()
    name, _, port = host.partition(":")
    fault = f"no answer within {patience_s:g} s"

    def connect() -> None:
        nonlocal fault
        try:
            place = (name, int(port or (443 if scheme == "https" else 80)))
            socket.create_connection(place, timeout=patience_s).close()
            fault = ""
        except OSError as error:
            fault = str(error)

    # In a thread, since looking up a name knows no time limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(patience_s)
    if fault:
        raise MissingInput(
            f"{host} cannot be reached from here ({fault}). Call this where the internet is at hand; "
            "on a cluster that is often a login node. NBLIB_ALLEN_WAREHOUSE names another place."
        )


def _address() -> tuple[str, str]:
    """(scheme, host[:port]) of the warehouse; BadParameter for one that is not a web address."""
    text = os.environ.get("NBLIB_ALLEN_WAREHOUSE") or WAREHOUSE
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise BadParameter(
            f"NBLIB_ALLEN_WAREHOUSE={text!r}; expected http://host or https://host:port."
        )
    return parts.scheme, parts.netloc


def api() -> Any:
    """allensdk's warehouse API: it words the queries, and names files by their address.

    The SDK's own requests have no time limit and take an error page for data, so none is sent by it.
    """
    scheme, host = _address()
    rma_engine, project = import_sdk()

    class Engine(rma_engine.RmaEngine):
        def get_rma(self, query: str) -> Iterator[list]:
            first, total = 0, 1
            while first < total:
                route = f"{self.rma_prefix}/{self.format_query_string}?{query}"
                with _get(self.add_page_params(self._build_url(route), first)) as response:
                    page = response.json()
                if not page["success"]:
                    raise _Unusable(f"the warehouse refused the query: {page['msg']}")
                first, total = first + page["num_rows"], page["total_rows"]
                yield page["msg"]

        def stream(self, route: str) -> str:
            return self._build_url(route)

    return project.EcephysProjectWarehouseApi(Engine(scheme=scheme, host=host))


def import_sdk() -> tuple[Any, Any]:
    """allensdk's query engine and warehouse API; MissingInput when not installed."""
    try:
        from allensdk.brain_observatory.ecephys.ecephys_project_api import (
            ecephys_project_warehouse_api,
            rma_engine,
        )
    except ImportError as error:
        raise MissingInput(
            f"allensdk cannot be imported ({error}); `make setup` installs it, or: "
            "pip install 'nblib[allen]' && pip install --no-deps allensdk==2.16.2"
        ) from None
    return rma_engine, ecephys_project_warehouse_api
