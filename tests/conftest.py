"""What every test needs, and a CLIP small enough for tests."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

# What takes seconds to import is imported where it is used: with -n, pytest's first process reads
# this file too, although it runs no test.
if TYPE_CHECKING:
    import torch


@pytest.fixture(autouse=True, scope="session")
def mmseg_scope() -> None:
    """Find components in mmseg's registries first, as its tools do."""
    from mmengine.registry import init_default_scope

    import mmseg_otseg  # noqa: F401 (registers the components)

    init_default_scope("mmseg")
    # mmengine collects garbage for every dataset it builds: spare it all that was imported.
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def unformatted_configs() -> Iterator[None]:
    """Formatting the config, which mmengine does for each checkpoint, takes longer than a run."""
    from mmengine.config import config as mmengine_config
    from yapf.yapflib import yapf_api

    holders = [holder for holder in (yapf_api, mmengine_config) if hasattr(holder, "FormatCode")]
    plain: dict[str, Any] = {"FormatCode": lambda text, **options: (text, True)}
    with patch.multiple(holders[0], **plain), patch.multiple(holders[-1], **plain):
        yield


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Text embeddings are neither taken from earlier runs nor left in the user's folder."""
    with patch.dict("os.environ", TORCH_HOME=str(tmp_path_factory.mktemp("torch"))):
        yield


@pytest.fixture(autouse=True)
def runs_of_its_own() -> None:
    """No test goes on with the logger of the test before."""
    from tests.helpers.run_tools import forget_runs

    forget_runs()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where operations, models and training steps are tested (default: cpu)",
    )


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device of ``--device``: what a test makes without saying where is made there."""
    import torch

    device = torch.device(request.config.getoption("device"))
    # On the CPU not as a mode: torch before 2.10 cannot compile everything below one.
    with device if device.type != "cpu" else nullcontext():
        yield device


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where small data in the layout of every dataset lie."""
    from tests.helpers.small_configs import write_data

    folder = tmp_path_factory.mktemp("generated")
    write_data(folder)
    return folder


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of tiny.py, its images, and ``run``, which it trained for 4 iterations."""
    from tests.helpers.run_tools import run_tool
    from tests.helpers.tiny_run import tiny_config, write_images

    folder = tmp_path_factory.mktemp("trained")
    write_images(folder)
    # A rate and a bias at which all classes are predicted, so that a difference shows.
    changes = {"model.decode_head.seen_bias": 0.0, "optim_wrapper.optimizer.lr": 6e-2}
    tiny_config(folder, **changes).dump(folder / "tiny.py")
    run_tool("train", folder / "tiny.py")
    return folder


@pytest.fixture(scope="session")
def otseg(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """OTSeg+ for images of 64 x 64, with windows, and the folder it was exported to."""
    from tests.helpers.exported import exported

    return exported("otseg/voc_512.py", tmp_path_factory.mktemp("exported"), size=(64, 64))


@pytest.fixture
def clip_config() -> dict[str, Any]:
    from tests.helpers.tiny_clip import tiny_clip

    return tiny_clip()


@pytest.fixture
def clip(clip_config: dict[str, Any]) -> dict[str, Any]:
    """What components take as ``clip``: the small model with random weights."""
    return {"model": clip_config}


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is logged, by mmengine's logger too if there is one."""
    messages: list[str] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    from mmengine.logging import MMLogger

    recorder, logger = Recorder(), MMLogger.get_current_instance()
    logger.addHandler(recorder)
    yield messages
    logger.removeHandler(recorder)
