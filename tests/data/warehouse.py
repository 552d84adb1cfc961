"""A loopback stand-in for the Allen Institute's warehouse, with faults on demand.

It answers the queries that allensdk asks (sessions, the file of a session) and serves the files,
so that the SDK's own download code runs against it.
"""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np

SCENES, OTHER = "brain_observatory_1.1", "functional_connectivity"


def write_session(path: Path, session: int | str, n_units: int = 4, filler: int = 40_000) -> Path:
    """A small file in the Allen layout; `filler` bytes that do not compress make it long."""
    rng = np.random.default_rng(int(session) % 1000)
    spikes = [np.sort(rng.uniform(0, 30, 150)) for _ in range(n_units)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["identifier"] = str(session)
        file["general/session_id"] = str(session)
        units = file.create_group("units")
        units["id"] = 950 + np.arange(n_units)
        units["spike_times"] = np.concatenate(spikes)
        units["spike_times_index"] = np.cumsum([len(s) for s in spikes])
        units["peak_channel_id"] = 850 + np.arange(n_units)
        units["isi_violations"] = np.linspace(0, 1, n_units)
        electrodes = file.create_group("general/extracellular_ephys/electrodes")
        electrodes["id"] = 850 + np.arange(n_units + 2)
        area = ["VISp", "", "CA1", "LGd", "None", "VISl"][: n_units + 2]
        electrodes.create_dataset("location", data=area, dtype=h5py.string_dtype())
        electrodes["probe_id"] = np.full(n_units + 2, 801)
        for axis in "xyz":
            electrodes[axis] = np.arange(n_units + 2) * 10.0
        table = file.create_group("intervals/natural_scenes_presentations")
        table["id"] = np.arange(20)
        table["start_time"] = 1.0 + np.arange(20) * 0.25
        table["stop_time"] = 1.25 + np.arange(20) * 0.25
        table["frame"] = np.arange(20) % 5 - 1.0
        file["filler"] = rng.integers(0, 256, filler, dtype=np.uint8)
    return path


@dataclass
class Warehouse:
    """`sessions`: id -> type; `faults`: what the next file requests meet, one each, in order."""

    root: Path
    sessions: dict[int, str]
    resumable: bool = True
    with_length: bool = True
    faults: list = field(default_factory=list)
    query_faults: list = field(default_factory=list)
    asked: list = field(default_factory=list)  # (path, Range header or None) of each file request
    n_queries: int = 0
    address: str = ""

    def rows(self, query: str) -> list[dict]:
        if "model::EcephysSession" in query:
            return [self._session(i, kind) for i, kind in self.sessions.items()]
        if "'Stimulus'" in query:
            return [
                {"id": i, "path": f"/images/{path.name}", "download_link": f"/files/{path.name}"}
                for i, path in enumerate(sorted(self.root.glob("*.tiff")))
            ]
        if "model::WellKnownFile" in query:
            session = re.search(r"attachable_id\$eq(\d+)", query)[1]
            there = (self.root / f"{session}.nwb").is_file()
            return [{"id": 1, "download_link": f"/files/{session}.nwb"}] if there else []
        raise AssertionError(f"a query that was not expected: {query}")

    @staticmethod
    def _session(number: int, kind: str) -> dict:
        donor = {"age": {"days": 100.0}, "sex": "M", "full_genotype": None}
        files = [{"well_known_file_type": {"name": "EcephysNwb"}}]
        return {
            "id": number, "stimulus_name": kind, "specimen_id": number + 1,
            "specimen": {"donor": donor}, "fail_eye_tracking": True, "well_known_files": files,
        }  # fmt: skip

    def start(self) -> ThreadingHTTPServer:
        warehouse = self

        class Handler(_Handler):
            house = warehouse

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        return server


class _Handler(BaseHTTPRequestHandler):
    house: Warehouse

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = urllib.parse.unquote(self.path)
        if "/files/" in path:
            self.house.asked.append((path, self.headers.get("Range")))
            fault = self.house.faults.pop(0) if self.house.faults else None
            self.serve((self.house.root / path.rsplit("/", 1)[1]).read_bytes(), fault)
        else:
            self.house.n_queries += 1
            fault = self.house.query_faults.pop(0) if self.house.query_faults else None
            self.answer(path, fault)

    def answer(self, query: str, fault) -> None:
        if isinstance(fault, int):
            self.send_error(fault)
            return
        rows = self.house.rows(query)
        body = {"success": fault != "refuse", "id": 0, "start_row": 0, "num_rows": len(rows),
                "total_rows": len(rows), "msg": rows if fault != "refuse" else "bad query"}  # fmt: skip
        self.send(b"<html>" if fault == "html" else json.dumps(body).encode())

    def send(self, body: bytes, status: int = 200, headers: tuple = ()) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def serve(self, body: bytes, fault) -> None:
        """Faults: a status; ("cut", n): close after n bytes; ("stall", n): send n bytes, then
        nothing for 1.5 s; ("body", bytes): other content;
        ("wrong part", n): answer a range with another one."""
        if isinstance(fault, int):
            self.send_error(fault)
            return
        kind, value = fault or ("", None)
        if kind == "body":
            self.send(value)
            return
        first, wanted = 0, self.headers.get("Range")
        if wanted and self.house.resumable and self.headers.get("If-Range") == '"v1"':
            first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if first and kind == "wrong part":
            first -= value
        part = body[first:]
        self.send_response(206 if first else 200)
        if self.house.with_length:
            self.send_header("Content-Length", str(len(part)))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if self.house.resumable:
            self.send_header("ETag", '"v1"')
        self.end_headers()
        if kind == "stall":
            self.wfile.write(part[:value])
            self.wfile.flush()
            time.sleep(1.5)
        self.wfile.write(part[:value] if kind in ("cut", "stall") else part)
        self.close_connection = True
