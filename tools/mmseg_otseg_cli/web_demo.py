"""Serve a page on this machine to try a model: choose an image, type class names, look closer."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

from .config import find_config
from .options import new_parser


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--model", metavar="CONFIG", help="config file. Default: that of the shipped checkpoint"
    )
    parser.add_argument("--weights", metavar="CKPT", help="checkpoint. Default: the shipped one")
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
    parser.add_argument("--port", type=int, default=7860, help="0 is any free one. Default: 7860")
    args = parser.parse_args()
    if (args.model is None) != (args.weights is None):
        parser.error("give both --model and --weights, or neither")
    return args


def check_port(host: str, port: int) -> None:
    """Try the address before the model is built.

    Raises:
        OSError: If another program uses the port.
    """
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OSError(
            f"another program uses port {port} of {host}: choose one with --port (0: any free one)"
        ) from None


def main() -> None:
    args = parse_args()
    if args.model:
        args.model = find_config(args.model)
    for file in filter(None, [args.weights, *args.images]):
        if not Path(file).exists():
            raise FileNotFoundError(f"{file} does not exist")
    if find_spec("gradio") is None:
        raise ModuleNotFoundError('the page needs gradio: pip install "mmseg_otseg[demo]"')
    check_port(args.host, args.port)
    with tempfile.TemporaryDirectory(prefix="mmseg_otseg_page_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads end with the page
        os.environ["GRADIO_ANALYTICS_ENABLED"] = os.environ["GRADIO_SHARE"] = "False"
        from mmseg_otseg.demo.page import Page
        from mmseg_otseg.demo.samples import NONE_BELOW, samples_for, shipped_model
        from mmseg_otseg.demo.serving import serve
        from mmseg_otseg.inference import OTSegInferencer

        config, weights = (args.model, args.weights) if args.model else shipped_model()
        inferencer = OTSegInferencer(config, weights, args.device)
        samples = samples_for(inferencer, args.images)
        none_below = 0.0 if args.model else NONE_BELOW
        serve(Page(inferencer, samples, Path(folder), none_below), args.host, args.port)
