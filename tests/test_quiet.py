from __future__ import annotations

import pytest

from mmseg_otseg.quiet import quiet_imports


def test_known_lines_are_dropped_and_nothing_else(capsys: pytest.CaptureFixture) -> None:
    with quiet_imports(), pytest.raises(ImportError):
        print("Could not import OneDL")
        print("Could not import something else")
        raise ImportError
    assert capsys.readouterr().out == "Could not import something else\n"
