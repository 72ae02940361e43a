from tests.helpers.paths import ROOT  # noqa: F401
from tests.helpers.run_tools import run_processes, run_tool  # noqa: F401
