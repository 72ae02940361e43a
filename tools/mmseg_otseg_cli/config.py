"""Finding and reading a config, and checking at once what takes no imports to check."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CommandError

if TYPE_CHECKING:
    from mmengine.config import Config

#: Top-level keys that mmengine, mmseg or this project reads, whether or not a config has them. To
#: "classes", "split" and "unseen" the answer is where they belong, see `engine.resolve`.
TOP_LEVEL = frozenset(
    """
    classes split unseen
    about auto_scale_lr protocol
    background compile custom_hooks custom_imports data_preprocessor data_root default_hooks
    default_scope env_cfg experiment_name find_unused_parameters load_from log_level log_processor
    model_wrapper_cfg optim_wrapper param_scheduler randomness resume runner_type sync_bn test_cfg
    test_dataloader test_evaluator train_cfg train_dataloader tta_model tta_pipeline val_cfg
    val_dataloader val_evaluator visualizer work_dir
    """.split()  # noqa: SIM905
)
NEAR = 0.85  # similarity of a key to an existing one from which it counts as mistyped


def configs_folder() -> Path:
    """The folder of the configs that come with the package."""
    spec = find_spec("mmseg_otseg")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    folder = package / "configs"
    return folder if folder.is_dir() else package.parent / "configs"  # in a checkout


def config_names() -> list[str]:
    """The names of the installed configs, e.g. ``otseg/voc_512``."""
    folder = configs_folder()
    files = [file.relative_to(folder) for file in folder.glob("*/*.py")]
    return sorted(file.with_suffix("").as_posix() for file in files if file.parts[0] != "_base_")


def find_config(config: str) -> str:
    """A config file as it is given, or else the installed one of that name.

    ``otseg/voc_512``, ``otseg/voc_512.py`` and ``configs/otseg/voc_512.py`` name the same one.

    Raises:
        FileNotFoundError: If there is neither.
    """
    if Path(config).is_file():
        return config
    name = config.removeprefix("configs/").removesuffix(".py")
    file = configs_folder() / f"{name}.py"
    if name and file.is_file():
        return str(file)
    beside = [str(path) for path in Path(config).parent.glob("*.py")]
    near = difflib.get_close_matches(config, beside, 1)
    near = near or difflib.get_close_matches(name, config_names(), 1)
    raise FileNotFoundError(
        f"the config file {config} does not exist, and no installed config has that name: "
        + (f"did you mean {near[0]}?" if near else "`mmseg-otseg configs` lists them.")
    )


def read_config(args: argparse.Namespace) -> Config:
    """Read the config file, apply the options, and check that the checkpoints it names exist.

    This takes about a second. ``args.config`` becomes the file that was found.

    Args:
        args: Parsed arguments with ``config`` and, optionally, ``data`` (see
            :func:`~mmseg_otseg_cli.open_vocabulary.config_on_data`), ``cfg_options``, ``work_dir``,
            ``launcher``, ``checkpoint`` and ``resume``.

    Raises:
        CommandError: If the config cannot be read, or an option does not fit it.
        FileNotFoundError: If it or a checkpoint does not exist.
    """
    from mmengine.config import Config

    args.config = find_config(args.config)
    options = getattr(args, "cfg_options", None) or {}
    try:
        cfg = Config.fromfile(args.config, import_custom_modules=False)
    except Exception as error:  # a config is a program and can raise any error
        text = f"cannot read the config {args.config}: {error}"
        by_package = "please install" in text or "does not support to load" in text
        if by_package or isinstance(error, FileNotFoundError):
            text = (
                f"{text.rstrip('.')}. Name a file of `_base_` by its path, which is relative to "
                f"the config that names it; this project's are in {configs_folder()}. "
                "`mmseg-otseg config NAME > FILE` writes a copy that needs no other file."
            )
        raise CommandError(text) from error
    if "protocols" in cfg and "model" not in cfg:
        raise CommandError(
            f"{args.config} is a data set, which takes the model of a config: tools/test.py CONFIG "
            f"--data {Path(args.config).stem}"
        )
    if getattr(args, "data", None) is not None:
        from .open_vocabulary import config_on_data, read_data_config

        cfg = config_on_data(cfg, read_data_config(args.data), options.get("protocol"))
    check_keys(cfg.to_dict(), options)
    try:
        cfg.merge_from_dict(options)
    except (AssertionError, KeyError, TypeError) as error:
        raise CommandError(f"--cfg-options does not fit {args.config}: {error}") from error
    cfg.launcher = getattr(args, "launcher", "none")
    if getattr(args, "work_dir", None) is not None:
        cfg.work_dir = args.work_dir
    given = (getattr(args, name, None) for name in ("checkpoint", "resume"))
    for checkpoint in (*given, cfg.get("load_from")):
        _check_file(checkpoint)
    return cfg


def check_weights(config: str, cfg: Config, weights: str | None) -> None:
    """Check that a model that is trained comes with its weights.

    Raises:
        CommandError: If it does not.
    """
    if weights is None and cfg.get("protocol") != "training_free":
        raise CommandError(
            f"{config} describes a model that is trained: give its --weights, or set "
            "protocol=training_free in it if there is nothing to train"
        )


def load_config(args: argparse.Namespace, *subsets: str) -> Config:
    """Read a config like :func:`read_config`, import its components, and check the data's folders.

    Without ``work_dir``, the config gets the default one of its file.

    Args:
        args: See :func:`read_config`.
        subsets: Subsets of the data that the tool reads: "train", "val" or "test". The config must
            have the first one.

    Raises:
        CommandError: As in :func:`read_config`, or if the config has no such data or a module of
            ``custom_imports`` is missing.
        FileNotFoundError: As in :func:`read_config`, or if a data folder or list is missing or
            empty.
    """
    cfg = read_config(args)
    if subsets and not cfg.get(f"{subsets[0]}_dataloader"):
        hint = ": name some with --data" if hasattr(args, "data") else ""
        raise CommandError(
            f"{args.config} has no data for this command ({subsets[0]}_dataloader){hint}"
        )
    try:
        _check_roots(cfg, subsets)  # before the imports, which take seconds
        return _with_components(cfg, args, subsets)
    except FileNotFoundError as error:
        if "prepare" not in cfg:
            raise
        raise FileNotFoundError(f"{error} To prepare {cfg.title}, {cfg.prepare}.") from None


def _with_components(cfg: Config, args: argparse.Namespace, subsets: tuple[str, ...]) -> Config:
    """The second half of :func:`load_config`."""
    from mmengine.utils import import_modules_from_strings

    import mmseg_otseg  # noqa: F401  registers the components
    from mmseg_otseg.datasets.data_folders import check_data_folders
    from mmseg_otseg.engine import resolve
    from mmseg_otseg.engine.run_folder import default_work_dir

    if cfg.get("work_dir") is None:
        cfg.work_dir = default_work_dir(args.config)
        if getattr(args, "data", None) is not None:
            cfg.work_dir = os.path.join(cfg.work_dir, Path(args.data).stem)
    try:
        import_modules_from_strings(**(cfg.get("custom_imports") or {"imports": None}))
    except ImportError as error:
        raise CommandError(
            f"{error}, which the config names in custom_imports ({error.__context__}). If it is a "
            "file of yours, put its folder on PYTHONPATH."
        ) from error
    complete = resolve(cfg)
    for subset in subsets:
        dataset = (complete.get(f"{subset}_dataloader") or {}).get("dataset")
        if isinstance(dataset, dict):
            check_data_folders(dataset)
    return cfg


def build_runner(cfg: Config) -> Any:
    """Build the runner that the config names, by default this project's."""
    from mmseg.registry import RUNNERS

    cfg.setdefault("runner_type", "ZeroShotRunner")
    return RUNNERS.build(cfg)


