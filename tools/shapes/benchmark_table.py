"""The rows of the shapes benchmark, and their results as a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

PAPER_BIAS = 0.1
METRICS = {"mIoU_S": "mIoU(S)", "mIoU_U": "mIoU(U)", "hIoU": "hIoU"}


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        title: Its name in the table.
        config: A config of ``configs/shapes``.
        trained_by: The config whose training it shares; None if nothing is trained.
        weights: A file in ``configs/shapes`` that it is evaluated with, if nothing is trained.
    """

    title: str
    config: str
    trained_by: str | None
    weights: str | None = None


ROWS = {
    row.config: row
    for row in (
        Row("training-free CLIP map", "training_free", None),
        Row("ZegCLIP", "zegclip", "zegclip"),
        Row("OTSeg, softmax for Sinkhorn", "softmax", "softmax"),
        Row("MPS map only", "mps_only", "mps_only"),
        Row("OTSeg", "otseg", "otseg"),
        Row("OTSeg+", "otseg_plus", "otseg"),
        Row("ZegOT", "zegot", "zegot"),
        Row("OTSeg, masks of all classes", "supervised", "supervised"),
        Row("OTSeg, one prompt", "one_prompt", "one_prompt"),
        Row("OTSeg, no visual prompts", "no_visual_prompts", "no_visual_prompts"),
        Row(
            "OTSeg+, trained longer",
            "checkpoint/otseg_plus",
            None,
            "checkpoint/otseg_plus.safetensors",
        ),
    )
}
SUPERVISED = "supervised"
BIASES = {
    "none": "No seen-class bias",
    "paper": f"Seen-class bias {PAPER_BIAS:g}, as in the paper",
    "calibrated": "Seen-class bias chosen on val",
}


def label(name: str, iterations: int | None) -> str:
    """Key of a row in the results, with the length of its training if that was asked for."""
    return name if iterations is None else f"{name}@{iterations}"


def title(key: str) -> str:
    """Name in the table of what :func:`label` names."""
    name, _, iterations = key.partition("@")
    return ROWS[name].title + (f", {iterations} iterations" if iterations else "")


def summary(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean and spread (standard deviation, None for one run) of every row over its seeds."""

    def over(values: list[float]) -> dict[str, float | None]:
        spread = statistics.stdev(values) if len(values) > 1 else None
        return {"mean": statistics.fmean(values), "spread": spread}

    table = {}
    for name, runs in results.items():
        row: dict[str, Any] = {"title": title(name), "seeds": [run["seed"] for run in runs]}
        row["bias"] = over([run["bias"] for run in runs])
        row["seconds"] = over([run["seconds"] for run in runs])
        for bias in BIASES:
            tests = [run["test"][bias] for run in runs]
            row[bias] = {metric: over([test[metric] for test in tests]) for metric in METRICS}
        table[name] = row
    return table


def shares(table: dict[str, Any], bias: str) -> list[str]:
    """How much of the mIoU(U) of training with the masks of all classes other rows reach.

    Returns:
        The lines to print: none if there is no such row, or if it finds no unseen class.
    """
    if SUPERVISED not in table:
        return []
    most = table[SUPERVISED]["none"]["mIoU_U"]["mean"]  # there are no unseen classes to favor
    if most == 0:
        return []
    parts = [
        f"{row['title']} {row[bias]['mIoU_U']['mean'] / most:.0%}"
        for name, row in table.items()
        if name != SUPERVISED
    ]
    text = f"Share of the mIoU(U) with the masks of all classes ({most:.1f}): {', '.join(parts)}."
    return [text, ""]


def as_markdown(table: dict[str, Any], biases: Sequence[str]) -> str:
    """The summary as one Markdown table for each of some :data:`BIASES`."""

    def cell(value: dict[str, float | None], digits: int = 1) -> str:
        spread = "" if value["spread"] is None else f" ± {value['spread']:.{digits}f}"
        return f"{value['mean']:.{digits}f}{spread}"

    lines = []
    for bias in biases:
        last = ["bias"] if bias == "calibrated" else []
        head = ["method", *METRICS.values(), *last, "training (s)"]
        lines += [f"{BIASES[bias]}:", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for row in table.values():
            cells = [cell(row[bias][metric]) for metric in METRICS]
            cells += [cell(row["bias"], 3)] if last else []
            seconds = f"{row['seconds']['mean']:.0f}" if row["seconds"]["mean"] else "none"
            lines.append(f"| {' | '.join([row['title'], *cells, seconds])} |")
        lines += ["", *shares(table, bias)]
    seeds = max(len(row["seeds"]) for row in table.values())
    lines.append(f"Percent on test; mean ± standard deviation over {seeds} seed(s) of training.")
    return "\n".join(lines) + "\n"
