"""What a ``clip`` setting means, and which of open_clip's models this package can run."""

from __future__ import annotations

import copy
import difflib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from mmseg_otseg import hub
from mmseg_otseg.errors import UserError, check_option

REQUIRED_KEYS = ("embed_dim", "vision_cfg", "text_cfg")
CONFIG_FILE = "open_clip_config.json"  # what open_clip's own releases have beside their weights
WEIGHTS_FILES = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
DEFAULT = "open_clip's default"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# timm's modules whose towers are plain ViTs: blocks that see all tokens.
TIMM_VITS = ("eva", "vision_transformer", "vision_transformer_hybrid")
SUPPORTED = "mmseg_otseg.models.supported_models() lists those that can"
TIMM_POOLS = ("token", "map")  # the class token, an attention pool


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
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stated_by: Mapping[str, str]


def clip_config(model: str | Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of a CLIP model in open_clip's form.

    Args:
        model: A model name of open_clip (``"ViT-B-16"``; ``"ViT-B/16"`` is the same), or such a
            configuration itself, which is copied: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and
            anything else that ``open_clip.CLIP`` takes.

    Raises:
        UserError: If open_clip has no such model, or keys are missing.
    """
    if isinstance(model, str):
        name = model.replace("/", "-")
        config = open_clip.get_model_config(name)
        if config is None:
            close = difflib.get_close_matches(name, open_clip.list_models(), n=4, cutoff=0.4)
            hint = f"did you mean {', '.join(close)}?" if close else "see open_clip.list_models()"
            raise UserError(f"open_clip has no CLIP model named {model!r}: {hint}")
        return config
    missing = [key for key in REQUIRED_KEYS if key not in model]
    if missing:
        raise UserError(
            f"a CLIP configuration given as a dict needs {', '.join(REQUIRED_KEYS)} "
            f"(as in open_clip's model_configs); missing: {', '.join(missing)}"
        )
    # mmengine's ConfigDict must not reach open_clip's dataclasses.
    return {
        key: dict(value) if isinstance(value, Mapping) else value
        for key, value in copy.deepcopy(dict(model)).items()
    }


def clip_embed_dim(model: str | Mapping[str, Any]) -> int:
    """Width D of the joint image-text embedding of a CLIP model (name or configuration)."""
    return int(clip_config(model)["embed_dim"])


def check_precision(precision: str) -> None:
    """Raise a UserError unless ``precision`` is the name of one."""
    check_option("`precision` of a CLIP", precision, tuple(PRECISIONS))


def resolve_clip(
    model: str | Mapping[str, Any],
    pretrained: str | None = None,
    quick_gelu: bool | None = None,
    **_: Any,
) -> CLIPSource:
    """Resolve a ``clip`` setting without reading or downloading weights.

    The activation, and mean and standard deviation of the pixels, come from the first of these that
    states them: the setting itself, for the activation; the model's name or configuration;
    open_clip's tag, the format of an OpenAI archive, or ``open_clip_config.json`` beside the
    weights file; and, for the pixels, what all of the model's tags agree on. Otherwise they are
    GELU and OpenAI's values.

    Args:
        model: As in :func:`load_clip`, whose other options are accepted and ignored.
        pretrained, quick_gelu: As there.

    Raises:
        UserError: If the model or tag is unknown, or ``open_clip_config.json`` cannot be read.
        FileNotFoundError: If ``pretrained`` is a path of a file that does not exist.
    """
    config = clip_config(model)
    known = model.replace("/", "-") if isinstance(model, str) else None
    name = str(model) if known else "given as a dict"
    file, tag = _find_weights(name, known, pretrained)
    statements: list[tuple[str, Mapping[str, Any]]] = [
        ("the setting", {"quick_gelu": quick_gelu}),
        ("the model's configuration", {"quick_gelu": config.get("quick_gelu")}),
    ]
    if tag is not None:
        statements.append((f"the tag {pretrained!r}", _stated(tag, tag)))
    elif file is not None and is_torchscript_archive(file):
        statements.append(("OpenAI's archive format", {"quick_gelu": True}))
    elif file is not None and (beside := file.with_name(CONFIG_FILE)).is_file():
        statements.append((str(beside), _read_config_file(beside)))
    if config["vision_cfg"].get("timm_model_name"):
        statements.append(("a tower of timm", {"quick_gelu": False}))
    if known:
        tags = open_clip.list_pretrained_tags_by_model(known)
        pixels = [_stated({}, open_clip.get_pretrained_cfg(known, tag)) for tag in tags]
        agreed = {k: v for k, v in pixels[0].items() if k != "quick_gelu"} if pixels else {}
        agreed = {k: v for k, v in agreed.items() if all(one.get(k) == v for one in pixels)}
        statements.append(("all tags of the model", agreed))
    openai = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    statements.append((DEFAULT, _stated({}, openai)))
    decided, stated_by = {}, {}
    for key in ("quick_gelu", "mean", "std"):
        stated_by[key], decided[key] = next(
            (who, values[key]) for who, values in statements if values.get(key) is not None
        )
    return CLIPSource(
        {**config, "quick_gelu": decided["quick_gelu"]},
        name,
        file,
        tag,
        decided["quick_gelu"],
        decided["mean"],
        decided["std"],
        stated_by,
    )


def is_torchscript_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI's weights are."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _find_weights(
    name: str, known: str | None, pretrained: str | None
) -> tuple[Path | None, Mapping[str, Any] | None]:
    """The weights file, or open_clip's entry for a tag; neither for random weights."""
    if pretrained is None:
        return None, None
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
    tags = open_clip.list_pretrained_tags_by_model(known) if known else []
    if pretrained in tags:
        return None, open_clip.get_pretrained_cfg(known, pretrained)
    raise UserError(
        f"{pretrained!r} is neither a file nor a tag of open_clip for {name}; "
        + (f"its tags: {', '.join(tags)}" if tags else "such a model has no tags: give a path")
    )


def _stated(model: Mapping[str, Any], pixels: Mapping[str, Any]) -> dict[str, Any]:
    """Activation, and mean and standard deviation if there are any, from 0..1 to 0..255."""
    found = {key: pixels[key] for key in ("mean", "std") if pixels.get(key) is not None}
    # open_clip takes one number for all three channels, and leaves out quick_gelu=False.
    triples = {key: v if isinstance(v, Sequence) else [v] * 3 for key, v in found.items()}
    scaled = {key: tuple(255 * part for part in triple) for key, triple in triples.items()}
    return {"quick_gelu": model.get("quick_gelu", False), **scaled}


def _read_config_file(path: Path) -> dict[str, Any]:
    """What an ``open_clip_config.json`` states."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _stated(content.get("model_cfg", content), content.get("preprocess_cfg") or {})
    except Exception as error:  # a broken file can hold anything
        raise UserError(f"cannot read {path}, which lies beside the weights: {error}") from error


def check_image_tower(model: str | Mapping[str, Any]) -> None:
    """Raise a UserError, with the reason, unless an image tower here fits the model's."""
    if reason := _image_problem(clip_config(model)):
        raise UserError(f"the CLIP {model} cannot be the backbone: {reason}. {SUPPORTED}")


def check_text_tower(model: str | Mapping[str, Any], learnable: bool = False) -> None:
    """Raise a UserError, with the reason, unless the model's text tower is open_clip's own.

    With ``learnable``, learned tokens will be put among those of a text, which takes CLIP's own
    tokenizer and a causal tower.
    """
    text = clip_config(model)["text_cfg"]
    if reason := _text_problem(text):
        raise UserError(
            f"the CLIP {model} cannot encode the prompts: {reason}. Encode them elsewhere and use "
            f"PrecomputedPrompts. {SUPPORTED}"
        )
    causal = not text.get("no_causal_mask") and text.get("pool_type", "argmax") == "argmax"
    if learnable and (text.get("hf_tokenizer_name") or not causal):
        raise UserError(
            f"the CLIP {model} cannot have learnable prompts, since its text tower is not causal "
            "or its tokenizer not CLIP's own. Use TemplatePrompts."
        )


@cache
def supported_models() -> tuple[str, ...]:
    """Names of open_clip's models that run here, image tower and text tower."""
    configs = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    return tuple(
        name
        for name, config in configs.items()
        if config and not _image_problem(config) and not _text_problem(config["text_cfg"])
    )


def _image_problem(config: Mapping[str, Any]) -> str | None:
    vision = config["vision_cfg"]
    if vision.get("timm_model_name"):
        return _timm_problem(vision)
    if isinstance(vision.get("layers"), (list, tuple)):
        return "its image tower is a ModifiedResNet, which has no tokens"
    if vision.get("attentional_pool") or vision.get("pool_type", "tok") != "tok":
        return "its image tower pools all tokens instead of using a class token"
    if vision.get("final_ln_after_pool"):
        return "its image tower normalizes after pooling, so that its patches are not aligned"
    return None


def _timm_problem(vision: Mapping[str, Any]) -> str | None:
    name, pool = vision["timm_model_name"], vision.get("timm_pool")
    module = timm.model_entrypoint(name).__module__ if timm.is_model(name) else "unknown"
    family, projection = module.rpartition(".")[2], vision.get("timm_proj") or "none"
    if family == "convnext" and projection in ("linear", "mlp"):
        return None
    pools = {"fastvit": ("avg",), **dict.fromkeys(TIMM_VITS, TIMM_POOLS)}
    if projection != "none" or pool not in pools.get(family, ()):
        return (
            f"its image tower is timm's {name} ({family}, pooled by {pool!r}, projection "
            f"{projection!r}) and not a ConvNeXt, a FastViT, or a plain ViT that pools by class "
            "token or attention and has no projection of open_clip's"
        )
    patch, native = re.search(r"patch(\d+)", name), timm.get_pretrained_cfg(name)
    if patch and native and native.input_size[-1] % int(patch[1]):
        return (
            f"its native size, {native.input_size[-1]}, is not a multiple of its patch, {patch[1]}"
        )
    return None


def _text_problem(text: Mapping[str, Any]) -> str | None:
    if text.get("hf_model_name"):
        return f"its text tower is not open_clip's own but {text['hf_model_name']}"
    if text.get("embed_cls") or text.get("use_pad_mask"):
        return "its text tower has a class token or a mask of its own"
    if text.get("pool_type", "argmax") not in ("argmax", "last"):
        return f"its text tower pools by {text['pool_type']!r} instead of at the end"
    return None
