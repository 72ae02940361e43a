from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.small_configs import write_data


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where data in the layout of every dataset lies."""
    folder = tmp_path_factory.mktemp("generated")
    write_data(folder)
    return folder
