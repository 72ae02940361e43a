"""Serve a page on this machine to try a model: choose an image, type class names, look closer."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import tempfile
from pathlib import Path

from .config import check_weights, read_config
from .options import new_parser

NO_WEIGHTS = (
    "For photographs, set the environment variable `CLIP_WEIGHTS` to a file with CLIP's weights "
    "(or run `mmseg-otseg segment` once, which downloads them), and start this page again."
)


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--model",
        metavar="CONFIG",
        dest="config",
        help="config file. Default: that of the included model",
    )
    parser.add_argument("--weights", metavar="CKPT", help="checkpoint, unless nothing was trained")
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="IMG",
        help="images to choose from, or folders of them. Default: some of the config's test data",
    )
    parser.add_argument("--device", help="e.g. cuda:0 or cpu. Default: the GPU if there is one")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve on; 0.0.0.0 lets other machines in. Default: 127.0.0.1",
    )
    parser.add_argument("--port", type=int, help="Default: the first free one from 7860 on")
    args = parser.parse_args()
    if args.config is None and args.weights is not None:
        parser.error("--weights needs --model, the config of the checkpoint")
    return args


def main() -> None:
    args = parse_args()
    if args.config:
        args.checkpoint = args.weights
        check_weights(args.config, read_config(args), args.weights)
    for file in args.images:
        if not Path(file).exists():
            raise FileNotFoundError(f"{file} does not exist")
    if args.port is not None:  # a port in use is reported before the model is built
        socket.create_server((args.host, args.port)).close()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends it like Ctrl+C
    with tempfile.TemporaryDirectory(prefix="mmseg_otseg_page_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads end with the page
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from mmengine.config import Config

        from mmseg_otseg.demo.page import Page, build
        from mmseg_otseg.demo.samples import NONE_BELOW, PHOTO_NAMES, included_model
        from mmseg_otseg.demo.serving import serve
        from mmseg_otseg.inference import OTSegInferencer
        from mmseg_otseg.inference.loading import NAMES_CONFIG, installed_config
        from mmseg_otseg.models.clip import weights_are_local

        if args.config:
            inferencer = OTSegInferencer(args.config, args.weights, args.device)
            serve(build({"": Page(inferencer, args.images, Path(folder))}), args.host, args.port)
            return
        inferencer = OTSegInferencer(*included_model(), args.device)
        cfg = Config.fromfile(installed_config(NAMES_CONFIG))
        photographs = weights_are_local(**cfg.model.clip)
        images = [] if photographs else args.images
        pages = {"Shapes": Page(inferencer, images, Path(folder), NONE_BELOW)}
        if photographs:
            inferencer = OTSegInferencer(cfg, device=args.device)
            page = Page(inferencer, args.images, Path(folder), names=PHOTO_NAMES, prefix="photos-")
            pages["Photographs"] = page
        serve(build(pages, "" if photographs else NO_WEIGHTS), args.host, args.port)
