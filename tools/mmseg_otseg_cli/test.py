"""Test a checkpoint: compute metrics, and write the predictions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .config import build_runner, fetch_weights, load_config, nested_datasets
from .errors import CommandError
from .options import add_launcher, config_parser

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    add_launcher(parser)
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="checkpoint file or URL; not needed if the config's model has nothing to train",
    )
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="a data set of configs/open_vocabulary, or a file like them: test on it instead",
    )
    parser.add_argument("--out", metavar="DIR", help="write every predicted label map to DIR")
    parser.add_argument(
        "--show-dir",
        metavar="DIR",
        help="write labels and predictions, painted side by side, to DIR/vis_data/vis_image; "
        "mmseg names these files by the image's name without its folder",
    )
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    return parser.parse_args()


def set_tta(cfg: Config) -> None:
    """Test with the config's ``tta_pipeline``, and merge the predictions with its ``tta_model``.

    Raises:
        CommandError: If the config lacks one of them.
    """
    if "tta_pipeline" not in cfg or "tta_model" not in cfg:
        raise CommandError("--tta needs tta_pipeline and tta_model in the config.")
    for dataset in nested_datasets(cfg.test_dataloader.dataset):
        if "pipeline" in dataset:
            dataset["pipeline"] = cfg.tta_pipeline
    cfg.model = dict(cfg.tta_model, module=cfg.model)


def build_tester(cfg: Config) -> Any:
    """Build the runner that tests ``cfg.load_from``.

    Raises:
        CommandError: If there is no checkpoint, and the model has something to train.
    """
    runner = build_runner(cfg)
    if cfg.load_from is None and any(p.requires_grad for p in runner.model.parameters()):
        raise CommandError(
            f"{cfg.filename} has weights that are trained: give a checkpoint, CONFIG CHECKPOINT"
        )
    return runner


def main() -> None:
    args = parse_args()
    cfg = load_config(args, "test")
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show_dir is not None:
        if any(
            d.get("type") == "ShapesDataset" for d in nested_datasets(cfg.test_dataloader.dataset)
        ):
            raise CommandError(
                "--show-dir paints over image files, but the scenes of shapes are not files: "
                "`mmseg-otseg show-transport CONFIG CHECKPOINT --out sheet.png` draws them."
            )
        cfg.default_hooks.visualization = dict(type="SegVisualizationHook", draw=True, interval=1)
        cfg.visualizer.save_dir = args.show_dir
    if args.tta:
        set_tta(cfg)
    if args.out is not None:
        evaluator = cfg.test_evaluator
        (evaluator[0] if isinstance(evaluator, list) else evaluator).output_dir = args.out
    if args.check_only:
        fetch_weights(cfg)
        return
    from mmseg_otseg.engine import process_group

    with process_group(cfg):
        build_tester(cfg).test()
