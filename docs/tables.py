"""Write the tables of methods.md from the metafiles beside the configs: python docs/tables.py.

A result measured with this package goes into ``Metrics`` of the config's entry, in percent; what a
paper reports is in ``Reported``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
START, END = "<!-- tables -->\n", "<!-- end of tables -->\n"
NOT_KNOWN = "\N{EN DASH}"
HEADER = """
| config | tested on | reported | measured here | trainable parameters |
|---|---|---|---|---|
"""


def tables() -> str:
    """A heading and a table for each metafile of ``model-index.yml``, in Markdown."""
    index = yaml.safe_load((ROOT / "mmseg_otseg" / "model-index.yml").read_text())
    parts = []
    for path in index["Import"]:
        metafile = yaml.safe_load((ROOT / path).read_text())
        folder = Path(path).parent
        rows = "".join(_row(model) for model in metafile["Models"])
        parts.append(f"\n## [{folder.name}](../{folder}/README.md)\n{HEADER}{rows}")
    return "".join(parts) + "\n"


def _row(model: Mapping[str, Any]) -> str:
    about, (result,) = model["Metadata"], model["Results"]
    cells = (
        f"[{Path(model['Config']).stem}](../{model['Config']})",
        result["Dataset"],
        _numbers(about.get("Reported")),
        _numbers(result["Metrics"]),
        f"{about['Parameters']:,}",
    )
    return f"| {' | '.join(cells)} |\n"


def _numbers(metrics: Mapping[str, float] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (metrics or {}).items()) or NOT_KNOWN


def page() -> str:
    """The page with its tables made anew."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return before + START + tables() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
