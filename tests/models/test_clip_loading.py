from __future__ import annotations

import gzip
import io
import pickle
import re
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmseg_otseg.models.clip import clip_config, clip_embed_dim, load_clip
from mmseg_otseg.models.clip.download import download_weights
from tests.helpers.tiny_clip import save_archive, tiny_clip


@pytest.fixture
def weights(clip_config: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_clip(clip_config, seed=7).state_dict()


def assert_same(clip: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    for name, value in clip.state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize("kind", ["safetensors", "pt", "bin", "wrapped", "openai"])
def test_every_kind_of_file(kind: str, clip_config: dict, weights: dict, tmp_path: Path) -> None:
    path = tmp_path / {"safetensors": "w.safetensors", "bin": "w.bin"}.get(kind, "w.pt")
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "wrapped":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in weights.items()}}, path)
    elif kind == "openai":
        save_archive(path, load_clip(clip_config, seed=7))
    else:
        torch.save(weights, path)
    assert_same(load_clip(clip_config, str(path)), weights)


def test_openai_archive_brings_quick_gelu_and_half_precision(
    clip_config: dict, tmp_path: Path
) -> None:
    path = tmp_path / "openai.pt"
    save_archive(path, load_clip(clip_config, seed=7), torch.float16)
    clip = load_clip(clip_config, str(path))
    assert isinstance(
        clip.visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU
    )
    assert clip.visual.conv1.weight.dtype == torch.float32


def test_the_layout_of_transformers_is_named(clip_config: dict, tmp_path: Path) -> None:
    weights = {"vision_model.embeddings.class_embedding": torch.ones(8)}
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors.*transformers.*open_clip_model"):
        load_clip(clip_config, str(tmp_path / "w.safetensors"))


def test_compact_token_table(clip_config: dict, weights: dict, tmp_path: Path) -> None:
    ids = torch.tensor([5, 320, 49406, 49407])
    compact = {name: value for name, value in weights.items() if name != "token_embedding.weight"}
    compact["token_embedding.ids"] = ids
    compact["token_embedding.rows"] = weights["token_embedding.weight"][ids].half()
    save_file(compact, tmp_path / "w.safetensors")
    table = load_clip(clip_config, str(tmp_path / "w.safetensors")).token_embedding.weight
    assert torch.equal(table[ids], weights["token_embedding.weight"][ids].half().float())
    assert not table[0].any()


def test_random_weights_depend_on_the_seed_alone(clip_config: dict) -> None:
    torch.manual_seed(1)
    first = load_clip(clip_config).state_dict()
    state = torch.random.get_rng_state()
    assert_same(load_clip(clip_config), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = load_clip(clip_config, seed=1).state_dict()
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


def test_unknown_model_suggests_others() -> None:
    with pytest.raises(ValueError, match="ViT-B-16"):
        load_clip("ViT-B-17")
    with pytest.raises(ValueError, match="text_cfg"):
        clip_config({"embed_dim": 8, "vision_cfg": {}})


def test_unknown_tag_lists_the_tags() -> None:
    with pytest.raises(ValueError, match=r"'opnai'.* openai"):
        load_clip("ViT-B-16", "opnai")


def test_tag_of_a_dict_config(clip_config: dict) -> None:
    with pytest.raises(ValueError, match=r"'openai'.*path"):
        load_clip(clip_config, "openai")


def test_missing_file(clip_config: dict) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/w\.pt"):
        load_clip(clip_config, "nowhere/w.pt")


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Known before the hub's client starts to try again and again."""

    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: pytest.fail("tried"))
    with pytest.raises(ConnectionError, match=r"unreachable.*CLIP_WEIGHTS.*quick_gelu=True"):
        load_clip("ViT-B-16", "openai", cache_dir=str(tmp_path))


def test_an_earlier_download_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    tag = {"hf_hub": "owner/name/"}
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "open_clip_model.safetensors").touch()
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("abc")
    found = download_weights(tag, str(tmp_path))
    assert found == snapshot / "open_clip_model.safetensors"


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "bin"])
@pytest.mark.parametrize("kept", [0, 20, 0.5])
def test_truncated_file(
    suffix: str, kept: float, clip_config: dict, weights: dict, tmp_path: Path
) -> None:
    path = tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_clip(clip_config, str(path))


def test_truncated_archive(clip_config: dict, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("w/data.pkl", pickle.dumps({}))
        archive.writestr("w/constants.pkl", b"")
    path = tmp_path / "w.pt"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"w\.pt"):
        load_clip(clip_config, str(path))


