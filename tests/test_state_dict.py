"""Reading `.pt` files: tensors come out as torch.save took them, and nothing that a file asks for is ever run."""

import os
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from open_musiclm.checkpoints.torch_files import read_state_dict, read_torch_file
from open_musiclm.errors import UserError


class Command:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def checkpoint() -> dict:
    """A checkpoint laid out as the trainers of CLAP write them: weights, optimizer, schedule."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = np.float64(2.5e-4)
    return {
        "epoch": 15,
        "name": "run",
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "top": np.int64(7),
        "scale": torch.nn.Parameter(torch.tensor(4.6)),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_checkpoint_with_optimizer_and_numpy_scalars_is_read(tmp_path: Path, protocol: int) -> None:
    saved = checkpoint()
    torch.save(saved, tmp_path / "a.pt", pickle_protocol=protocol)
    read = read_torch_file(tmp_path / "a.pt")
    assert read.keys() == saved.keys()
    assert (read["epoch"], read["name"], read["top"]) == (15, "run", 7)
    assert read["optimizer"]["param_groups"][0]["lr"] == 2.5e-4
    assert read["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
    assert list(read["state_dict"]) == list(saved["state_dict"])
    for name, tensor in saved["state_dict"].items():
        torch.testing.assert_close(read["state_dict"][name], tensor, rtol=0, atol=0)
    torch.testing.assert_close(read["optimizer"]["state"][0]["exp_avg"], saved["optimizer"]["state"][0]["exp_avg"])
    torch.testing.assert_close(read["scale"], saved["scale"].data)


NUMBER_TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
NUMBER_TYPES += [torch.int8, torch.uint8, torch.bool]


@settings(max_examples=40, deadline=None)
@given(
    number_type=st.sampled_from(NUMBER_TYPES),
    shape=st.lists(st.integers(0, 4), max_size=4),
    transposed=st.booleans(),
    protocol=st.sampled_from([2, 4]),
)
def test_any_tensor_equals_what_was_saved(tmp_path_factory, number_type, shape, transposed, protocol) -> None:
    whole = (torch.randn([2, *shape]) * 50).to(number_type)
    tensor = whole[1].T if transposed and len(shape) == 2 else whole[1]
    path = tmp_path_factory.mktemp("pt") / "a.pt"
    torch.save(OrderedDict(tensor=tensor, whole=whole), path, pickle_protocol=protocol)
    read = read_state_dict(path)
    torch.testing.assert_close(read["tensor"], tensor, rtol=0, atol=0)
    torch.testing.assert_close(read["whole"], whole, rtol=0, atol=0)


def test_tensors_outlive_the_file_and_writing_to_them_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    before = path.read_bytes()
    weight = read_state_dict(path)["weight"]
    weight.add_(1)
    assert path.read_bytes() == before
    path.unlink()
    assert weight.sum() == 2000


@pytest.mark.parametrize("protocol", [2, 4])
def test_command_is_named_and_not_run(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "witness"
    torch.save({"weight": torch.ones(2), "x": Command(witness)}, tmp_path / "a.pt", pickle_protocol=protocol)
    with pytest.raises(UserError, match=r"a\.pt: refused: .*\.system"):
        read_torch_file(tmp_path / "a.pt")
    assert not witness.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "torch.load", "torch.hub.load", "numpy.load"])
def test_every_other_name_is_refused(tmp_path: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    steps = b"\x80\x02c" + f"{module}\n{function}\n".encode() + b"X\x01\x00\x00\x00a\x85R."
    with pytest.raises(UserError, match=f"refused: its pickle names '{name}'"):
        read_torch_file(zipped(tmp_path, {"a/data.pkl": steps}))


@pytest.mark.parametrize("keep", [b"r\x00\x00\x00\x80", b"r\x00\x00\x00\x02", b"p2147483648\n", b"p-1\n"])
def test_value_kept_under_a_huge_number_is_refused_before_memory_is_asked_for(tmp_path: Path, keep: bytes) -> None:
    path = zipped(tmp_path, {"a/data.pkl": b"\x80\x02}" + keep + b"."})
    with pytest.raises(UserError, match=r"a\.pt: damaged, .*kept under number -?\d+, in a pickle of \d+ bytes"):
        read_torch_file(path)
    read_torch_file(zipped(tmp_path, {"a/data.pkl": b"\x80\x02}" + b"r\x05\x00\x00\x00" + b"."}))


def test_compressed_members_are_refused_unread(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1 << 22)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    bomb = zipped(tmp_path, members, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"a\.pt: refused: .* is compressed"):
        read_torch_file(bomb)


def test_tensor_that_spans_more_than_its_data_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="a tensor larger than its data"):
        read_torch_file(tmp_path / "a.pt")


@pytest.mark.parametrize("place", [{"offset": 9}, {"offset": -1}, {"stride": (3,)}, {"size": (5,)}])
def test_tensor_outside_its_data_is_refused(tmp_path: Path, place: dict) -> None:
    class Elsewhere:
        def __reduce__(self):
            storage = torch.arange(4.0).untyped_storage()
            layout = {"offset": 0, "size": (4,), "stride": (1,)} | place
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (typed, *layout.values(), False, OrderedDict())

    torch.save({"weight": Elsewhere()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: damaged"):
        read_torch_file(tmp_path / "a.pt")


def test_every_truncation_is_one_clear_line(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "whole.pt", pickle_protocol=4)
    content = (tmp_path / "whole.pt").read_bytes()
    for size in [0, 1, 100, len(content) // 2, len(content) - 1]:
        (tmp_path / "cut.pt").write_bytes(content[:size])
        with pytest.raises(UserError, match=r"cut\.pt: not a whole file of torch\.save") as caught:
            read_torch_file(tmp_path / "cut.pt")
        assert "\n" not in str(caught.value)


def test_damaged_bytes_never_raise_anything_but_a_user_error(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "whole.pt", pickle_protocol=4)
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    steps_name = next(name for name in members if name.endswith("data.pkl"))
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        steps = bytearray(members[steps_name])
        steps[rng.randrange(len(steps))] = rng.randrange(256)
        try:
            read_torch_file(zipped(tmp_path, members | {steps_name: bytes(steps)}))
        except UserError:
            refused += 1
    assert refused > 50


def test_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pt: cannot read"):
        read_torch_file(tmp_path / "absent.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(UserError, match=r"plain\.pt: not a whole file of torch\.save"):
        read_torch_file(tmp_path / "plain.pt")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list\.pt: holds a list"):
        read_torch_file(tmp_path / "list.pt")
    torch.save({"weights": {}}, tmp_path / "nested.pt")
    with pytest.raises(UserError, match=r"nested\.pt: 'weights' is a dict; only named tensors"):
        read_state_dict(tmp_path / "nested.pt")


def zipped(folder: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "a.pt"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path
