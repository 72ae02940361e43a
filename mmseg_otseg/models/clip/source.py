"""What a ``clip`` setting means: which model, weights, activation and pixel statistics.

Also downloads the weights that open_clip's tags name.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from mmseg_otseg import hub
from mmseg_otseg.errors import UserError

from .config import clip_config
from .files import is_torchscript_archive

CONFIG_FILE = "open_clip_config.json"  # what open_clip's own releases have beside their weights
WEIGHTS_FILES = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
DEFAULT = "open_clip's default"
RGB = tuple[float, float, float]


@dataclass(frozen=True)
class CLIPSource:
    """A ``clip`` setting, resolved as far as possible without reading the weights.

    Attributes:
        config: Configuration of the model in open_clip's form, activation included.
        name: The model in messages.
        file: The weights file; None for random weights and for a tag.
        tag: open_clip's entry for the tag; None without one.
        quick_gelu: Whether the activation is QuickGELU; OpenAI's, DFN's and MetaCLIP's weights
            need it.
        mean: Mean of the pixels CLIP was trained on, RGB, 0..255.
        std: Their standard deviation, likewise.
        stated_by: Where ``quick_gelu``, ``mean`` and ``std`` come from, for messages.
    """

    config: dict[str, Any]
    name: str
    file: Path | None
    tag: Mapping[str, Any] | None
    quick_gelu: bool
    mean: RGB
    std: RGB
    stated_by: Mapping[str, str]

    @property
    def activation_is_known(self) -> bool:
        """Whether anything states what the activation is."""
        return self.stated_by["quick_gelu"] != DEFAULT


def resolve_clip(
    model: str | Mapping[str, Any],
    pretrained: str | None = None,
    quick_gelu: bool | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **_: Any,
) -> CLIPSource:
    """Resolve a ``clip`` setting without reading weights, or downloading those of a tag.

    Activation, mean and standard deviation come from the first of these that states them: the
    setting itself; the model's name or configuration; open_clip's tag, the format of an OpenAI
    archive, or ``open_clip_config.json`` beside the weights file; and, for mean and standard
    deviation, what all of the model's tags agree on. Otherwise they are GELU and OpenAI's values.

    Args:
        model: As in :func:`load_clip`, whose other options are accepted and ignored.
        pretrained: Tag, path or ``hf://OWNER/NAME[/FILE]`` of the weights. A file of the hub is
            downloaded here, as what lies beside it states the rest.
        quick_gelu: Whether the activation is QuickGELU.
        mean: Mean of the pixels, RGB, 0..255.
        std: Standard deviation of the pixels, RGB, 0..255.

    Raises:
        UserError: If the model or tag is unknown, a value is invalid, or
            ``open_clip_config.json`` cannot be read.
        FileNotFoundError: If ``pretrained`` is a path of a file that does not exist.
        ConnectionError: If a file of the hub cannot be downloaded.
    """
    config = clip_config(model)
    name = model if isinstance(model, str) else "given as a dict"
    file, tag = _find_weights(name, pretrained, isinstance(model, str))
    statements = [
        ("the setting", {"quick_gelu": quick_gelu, "mean": mean, "std": std}),
        ("the model's configuration", {"quick_gelu": config.get("quick_gelu")}),
    ]
    if tag is not None:
        stated = {"quick_gelu": tag.get("quick_gelu", False), **_in_255(tag)}
        statements.append((f"the tag {pretrained!r}", stated))
    elif file is not None and is_torchscript_archive(file):
        statements.append(("OpenAI's archive format", {"quick_gelu": True}))
    elif file is not None and (beside := file.with_name(CONFIG_FILE)).is_file():
        statements.append((str(beside), _read_config_file(beside)))
    if config["vision_cfg"].get("timm_model_name"):
        statements.append(("a tower of timm", {"quick_gelu": False}))
    if isinstance(model, str):
        statements.append(("all tags of the model", _agreed_pixels(model.replace("/", "-"))))
    defaults = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    statements.append((DEFAULT, {"quick_gelu": False, **_in_255(defaults)}))
    decided, stated_by = {}, {}
    for key in ("quick_gelu", "mean", "std"):
        stated_by[key], decided[key] = next(
            (who, values[key]) for who, values in statements if values.get(key) is not None
        )
    if not isinstance(decided["quick_gelu"], bool):
        raise UserError(
            f"quick_gelu must be True or False, but {stated_by['quick_gelu']} states "
            f"{decided['quick_gelu']!r}"
        )
    config["quick_gelu"] = decided["quick_gelu"]
    return CLIPSource(
        config,
        name,
        file,
        tag,
        decided["quick_gelu"],
        _rgb("mean", decided["mean"], stated_by["mean"]),
        _rgb("std", decided["std"], stated_by["std"]),
        stated_by,
    )


def _find_weights(
    name: str, pretrained: str | None, has_tags: bool
) -> tuple[Path | None, Mapping[str, Any] | None]:
    """The weights file, or open_clip's entry for a tag; neither for random weights."""
    if pretrained is None:
        return None, None
    if not isinstance(pretrained, (str, Path)):
        raise UserError(f"`pretrained` of a CLIP must be a tag or a path, got {pretrained!r}")
    if str(pretrained).startswith(hub.SCHEME):
        path = hub.fetch(str(pretrained), WEIGHTS_FILES)
        with suppress(UserError, OSError):  # not every repository has it
            hub.fetch(f"{pretrained}".removesuffix(path.name).rstrip("/") + f"/{CONFIG_FILE}")
        return path, None
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path, None
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(
            f"CLIP weights {pretrained!r} not found. Give an existing .pt, .bin or .safetensors "
            "file, or one of open_clip's tags."
        )
    open_clip_name = name.replace("/", "-")
    tag = open_clip.get_pretrained_cfg(open_clip_name, pretrained) if has_tags else None
    if tag:
        return None, tag
    tags = open_clip.list_pretrained_tags_by_model(open_clip_name) if has_tags else []
    raise UserError(
        f"{pretrained!r} is neither a file nor a tag of open_clip for {name}; "
        + (f"its tags: {', '.join(tags)}" if tags else "such a model has no tags: give a path")
    )


