from __future__ import annotations

import warnings

import pytest

from mmseg_otseg.quiet import quiet_imports


def test_known_lines_are_dropped_and_nothing_else(capsys: pytest.CaptureFixture) -> None:
    with quiet_imports(), pytest.raises(ImportError):
        print("Could not import OneDL")
        print("Could not import something else")
        raise ImportError
    assert capsys.readouterr().out == "Could not import something else\n"


def test_known_warnings_are_dropped_and_nothing_else() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_imports():
            pass
        warnings.warn("Fail to import ``MultiScaleDeformableAttention`` from ...", stacklevel=1)
        warnings.warn("Setting MKL_NUM_THREADS environment variable for each", stacklevel=1)
        warnings.warn("labels are missing", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["labels are missing"]
