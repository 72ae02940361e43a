"""Reading ``model.json`` of an exported folder, and checking it before anything relies on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmseg_otseg.errors import UserError
from mmseg_otseg.inference.exported_files import FORMAT

LARGEST_SIDE, LARGEST_AREA, LARGEST_PATCH = 2**16, 2**26, 2**8  # of images, in pixels


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of an exported model.

    Args:
        path: A ``model.json``.

    Raises:
        UserError: If it is of another layout, or damaged.
    """
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        layout = metadata["format"]
        if layout == FORMAT:
            _check(metadata)
    except Exception as error:  # a damaged file can hold anything
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    if layout != FORMAT:
        raise UserError(
            f"{path} has the layout {layout!r:.40}, this version of mmseg_otseg reads {FORMAT}: "
            "export the model again, or install the version that wrote it"
        )
    return metadata


def _check(metadata: Mapping[str, Any]) -> None:
    resize, windows, prompts = (metadata[name] for name in ("resize", "windows", "prompts"))
    right = {
        "clip": isinstance(metadata["clip"], str),
        "patch": _are_sides(metadata["patch"]) and max(metadata["patch"]) <= LARGEST_PATCH,
        "size": metadata["size"] is None or _are_sides(metadata["size"]),
        "at_image_size": isinstance(metadata["at_image_size"], bool),
        "align_corners": isinstance(metadata["align_corners"], bool),
        "seen_bias": _is_number(metadata["seen_bias"]) and -1 <= metadata["seen_bias"] <= 1,
        "resize": resize is None
        or (_are_sides(resize["scale"]) and isinstance(resize["keep_ratio"], bool)),
        "windows": windows is None
        or (_are_sides(windows["size"]) and _are_sides(windows["stride"]) and _overlap(**windows)),
        "prompts": prompts is None or _are_prompts(prompts),
    }
    wrong = [name for name, is_right in right.items() if not is_right]
    if wrong:
        raise UserError(f"invalid values of {', '.join(wrong)}")


def _are_prompts(prompts: Mapping[str, Any]) -> bool:
    templates, padding = prompts["templates"], prompts["padded_with"]
    return (
        isinstance(templates, list)
        and bool(templates)
        and all(isinstance(text, str) and text.count("{}") == 1 for text in templates)
        and isinstance(prompts["average"], bool)
        and _is_side(prompts["max_tokens"])
        and (padding is None or (type(padding) is int and 0 <= padding < 2**31))
    )


def _overlap(size: list[int], stride: list[int]) -> bool:
    """Whether windows leave nothing out between them."""
    return all(step <= side for side, step in zip(size, stride))


def _are_sides(value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 2 and all(map(_is_side, value))):
        return False
    return bool(value[0] * value[1] <= LARGEST_AREA)


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST_SIDE


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
