"""Fills in a config: one CLIP, one class split and one data folder, wherever they are needed."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from mmseg_otseg.datasets.data_folders import nested_datasets
from mmseg_otseg.errors import UserError
from mmseg_otseg.models.segmentors import resolve_model
from mmseg_otseg.structures import ClassSplit

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
EVALUATORS = ("val_evaluator", "test_evaluator")
LABEL_METRICS = {"ZeroShotIoUMetric", "IoUMetric"}  # these read labels, no class maps
UNSEEN_METRICS = ("mIoU_U", "hIoU")
# Top-level names that our dataset configs define and then use in their dataloaders.
PIPELINE_SETTINGS = ("crop_size", "scale", "train_pipeline", "test_pipeline")


def resolve(cfg: Config) -> Config:
    """Give every component of a run all of its arguments.

    - The parts of the model: see :func:`~mmseg_otseg.models.segmentors.resolve_model`. ``compile``
      becomes the model's ``compile_losses``.
    - Each ``ZeroShotDataset`` gets the model's ``split``; what it wraps is in ``test_mode`` in
      validation and testing.
    - A loader without workers loses ``persistent_workers``.
    - Each ``FolderDataset`` gets the class names, and ``data_root`` and ``background`` from the top
      of the config.
    - The segmentor keeps class maps, ``test_cfg.keep_maps``, only if a metric may read them.
    - The neck's ``train_classes`` follows from the ``setting`` of the training data.

    With :func:`resolve_model`, this is the place where a config is interpreted. The runner resolves
    a config before it builds anything, and ``mmseg-otseg config`` prints the result. A model that
    names no ``clip`` belongs to a config that is wired by hand; it is returned as it is.

    Args:
        cfg: A config; it is not changed.

    Returns:
        The resolved config. Resolving it again changes nothing.

    Raises:
        UserError: If two settings contradict each other, or one has no effect.
    """
    cfg = copy.deepcopy(cfg)
    model = cfg.get("model") or {}
    if "clip" not in model.get("module", model):
        return cfg
    cfg.model = resolve_model(model)
    model = cfg.model.get("module", cfg.model)
    split = ClassSplit.build(model.split)
    for name in LOADERS:
        loader = cfg.get(name) or {}
        if loader.get("batch_size", 1) == 0:
            raise UserError(f"{name}.batch_size is 0: set it to 1 or more")
        if not loader.get("num_workers"):
            loader.pop("persistent_workers", None)  # torch refuses it without workers
        if loader.get("dataset"):
            _resolve_dataset(loader["dataset"], cfg, split, name)
    if cfg.get("compile"):
        model.compile_losses = cfg.pop("compile")
    if cfg.get("train_dataloader"):
        _resolve_setting(cfg, model.neck, split)
    _check_background(cfg, split, (model.get("test_cfg") or {}).get("none_below"))
    _check_metrics(cfg, split)
    _check_best(cfg, split)
    metrics = _metric_types(cfg)
    if metrics and model.get("test_cfg"):
        model.test_cfg.keep_maps = not metrics <= LABEL_METRICS
    _check_idle_settings(cfg, model.split)
    return cfg


def type_name(config: Any) -> str:
    """The name of a component's class; a config has either its name or the class."""
    kind = config.get("type", "") if isinstance(config, Mapping) else ""
    return kind.split(".")[-1] if isinstance(kind, str) else kind.__name__


def _resolve_dataset(dataset: ConfigDict, cfg: Config, split: ClassSplit, loader: str) -> None:
    """Fill in split, names, folder, background and test mode of a loader's dataset."""
    for config in nested_datasets(dataset):
        if type_name(config) == "FolderDataset":
            for key in ("data_root", "background"):
                if key not in config and key in cfg:
                    config[key] = cfg[key]
            config.setdefault("metainfo", split.data_metainfo)
        if type_name(config) != "ZeroShotDataset":
            continue
        if config.get("split") is not None:
            split.check_same(ClassSplit.build(config.split), "the model", loader)
        config.split = split.as_config()
        for leaf in nested_datasets(config.dataset):
            if loader != "train_dataloader" and not {"dataset", "datasets"} & leaf.keys():
                leaf.test_mode = True  # labels of unseen classes are whole in evaluation


