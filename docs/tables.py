"""Write the tables of methods.md from the files beside the configs: python docs/tables.py.

A result measured with this package goes into ``Metrics`` of the config's entry in its
``metafile.yaml``, in percent; what a paper reports is in ``Reported``. The mIoU on open-vocabulary
data sets is in ``configs/open_vocabulary/reported.yaml``, which ``mmseg-otseg benchmark`` reads
too; ``Reported: {METHOD: DATA}`` names a figure there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from mmseg_otseg_cli.benchmark import markdown_table
from mmseg_otseg_cli.open_vocabulary import data_configs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
FIGURES = ROOT / "configs" / "open_vocabulary" / "reported.yaml"
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
    return "".join(parts) + open_vocabulary() + "\n"


def open_vocabulary() -> str:
    """A heading and a table of the mIoU on each open-vocabulary data set, in Markdown."""
    rows, names = yaml.safe_load(FIGURES.read_text(encoding="utf-8")), list(data_configs())
    head = ["method", "CLIP", "trained on", *names, "source"]
    lines = []
    for row in (*rows["Reported"], *rows["Measured"]):
        figures = [row["mIoU"].get(name, NOT_KNOWN) for name in names]
        lines.append([row["Method"], row["CLIP"], row["Trained on"], *figures, row["Source"]])
    heading = "\n## [open_vocabulary](../configs/open_vocabulary/README.md)\n"
    return f"{heading}\n{markdown_table(head, lines)}\n"


def _row(model: Mapping[str, Any]) -> str:
    about, (result,) = model["Metadata"], model["Results"]
    cells = (
        f"[{Path(model['Config']).stem}](../{model['Config']})",
        result["Dataset"],
        _numbers(_reported(about.get("Reported") or {})),
        _numbers(result["Metrics"]),
        f"{about['Parameters']:,}",
    )
    return f"| {' | '.join(cells)} |\n"


def _reported(entry: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an entry, of which some are names of others."""
    rows = {row["Method"]: row["mIoU"] for row in yaml.safe_load(FIGURES.read_text())["Reported"]}
    figures = {}
    for name, value in entry.items():
        if isinstance(value, str):
            figures["mIoU"] = rows[name][value]
        else:
            figures[name] = value
    return figures


def _numbers(metrics: Mapping[str, float] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (metrics or {}).items()) or NOT_KNOWN


def page() -> str:
    """The page with its tables made anew."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return before + START + tables() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
