"""The data sets of ``configs/open_vocabulary``, each tested with the model of any config."""

from __future__ import annotations

import copy
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import configs_folder, find_config, nested_datasets
from .errors import CommandError

if TYPE_CHECKING:
    from mmengine.config import Config

#: Names of CAT-Seg, of OpenSeg, and those of SCLIP and NACLIP.
PROTOCOLS = ("trained", "openseg", "training_free")
#: The data sets in the order of a table.
NAMES = """
    voc20 voc20b voc21 context59 context60 context459 coco_object cocostuff ade20k_150 ade20k_847
    cityscapes
    """.split()  # noqa: SIM905
NOT_TESTING = """
    train_cfg train_dataloader optim_wrapper param_scheduler val_cfg val_dataloader val_evaluator
    """.split()  # noqa: SIM905


def data_configs() -> dict[str, Path]:
    """The config files of the data sets by name, in the order of a table."""
    return {name: configs_folder() / "open_vocabulary" / f"{name}.py" for name in NAMES}


def read_data_config(data: str) -> Config:
    """The config of a data set, by its name or its file.

    Raises:
        FileNotFoundError: If there is no such file.
        CommandError: If it is not the config of a data set.
    """
    from mmengine.config import Config

    try:
        file = data_configs().get(data) or find_config(data)
    except FileNotFoundError as error:
        near = get_close_matches(data, NAMES, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise FileNotFoundError(
            f"there is no data set or file {data}.{hint} There are {', '.join(NAMES)}."
        ) from error
    cfg = Config.fromfile(file, import_custom_modules=False)
    if "protocols" not in cfg:
        raise CommandError(
            f"--data {data} is not a data set: it names none of the class lists in `protocols`. "
            f"There are {', '.join(data_configs())}; a file of your own looks like one of these."
        )
    return cfg


def config_on_data(cfg: Config, data: Config, protocol: str | None = None) -> Config:
    """The config that tests the model of one config on a data set.

    The data set says which images and labels there are, and under ``protocols`` what the protocol
    of the model's config (its ``protocol``; without one, ``"trained"``) fixes: the list of
    ``classes``, what becomes of the ``background``, the value below which a pixel is background
    (``none_below``), and the ``scale`` of the images. All else is the model config's. No class
    counts as unseen, and no bias is subtracted.

    Args:
        cfg: Config of a model, as it was written; it is not changed.
        data: Config of a data set, see :func:`read_data_config`.
        protocol: One of ``PROTOCOLS``, to use in place of the model config's. A data set without it
            has that of ``"trained"``.

    Raises:
        CommandError: If the model's config has no test pipeline, or there is no such protocol.
    """
    cfg, data = copy.deepcopy(cfg), copy.deepcopy(data)
    protocol = protocol or cfg.get("protocol", PROTOCOLS[0])
    if protocol not in PROTOCOLS:
        raise CommandError(f"protocol={protocol}: there are {', '.join(PROTOCOLS)}")
    fixed = data.protocols.get(protocol, data.protocols.trained)
    cfg.test_pipeline = _test_pipeline(cfg, fixed.get("scale"))
    data.test_dataloader.dataset.pipeline = cfg.test_pipeline
    cfg.model.split = {key: fixed[key] for key in ("classes", "background") if key in fixed}
    cfg.model.decode_head.seen_bias = 0.0
    cfg.model.setdefault("test_cfg", {}).pop("none_below", None)
    if "none_below" in fixed:
        cfg.model.test_cfg.none_below = fixed.none_below
    cfg.pop("data_root", None)  # each dataset has its folder
    for key in NOT_TESTING:
        cfg[key] = None
    for key in ("title", "prepare", "test_dataloader", "test_evaluator"):
        cfg[key] = data[key]  # in place of the model config's, with which `update` would merge it
    cfg.test_cfg = dict(type="TestLoop")
    return cfg


def _test_pipeline(cfg: Config, scale: tuple[int, int] | None) -> list[dict[str, Any]]:
    """The pipeline with which a config tests, which reads labels, perhaps at another scale."""
    datasets = nested_datasets((cfg.get("test_dataloader") or {}).get("dataset"))
    pipeline = next(
        (d["pipeline"] for d in datasets if d.get("pipeline")), cfg.get("test_pipeline")
    )
    if not pipeline:
        raise CommandError("--data needs a config that says how images are read: test_pipeline")
    if scale is not None:
        pipeline = [dict(s, scale=scale) if s["type"] == "Resize" else s for s in pipeline]
    if pipeline[0]["type"] == "LoadShapesScene":  # draws images that are no files
        pipeline = [dict(type="LoadImageFromFile"), *pipeline[1:]]
    if all(step["type"] != "LoadAnnotations" for step in pipeline):  # that of names alone
        pipeline = [*pipeline[:-1], dict(type="LoadAnnotations"), pipeline[-1]]
    return pipeline
