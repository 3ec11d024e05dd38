"""What met a need here, with the command: a table of ``README.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tables import Study, fact, link, show, spread, study_of

__all__ = ["show_needs"]


def show_needs(readme: str) -> None:
    """Print the table of needs, of commands that met them, and of what they gave."""
    here = Path(readme).parent
    frontier, best = study_of(here, "frontier"), study_of(here, "frontier", "results-best.json")
    mnist, ikd, budget = study_of(here, "gated", "results-mnist.json"), study_of(here, "ikd"), study_of(here, "budget")
    teacher, whole = frontier.mean("teacher"), frontier.mean("teacher-onnx")

    def met(step: str) -> str:
        row = frontier.mean(f"{step}-onnx")
        costs = f"latency {row['latency_ratio']:.2f}x, {row['macs'] / teacher['macs']:.2f}x MACs"
        return f"{costs}, {_percent(row)} % (teacher {_percent(teacher)})"

    eighth, zeros, tenth = (frontier.mean(step) for step in ("teacher-int8", "zeros-onnx", "inherit-kd-onnx"))
    gzipped = [f"{whole['gzip_bytes'] / row['gzip_bytes']:.1f}x" for row in (zeros, tenth)]
    fact("narrow networks need fewer bytes than zeros", tenth["gzip_bytes"] < zeros["gzip_bytes"])
    deep, fastest = best.percent("narrow-deep"), best.mean("narrow-deep-onnx")
    fact("widths and depths together are the best of `best.toml`", _best(best) == "narrow-deep")
    compressed, *by_hand = (budget.mean(step) for step in ("compressed", "halved", "pruned", "family"))
    p, *others = (budget.mcnemar("compressed", step) for step in ("halved", "pruned", "family"))
    ahead = fact(
        f"ahead of `halve` (p = {p:.3f}), of the others within the noise",
        p < 0.05 < min(others) and _accuracy(compressed) > max(map(_accuracy, by_hand)),
    )
    gated, narrowed = (mnist.percent(step, macs="0.15x") for step in ("gradual", "narrow-inherit"))
    short = study_of(here, "knowledge", "results-equal-time.json")
    taught, *alone = (short.percent(step) for step in ("pruned-kd", "alone", "alone-clipped"))
    smaller = [ikd.percent(step, "error") for step in ("M1", "M2")]
    needs = [
        (
            *("a budget, and no method in mind", "compress teacher.pt --max-macs 0.33x"),
            f"ResNet-56: {_percent(compressed)} %, {ahead}; by hand {_percent(min(by_hand, key=_accuracy))} to "
            f"{_percent(max(by_hand, key=_accuracy))}; `--max-latency 0.33x` for a latency",
            "budget",
        ),
        (
            *("faster without a training", "export teacher.pt --int8"),
            f"latency {eighth['latency_ratio']:.2f}x, {whole['file_bytes'] / eighth['file_bytes']:.1f}x fewer bytes, "
            f"{_percent(eighth)} %",
            "frontier",
        ),
        (
            "0.4 of the latency, at most one point",
            "distill teacher.pt --method kd --refiner width-depth --target-macs 0.1x --depth-share 0 --init inherit",
            *(met("inherit-kd"), "frontier"),
        ),
        (
            "a fifth of the latency, at most one point",
            "distill teacher.pt --method kd --refiner width-depth --target-macs 0.02x --init inherit",
            f"latency {spread(fastest, 'latency_ratio', 1, 2)}x, 0.02x MACs, {deep} % (teacher {_percent(teacher)})",
            "frontier",
        ),
        (
            "half of the latency, fewer layers",
            "distill teacher.pt --method kd --refiner depth --keep 1,1,1 --init inherit",
            *(met("depth"), "frontier"),
        ),
        (
            "an exact number of MACs, time to search",
            "distill teacher.pt --method gated --target-macs 0.15x",
            *(f"MNIST: {gated}, all widths scaled down {narrowed}", "gated"),
        ),
        (
            "few bytes to send, the structure has to stay",
            "prune teacher.pt --method magnitude --ratio 0.9",
            f"{gzipped[0]} fewer gzip bytes, {_percent(zeros)} %; a tenth of the MACs (above): {gzipped[1]} fewer",
            "frontier",
        ),
        (
            "the best student of a given structure: compare `fitnets`, `dkd` and `kd`",
            "distill teacher.pt --method fitnets --student kdtool:resnet20",
            "CIFAR-10, ResNet-56 to 20: 68.2 ± 1.5, `dkd` 66.1 ± 1.9, `kd` 63.3 ± 1.6, no teacher 57.1 ± 1.3; "
            "another pair: `dkd`",
            "knowledge",
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
            "CIFAR-10: 69.9 ± 0.8, no teacher 52.4 ± 1.5, with as many epochs in all 65.0 ± 1.2; with 65 digits it is "
            "behind: train longer",
            "stagewise",
        ),
        (
            "a tenth of the MACs, in minutes",
            "prune teacher.pt --method isomorphic --ratio 0.9 --of macs --repair least-squares --hours 0.1",
            f"CIFAR-10, airbench94: {taught}, the same structure without its teacher for as long {alone[0]}, "
            f"with clipped gradients {alone[1]}",
            "knowledge",
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


def _accuracy(row: dict[str, Any]) -> float:
    return float(row["accuracy"])


def _best(study: Study) -> str:
    rows = [row for row in study.means if row["step"] != "teacher" and not row["step"].endswith("-onnx")]
    return str(max(rows, key=_accuracy)["step"])


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f}"