def fetch_weights(cfg: Config) -> None:
    """Download CLIP's weights if they are not there, before several processes do."""
    clip = (cfg.get("model") or {}).get("clip") or {}
    if clip.get("pretrained"):
        from mmseg_otseg.models.clip import fetch_clip

        fetch_clip(**clip)


def nested_datasets(config: Any) -> Iterator[dict]:
    """As in :mod:`mmseg_otseg.datasets.data_folders`, whose import takes seconds."""
    if isinstance(config, dict):
        yield config
        for inner in (config.get("dataset"), *(config.get("datasets") or ())):
            yield from nested_datasets(inner)


def check_keys(config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse mistyped keys of ``--cfg-options``, which would have no effect.

    A new key is mistyped if it is much like one beside it, or if it is at the top level, where
    nothing would read it.

    Raises:
        CommandError: The message names the nearest key.
    """
    for option in options:
        here: Any = {**dict.fromkeys(TOP_LEVEL), **config}
        parts = option.split(".")
        for index, part in enumerate(parts):
            if isinstance(here, (list, tuple)):
                here = {str(place): entry for place, entry in enumerate(here)}
            known = here if isinstance(here, dict) else {}
            if part in known:
                here = known[part]
                continue
            near = difflib.get_close_matches(part, known, 1, NEAR)
            if near and near[0] != "type":  # which is like dtype
                right = ".".join([*parts[:index], *near, *parts[index + 1 :]])
                raise CommandError(f"--cfg-options {option}: did you mean {right}?")
            if not index:
                raise CommandError(
                    f"--cfg-options {option}: nothing reads it there. A setting is named with "
                    "the ones around it, such as train_dataloader.batch_size"
                )
            break


def _check_roots(cfg: Config, subsets: tuple[str, ...]) -> None:
    """Check that the folders of datasets exist, without the classes of the datasets."""
    for subset in subsets:
        for dataset in nested_datasets((cfg.get(f"{subset}_dataloader") or {}).get("dataset")):
            root = dataset.get("data_root")
            if root is None and dataset.get("type") == "FolderDataset":
                root = cfg.get("data_root")
            if not root or dataset.get("backend_args") or ":" in root or Path(root).is_dir():
                continue
            raise FileNotFoundError(
                f"the data folder {root} ({Path(root).absolute()}) of {dataset.get('type')} does "
                "not exist. Put the data there, or set `data_root` of that dataset in the config."
            )


def _check_file(path: str | None) -> None:
    if not path or path == "auto" or "://" in path:
        return
    file = Path(path).expanduser().absolute()  # the message shows where it was looked for
    if not file.is_file():
        problem = "is a folder: name a file in it" if file.is_dir() else "does not exist"
        raise FileNotFoundError(f"the checkpoint {file} {problem}")
