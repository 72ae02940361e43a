"""The rules that fix the worlds of the benchmark."""

from __future__ import annotations

from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    from mmseg_otseg_tools.shapes import fix_severity

    return fix_severity


def falling(crowd: float, clean: float = 50.0) -> object:
    """Dense mIoU and accuracy that fall in a straight line with the severity."""

    def measure(world: str, severity: float) -> dict[str, float]:
        dense = clean if world == "clean" else crowd * (1 - severity)
        return {"mIoU": dense, "accuracy": 98.0 - 20 * severity}

    return measure


def test_no_haze_where_the_crowd_is_enough(tool: ModuleType) -> None:
    assert tool.benchmark_severity(falling(crowd=20.0)) == 0.0


def test_as_much_haze_as_the_dense_map_needs(tool: ModuleType) -> None:
    assert tool.benchmark_severity(falling(crowd=40.0)) == 0.5
    with pytest.raises(ValueError, match=r"20\.00.*severity 0\.95"):
        tool.benchmark_severity(falling(crowd=1000.0))


def test_cameras_leave_clip_able_to_name_objects(tool: ModuleType) -> None:
    assert tool.camera_severity(falling(crowd=20.0), "haze") == 0.4
    assert tool.camera_severity(lambda *_: {"accuracy": 30.0}, "haze") == 0.0
