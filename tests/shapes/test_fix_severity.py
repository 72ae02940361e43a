"""The rule that fixes the severities of the harder cameras."""

from __future__ import annotations

from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    from tools.shapes import fix_severity

    return fix_severity


def falling(world: str, severity: float) -> dict[str, float]:
    """An accuracy that falls in a straight line with the severity."""
    return {"mIoU": 20.0, "accuracy": 98.0 - 20 * severity}


def test_cameras_leave_clip_able_to_name_objects(tool: ModuleType) -> None:
    assert tool.camera_severity(falling, "haze") == 0.4
    assert tool.camera_severity(lambda *_: {"accuracy": 30.0}, "haze") == 0.0