def _resolve_setting(cfg: Config, neck: ConfigDict, split: ClassSplit) -> None:
    """Choose the classes that train, and check that self-training fits the training data."""
    datasets = nested_datasets(cfg.train_dataloader.dataset)
    wrapper = next((config for config in datasets if type_name(config) == "ZeroShotDataset"), None)
    if wrapper is None:
        return
    setting = wrapper.get("setting", "inductive")
    if neck.get("train_classes") is None:
        neck.train_classes = "all" if setting == "supervised" else "seen"
    hooks = [*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or ())]
    hook = next((hook for hook in hooks if type_name(hook) == "SelfTrainingHook"), None)
    check_setting(setting, neck.train_classes, hook is not None)
    if hook is None:
        return
    if not split.unseen:
        raise UserError("transductive training has nothing to label: no class is unseen")
    length = (cfg.get("train_cfg") or {}).get("max_iters")
    if length is not None and hook.begin >= length:
        raise UserError(
            f"self-training would never begin: default_hooks.self_training.begin={hook.begin}, "
            f"and training ends after {length} iterations (train_cfg.max_iters)"
        )


def _check_background(cfg: Config, split: ClassSplit, none_below: float | None) -> None:
    """Refuse an evaluation in which predictions or labels alone have a background."""
    if not any(cfg.get(name) for name in LOADERS[1:]):
        return
    if (split.background is None) != (none_below is None) and split.background != "names":
        raise UserError(
            f"model.split.background is {split.background!r}, and model.test_cfg.none_below, the "
            f"probability below which a pixel is background, is {none_below}: set "
            "background='threshold' and a probability, or neither"
        )


def _metric_types(cfg: Config) -> set[str]:
    """The types of all metrics of a config."""
    given = [cfg.get(name) or () for name in EVALUATORS]
    return {type_name(m) for part in given for m in ([part] if "type" in part else part)}


def check_setting(setting: str, train_classes: str, self_trains: bool) -> None:
    """Check that the neck's ``train_classes`` fit the ``setting`` of the training data.

    Raises:
        UserError: If they do not, or self-training lacks its data or its hook.
    """
    if self_trains != (setting == "transductive"):
        raise UserError(
            f"the training data has setting={setting!r}, and there is "
            f"{'a' if self_trains else 'no'} SelfTrainingHook: transductive training needs both "
            "train_dataloader.dataset.setting='transductive' and default_hooks=dict("
            "self_training=dict(type='SelfTrainingHook', begin=ITERATION))"
        )
    classes = "all" if setting == "supervised" else "seen"
    if train_classes != classes:
        raise UserError(
            f"the neck has train_classes={train_classes!r}, but setting={setting!r} of the "
            f"training data means {classes!r}: set model.neck.train_classes to that"
        )


def zero_shot_metrics(evaluator: Any) -> list[Any]:
    """The configs of every ``ZeroShotIoUMetric`` in that of an evaluator, which may be None."""
    metrics = [evaluator] if isinstance(evaluator, Mapping) else evaluator or ()
    return [metric for metric in metrics if type_name(metric) == "ZeroShotIoUMetric"]


def _check_metrics(cfg: Config, split: ClassSplit) -> None:
    """Refuse an evaluation that would fail or mislead."""
    for name in EVALUATORS:
        metrics = zero_shot_metrics(cfg.get(name))
        for metric in metrics:
            ignored = metric.get("ignore_index")
            if ignored is not None and 0 <= ignored < split.num_classes:
                raise UserError(
                    f"ignore_index={ignored} of {name} would leave out the class "
                    f"{split.classes[ignored]!r}: remove it. A background is set in the dataset: "
                    "background of a FolderDataset, reduce_zero_label of others"
                )
        loader = cfg.get(name.replace("evaluator", "dataloader")) or {}
        datasets = map(type_name, nested_datasets(loader.get("dataset") or {}))
        if metrics and loader and "ZeroShotDataset" not in datasets:
            raise UserError(
                f"{name} has a ZeroShotIoUMetric, whose data has no class split: wrap the dataset "
                "of its dataloader in a ZeroShotDataset, or use IoUMetric"
            )


