"""Evaluates a model for many seen-class biases at once, and stores a bias in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

from mmseg_otseg.engine.checkpoint import check_target, read_checkpoint
from mmseg_otseg.engine.config import resolve, type_name
from mmseg_otseg.engine.hooks.checks import image_set
from mmseg_otseg.engine.run_folder import whole_file
from mmseg_otseg.engine.runner import ZeroShotRunner
from mmseg_otseg.errors import UserError
from mmseg_otseg.models.decode_heads.seen_bias import state_key
from mmseg_otseg.models.decode_heads.zero_shot_head import ZeroShotHead


def sweep_seen_bias(
    cfg: Config,
    checkpoint: str | Path | None,
    biases: Sequence[float] | None = None,
    subset: str = "val",
) -> list[dict[str, float]]:
    """Evaluate a checkpoint for each bias with mmengine's Runner, in one pass over the data.

    Args:
        cfg: Config of a model with a :class:`ZeroShotHead`; it is not changed.
        checkpoint: File to load; None evaluates the model as it is built from the config.
        biases: Seen-class biases, in units of probability; None means :data:`DEFAULT_BIASES`.
        subset: The data to evaluate on, ``"val"`` or ``"test"``.

    Returns:
        For each bias, in increasing order: ``seen_bias``, in units of probability; and ``mIoU_S``,
        ``mIoU_U``, ``hIoU`` and the other metrics of :class:`ZeroShotIoUMetric`, in percent.

    Raises:
        UserError: If ``subset`` is not one of these, the model's head has no seen-class bias, or
            the config says that unseen classes have no labels in this data.
    """
    if subset not in ("val", "test"):
        raise UserError(f"subset must be 'val' or 'test', got {subset!r}")
    cfg = evaluation_only(cfg, subset)
    head = MODELS.get(cfg.model.decode_head.type)
    if head is None or not issubclass(head, ZeroShotHead):
        raise UserError(
            f"{cfg.model.decode_head.type} has no seen-class bias; use a config whose head derives "
            "from ZeroShotHead, such as MPSAHead"
        )
    cfg.model.decode_head.seen_bias = 0.0
    given = cfg[f"{subset}_evaluator"] or []
    metrics = given if isinstance(given, list) else [given]
    zero_shot = [metric for metric in metrics if type_name(metric) == "ZeroShotIoUMetric"]
    options: Mapping[str, Any] = zero_shot[0] if zero_shot else {}
    if not options.get("unseen_labeled", True):
        raise UserError(
            f"no seen-class bias can be chosen: {subset}_evaluator has unseen_labeled=False, so "
            "the unseen classes have no labels. Set the bias, model.decode_head.seen_bias"
        )
    cfg[f"{subset}_evaluator"] = dict(
        type="SeenBiasMetric",
        biases=None if biases is None else list(biases),
        align_corners=cfg.model.decode_head.get("align_corners", False),
        none_below=(cfg.model.get("test_cfg") or {}).get("none_below"),
        ignore_index=options.get("ignore_index"),
    )
    cfg.load_from = None if checkpoint is None else str(checkpoint)
    runner = ZeroShotRunner.from_cfg(cfg)
    if subset == "val":
        runner.val()
        return runner.val_evaluator.metrics[0].table
    runner.test()
    return runner.test_evaluator.metrics[0].table


def store_seen_bias(cfg: Config, checkpoint: str | Path, bias: float, target: str | Path) -> None:
    """Write a copy of a checkpoint that also holds a seen-class bias.

    A model that loads it uses this bias for testing and inference, unless its config sets one. The
    file also records which validation images chose it, so that a test on the same images can say
    so (``meta.calibrated_on``, see :func:`~mmseg_otseg.engine.hooks.checks.image_set`).

    Args:
        cfg: The config with which the bias was found. The bias applies only to the same
            ``predict_from`` of the head.
        checkpoint: File to read.
        bias: The bias, in units of probability.
        target: File to write. It may be the same file; that file stays intact if writing fails.

    Raises:
        FileNotFoundError, UserError: If the checkpoint cannot be read, or ``target`` is a
            ``.safetensors`` file.
    """
    check_target(target)
    content = read_checkpoint(checkpoint, "cpu")
    state = content.get("state_dict", content)
    key = state_key(cfg.model.decode_head.get("predict_from", ZeroShotHead.predict_from))
    state[f"decode_head.{key}"] = torch.tensor(bias, dtype=torch.float64)
    if "state_dict" in content and cfg.get("val_dataloader"):
        dataset = DATASETS.build(resolve(cfg).val_dataloader.dataset)
        content.setdefault("meta", {})["calibrated_on"] = image_set(dataset)
    with whole_file(Path(target)) as part:
        torch.save(content, part)


def evaluation_only(cfg: Config, subset: str) -> Config:
    """Copy a config for evaluation on one subset of the data.

    The copy does not evaluate on the other subset, resumes nothing, and has no visualization or
    checkpoint hook.

    Args:
        cfg: A config.
        subset: ``"val"`` or ``"test"``.
    """
    cfg = Config(cfg.to_dict())
    other = "test" if subset == "val" else "val"
    for name in ("cfg", "dataloader", "evaluator"):
        cfg[f"{other}_{name}"] = None
    cfg.resume = False
    if cfg.get("visualizer"):
        # mmengine keeps one visualizer per name, which writes to the folder of its first run.
        cfg.visualizer.pop("name", None)
    if cfg.get("default_hooks"):
        cfg.default_hooks.pop("visualization", None)
        cfg.default_hooks.checkpoint = None  # mmengine's hook fails if there is no training
    return cfg
