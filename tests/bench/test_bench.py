"""The bench runs to its end on something small, and says what it promises to say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
RUN = Path(__file__).with_name("run.py")
PROMISES = """\
nblib bins the recording
peak memory above the interpreter
nblib.models.training.fit
nblib.models.multimodal.fitting.fit
st_gat step, 40 units, beside its batch at once, written plainly
growth of a step beside that of the edges, 20 to 40 units
peak memory of training, 40 units
bayes_poisson, 5 bins: accuracy
lstm, 5 bins: accuracy
transformer, 5 bins: accuracy
mlp, 5 bins: accuracy
ensemble, 5 bins: accuracy
ensemble, 20 bins: accuracy
bayes_poisson, 20 bins, many repeats: accuracy
bayes_poisson: a large fit
bayes_poisson: memory beside the counts
nblib sampler of rp
label curves of frozen embedders
opening and binning a patient
memory of opening and binning, in spikes
exact oracle
memory of the exact oracle
leak curve
memory of all patients
exact trains of windows
exact train of a stream, 4 s
growth of it with its length
memory of a stream
import nblib
nblib --help
nblib run 01_ingest
nblib sweep, beside the cells of 01_ingest
nblib audit
nblib results --csv"""
OTHERS = (
    "h5py, pynapple, allensdk, histc, bare, DataLoader, papermill, shell loop, full graph, from scratch, "
    "braindecode, PyTorch Geometric, greedy"
)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    out = subprocess.run(
        [sys.executable, str(RUN), "--small"],
        env={**os.environ, "NBLIB_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    found = json.loads((home / "bench" / "bench.json").read_text())
    return found | {"said": out.stdout, "table": (home / "bench" / "bench.md").read_text()}


def test_every_promise_has_its_row(result):
    promised = {row["what"] for row in result["measured"] if row["limit"]}
    if os.environ.get("NBLIB_TEST_DATA"):
        promised.remove("real recording: accuracy of the chosen decoder")
    assert promised == set(PROMISES.splitlines())
    assert all((row["holds"] is not None) == bool(row["limit"]) for row in result["measured"])


def test_the_others_stand_beside(result):
    names = " ".join(row["what"] for row in result["measured"])
    assert [other for other in OTHERS.split(", ") if other not in names] == []


def test_numbers_are_sound_and_the_table_shows_them(result):
    for row in result["measured"]:
        assert row["value"] > 0 or row["what"] == "import nblib", row
        assert row["ratio"] is None or row["ratio"] > 0
        assert row["what"] in result["table"]
    assert result["table"].strip() in result["said"]
    assert {len(row) for row in result["rows"]} == {6}
    assert {"processor", "cores", "gpu", "torch"} <= set(result["machine"])


def test_a_small_bench_never_becomes_the_books(result):
    committed = RUN.parents[2] / "book" / "bench.json"
    if committed.exists():
        assert json.loads(committed.read_text())["measured"] != result["measured"]


def test_a_group_is_renewed_and_the_others_stay():
    import run

    def bench(value, *groups):
        measured = [{"group": group, "value": value} for group in groups]
        return {"machine": "m", "rows": measured, "measured": measured, "seconds": value}

    before = bench(1, "binning", "training on cpu", "results")
    after = run.renewed(before, bench(2, "training on cpu", "training on cuda"), ["training"])
    told = [(row["group"], row["value"]) for row in after["measured"]]
    assert told == [("binning", 1), ("training on cpu", 2), ("training on cuda", 2), ("results", 1)]
    assert run.renewed(before, bench(3, "binning"), list(run.GROUPS))["measured"][0]["value"] == 3
    with pytest.raises(SystemExit, match="measure all groups"):
        run.renewed({**before, "machine": "other"}, bench(2), ["training"])
