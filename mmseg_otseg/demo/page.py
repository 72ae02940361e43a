"""The web page, built with gradio: its layout and its event handlers."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import class_list
from mmseg_otseg.imaging.classes import quoted
from mmseg_otseg.imaging.outputs import with_palette
from mmseg_otseg.imaging.overlays import with_side
from mmseg_otseg.inference import Inspection, OTSegInferencer
from mmseg_otseg.models import LearnablePrompts, SimilarityHead
from mmseg_otseg.structures.class_split import KNOWN_CLASSES

from . import views
from .samples import load_image, samples_for

HOUR = 3600
TITLE = "Segment what you can name"
HEAD = f"# {TITLE}\nChoose an image, type class names, and click into the result."
METHODS = {
    "MPSAHead": "[OTSeg](https://arxiv.org/abs/2403.14183) (Kim et al., ECCV 2024)",
    "ZegCLIPHead": "[ZegCLIP](https://arxiv.org/abs/2212.03588) (Zhou et al., CVPR 2023)",
    "SimilarityHead": "[CLIP](https://arxiv.org/abs/2103.00020) with the attention of "
    "[NACLIP](https://arxiv.org/abs/2404.08181) (Hajimiri et al., WACV 2025), without training",
}
ZEGOT = "[ZegOT](https://arxiv.org/abs/2301.12171) (Kim et al., 2023)"
UNSEEN = "Classes marked *no masks in training* are known to it by name only."
THUMBNAIL = 192


class Page:
    """Event handlers of a tab; each user's state is kept in their own session.

    Args:
        inferencer: The model.
        images: Images to choose from, or folders of them; without any, some of the test data.
        folder: Where the masks to be saved are written.
        none_below: Pixels whose best probability is below this belong to no class, until the user
            moves the slider.
        names: The class names to begin with; None is the model's.
        prefix: Put before the ids of the elements, which must differ between tabs.
    """

    def __init__(
        self,
        inferencer: OTSegInferencer,
        images: Sequence[str],
        folder: Path,
        none_below: float = 0.0,
        names: Sequence[str] | None = None,
        prefix: str = "",
    ) -> None:
        self.inferencer, self.folder = inferencer, folder
        self.samples = samples_for(inferencer, images)
        self.none_below, self.prefix = none_below, prefix
        head, split = inferencer.model.decode_head, inferencer.model.neck.text.split
        self.names = names or split.joined_names
        self.seen_bias = float(getattr(head, "seen_bias", 0.0))
        self.trained, self.has_plan = not isinstance(head, SimilarityHead), hasattr(head, "plan")

    def about(self) -> str:
        """The model, its paper and what it was trained on."""
        model, cfg = self.inferencer.model, self.inferencer.cfg
        kind, split = type(model.decode_head).__name__, model.neck.text.split
        learned = isinstance(model.neck.text, LearnablePrompts)
        method = ZEGOT if learned and kind == "MPSAHead" else METHODS.get(kind, kind)
        if getattr(model.decode_head, "predict_from", "") == "ensemble":
            method = method.replace("OTSeg]", "OTSeg+]")
        clip = cfg.model.clip.model if isinstance(cfg.model.clip.model, str) else "a small CLIP"
        parts = [f"**Model:** {method}, over {clip}."]
        if cfg.get("about"):
            parts.append(cfg.about)
        if self.trained and split.unseen:
            parts.append(f"It learned from masks of {len(split.seen)} classes. {UNSEEN}")
        return " ".join(parts)

    def open(self, request: gr.Request, *settings: Any) -> tuple[Any, ...]:
        """Begin with the first sample."""
        if not self.samples:
            return (gr.skip(),) * 7
        image = self.samples[0]
        return image, *self.segment(request, image, *settings)

    def choose(self, event: gr.SelectData, request: gr.Request, *settings: Any) -> tuple[Any, ...]:
        """Segment the sample that was clicked."""
        image = self.samples[event.index]
        return image, *self.segment(request, image, *settings)

    def upload(self, request: gr.Request, path: str, *settings: Any) -> tuple[Any, ...]:
        """Segment the image that was uploaded."""
        image = load_image(path)
        return image, *self.segment(request, image, *settings)

    def segment(
        self,
        request: gr.Request,
        image: np.ndarray | None,
        names: str,
        refine: bool,
        *settings: float,
    ) -> tuple[Any, ...]:
        """Run the model and clear the details of the position clicked before."""
        if image is None:
            raise UserError("Choose or upload an image first.")
        look = self.inferencer.inspect(image, parse_names(names), refine)
        if not self.trained:  # no class had masks, which is not worth a mark
            look = replace(look, seen=np.ones_like(look.seen))
        return look, *self.decide(request, look, *settings), "", ""

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
        file = self.folder / f"{self.prefix}{session}" / "mask.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        with_palette(labels, look.palette).save(file)
        shown = views.overlay(look, seen_bias, none_below, opacity)
        legend = views.warning(look) + views.legend(look, labels)
        return shown, legend, gr.update(value=str(file), interactive=True)

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
            return (gr.skip(),) * 3
        x, y = event.index
        shown = views.overlay(look, seen_bias, none_below, opacity, (x, y))
        row, column = (
            int((place + 0.5) * side / drawn)
            for place, side, drawn in zip((y, x), look.size, shown.shape)
        )
        best = int(look.values_at(row, column, seen_bias).argmax())
        return (
            shown,
            views.best_at(look, row, column, seen_bias),
            views.prompt_maps(look, row, column, best),
        )

    def build(self, arrival: Callable[..., Any]) -> None:
        """Lay the tab out and connect its parts.

        Args:
            arrival: The event at which the first sample is segmented.
        """
        gr.Markdown(self.about(), elem_id=f"{self.prefix}about")
        image, look = gr.State(time_to_live=HOUR), gr.State(time_to_live=HOUR)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                gallery, file, names, button, refine, sliders = self._inputs()
            with gr.Column(scale=3, min_width=300):
                result = gr.Image(
                    label="Result: click into it",
                    format="png",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id=f"{self.prefix}result",
                    elem_classes="result",
                )
                legend = gr.HTML(elem_id=f"{self.prefix}legend")
                best = gr.HTML(elem_id=f"{self.prefix}best")
                save = gr.DownloadButton(
                    "Save the mask (PNG)", interactive=False, elem_id=f"{self.prefix}save"
                )
        maps = gr.HTML(elem_id=f"{self.prefix}maps", visible=self.has_plan)
        decided, looked = [result, legend, save], [best, maps]
        segmented = [look, *decided, *looked]

        def on(event: Any, act: Callable[..., Any], inputs: Any, outputs: Any, **how: Any) -> None:
            @functools.wraps(act)  # gradio reads the types of the arguments
            def answer(*args: Any) -> tuple[Any, ...]:
                try:
                    return act(*args)
                except UserError as error:  # what is shown stays
                    gr.Warning(str(error))
                    return (gr.skip(),) * len(outputs)

            event(answer, inputs, outputs, show_progress_on=result, **how)

        settings = [names, refine, *sliders]
        on(arrival, self.open, settings, [image, *segmented])
        on(gallery.select, self.choose, settings, [image, *segmented])
        on(file.upload, self.upload, [file, *settings], [image, *segmented])
        for event in (button.click, names.submit, refine.input):
            on(event, self.segment, [image, *settings], segmented)
        for slider in sliders:
            last = dict(trigger_mode="always_last", show_progress="hidden")
            on(slider.change, self.decide, [look, *sliders], decided, **last)
        on(result.select, self.look_at, [look, *sliders], [result, *looked])

    def _inputs(self) -> tuple[Any, ...]:
        """The left column."""
        gr.Markdown("**1. Choose an image**, or upload one", elem_classes="step")
        gallery = gr.Gallery(
            [(with_side(image[..., ::-1], THUMBNAIL), None) for image in self.samples],
            show_label=False,
            columns=4,
            allow_preview=False,
            visible=bool(self.samples),
            buttons=[],
            elem_id=f"{self.prefix}samples",
            elem_classes="thumbnails",
        )
        file = gr.File(
            show_label=False,
            file_types=["image"],
            height=130,
            elem_id=f"{self.prefix}upload",
            elem_classes="upload",
        )
        gr.Markdown(
            "**2. Name the classes**, separated by commas; | separates several names of one",
            elem_classes="step",
        )
        names = gr.Textbox(
            format_names(self.names),
            show_label=False,
            lines=3,
            max_lines=12,
            elem_id=f"{self.prefix}names",
        )
        button = gr.Button("Segment", variant="primary", elem_id=f"{self.prefix}segment")
        gr.Markdown("**3. Decide**", elem_classes="step")
        with gr.Group():
            refine = gr.Checkbox(
                True, label="Follow the edges in the image", elem_id=f"{self.prefix}refine"
            )
            bias, none = "Taken off classes with masks", '"None of these" below'
            sliders = [
                gr.Slider(
                    -0.2,
                    0.5,
                    self.seen_bias,
                    step=0.005,
                    label=bias,
                    visible=self.trained,
                    elem_id=f"{self.prefix}bias",
                ),
                gr.Slider(
                    0,
                    1,
                    self.none_below,
                    step=0.01,
                    label=none,
                    elem_id=f"{self.prefix}none",
                ),
                gr.Slider(0, 1, 0.6, step=0.05, label="Opacity", elem_id=f"{self.prefix}opacity"),
            ]
        return gallery, file, names, button, refine, sliders


def build(pages: Mapping[str, Page], note: str = "") -> gr.Blocks:
    """The whole page: a tab for each model, if there are several.

    Args:
        pages: The tabs by title. The first opens with a result, the others when they are chosen.
        note: Markdown below the title.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(HOUR, HOUR)) as blocks:
        gr.Markdown(HEAD, elem_id="title")
        if note:
            gr.Markdown(note, elem_id="note")
        (_, first), *others = pages.items()
        if not others:
            first.build(blocks.load)
        else:
            with gr.Tabs():
                for title, page in pages.items():
                    with gr.Tab(title, elem_id=f"{page.prefix}tab") as tab:
                        page.build(blocks.load if page is first else tab.select)
    return blocks


def parse_names(text: str) -> list[str] | None:
    """The class names that were typed, see ``class_list``; None if there are none."""
    return class_list(text, KNOWN_CLASSES) if text.strip() else None


def format_names(names: Sequence[str]) -> str:
    """The text that :func:`parse_names` reads."""
    return ", ".join(map(quoted, names))
