"""What met a need here, with the command: a table of ``README.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tables import link, show, study_of

__all__ = ["show_needs"]


def show_needs(readme: str) -> None:
    """Print the table of needs, of commands that met them, and of what they gave."""
    here = Path(readme).parent
    frontier, mnist, ikd = (study_of(here, *of) for of in (("frontier",), ("gated", "results-mnist.json"), ("ikd",)))
    teacher, whole = frontier.mean("teacher"), frontier.mean("teacher-onnx")

    def met(step: str) -> str:
        row = frontier.mean(f"{step}-onnx")
        costs = f"latency {row['latency_ratio']:.2f}x, {row['macs'] / teacher['macs']:.2f}x MACs"
        return f"{costs}, {_percent(row)} % (teacher {_percent(teacher)})"

    eighth, zeros = frontier.mean("teacher-int8"), frontier.mean("zeros-onnx")
    fewer = whole["file_bytes"] / eighth["file_bytes"], whole["file_bytes"] / zeros["gzip_bytes"]
    gated, narrowed = (mnist.percent(step, macs="0.15x") for step in ("gradual", "narrow-inherit"))
    smaller = [ikd.percent(step, "error") for step in ("M1", "M2")]
    needs = [
        (
            "a third of the latency, at most one point",
            "distill teacher.pt --method kd --refiner width-depth --target-macs 0.1x --depth-share 0 --init inherit",
            *(met("inherit-kd"), "frontier"),
        ),
        (
            *("faster without a training", "export teacher.pt --int8"),
            f"latency {eighth['latency_ratio']:.2f}x, {fewer[0]:.1f}x fewer bytes, {_percent(eighth)} %",
            "frontier",
        ),
        (
            "half of the latency, fewer layers",
            "distill teacher.pt --method kd --refiner depth --keep 1,1,1 --init inherit",
            *(met("depth"), "frontier"),
        ),
        (
            "as few MACs as possible, an exact budget, time to search",
            "distill teacher.pt --method gated --target-macs 0.15x",
            *(f"MNIST: {gated}, narrowed {narrowed}", "gated"),
        ),
        (
            *("few bytes to send, time to run does not matter", "prune teacher.pt --method magnitude --ratio 0.9"),
            f"gzip bytes {fewer[1]:.1f}x fewer than the teacher's file, {_percent(zeros)} %",
            "frontier",
        ),
        (
            *("a series of ever smaller models", "distill teacher.pt --method ikd --iters 4"),
            *(f"ResNet-20: {smaller[0]} error at 4x, {smaller[1]} at 16x", "ikd"),
        ),
        (
            *("a twentieth of the weights", "prune teacher.pt --method lottery --ratio 0.95"),
            "LeNet-5 on MNIST: 98.81 ± 0.18 of 99.13 ± 0.04; the teacher was trained with `--keep-init`",
            "distill-vs-prune",
        ),
        (
            "a student from a tenth of the images",
            "distill teacher.pt --method stagewise --student kdtool:resnet10-concat-head --subset 0.1",
            *("CIFAR-10: 69.9 ± 0.8, without a teacher 52.4 ± 1.5", "stagewise"),
        ),
        (
            "half of the MACs of a VGG or a ResNet, no search",
            "prune teacher.pt --method filter-l1 --of macs --ratio 0.5",
            *("CIFAR-10: 78.7 ± 0.3 of 81.1 (VGG-8), 75.9 ± 1.0 of 79.8 (ResNet-56)", "structured-pruning"),
        ),
    ]
    show(
        ["need", "command", "what it gave", "study"],
        [
            [need, f"`kdtool {command}`", gave, link(folder, f"{folder}/README.md")]
            for need, command, gave, folder in needs
        ],
        left=4,
    )


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f}"