def _read_config_file(path: Path) -> dict[str, Any]:
    """What an ``open_clip_config.json`` states about activation, mean and standard deviation."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model, pixels = content.get("model_cfg", content), content.get("preprocess_cfg") or {}
        # open_clip leaves quick_gelu out where it is not used.
        return {"quick_gelu": model.get("quick_gelu", False), **_in_255(pixels)}
    except Exception as error:  # a broken file can hold anything
        raise UserError(f"cannot read {path}, which lies beside the weights: {error}") from error


def _agreed_pixels(name: str) -> dict[str, Any]:
    """Mean and standard deviation, as far as all of open_clip's tags of a model agree on them."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    pixels = [_in_255(open_clip.get_pretrained_cfg(name, tag)) for tag in tags]
    return {
        key: pixels[0][key]
        for key in ("mean", "std")
        if pixels and key in pixels[0] and all(one.get(key) == pixels[0][key] for one in pixels)
    }


def _in_255(values: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation, as far as there are any, from 0..1 to 0..255."""
    found = {key: values[key] for key in ("mean", "std") if values.get(key) is not None}
    # open_clip takes one number for all three channels too.
    triples = {key: v if isinstance(v, Sequence) else [v] * 3 for key, v in found.items()}
    return {key: [255 * part for part in triple] for key, triple in triples.items()}


def _rgb(key: str, value: Any, who: str) -> RGB:
    try:
        red, green, blue = (float(part) for part in value)
    except (TypeError, ValueError, OverflowError):
        red = green = blue = math.nan
    smallest = -math.inf if key == "mean" else 1e-6
    if not all(smallest <= part < math.inf for part in (red, green, blue)):
        raise UserError(
            f"{key} must be three numbers (RGB, pixels of 0..255), but {who} states {value!r}"
        )
    return red, green, blue


def download_weights(tag: Mapping[str, Any], cache_dir: str | None = None) -> Path:
    """The weights file of a tag, downloaded on first use.

    Without network access this fails at once, where the hub's client would try for a minute.

    Args:
        tag: open_clip's entry for the tag (``open_clip.get_pretrained_cfg``).
        cache_dir: Where open_clip keeps downloads; None is its default.

    Returns:
        Path of the file.

    Raises:
        ConnectionError: If the file is not there yet and cannot be downloaded.
    """
    if tag.get("hf_hub"):
        repo, files = _place(tag)
        return hub.fetch(hub.SCHEME + repo, files, cache_dir)
    try:
        hub.announce(tag["url"], hub.reach(tag["url"]))
        return Path(open_clip.download_pretrained(dict(tag), cache_dir=cache_dir))
    except Exception as error:  # each client has errors of its own
        page, file = os.path.split(tag["url"])
        raise hub.not_downloaded(file, page, error) from error


def cached_weights(tag: Mapping[str, Any], cache_dir: str | None = None) -> Path | None:
    """The weights file of a tag if it was downloaded earlier; see :func:`download_weights`."""
    return hub.cached(*_place(tag), cache_dir) if tag.get("hf_hub") else None


def _place(tag: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """The hub's repository of a tag, and names that its weights file may have."""
    repo, file = os.path.split(tag["hf_hub"])
    return repo, [os.path.splitext(file)[0] + ".safetensors", file] if file else WEIGHTS_FILES
