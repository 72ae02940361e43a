"""The web page, built with gradio: its layout and its event handlers."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import class_list
from mmseg_otseg.inference import Inspection, OTSegInferencer
from mmseg_otseg.inference.vocabulary import split_classes

from . import views
from .samples import load_image

HOUR = 3600
HEAD = (
    "# Segment what you can name\nChoose an image, type class names, and click into the result. "
    "Classes marked *unseen* had no mask in training."
)
THUMBNAIL = 192
MAX_NAMES = 200


class Page:
    """Event handlers of the page; each user's state is kept in their own session.

    Args:
        inferencer: The model.
        samples: Images to choose from, by name: BGR values (h, w, 3).
        folder: Where the masks to be saved are written.
        none_below: Pixels whose best probability is below this belong to no class, until the user
            moves the slider.
    """

    def __init__(
        self,
        inferencer: OTSegInferencer,
        samples: Sequence[tuple[str, np.ndarray]],
        folder: Path,
        none_below: float = 0.0,
    ) -> None:
        self.inferencer, self.samples, self.folder = inferencer, samples, folder
        self.none_below = none_below
        self.names = inferencer.model.neck.text.split.classes
        self.seen_bias = float(getattr(inferencer.model.decode_head, "seen_bias", 0.0))

    def choose(self, event: gr.SelectData, request: gr.Request, *settings: Any) -> tuple[Any, ...]:
        """Segment the sample that was clicked."""
        image = self.samples[event.index][1]
        return image, *self.segment(request, image, *settings)

    def upload(self, request: gr.Request, path: str, *settings: Any) -> tuple[Any, ...]:
        """Segment the image that was uploaded."""
        image = load_image(path)
        return image, *self.segment(request, image, *settings)

    def segment(
        self, request: gr.Request, image: np.ndarray | None, names: str, *settings: float
    ) -> tuple[Any, ...]:
        """Run the model and clear the details of the position clicked before."""
        if image is None:
            raise UserError("Choose or upload an image first.")
        look = self.inferencer.inspect(image, read_names(names))
        return look, *self.decide(request, look, *settings), "", "", []

    def decide(
        self,
        request: gr.Request,
        look: Inspection | None,
        seen_bias: float,
        none_below: float,
        opacity: float,
    ) -> tuple[Any, ...]:
        """Overlay, legend and mask file, from what the model said."""
        if look is None:
            return (gr.skip(),) * 3
        labels = look.labels(seen_bias, none_below or None)
        session = hashlib.sha256(str(request.session_hash).encode()).hexdigest()[:16]
        file = self.folder / session / "mask.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(file)
        shown = views.overlay(look, seen_bias, none_below, opacity)
        return shown, views.legend(look, labels), gr.update(value=str(file), interactive=True)

    def look_at(
        self,
        event: gr.SelectData,
        look: Inspection | None,
        seen_bias: float,
        none_below: float,
        opacity: float,
    ) -> tuple[Any, ...]:
        """Mark the clicked position in the overlay and show its classes and prompts."""
        if look is None:
            return (gr.skip(),) * 4
        x, y = event.index
        shown = views.overlay(look, seen_bias, none_below, opacity, (x, y))
        row, column = views.place_in_image(look, x, y, shown.shape[:2])
        best = int(look.values_at(row, column, seen_bias).argmax())
        return (
            shown,
            views.best_at(look, row, column, seen_bias),
            views.prompts_at(look, row, column, best),
            views.prompt_maps(look, best),
        )

    def build(self) -> gr.Blocks:
        """Lay the page out and connect its parts."""
        with gr.Blocks(
            title="Segment what you can name", analytics_enabled=False, delete_cache=(HOUR, HOUR)
        ) as blocks:
            gr.Markdown(HEAD, elem_id="title")
            image, look = gr.State(time_to_live=HOUR), gr.State(time_to_live=HOUR)
            with gr.Row():
                with gr.Column(scale=2, min_width=340):
                    gallery, file, names, button, sliders = self._inputs()
                with gr.Column(scale=3, min_width=420):
                    status = gr.HTML(elem_id="status")
                    result = gr.Image(
                        label="Result: click into it",
                        format="png",
                        interactive=False,
                        height=560,
                        buttons=["fullscreen"],
                        elem_id="result",
                    )
                    legend = gr.HTML(elem_id="legend")
                    with gr.Row():
                        best, prompts = gr.HTML(elem_id="best"), gr.HTML(elem_id="prompts")
                    save = gr.DownloadButton(
                        "Save the mask (PNG)", interactive=False, elem_id="save"
                    )
            gr.Markdown(
                "**Where each prompt takes its mass from**, each over its own range: click into "
                "the result",
                elem_classes="step",
            )
            maps = gr.Gallery(
                show_label=False,
                columns=8,
                allow_preview=False,
                buttons=[],
                elem_id="maps",
            )
            decided, looked = [result, legend, save], [best, prompts, maps]
            segmented = [look, *decided, *looked]

            def on(
                event: Any, act: Callable[..., Any], inputs: Any, outputs: Any, **how: Any
            ) -> None:
                answer = with_message(act, len(outputs))
                event(answer, inputs, [*outputs, status], show_progress_on=result, **how)

            settings = [names, *sliders]
            on(gallery.select, self.choose, settings, [image, *segmented])
            on(file.upload, self.upload, [file, *settings], [image, *segmented])
            on(button.click, self.segment, [image, *settings], segmented)
            on(names.submit, self.segment, [image, *settings], segmented)
            for slider in sliders:
                last = dict(trigger_mode="always_last", show_progress="hidden")
                on(slider.change, self.decide, [look, *sliders], decided, **last)
            on(result.select, self.look_at, [look, *sliders], [result, *looked])
        return blocks

    def _inputs(self) -> tuple[Any, ...]:
        """The left column."""
        gr.Markdown("**1. Choose an image**, or upload one", elem_classes="step")
        gallery = gr.Gallery(
            [(views.shown_image(image[..., ::-1], THUMBNAIL), None) for _, image in self.samples],
            show_label=False,
            columns=4,
            allow_preview=False,
            visible=bool(self.samples),
            buttons=[],
            elem_id="samples",
        )
        file = gr.File(show_label=False, file_types=["image"], height=110, elem_id="upload")
        gr.Markdown("**2. Name the classes**, separated by commas", elem_classes="step")
        names = gr.Textbox(
            write_names(self.names), show_label=False, lines=5, max_lines=8, elem_id="names"
        )
        button = gr.Button("Segment", variant="primary", elem_id="segment")
        gr.Markdown("**3. Decide**", elem_classes="step")
        with gr.Group():
            bias, none = "Subtracted from seen classes", '"None of these" below'
            sliders = [
                gr.Slider(-0.2, 0.5, self.seen_bias, step=0.005, label=bias, elem_id="bias"),
                gr.Slider(0, 1, self.none_below, step=0.01, label=none, elem_id="none"),
                gr.Slider(0, 1, 0.6, step=0.05, label="Opacity", elem_id="opacity"),
            ]
        return gallery, file, names, button, sliders


def read_names(text: str) -> list[str] | None:
    """The class names that were typed, see ``class_list``; None if there are none.

    Raises:
        UserError: If they cannot be read, or there are more than ``MAX_NAMES``.
    """
    if not text.strip():
        return None
    names = class_list(text, split_classes())
    if len(names) > MAX_NAMES:
        raise UserError(f"These are {len(names)} class names; give at most {MAX_NAMES}.")
    return names


def write_names(names: Sequence[str]) -> str:
    """The text that :func:`read_names` reads; names with a comma in quotes."""
    return ", ".join(f'"{name}"' if "," in name else name for name in names)


def with_message(function: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """Give an event handler one more output: a message to the user, empty if all went well.

    Args:
        function: Handles an event. The message is that of its ``UserError``; other errors are
            logged, and the message refers to the log. The other outputs then stay as they were.
        outputs: How many outputs it has.
    """

    @functools.wraps(function)
    def answer(*args: Any) -> tuple[Any, ...]:
        try:
            return *function(*args), ""
        except UserError as error:
            text = str(error)
        except Exception:
            logging.getLogger("mmseg_otseg").exception("an error while answering the page")
            text = "Something went wrong; the terminal that serves this page says what."
        return *(gr.skip() for _ in range(outputs)), f'<p class="wrong">{escape(text)}</p>'

    return answer
