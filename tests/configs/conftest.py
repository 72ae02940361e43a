from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

from tests.configs.generated import write_data


@pytest.fixture(autouse=True)
def _scope() -> None:
    """Find mmseg's components first, as its tools do."""
    init_default_scope("mmseg")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where data in the layout of every dataset lies."""
    folder = tmp_path_factory.mktemp("generated")
    write_data(folder)
    return folder
