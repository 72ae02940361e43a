"""Checkpoints of a few kilobytes that try to do harm, and a fence around reading them."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

GIGABYTE = 2**30


class Call:
    """Is pickled as a call, with a state to set on its result."""

    def __init__(self, function: Callable, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.reduced


@contextmanager
def fence() -> Iterator[None]:
    """Inside, this process gets at most 2 GiB more memory, and 10 seconds."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * os.sysconf("SC_PAGESIZE") + 2 * GIGABYTE
    start = time.monotonic()
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.monotonic() - start < 10


def archive(file: Path, tree: bytes, method: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    """Write an archive as ``torch.save`` does, around a pickle and storages of one's own."""
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("a/data.pkl", tree)
        opened.writestr("a/byteorder", b"little")
        opened.writestr("a/version", b"3\n")
        for name, content in members.items():
            opened.writestr(f"a/{name.replace('__', '/')}", content, method)
    return file


def text(value: str) -> bytes:
    """The instruction for a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def tensor(count: int, size: str, stride: str = "K\x01\x85", kind: str = "FloatStorage") -> bytes:
    """The instructions for a tensor over a storage '0'; size and stride are instructions too."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu")
    storage += b"\x8a\x08" + struct.pack("<q", count) + b"tQ"
    shape = size.encode("latin1") + stride.encode("latin1")
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + shape + hooks + b"tR"


def big(number: int) -> str:
    """The instruction for a one-tuple of a large number."""
    return (b"\x8a\x08" + struct.pack("<q", number) + b"\x85").decode("latin1")


def state_dict(value: bytes) -> bytes:
    """The pickle of a checkpoint whose only weight is ``value``."""
    return b"\x80\x02}" + text("state_dict") + b"}" + text("weight") + value + b"ss."


