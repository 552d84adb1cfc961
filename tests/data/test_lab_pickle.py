"""The lab's pickles enter as counts; a pickle that would run anything does not."""

import contextlib
import os
import pickle

import numpy as np
import pandas as pd
import pytest
from handmade import to_lab_dataframe

from nblib.core.errors import BadInput, MissingInput
from nblib.data.lab_pickle import read_lab_pickle

NAME = "spike_trains_with_stimulus_session_715093703_5.pkl"


def table(n_trials=12, n_bins=5, n_units=4, first=False):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        rng.poisson(1, (n_trials * n_bins, n_units)), columns=np.arange(n_units) + 950
    )
    label = np.repeat(rng.permutation(np.arange(n_trials) % 6 - 1), n_bins)
    if first:
        frame.insert(0, "frame", label)
    else:
        frame["frame"] = label
    return frame


def saved(folder, frame, name=NAME, protocol=4):
    path = folder / name
    path.write_bytes(pickle.dumps(frame, protocol=protocol))
    return path


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.uint8])
def test_the_table_becomes_counts_and_back(tmp_path, first, protocol, dtype):
    frame = table(first=first).astype(dtype if dtype != np.uint8 else np.int64)
    if dtype == np.float64:
        frame["frame"] = frame["frame"].replace(-1, np.nan)
    binned = read_lab_pickle(saved(tmp_path, frame, protocol=protocol))
    assert binned.counts.shape == (12, 5, 4) and binned.counts.dtype == np.uint8
    assert binned.attrs["clock"] == "nominal" and binned.attrs["recording"] == "715093703"
    told = "frame is NaN in 10 of 60 rows, taken for the grey screen, -1."
    assert binned.attrs.get("odd", "") == (told if dtype == np.float64 else "")
    again = to_lab_dataframe(binned)
    expected = table()
    np.testing.assert_array_equal(again.to_numpy(), expected.to_numpy())
    assert list(again.columns) == list(expected.columns)


def test_a_misaligned_file_is_refused_with_the_row(tmp_path):
    frame = table().drop(index=22).reset_index(drop=True)
    with pytest.raises(BadInput, match="misaligned at row 20"):
        read_lab_pickle(saved(tmp_path, frame))


def test_wrong_bins_session_or_columns(tmp_path):
    path = saved(tmp_path, table())
    with pytest.raises(BadInput, match="name says 5 bins"):
        read_lab_pickle(path, n_bins=10)
    with pytest.raises(BadInput, match="session 715093703, asked for was 1"):
        read_lab_pickle(path, session="1")
    with pytest.raises(BadInput, match="0 columns called 'frame'"):
        read_lab_pickle(saved(tmp_path, table().drop(columns="frame")))
    scores = table().astype(float)
    scores[950] -= 0.5
    with pytest.raises(BadInput, match="expected spike counts"):
        read_lab_pickle(saved(tmp_path, scores))
    with pytest.raises(MissingInput):
        read_lab_pickle(tmp_path / "spike_trains_with_stimulus_session_1_5.pkl")


class Calls:
    """Pickles into a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def attacks(mark):
    from numpy import f2py

    yield "os.system", Calls(os.system, f"touch {mark}")
    yield "builtins.eval", Calls(eval, f"open({str(mark)!r}, 'w')")
    yield "builtins.getattr", Calls(getattr, "text", "upper")
    yield "numpy.load", Calls(np.load, str(mark))
    yield "numpy.f2py", Calls(f2py.run_main, ["-c", str(mark)])
    yield "numpy.fromfile", Calls(np.fromfile, str(mark))
    yield "numpy.memmap", Calls(np.memmap, str(mark), "u1", "w+", 0, (1,))
    yield "numpy.save", Calls(np.save, str(mark), np.zeros(1))
    yield "numpy.array of objects", np.array([Calls(os.system, f"touch {mark}")], dtype=object)
    yield "pandas.eval", Calls(pd.eval, f"@open({str(mark)!r}, 'w')")
    yield "pandas.read_pickle", Calls(pd.read_pickle, str(mark))
    hidden = table()
    hidden["frame"] = hidden["frame"].astype(object)
    hidden.loc[0, "frame"] = Calls(os.system, f"touch {mark}")
    yield "an object in a cell", hidden
    named = table()
    named.attrs["x"] = Calls(os.system, f"touch {mark}")
    yield "attrs of the table", named


@pytest.mark.parametrize("which", range(13))
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_code_is_refused_and_nothing_runs(tmp_path, which, protocol):
    mark = tmp_path / "ran"
    _, payload = list(attacks(mark))[which]
    path = saved(tmp_path, payload, protocol=protocol)
    before = set(tmp_path.iterdir())
    with pytest.raises(BadInput, match=r"nothing in it was run|not a readable pickle"):
        read_lab_pickle(path)
    assert not mark.exists() and set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("cut", [0, 1, 50, 200])
def test_a_damaged_pickle(tmp_path, cut):
    path = saved(tmp_path, table())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadInput):
        read_lab_pickle(path)


def test_flipped_bytes_give_counts_or_a_refusal_never_a_crash(tmp_path):
    """Any damage ends in BadInput or in a table; nothing else escapes."""
    raw = saved(tmp_path, table(), protocol=2).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(raw)
        broken[rng.integers(len(raw))] = rng.integers(256)
        path = tmp_path / NAME
        path.write_bytes(broken)
        with contextlib.suppress(BadInput):
            read_lab_pickle(path)
