"""The table of ``mmseg-otseg benchmark``, with what papers report."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import installed_configs

#: What is measured, and its column.
MEASURES = {
    "mIoU": "mIoU",
    "mIoU_S": "seen",
    "mIoU_U": "unseen",
    "images_per_second": "images/s",
    "peak_gib": "peak GiB",
}
DASH = "\N{EN DASH}"


def write_table(
    folder: Path,
    titles: Mapping[str, str],
    lacking: Mapping[str, str],
    results: Mapping[str, Mapping[str, Any]],
) -> str:
    """Write the table as Markdown, JSON and CSV.

    Args:
        folder: Where to.
        titles: Titles of the data sets by name; each is a row.
        lacking: What is not here of some of them.
        results: What was measured on the others.

    Returns:
        The table in Markdown.
    """
    import yaml

    from mmseg_otseg.engine.run_folder import whole_file

    source = installed_configs() / "open_vocabulary" / "reported.yaml"
    papers = yaml.safe_load(source.read_text(encoding="utf-8"))["Reported"]
    head = ["data set", "images", *MEASURES.values(), *(paper["Method"] for paper in papers)]
    rows = []
    for name, title in titles.items():
        row = results.get(name, {})
        cells = [row.get(key) for key in MEASURES]
        cells += [paper["mIoU"].get(name) for paper in papers]
        rows.append(
            [title, row.get("images", "not here"), *(DASH if c is None else c for c in cells)]
        )
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    lines.insert(1, "|---" * len(head) + "|")
    lines += ["", "mIoU in percent, measured here. To the right of it, as reported:", ""]
    lines += [f"- {paper['Method']}, {paper['CLIP']}: {paper['Source']}" for paper in papers]
    if lacking:
        lines += ["", "Not here:", ""]
        lines += [f"- {titles[name]}: {text}" for name, text in lacking.items()]
    whole = dict(measured=results, reported=papers, not_here=lacking)
    for file, content in (
        ("table.md", "\n".join(lines)),
        ("table.json", json.dumps(whole, indent=2)),
    ):
        with whole_file(folder / file) as part:
            part.write_text(content, encoding="utf-8")
    with (
        whole_file(folder / "table.csv") as part,
        part.open("w", newline="", encoding="utf-8") as out,
    ):
        csv.writer(out).writerows([head, *rows])
    return "\n".join(lines)