def hostile_files(folder: Path, marker: Path) -> dict[str, Path]:
    """Files that must be refused, by what they try; ``marker`` is what they would create."""
    code = f"open({str(marker)!r}, 'w').close()"
    files: dict[str, Path] = {}

    def saved(name: str, content: Any, **options: Any) -> None:
        files[name] = folder / f"{name}.pth"
        torch.save(content, files[name], **options)

    def written(name: str, tree: bytes, **options: Any) -> None:
        files[name] = archive(folder / f"{name}.pth", tree, **options)

    # Code.
    saved("exec", dict(state_dict=dict(weight=Call(exec, code))))
    saved("exec_in_an_old_file", Call(exec, code), _use_new_zipfile_serialization=False)
    saved("exec_in_meta", dict(state_dict={}, meta=dict(iter=1, epoch=0, config=Call(exec, code))))
    saved("method", dict(value=Call(Path.touch, marker)))
    files["plain_pickle"] = folder / "plain_pickle.pth"
    files["plain_pickle"].write_bytes(pickle.dumps(Call(exec, code)))
    written("inst", b"\x80\x02(" + text(code) + b"ibuiltins\nexec\n.")
    written("stack_global", b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93" + text(code) + b"\x85R.")
    written("dotted", b"\x80\x02ctorch\nos.system\n" + text(f"touch {marker}") + b"\x85R.")
    written("state_of_a_function", b"\x80\x02cbuiltins\nset\n}" + text("__defaults__") + b")sb.")
    written(
        "state_of_a_class",
        b"\x80\x02cmmengine.config.config\nConfigDict\n(N}" + text("a") + b"Nstb.",
    )
    written("extension", b"\x80\x02\x82\x01.")
    written("two_pickles", state_dict(b"N"), other__data=b"", more__constants=b"")
    with zipfile.ZipFile(files["two_pickles"], "a") as opened:
        opened.writestr("b/data.pkl", pickle.dumps(Call(exec, code), 2))

    # Memory: objects that are more than what they were made from.
    array: Any = np.array([1]).__reduce__()[0]
    saved("objects", dict(value=np.array([{}], dtype=object)))
    saved(
        "pointer",
        dict(value=Call(array, np.ndarray, (0,), b"b", state=(1, (1,), np.dtype("O"), False, [0]))),
    )
    saved("flags", Call(np.dtype, "f8", False, True, state=(3, "<", None, None, None, -1, -1, 63)))
    saved("buffer", dict(value=Call(np.ndarray, (8,), "u1", np.zeros(8, "u1"))))
    saved(
        "array_size",
        Call(array, np.ndarray, (0,), b"b", state=(1, (2**34,), np.dtype("f8"), False, b"")),
    )
    saved("bytearray", dict(value=Call(bytearray, 2**35)))
    saved("bytes", dict(value=Call(bytes, 2**35)))
    saved("repeated", dict(state_dict=dict(weight=torch.zeros(1).expand(2**36))))
    zeros = bytes(16)
    view = tensor(2**16, big(2**16))
    views = b"".join(text(f"weight {index}") + view for index in range(100))
    tree = b"\x80\x02}" + text("state_dict") + b"}(" + views + b"us."
    written("views", tree, data__0=bytes(2**18))
    written("instructions", b"\x80\x02(" + b"N" * 2_100_000 + b"t.")
    written("empty_dicts", b"\x80\x02}" + text("value") + b"](" + b"}" * 999_000 + b"es.")
    written("storage_size", state_dict(tensor(2**36, big(2**36))), data__0=zeros)
    written("tensor_size", state_dict(tensor(4, big(2**36))), data__0=zeros)
    written("negative_size", state_dict(tensor(4, big(-1))), data__0=zeros)
    written("negative_stride", state_dict(tensor(4, "K\x02\x85", big(-1))), data__0=zeros)
    written("stride", state_dict(tensor(4, "K\x02\x85", big(2**30))), data__0=zeros)
    written("overflow", state_dict(tensor(4, big(2**62), big(4))), data__0=zeros)
    written("no_storage", state_dict(tensor(4, "K\x04\x85")))
    written("quantized", state_dict(tensor(4, "K\x04\x85", kind="QInt32Storage")), data__0=zeros)
    written("short", b"\x80\x02X\xff\xff\xff\x7fabc.")
    written("memo", b"\x80\x02}r\xff\xff\xff\xffh\x05.")
    deflated = dict(method=zipfile.ZIP_DEFLATED, data__0=bytes(2**22))
    written("deflated", state_dict(tensor(2**20, big(2**20))), **deflated)
    written(
        "deflated_program", state_dict(tensor(2**20, big(2**20))), **deflated, constants_pkl=b""
    )
    claims = folder / "claims.pth"
    archive(claims, state_dict(tensor(2**32, big(2**32))), data__0=zeros)
    whole = claims.read_bytes()  # the directory announces 4 GiB - 1 for the storage
    place = whole.rindex(b"a/data/0") - 46
    claims.write_bytes(whole[: place + 20] + b"\xfe\xff\xff\xff" * 2 + whole[place + 28 :])
    files["claims"] = claims

    # Time: references that fold in on themselves.
    doubled: list = ["x" * 50]
    for _ in range(60):
        doubled = [doubled, doubled]
    saved("doubled", dict(state_dict={}, meta=dict(iter=1, epoch=0, seed=doubled)))
    cycle: list = []
    cycle.append(cycle)
    saved("cycle", dict(state_dict={}, meta=dict(value=cycle)))
    written("deep", b"\x80\x02" + b"]" * 40_000 + b"a" * 39_999 + b".")
    written("deep_tuples", b"\x80\x02)" + b"\x85" * 40_000 + b".")
    collisions = [(2**61 - 1) * index for index in range(1, 1_000)]
    saved("collisions", dict(value=dict.fromkeys(collisions)))
    saved("colliding_set", dict(value=set(collisions)))

    # Damage.
    good = io.BytesIO()
    torch.save(dict(state_dict=dict(weight=torch.zeros(100))), good)
    whole = good.getvalue()
    for name, content in dict(
        empty=b"",
        words=b"not a checkpoint",
        half=whole[: len(whole) // 2],
        directory=whole[:-60] + b"\xff" * 38 + whole[-22:],
        flipped=whole.replace(bytes(64), bytes(63) + b"\x01"),
        opcode=whole.replace(b"\x80\x02}", b"\x80\x02\x00", 1),
    ).items():
        files[name] = folder / f"{name}.pth"
        files[name].write_bytes(content)
    headers = dict(
        header_size=struct.pack("<Q", 2**60) + b"{}",
        header_shape=b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}',
        header_offset=b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4611686018427387904]}}',
        header_overflow=b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}',
        header_nested=b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    )
    for name, header in headers.items():
        start = b"" if name == "header_size" else struct.pack("<Q", len(header))
        files[name] = folder / f"{name}.safetensors"
        files[name].write_bytes(start + header + bytes(4))
    return files
