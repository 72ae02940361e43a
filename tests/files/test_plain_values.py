from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmseg_otseg.engine import read_checkpoint
from tests.helpers.hostile import Call, archive, tensor


def read_back(value: Any, folder: Path) -> Any:
    torch.save(value, folder / "file.pth")
    return read_checkpoint(folder / "file.pth")


@pytest.mark.parametrize("dtype", ["?", "<i8", ">i4", "u1", "f2", "<f4", ">f8", "c16"])
def test_arrays_and_scalars_of_numbers_come_back(dtype: str, tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    value = dict(array=array, turned=np.asfortranarray(array), nested=[(array[0, 1], [array])])
    back = read_back(value, tmp_path)
    for mine in (back["array"], back["turned"], back["nested"][0][1][0]):
        # numpy turns other byte orders into the machine's, whoever reads the file
        assert type(mine) is np.ndarray and mine.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(mine, array)
    assert back["nested"][0][0] == array[0, 1]
    assert read_back(dict(dtype=np.dtype("<f4")), tmp_path) == dict(dtype=np.dtype("<f4"))


def test_the_plain_objects_of_a_config_come_back(tmp_path: Path) -> None:
    value = dict(
        config=ConfigDict(names=["a"], inner=dict(x=1)),
        history=HistoryBuffer([1, 2], [1, 1], max_length=7),
        shape=torch.Size([1, 2]),
    )
    back = read_back(value, tmp_path)
    assert type(back["config"]) is ConfigDict and back["config"].inner.x == 1
    assert type(back["history"]) is HistoryBuffer and back["history"].max_length == 7
    assert back["history"].statistics("max") == 2
    assert back["shape"] == torch.Size([1, 2])


@pytest.mark.parametrize(
    "value",
    [
        np.array([dict()], dtype=object),
        np.zeros(1, dtype=[("field", "i4")]),
        np.array(["text"]),
        Call(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0)),
        Call(np.dtype, "f8", False, True, state=(3, "<", None, None, None, -1, -1, 63)),
        Call(getattr, HistoryBuffer, "__init__"),
        Call(getattr, np.ndarray, "tofile"),
        Call(np.array([1]).__reduce__()[0], np.matrix, (0,), b"b"),
    ],
    ids=["objects", "fields", "text", "flags", "pointers", "globals", "method", "subclass"],
)
def test_what_could_be_abused_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"file\.pth"):
        read_back(dict(value=value), tmp_path)


def test_what_is_shared_stays_shared(tmp_path: Path) -> None:
    weight, names = torch.arange(6.0), ["a"]
    value = dict(one=weight[:4], other=weight.view(2, 3).T, first=names, second=names)
    back = read_back(value, tmp_path)
    assert back["first"] is back["second"]
    back["one"][0] = 7
    assert back["other"][0, 0] == 7 and back["other"].stride() == (1, 3)


@pytest.mark.parametrize("new", [True, False])
def test_tensors_of_every_type_come_back(new: bool, tmp_path: Path) -> None:
    types = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16"]
    types += ["float32", "float64", "complex64", "complex128"]
    types += ["uint16", "float8_e4m3fn"] if new else []
    value = {name: torch.tensor([[0, 1, 1]]).to(getattr(torch, name)) for name in types}
    value |= dict(empty=torch.zeros(0, 3), parameter=torch.nn.Parameter(torch.ones(2)))
    torch.save(value, tmp_path / "f", _use_new_zipfile_serialization=new)
    back = read_checkpoint(tmp_path / "f")
    for name, tensor_ in value.items():
        assert type(back[name]) is type(tensor_) and back[name].dtype == tensor_.dtype
        assert back[name].tolist() == tensor_.tolist()


def test_locations_are_mapped(tmp_path: Path) -> None:
    torch.save(dict(weight=torch.ones(2)), tmp_path / "f")
    for place in (None, "cpu", torch.device("cpu"), {"cpu": "cpu"}, lambda storage, _: storage):
        assert read_checkpoint(tmp_path / "f", place)["weight"].tolist() == [1, 1]
    file = tmp_path / "cuda.pth"
    tree = tensor(1, "K\x01\x85").replace(b"\x03\0\0\0cpu", b"\x04\0\0\0cuda")
    archive(file, b"\x80\x02" + tree + b".", data__0=bytes(4))
    assert read_checkpoint(file, "cpu").tolist() == [0]
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"cuda\.pth.*map_location"):
            read_checkpoint(file)


def test_bools_are_0_or_1(tmp_path: Path) -> None:
    """Other bytes would make torch count other elements than it writes."""
    tree = b"\x80\x02" + tensor(4, "K\x04\x85", kind="BoolStorage") + b"."
    read = read_checkpoint(archive(tmp_path / "f", tree, data__0=b"\xff\x02\x00\x01"))
    assert read.view(torch.uint8).tolist() == [1, 1, 0, 1]