def _check_best(cfg: Config, split: ClassSplit) -> None:
    """Refuse to choose the best checkpoint by a metric that validation, after hours, lacks."""
    hook = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    best = hook.get("save_best") if type_name(hook) == "DurableCheckpointHook" else None
    if best is None or not (cfg.get("val_evaluator") and cfg.get("train_dataloader")):
        return
    metrics = zero_shot_metrics(cfg.val_evaluator)
    reported = ["mIoU", "mAcc", *(["pAcc", "mIoU_S"] if metrics else ["aAcc"])]
    if split.unseen and any(metric.get("unseen_labeled", True) for metric in metrics):
        reported += UNSEEN_METRICS
    # Other metrics, and options of these, bring names of their own.
    more = _metric_types(cfg) - LABEL_METRICS or any(len(metric) > 1 for metric in metrics)
    if best not in reported and (best in UNSEEN_METRICS or not more):
        raise UserError(
            f"default_hooks.checkpoint.save_best={best!r} is not among the metrics of "
            f"val_evaluator, {', '.join(reported)}. hIoU and mIoU_U need a ZeroShotIoUMetric, "
            "unseen classes in model.split, and data with labels of them (unseen_labeled)"
        )


def _check_idle_settings(cfg: Config, split: Any) -> None:
    """Refuse settings at the top of a config that nothing reads; warn of idle pipelines."""
    for key in ("split", "classes", "unseen"):
        if key in cfg and not (key == "split" and _text(cfg[key]) == _text(split)):
            name = "model.split" if key == "split" else f"model.split.{key}"
            raise UserError(
                f"the setting {key}={cfg[key]} at the top of the config has no effect: set {name}, "
                f"for example with --cfg-options {name}=..."
            )
    loaders = [cfg.get(name) or {} for name in LOADERS]
    given = [loader["dataset"] for loader in loaders if loader.get("dataset")]
    datasets = [nested for dataset in given for nested in nested_datasets(dataset)]
    folders = any(type_name(dataset) == "FolderDataset" for dataset in datasets)
    if cfg.get("background") is not None and not folders:
        raise UserError(
            f"the setting background={cfg.background} has no effect: only FolderDataset, as in "
            "configs/own_data, uses it. For a background of 0 in other datasets, set "
            "reduce_zero_label=True in them"
        )
    root, roots = cfg.get("data_root"), [d.data_root for d in datasets if d.get("data_root")]
    if root is not None and roots and root not in roots and not folders:
        raise UserError(
            f"the setting data_root={root} at the top of the config has no effect: the datasets "
            f"have data_root={', '.join(sorted(set(roots)))}. Set all to the same folder"
        )
    if not datasets:  # inference reads the pipeline from the top of a config
        return
    used = _text({key: value for key, value in cfg.items() if key not in PIPELINE_SETTINGS})
    for key in PIPELINE_SETTINGS:
        needed = key != "train_pipeline" or cfg.get("train_dataloader")
        if needed and key in cfg and _text(cfg[key]) not in used:
            print_log(
                f"The setting {key} at the top of the config has no effect, because no dataloader "
                "has it: set the pipeline there too, for example train_dataloader=dict(dataset="
                "dict(pipeline=train_pipeline)).",
                "current",
                logging.WARNING,
            )


def _text(config: Any) -> str:
    """A config's value as text, the same for tuples and lists, as a dumped config has either."""
    return json.dumps(config, default=str, sort_keys=True)
