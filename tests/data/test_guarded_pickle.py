"""What the guarded unpickler admits: tables of old pandas, and nothing that could act."""

import base64
import io
import json
import pickle
import subprocess
import sys
import zlib

import numpy as np
import pandas as pd
import pytest

from nblib.core.errors import BadInput
from nblib.data.files import guarded_pickle
from nblib.data.lab_pickle import read_lab_pickle

COUNTS = np.random.default_rng(0).poisson(1, (12, 3))
LABELS = [3, -1, 5, 3]  # of three bins each
# The table above as pandas 1.5.3 and numpy 1.24.4 pickled it; compressed, base 85.
OLD = {
    "protocol 5, frame last": (
        "c-oazOKTKC5T4g+G>ea*Q7^&cdf9_`$U!g|3FxpZ<R03d*`A#t^P;<l7%-qn)&%NinZKf*{7e1=t?o&1vl)r@p}("
        "5xuIl>g^}hGzW8l~Yw`*QbxEjWl6vIUFLLgjw!8PBq@@IVX0S|Bh0V}2wVQv0;R%#(jo~vQOOFk7+A@rZ;RlGZDz"
        "eycdPc>McMe2_V!cEqcbr$dDf<;EhTwW=gqTX+<lPF{sBP_E-Rz=h#iM2R5dFZyzpTdRZFQB`Cp3|-GE$DfdoV$N"
        "P=O5p5{`3E3?|BP|(6jL*oap`9WD~q>9gmMb;WiFJAKa%n9*<xBqGh+x(HMn(*q<S|Td3(8EJaP0>#U@d^;Dk4#!"
        "TqYCD&L9J+r6F>5ak3n{(bQZFJ+$AKiFoqZ=>U!E^<@WR6F=+QGtYS!`Ms=^8m4%)30p9V+Yl=j(YQ-U>C0xS}q&"
        "&PuVzUYdWzIDHJgGuigTgn9(w?p(nZ4TXtI$tmD{CPiG8O3NnJM*S9CrHAaH3Ev@Zx)HYSyJ2u>DZM_Ins*DSc}A"
        "p;$>-5mfAq~CefOc)_N$-+2udT4o0%c|1RiwplDwQ6V%rAi$fV(zQmeVt<QW7?S2c!xBM1^)Yg3qwrU2Cu4G2U2Y"
        "*?^DXl|piLlwfcrZI4UaD^o~pIY%A&+}?eu}M=?{ctT<&LcrH;7B#m@HZP;Kn4"
    ),
    "protocol 4, ids as numpy scalars": (
        "c-n<jU2oGc6iw2k>$-|*;%ib7LOhL^J|R9N5Yvi~N<@*6c$|!rx^*<itrAD05|iLzW0U+g^IL!?{u2KHuAKz3HdX"
        "zQV>|cSKKI;vKfB-Bo@IvInPEP{X)l~6q&H4*OqASwi3NUT=9lWh7j>fcq>JK7qU7DGdBg=tIA&=t#vD&bk}BCbV"
        "AJsEO}++qd8_b1EDF;9E=q2rjL)L*h!GTMA8mY-XYp*FpB`sSL^w(C98N_E38y?2Nfrui=ov#LH{fhza;bdlRQ2s"
        "ZeO2$&o^SgNzjLPOw)93~KGRI36FpHE=lTDJw4bTraQONU4D<0Vp@NHpd$wiSd2p;of#td!&WitzRX^+%`;7%ZXN"
        "{k|2Awtbi}%@U-e;{iUqPf~E65^Hh=Y_~%A$}M4Iu2cj<E0OFWsWo=#Ex~UN3dAjV`;=8CTSxcWSigf5@+E?bqY)"
        "U-funzaE#*(M0Hdc(Yr5^_e<^jNiSQ>Lc=zq`d&AP#|r@$uSz}Js?dVORt=pQW-({sAb~rsiFP$N)morNWvGII9y"
        "LVvYCdMVO>PD+i!g@#DmvCTnBpV$MV+C>X!8Kf+kunm+R>;Gqz7<w~ieY6-lBH2oAV-^sqvTK40e3fkpS9NXuDLW"
        "}91J(Q>S2fg1(33fwHPUEo$F+vxlJ<;3uE5tKCaDIMstXQ7w~Y$AUM#IX?2jZTzoqA|l0Grf%&n;xfVl+7Sru^@="
        "yfIurcPqU!+7Z@K%Z~"
    ),
    "protocol 2, float32, frame first": (
        "c-obeTT|0O6vxvGC=u@$RJ>n{mnw>iiV_h~h%LHaCNIp+CS6E|H0?jx3@~G7@PQV-gkM8_az;Ox?xq23)dx2-d;O"
        "oY=lo_*R<ll>1r-(*om$9?^C7EpeUb?_mCT?GeMF{#Y{ANFnntS&A#xoSULbfFFh43*S-=)}80iy!%~>q9S32^Wa"
        "_W0_w5``^9MnB$(dX1w20D72Ag<O|+J39CFFY28Y(=LbcWOZ-!q^cydfO^p`b<u-!_?NW)1gkS!ktLxftu*(vobP"
        "b8@kmiN1q8V7{;z9`U!Tou!mr8!OWOBv%iUbsmqF3sY}cKR#sZfkKn+@dJ6{$4i(H?;%y9v%jNRSPuY^r)C7*$8*"
        "ZQVNmK3n>bRyEMmkBF@%x6MZMAKM)>df7wqWZpnRIm>qOBV>qeG*0-(+CGmDwL9I3{r1b||%DPa+N|)g#|?WZr|4"
        "N8Ze|aDw2ZnQh?|!D+Y0?R68xXI#ncEWtU&Eu*-dciX7EQCv`{E)ralsN6pxT}~h^OKmQVs(bwL?f<@>)UJE{mwy"
        "yg`a=X)1g_fdpsA@WTDV4VUFBLNxY5MTISd!N-gkvB^QdUEi0d@qOLSW8=(zQ7S*p0*z(~7pDzcz(XA|UI1@a!jr"
        "~;W^!~GQF>?j^6j1LLMHecKaJnDowF7Vjin8SF%QYj||3#0ToSNf7Gea&%!Cw6jYpbjR=aT8AoCf&b>8?s=5>qPZ"
        "w(9ar}D!3En#Cs%IDDd3W5|5Fn)$zjYPZzw7X)`1J&k&friI)VW_FqDl5z1Cyns__J*<?+tT(E@3t2w+*?qEWM5l"
        "91Xl0v2PK3j<Jwt;unfI9a5+EPR-aa}%ACOGw(&HV`P*Q3}j{sOIGaX0"
    ),
}