def broken_files(weights: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """What may lie where a weights file should, by what is wrong with it."""

    def saved(content: Any, **options: Any) -> bytes:
        torch.save(content, buffer := io.BytesIO(), **options)
        return buffer.getvalue()

    def zipped(**members: bytes) -> bytes:
        with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
            for name, data in members.items():
                archive.writestr(name.replace("__", "/") + ".pkl", data)
        return buffer.getvalue()

    def tensors(header: str, data: bytes = b"") -> bytes:
        return len(header).to_bytes(8, "little") + header.encode() + data

    np.savez(arrays := io.BytesIO(), a=np.ones(3))
    np.save(array := io.BytesIO(), np.ones(3))
    huge = torch.zeros(1).expand(1_000_000, 1_000_000)
    position = "positional_embedding"
    return {
        "empty": b"",
        "text": b"no weights",
        "null": bytes(1000),
        "json": b'{"a": 1}',
        "gzip": gzip.compress(b"text"),
        "array": array.getvalue(),
        "arrays": arrays.getvalue(),
        "zip": zipped(),
        "zip, cut": zipped(w__data=b"x")[:-8],
        "archive without a tree": zipped(w__constants=b""),
        "archive of nothing": zipped(w__constants=b"", w__data=b""),
        "archive of text": zipped(w__constants=b"", w__data=b"text"),
        "archive of a number": zipped(w__constants=b"", w__data=pickle.dumps(3, 2)),
        "archive of an endless list": zipped(w__constants=b"", w__data=b"(" * 100_000),
        "list": saved([1, 2]),
        "number": saved(3),
        "tensor": saved(torch.ones(3)),
        "empty dict": saved({}),
        "numbers": saved({"a": 1}),
        "no names": saved({0: torch.ones(3)}),
        "state_dict is a list": saved({"state_dict": [torch.ones(3)]}),
        "state_dict is None": saved({"state_dict": None}),
        "legacy": saved([1], _use_new_zipfile_serialization=False),
        "header of 2 GB": (2**31).to_bytes(8, "little") + b"{}",
        "header is a list": tensors("[1]"),
        "header is no json": tensors("{"),
        "tensor outside": tensors('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
        "no tensors": tensors("{}"),
        "other tensors": saved({"a": torch.ones(3)}),
        "one missing": saved({k: v for k, v in weights.items() if k != "logit_scale"}),
        "one too many": saved({**weights, "more": torch.ones(3)}),
        "one of no shape": saved({**weights, position: torch.tensor(1.0)}),
        "one of three axes": saved({**weights, "visual." + position: torch.ones(2, 3, 4)}),
        "one too wide": saved({**weights, position: torch.ones(77, 99)}),
        "one huge view": saved({**weights, "visual." + position: huge}),
        "compact tokens, no rows": saved({**weights, "token_embedding.ids": torch.tensor([1])}),
        "compact tokens, too far": saved(
            {
                **weights,
                "token_embedding.ids": torch.tensor([10**6]),
                "token_embedding.rows": torch.ones(1, 32),
            }
        ),
        "NaN": saved({**weights, "ln_final.weight": torch.full((32,), torch.nan)}),
        "infinite": saved({**weights, "visual.proj": torch.full((48, 32), torch.inf)}),
        "sparse": saved({**weights, position: torch.ones(77, 32).to_sparse()}),
    }


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors", ".npy", ".npz", ".pth", ".PT"])
def test_every_broken_file_is_named(
    suffix: str, clip_config: dict, weights: dict, tmp_path: Path
) -> None:
    for kind, content in broken_files(weights).items():
        path = tmp_path / f"w{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            load_clip(clip_config, str(path))
            pytest.fail(f"{kind} was accepted")


@pytest.mark.parametrize("place", ["visual.ln_post.bias", "transformer.resblocks.0.ln_1.weight"])
def test_weights_that_are_not_finite_are_named(
    place: str, clip_config: dict, weights: dict, tmp_path: Path
) -> None:
    weights[place][0] = torch.nan
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=rf"w\.safetensors.*{place}"):
        load_clip(clip_config, str(tmp_path / "w.safetensors"))


def test_the_file_of_another_model_by_name(tmp_path: Path) -> None:
    """Whose text tower is of another width, which open_clip only asserts."""
    other = tiny_clip()
    other["text_cfg"]["width"] = 48
    torch.save(load_clip(other).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt .*width"):
        load_clip(tiny_clip(), str(tmp_path / "w.pt"))


def test_other_architecture(clip_config: dict, weights: dict, tmp_path: Path) -> None:
    save_file(weights, tmp_path / "w.safetensors")
    clip_config["vision_cfg"]["width"] = 60
    with pytest.raises(ValueError, match=r"visual\."):
        load_clip(clip_config, str(tmp_path / "w.safetensors"))


def test_embed_dim() -> None:
    assert clip_embed_dim("ViT-B/16") == 512
    assert clip_embed_dim("ViT-L-14") == 768
