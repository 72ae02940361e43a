"""Fills in the config of a model: each part gets all of its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import ConfigDict

from mmseg_otseg.errors import UserError, check_option
from mmseg_otseg.models.clip import clip_embed_dim, resolve_clip
from mmseg_otseg.structures import IGNORED, ClassSplit, ignored_label


def resolve_model(config: Mapping[str, Any]) -> ConfigDict:
    """Fill in what the parts of a :class:`CLIPEncoderDecoder` have in common.

    A config names CLIP once, as ``clip``, and the classes once, as ``split``. From these follow
    ``clip`` of backbone, neck and text prompts; ``split`` of neck and text prompts; ``adapters`` of
    the neck; ``embed_dim``, ``num_classes`` and ``num_levels`` of the head, and ``num_names`` where
    a class has several; the mean and standard deviation of the pixels where they are None; and the
    label of padded pixels where 255 is that of a class.

    Args:
        config: The config; it is not changed. A model for test-time augmentation has it in
            ``module``.

    Returns:
        The config with all of these arguments. Resolving it again changes nothing.

    Raises:
        UserError: If an argument is given and contradicts what follows from the others, the data
            preprocessor leaves pixels as BGR, or the mode of testing is unknown.
    """
    model: Any = ConfigDict(config)
    if "module" in model:
        model.module = resolve_model(model.module)
        return model
    clip = model.clip
    model.backbone = ConfigDict(model.backbone)
    _fill("model.backbone", model.backbone, clip=clip)
    model.data_preprocessor = _with_statistics(model.get("data_preprocessor"), clip)
    neck, head = ConfigDict(model.neck), ConfigDict(model.decode_head)
    text: Any = neck.text
    text = ConfigDict(dict(type="PrecomputedPrompts", path=text) if isinstance(text, str) else text)
    given = (part.get("split") for part in (model, neck, text))
    splits = [ClassSplit.build(split) for split in given if split is not None]
    if not splits:
        raise UserError(
            "the model has no classes: set model=dict(split=dict(classes=[names], unseen=[names]))"
        )
    split, *others = splits
    for other in others:
        split.check_same(other, "model.split", "the split of its neck or text")
    model.split = neck.split = text.split = split.as_config()
    levels = len(model.backbone.get("out_indices", (-1,)))
    projected = model.backbone.get("project", True)
    _fill("model.neck.text", text, clip=clip)
    _fill("model.neck", neck, clip=clip, adapters=0 if projected else levels)
    _fill(
        "model.decode_head",
        head,
        embed_dim=clip_embed_dim(clip["model"]),
        num_classes=split.num_classes,
        num_levels=levels,
    )
    pixels, ignored = model.data_preprocessor, ignored_label(split.num_classes)
    if isinstance(pixels, Mapping) and pixels.get("seg_pad_val", IGNORED) == IGNORED != ignored:
        model.data_preprocessor = ConfigDict(pixels, seg_pad_val=ignored)
    if len(split.texts) != split.num_classes:
        _fill("model.decode_head", head, num_names=len(split.texts))
    neck.text = text
    model.neck, model.decode_head = neck, head
    mode = (model.get("test_cfg") or {}).get("mode", "whole")
    check_option("model.test_cfg.mode", mode, ("whole", "slide"))
    return model


def change_clip_config(model: Any, **settings: Any) -> bool:
    """Change ``clip`` in a model's config and in those of its parts, resolved or not, in place.

    Returns:
        Whether there is any.
    """
    found = isinstance(model.get("clip"), Mapping)
    if found:
        model["clip"].update(settings)
    parts = [part for name, part in model.items() if name != "clip" and isinstance(part, Mapping)]
    return any([found, *(change_clip_config(part, **settings) for part in parts)])


def _fill(name: str, part: ConfigDict, **arguments: Any) -> None:
    """Give a part its arguments; refuse others."""
    for key, value in arguments.items():
        if part.get(key) is None:
            part[key] = value
        elif part[key] != value:
            raise UserError(
                f"{name}.{key} is {part[key]!r}, but {value!r} follows from the rest of the model "
                f"(clip, split, backbone): leave {key} out"
            )


def _with_statistics(preprocessor: Any, clip: Mapping[str, Any]) -> Any:
    """The data preprocessor with CLIP's mean and standard deviation where it has None."""
    if not isinstance(preprocessor, Mapping):
        return preprocessor
    if "SegDataPreProcessor" in str(preprocessor.get("type")) and not preprocessor.get(
        "bgr_to_rgb"
    ):
        raise UserError(
            "images are read as BGR, but every CLIP was trained on RGB: set "
            "model.data_preprocessor.bgr_to_rgb=True"
        )
    missing = [key for key in ("mean", "std") if preprocessor.get(key) is None]
    if not missing:
        return preprocessor
    source = resolve_clip(**clip)
    return ConfigDict({**preprocessor, **{key: list(getattr(source, key)) for key in missing}})