class Name:
    """A bare global of a pickle, whether it exists or not."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Made:
    """`name(*args)`, or `name.__new__(name, *args)`, then given a state."""

    def __init__(self, name, args=(), state=None, new=False):
        self.name, self.args, self.state, self.new = name, args, state, new


class Assembler(pickle._Pickler):
    """Writes pickles that no pickler would."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Made):
            self.save(obj.name)
            self.save(tuple(obj.args))
            self.write(pickle.NEWOBJ if obj.new else pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


def write(path, obj):
    with path.open("wb") as file:
        Assembler(file, protocol=2).dump(obj)
    return path


MULTIARRAY = "numpy.core.multiarray"
NDARRAY, DTYPE = Name("numpy", "ndarray"), Name("numpy", "dtype")
FRAME = Name("pandas.core.frame", "DataFrame")
MANAGER = Name("pandas.core.internals.managers", "BlockManager")
INDEX = Name("pandas.core.indexes.base", "Index")
NEW_INDEX = Name("pandas.core.indexes.base", "_new_Index")
RANGE_INDEX = Name("pandas.core.indexes.range", "RangeIndex")
UNPICKLE_BLOCK = Name("pandas._libs.internals", "_unpickle_block")
RECONSTRUCT, SCALAR = Name(MULTIARRAY, "_reconstruct"), Name(MULTIARRAY, "scalar")
FROM_BUFFER = Name("numpy.core.numeric", "_frombuffer")
SLICE = Name("builtins", "slice")


def dtype(code, *state):
    return Made(DTYPE, (code, False, True), (3, "<", None, None, None, -1, -1, 0, *state))


def encoded(data):
    return Made(Name("_codecs", "encode"), (data.decode("latin-1"), "latin1"))


def array(values, code="i8"):
    values = np.asarray(values, code if code != "O8" else object)
    data = values.ravel().tolist() if code == "O8" else encoded(values.tobytes())
    return Made(RECONSTRUCT, (NDARRAY, (0,), "b"), (1, values.shape, dtype(code), False, data))


def index(values):
    return Made(NEW_INDEX, (INDEX, {"data": array(values, "O8"), "name": None}))


def frame(blocks, columns, rows=12):
    rows = Made(NEW_INDEX, (RANGE_INDEX, {"start": 0, "stop": rows, "step": 1, "name": None}))
    return Made(FRAME, state={"_mgr": Made(MANAGER, (tuple(blocks), [columns, rows]))}, new=True)


def block(values, place):
    return Made(UNPICKLE_BLOCK, (values, place, 2))


def place(start, stop):
    return Made(SLICE, (start, stop, 1))


def good(**change):
    """A table of three units and `frame`; `change` replaces a part."""
    part = {
        "counts": array(COUNTS.T),
        "counts_at": place(0, 3),
        "columns": index([951, 952, 953, "frame"]),
    } | change
    blocks = [
        block(part["counts"], part["counts_at"]),
        block(array(np.repeat(LABELS, 3)[None]), place(3, 4)),
    ]
    return frame(blocks, part["columns"])


def old_state():
    """The layout of pandas 1.0 to 1.2: the manager is given its state afterwards."""
    axes = [index([951, 952, 953, "frame"]), Made(NEW_INDEX, (RANGE_INDEX, {}))]
    blocks = [
        {"values": array(COUNTS.T), "mgr_locs": place(0, 3)},
        {"values": array(np.repeat(LABELS, 3)[None]), "mgr_locs": array([3])},
    ]
    state = (axes, [], [], {"0.14.1": {"axes": axes, "blocks": blocks}})
    return Made(FRAME, state={"_data": Made(MANAGER, state=state, new=True)}, new=True)


@pytest.mark.parametrize("which", OLD)
def test_tables_of_old_pandas(tmp_path, which):
    path = tmp_path / "table.pkl"
    path.write_bytes(zlib.decompress(base64.b85decode(OLD[which])))
    binned = read_lab_pickle(path, n_bins=3)
    np.testing.assert_array_equal(binned.counts.values.reshape(12, 3), COUNTS)
    assert binned.label.values.tolist() == LABELS and binned.unit.values.tolist() == [951, 952, 953]


@pytest.mark.parametrize("build", [good, old_state])
def test_the_assembled_table_is_read(tmp_path, build):
    """The attacks below differ from this one in a single part."""
    binned = read_lab_pickle(write(tmp_path / "x.pkl", build()), n_bins=3)
    np.testing.assert_array_equal(binned.counts.values.reshape(12, 3), COUNTS)


HUGE = 2**39
POINTERS = b"\x10" * 8 * 36
ATTACKS = {
    # Bytes that would be taken for pointers to objects.
    "fields that hide objects": good(counts=Made(FROM_BUFFER, (
        encoded(POINTERS),
        Made(DTYPE, ("V8", False, True), (3, "|", None, ("f",), {"f": (dtype("O8"), 0)}, 8, 1, 0)),
        (3, 12), "C"))),
    "fields set on a plain type": good(counts=Made(FROM_BUFFER, (
        encoded(POINTERS),
        Made(DTYPE, ("i8", False, True), (3, "|", None, ("f",), {"f": (dtype("O8"), 0)}, 8, 1, 0)),
        (3, 12), "C"))),
    "a subtype set on a plain type": good(counts=Made(FROM_BUFFER, (
        encoded(POINTERS), Made(DTYPE, ("i8", False, True), (3, "|", (dtype("O8"), (1,)), None, None, 8, 8, 0)),
        (3, 12), "C"))),
    "objects from bytes": good(counts=Made(FROM_BUFFER, (encoded(POINTERS), dtype("O8"), (3, 12), "C"))),
    "objects from bytes, by state": good(counts=Made(
        RECONSTRUCT, (NDARRAY, (0,), "b"), (1, (3, 12), dtype("O8"), False, encoded(POINTERS)))),
    "a scalar object": good(columns=index([1, 2, 3, "frame"]), counts=Made(SCALAR, (dtype("O8"), encoded(POINTERS[:8])))),
    # Sizes that are not there.
    "more shape than bytes": good(counts=Made(FROM_BUFFER, (encoded(b"12345678"), dtype("i8"), (3, HUGE), "C"))),
    "a shape without bytes": good(counts=Made(FROM_BUFFER, (encoded(b""), dtype("i8"), (HUGE, 0), "C"))),
    "negative shape": good(counts=Made(FROM_BUFFER, (encoded(b""), dtype("i8"), (-1, 12), "C"))),
    "a huge place": good(counts_at=place(0, HUGE)),
    "a huge index": good(columns=Made(NEW_INDEX, (RANGE_INDEX, {"start": 0, "stop": HUGE, "step": 1}))),
    "items of no size": good(counts=Made(FROM_BUFFER, (encoded(b""), dtype("S0"), (HUGE,), "C"))),
    # Admitted names put to other use.
    "an array of another class": good(counts=Made(RECONSTRUCT, (FRAME, (0,), "b"))),
    "a class called with what it is not": Made(FRAME, ("import os",)),
    "state given to a function": Made(RECONSTRUCT, (NDARRAY, (0,), "b"), state={"shape": 1}),
    "another codec": Made(Name("_codecs", "encode"), ("x", "rot13")),
    "an index over a function": good(columns=Made(NEW_INDEX, (RECONSTRUCT, {"data": 1}))),
    "a name with a dot": Name("numpy", "dtype.__reduce__"),
    "a module by its other name": Name("numpy._core.multiarray", "fromfile"),
    "numpy's helper that runs": Made(Name("numpy.testing._private.utils", "runstring"), ("open('ran', 'w')", {})),
    "numpy's apply": Made(Name("numpy", "apply_along_axis"), (Name("os", "system"), 0, ["touch ran"])),
    "pandas' loader": Made(Name("pandas.io.pickle", "read_pickle"), ("ran",)),
    "copyreg": Made(Name("copyreg", "_reconstructor"), (FRAME, Name("builtins", "object"), None)),
    "a table in a cell": good(counts=array([[{}] * 12] * 3, "O8")),
    "not a table": {"frame": [1, 2, 3]},
}  # fmt: skip
RAW = {
    "a persistent id": b"\x80\x02X\x01\x00\x00\x00xQ.",
    "a registered extension": b"\x80\x02\x82\x01.",
    "state given to a class": b"cpandas.core.frame\nDataFrame\n}X\x0c\x00\x00\x00__setstate__K\x01sb.",
    "slots given to a class": b"cpandas.core.frame\nDataFrame\nN}X\x0c\x00\x00\x00__setstate__K\x01s\x86b.",
    "slots given to a function": b"cnumpy.core.multiarray\n_reconstruct\nN}X\x05\x00\x00\x00_makeK\x01s\x86b.",
    "an item set on a class": b"cpandas.core.frame\nDataFrame\nK\x01K\x02s.",
    "an instance the old way": b"(S'touch ran'\nios\nsystem\n.",
    "nothing at all": b".",
}


def attack_files(folder):
    for k, (name, payload) in enumerate({**ATTACKS, **RAW}.items()):
        path = folder / f"{k}.pkl"
        if isinstance(payload, bytes):
            path.write_bytes(payload)
        else:
            write(path, payload)
        yield name, path


def test_every_attack_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, path in attack_files(tmp_path):
        with pytest.raises(BadInput, match=r"nothing in it was run|not a readable pickle"):
            print(name, read_lab_pickle(path, n_bins=3))
    assert not (tmp_path / "ran").exists()
    # And none of them left a mark on the reader.
    binned = read_lab_pickle(write(tmp_path / "x.pkl", good()), n_bins=3)
    np.testing.assert_array_equal(binned.counts.values.reshape(12, 3), COUNTS)


WATCH = """
import json, sys
from pathlib import Path
from nblib.core.errors import BadInput
from nblib.data.files import guarded_pickle
seen, watching = [], False
def hook(event, arguments):
    if watching and not event.startswith(("object.", "sys._getframe", "builtins.id")):
        seen.append([event, str(arguments)[:200]])
sys.addaudithook(hook)
for path in sorted(Path(sys.argv[1]).glob("*.pkl")):
    watching = True
    try:
        guarded_pickle.read_table(path)
    except BadInput:
        pass
    watching = False
print(json.dumps(seen))
"""


def test_reading_does_nothing_but_open_the_file(tmp_path):
    """The interpreter's own audit: no import, no call to the system, no other file."""
    files = [path for _, path in attack_files(tmp_path)]
    files.append(write(tmp_path / "good.pkl", good()))
    out = subprocess.run(
        [sys.executable, "-c", WATCH, str(tmp_path)], capture_output=True, text=True, check=True
    )
    seen = json.loads(out.stdout)
    assert len([e for e, _ in seen if e == "open"]) == len(files)
    assert {e for e, _ in seen} == {"open"}, seen
    assert all(".pkl" in told for _, told in seen)


def test_what_is_admitted_is_inert():
    """No admitted name stands for a real function or class of pandas, numpy or Python."""
    reader = guarded_pickle._Unpickler(io.BytesIO())
    admitted = [(m, n) for m, names in guarded_pickle.NAMES.items() for n in names.split()]
    assert len(admitted) == 20
    for module, name in admitted:
        piece = reader.find_class(module, name)
        assert isinstance(piece, str) or piece.__module__ == guarded_pickle.__name__
        assert not {"append", "extend", "add", "__setitem__"} & set(dir(piece))
        with pytest.raises((AttributeError, TypeError)):  # as a pickle sets what it calls a state
            piece.__setstate__({"__defaults__": 1}) if hasattr(piece, "__setstate__") else setattr(
                piece, "__defaults__", 1
            )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["uint8", "int32", "float64", ">i4"])
def test_every_block_layout_gives_the_same_counts(tmp_path, order, kind):
    values = np.asarray(COUNTS, kind, order=order)
    table = pd.DataFrame(values, columns=["951", "952", "953"], copy=False)
    table.insert(0, "frame", np.repeat(LABELS, 3).astype(object))
    table.to_pickle(tmp_path / "x.pkl")
    binned = read_lab_pickle(tmp_path / "x.pkl", n_bins=3)
    np.testing.assert_array_equal(binned.counts.values.reshape(12, 3), COUNTS)
    assert binned.unit.values.tolist() == [951, 952, 953]
