from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is logged, by mmengine's logger too if there is one."""
    messages: list[str] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    recorder, logger = Recorder(), MMLogger.get_current_instance()
    logger.addHandler(recorder)
    yield messages
    logger.removeHandler(recorder)
