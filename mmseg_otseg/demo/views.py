"""What the page shows for an image: an overlay, a legend, and details of one position."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image, ImageDraw

from mmseg_otseg.imaging import NONE_COLOR, NONE_NAME
from mmseg_otseg.imaging.overlays import heat, paint, with_side
from mmseg_otseg.inference import Inspection

SHOWN_SIDE = 768
MAX_BEST = 5


def overlay(
    look: Inspection,
    seen_bias: float,
    none_below: float,
    opacity: float,
    place: tuple[float, float] | None = None,
) -> np.ndarray:
    """The classes painted over the image, (h, w, 3), with a ring around a place (x, y)."""
    image = with_side(look.image, SHOWN_SIDE)
    labels = look.labels(seen_bias, none_below or None, image.shape[:2])
    painted = paint(image, labels, look.names, look.palette, opacity)
    if place is None:
        return painted
    canvas = Image.fromarray(painted)
    draw, (x, y) = ImageDraw.Draw(canvas), place
    for radius, color in ((10, "black"), (9, "white"), (8, "white"), (7, "black")):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=color)
    return np.asarray(canvas)


def legend(look: Inspection, labels: np.ndarray) -> str:
    """The classes of an image with the share of each, largest first, as HTML.

    Args:
        look: The image.
        labels: Its class indices; K is "none of these".
    """
    share = np.bincount(labels.ravel(), minlength=len(look.names) + 1) / labels.size
    order = [int(label) for label in np.argsort(-share, kind="stable") if share[label] > 0]
    rows = []
    for label in order:
        none = label == len(look.names)
        name = NONE_NAME if none else look.names[label]
        color = NONE_COLOR if none else look.palette[label]
        rows.append(
            _row(name, share[label], f"{share[label]:.1%}", color, none or look.seen[label])
        )
    return f'<div class="rows" id="legend-rows">{"".join(rows)}</div>'


def warning(look: Inspection) -> str:
    """What the user should know about the names, as HTML; empty if there is nothing."""
    return f'<p class="wrong">{escape(look.warning)}</p>' if look.warning else ""


def best_at(look: Inspection, row: int, column: int, seen_bias: float) -> str:
    """The classes with the largest values in a pixel, as HTML."""
    values = look.values_at(row, column, seen_bias)
    rows = [
        _row(look.names[label], value, f"{value:.3f}", look.palette[label], look.seen[label])
        for label, value in ((int(i), float(values[i])) for i in np.argsort(-values)[:MAX_BEST])
    ]
    head = f"Best classes in pixel ({column}, {row})"
    return f'<div class="rows" id="best-rows"><h4>{head}</h4>{"".join(rows)}</div>'


def prompt_maps(look: Inspection, row: int, column: int, label: int) -> str:
    """Where each prompt of a class takes its mass from, as HTML; empty without a plan.

    There is a heat map for each prompt, drawn over its own range, with its share of a pixel.
    """
    share = look.share_at(row, column, label)
    if share is None:
        return ""
    image = with_side(look.image, SHOWN_SIDE // 3)
    figures = []
    for part, prompt, of_pixel in zip(look.share[label], look.prompts, share):
        Image.fromarray(heat(image, part)).save(file := io.BytesIO(), "JPEG")
        source = base64.b64encode(file.getvalue()).decode()
        text = f"{escape(prompt.replace('{}', look.names[label]))} {of_pixel:.1%}"
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{source}" alt="{text}">'
            f"<figcaption>{text}</figcaption></figure>"
        )
    head = (
        f"Where the prompts of {escape(look.names[label])} take their mass from, each over its "
        "own range, and their shares of the pixel"
    )
    return f'<div class="rows"><h4>{head}</h4><div class="maps">{"".join(figures)}</div></div>'


def _row(name: str, part: float, number: str, color: Sequence[int], seen: bool) -> str:
    """A colored bar of a length in 0..1, with its name and number."""
    tag = "" if seen else '<span class="unseen">no masks in training</span>'
    rgb = ", ".join(str(int(value)) for value in color)
    width = 100 * min(max(part, 0.0), 1.0)
    return (
        f'<div class="row"><span class="chip" style="background: rgb({rgb})"></span>'
        f'<span class="name">{escape(name)}{tag}</span>'
        f'<span class="track"><span class="bar" style="width: {width:.1f}%; '
        f'background: rgb({rgb})"></span></span><span class="number">{number}</span></div>'
    )
