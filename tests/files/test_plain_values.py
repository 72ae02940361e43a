from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmseg_otseg.engine import read_checkpoint


class Call:
    """Is pickled as a call, with a state to set on its result."""

    def __init__(self, function: Callable, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.reduced


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
