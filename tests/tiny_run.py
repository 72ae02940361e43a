"""A run of ordinary mmseg parts that takes a second, for the tests of what runs around a model."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from mmseg.visualization import SegLocalVisualizer

ROOT = Path(__file__).parents[1]
CLASSES = ("left", "middle", "right")


def write_pictures(folder: Path, number: int = 4) -> None:
    """Write ``number`` pictures of 32 x 32 with labels for training and for validation."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
        for index in range(number):
            label = rng.integers(0, 3, (4, 4), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            image = label[..., None] * 80 + rng.integers(0, 40, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "labels" / part / f"{index}.png"), label)
            cv2.imwrite(str(folder / "images" / part / f"{index}.png"), image)


def tiny_config(folder: Path, **changes: Any) -> Config:
    """A config that trains for 4 iterations, with a checkpoint and a validation every 2.

    Args:
        folder: Where :func:`write_pictures` wrote the data, and where the run writes.
        changes: Top-level entries to merge in.
    """

    def loader(part: str, sampler: dict, batch_size: int) -> dict:
        dataset = dict(
            type="BaseSegDataset",
            data_root=str(folder),
            data_prefix=dict(img_path=f"images/{part}", seg_map_path=f"labels/{part}"),
            img_suffix=".png",
            seg_map_suffix=".png",
            metainfo=dict(classes=CLASSES, palette=[[255, 0, 0], [0, 255, 0], [0, 0, 255]]),
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="LoadAnnotations"),
                dict(type="PackSegInputs"),
            ],
        )
        return dict(batch_size=batch_size, num_workers=0, sampler=sampler, dataset=dataset)

    norm = dict(type="GN", num_groups=2)
    cfg = Config.fromfile(ROOT / "configs" / "_base_" / "default_runtime.py")
    schedule = Config.fromfile(ROOT / "configs" / "_base_" / "schedules" / "schedule_20k.py")
    cfg.merge_from_dict(schedule.to_dict())
    cfg.merge_from_dict(
        dict(
            work_dir=str(folder / "run"),
            model=dict(
                type="EncoderDecoder",
                data_preprocessor=dict(type="SegDataPreProcessor", size=(32, 32)),
                backbone=dict(
                    type="UNet",
                    base_channels=2,
                    num_stages=2,
                    strides=(1, 1),
                    enc_num_convs=(1, 1),
                    dec_num_convs=(1,),
                    downsamples=(True,),
                    enc_dilations=(1, 1),
                    dec_dilations=(1,),
                    norm_cfg=norm,
                ),
                decode_head=dict(
                    type="FCNHead",
                    in_channels=2,
                    in_index=1,
                    channels=4,
                    num_convs=1,
                    num_classes=3,
                    dropout_ratio=0.5,
                    norm_cfg=norm,
                ),
                test_cfg=dict(mode="whole"),
            ),
            train_dataloader=loader("train", dict(type="InfiniteSampler", shuffle=True), 2),
            val_dataloader=loader("val", dict(type="DefaultSampler", shuffle=False), 1),
            test_dataloader=loader("val", dict(type="DefaultSampler", shuffle=False), 1),
            val_evaluator=dict(type="IoUMetric"),
            test_evaluator=dict(type="IoUMetric"),
            tta_pipeline=[
                dict(type="LoadImageFromFile"),
                dict(
                    type="TestTimeAug",
                    transforms=[
                        [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
                        [dict(type="LoadAnnotations")],
                        [dict(type="PackSegInputs")],
                    ],
                ),
            ],
            train_cfg=dict(max_iters=4, val_interval=2),
            param_scheduler=dict(warmup_iters=2),
            default_hooks=dict(
                checkpoint=dict(interval=2, save_best="mIoU"), logger=dict(interval=1)
            ),
        )
    )
    cfg.merge_from_dict(changes)
    return cfg


def run_tool(name: str, *arguments: object) -> None:
    """Run ``tools/<name>.py`` with these arguments, in this process."""
    # Or mmengine goes on with those of the last run, if it began in the same second.
    for singleton in (MMLogger, MessageHub, Visualizer, SegLocalVisualizer):
        singleton._instance_dict.clear()
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    tool = importlib.util.module_from_spec(spec)
    argv = [name, *map(str, arguments)]
    with patch.object(sys, "argv", argv), patch.object(sys, "path", [*sys.path]):
        spec.loader.exec_module(tool)
        with patch.dict(os.environ):
            tool.main()


def start_tool(
    name: str, *arguments: object, first: Callable[[], object] | None = None, **environment: str
) -> BaseProcess:
    """Run a tool in a process of its own: a copy of this one, which spares it all imports.

    Args:
        name: Of the tool.
        arguments: Of the tool.
        first: What the process does before.
        environment: Added to the environment of this process.
    """

    def run() -> None:
        os.environ.update(environment)
        torch.set_num_threads(1)  # threads of this process are not in its copy
        if first is not None:
            first()
        run_tool(name, *arguments)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def start_processes(
    number: int, name: str, *arguments: object, first: Callable[[], object] | None = None
) -> list[BaseProcess]:
    """Start a tool in ``number`` processes of one group, as torchrun would; ``first`` in one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [
        start_tool(
            name,
            *arguments,
            "--launcher",
            "pytorch",
            first=first if rank == 0 else None,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(number),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in range(number)
    ]


def run_processes(number: int, name: str, *arguments: object) -> None:
    """Run a tool in ``number`` processes of one group, as torchrun would."""
    processes = start_processes(number, name, *arguments)
    for process in processes:
        process.join(120)
    exits = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert exits == [0] * number


def last_metrics(run: Path) -> dict[str, float]:
    """The last numbers that the last run in a folder wrote, be it of training or of testing."""
    logs = [*run.glob("*/vis_data/scalars.json"), *run.glob("*/*.json")]
    last = max(logs, key=lambda file: file.stat().st_mtime_ns)
    return json.loads(last.read_text().splitlines()[-1])
