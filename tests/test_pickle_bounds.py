"""Files whose few bytes describe values beyond all measure: refused at once, in little memory, with one line."""

import pickle
import zipfile
from pathlib import Path

import joblib
import pytest
import torch
from helpers import forks
from helpers.paths import REPOSITORY

from open_musiclm.checkpoints.legacy.kmeans import read_centroids
from open_musiclm.checkpoints.torch_files import read_torch_file
from open_musiclm.errors import UserError

_DOUBLING = pickle.EMPTY_TUPLE + b"".join(
    pickle.MEMOIZE + pickle.BINGET + bytes([number]) + pickle.TUPLE2 for number in range(60)
)
_NESTED_LISTS = pickle.EMPTY_LIST * 100 + pickle.APPEND * 99
_KEY_OF_TUPLES = pickle.EMPTY_DICT + _DOUBLING + pickle.NONE + pickle.SETITEM
_LIST_IN_ITSELF = pickle.EMPTY_LIST + pickle.MEMOIZE + pickle.BINGET + b"\x00" + pickle.APPEND
_CYCLE = (
    pickle.EMPTY_LIST + pickle.MEMOIZE + pickle.EMPTY_LIST + pickle.BINGET + b"\x00" + pickle.APPEND + pickle.APPEND
)
_ORDERED = b"ccollections\nOrderedDict\n"
_PAIRS_IN_ORDERED = _ORDERED + b"](" + _DOUBLING + b"Nt\x85a" + b"\x85R"
_LONG_NUMBER = pickle.LONG4 + (4000).to_bytes(4, "little") + b"\x7f" * 4000
_FEW_BYTES = {
    "doubling tuples": _DOUBLING,
    "doubling tuples as a key": _KEY_OF_TUPLES,
    "doubling tuples as a value": b"}X\x01\x00\x00\x00a" + _DOUBLING + b"s",
    "doubling tuples as a name": _DOUBLING + b"X\x01\x00\x00\x00a" + pickle.STACK_GLOBAL,
    "doubling tuples as a call": _ORDERED + _DOUBLING + pickle.REDUCE,
    "doubling tuples as a state": _ORDERED + b")R" + _DOUBLING + pickle.BUILD,
    "doubling tuples as a storage": _DOUBLING + pickle.BINPERSID,
    "pairs of tuples": _PAIRS_IN_ORDERED,
    "lists in lists": _NESTED_LISTS,
    "a list in itself": _LIST_IN_ITSELF,
    "a cycle": _CYCLE,
    "a number of 10,000 digits as a key": b"}" + _LONG_NUMBER + b"Ns",
    "a set": b"\x8f(" + _DOUBLING + b"\x90",
    "nothing on the stack": pickle.TUPLE3,
    "no mark": pickle.TUPLE,
    "a dict of one word": b"}(X\x01\x00\x00\x00au",
    "an unknown step": b"\xff",
}


def _zipped(path: Path, steps: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", steps)
    return path


@pytest.mark.parametrize("what", _FEW_BYTES)
def test_few_bytes_in_a_pt_file(tmp_path: Path, what: str) -> None:
    path = _zipped(tmp_path / "a.pt", b"\x80\x04" + _FEW_BYTES[what] + b".")
    with pytest.raises(UserError, match=r"a\.pt: (damaged|refused|holds a)") as error:
        read_torch_file(path)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("what", _FEW_BYTES)
def test_few_bytes_in_a_joblib_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.joblib"
    path.write_bytes(b"\x80\x04" + _FEW_BYTES[what] + b".")
    with pytest.raises(UserError, match=r"a\.joblib: (not a whole|refused|holds no)") as error:
        read_centroids(path)
    assert len(str(error.value)) < 500


def test_real_values_within_bounds(tmp_path: Path) -> None:
    shared = (0.9, 0.999)
    content = {
        "groups": [{"betas": shared, "lr": 1e-3}] * 3,
        "many": list(range(10_000)),
        7: {"deep": [[[{"a": None}]]]},
    }
    torch.save(content, tmp_path / "a.pt")
    assert read_torch_file(tmp_path / "a.pt") == content


_MEASURED = """
import resource, sys
from pathlib import Path
from open_musiclm.checkpoints.legacy.kmeans import read_centroids
from open_musiclm.checkpoints.torch_files import read_torch_file
from open_musiclm.errors import UserError

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    try:
        (read_centroids if path.suffix == ".joblib" else read_torch_file)(path)
    except UserError as error:
        assert "\\n" not in str(error)
    else:
        raise SystemExit(f"{path} was read")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def _taken(*paths: Path) -> int:
    """MiB that a process of its own takes to refuse files with one line each."""
    done = forks.run(["-c", _MEASURED, *paths], cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_many_dicts_take_little_memory(tmp_path: Path) -> None:
    many = {
        "large": b"](" + b"}" * 60_000_000 + b"e",
        "empty": b"](" + b"}" * 12_000_000 + b"e",
        "filled": b"](" + b"}K\x00Ns" * 3_000_000 + b"e",
        "ordered": b"](" + (_ORDERED + b")R") * 500_000 + b"e",
    }
    paths = [_zipped(tmp_path / f"{name}.pt", b"\x80\x02" + steps + b".") for name, steps in many.items()]
    for name, steps in many.items():
        paths.append(tmp_path / f"{name}.joblib")
        paths[-1].write_bytes(b"\x80\x02" + steps + b".")
    assert _taken(*paths) < 600


def test_many_members_of_a_zip_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60_000):
            archive.writestr(f"a/{number:040}", b"")
    assert _taken(path) < 200


def test_many_views_of_the_same_data(tmp_path: Path) -> None:
    whole = torch.zeros(1 << 20)
    torch.save({str(number): whole.view(1 << 10, 1 << 10) for number in range(8)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: damaged.*tensors far larger than the file"):
        read_torch_file(tmp_path / "a.pt")
    torch.save({str(number): whole.view(1 << 10, 1 << 10) for number in range(3)}, tmp_path / "a.pt")
    assert len(read_torch_file(tmp_path / "a.pt")) == 3


def test_joblib_file_of_nested_values(tmp_path: Path) -> None:
    content: object = ()
    for _ in range(30):
        content = (content, content)
    joblib.dump(content, tmp_path / "a.joblib")
    with pytest.raises(UserError, match=r"a\.joblib: (holds no fitted|not a whole)"):
        read_centroids(tmp_path / "a.joblib")
