"""The commands that `soak` kills: every method once, and what is made of several of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.safety.sources import HUB

TRAIN = ("--epochs", "2", "--subset", "0.1", "--batch-size", "64", "--device", "cpu", "--precision", "fp32")
"""130 digits, in two or three steps an epoch."""

HALVED = ("--refiner", "halve")


@dataclass(frozen=True)
class Command:
    """A command that is killed, and how it goes on."""

    name: str
    kind: str
    words: Sequence[str]
    again: Sequence[str] = ("--resume",)
    """What is added to the words after a kill, and before the first one too."""
    processes: int = 1
    files: tuple[tuple[str, str], ...] = ()
    """Names and contents of other files that it reads."""
    needs: str = ""
    """A module of an extra without which it cannot be run."""

    @property
    def can_run(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


# Networks of linear layers train in a fraction of the time; methods that compare maps need convolutions.
LINEAR, CONV = "l.pt", "c.pt"


def _distill(method: str, teacher: str, *words: str, name: str = "") -> Command:
    return Command(name or method, "distill", ["distill", teacher, "--method", method, *words, *TRAIN, "-o", "o.pt"])


def _export(name: str, output: str, *words: str, needs: str = "") -> Command:
    return Command(name, "export", ["export", "c.pt", f"--{name}", *words, "-o", output], needs=needs)


def _prune(method: str, teacher: str, *words: str, name: str = "") -> Command:
    return Command(name or method, "prune", ["prune", teacher, "--method", method, *words, *TRAIN, "-o", "o.pt"])


# Methods of channels: this network has so few that no layer could keep a multiple of 16.
CHANNELS = ("--round-to", "2")

OF_LOGITS = ("crld", "dist", "dkd", "kd", "logit-std", "mlkd", "mutual", "none", "online")
OF_MAPS = (
    *("at", "cc", "crd", "fitnets", "fsp", "ofa", "pkt", "reviewkd", "rkd", "simkd", "simultaneous", "sp"),
    *("stagewise", "vid", "wkd"),
)

RECIPE = f"""[matrix]
seed = [0, 1]
[[step]]
name = "halved"
run = "distill l.pt --refiner halve --seed {{seed}} {" ".join(TRAIN)}"
[[step]]
name = "pruned"
from = "halved"
run = "prune --method magnitude {" ".join(TRAIN)}"
[[compare]]
of = ["halved", "pruned"]
"""

STUDY = (("s.toml", RECIPE),)

# What makes no network has nothing to go on with.
REPEATED = ("--force",)

IN_8_BITS = ("--max-size", "0.3x", "--candidates", "halve,filter-l1", "--trials", "3")
SMALL = ("--max-macs", "0.5x", "--candidates", "halve", "--no-quantised")

COMMANDS = [
    Command("kdtool", "teacher", ["teacher", "kdtool:lenet-5", "--data", "digits", *TRAIN, "-o", "o.pt"]),
    Command("timm", "teacher", ["teacher", "timm:test_resnet", "--data", "digits", *TRAIN, "-o", "o.pt"]),
    Command(
        "torchvision", "teacher",
        ["teacher", "torchvision:squeezenet1_1", "--stem", "small", "--data", "digits", *TRAIN, "-o", "o.pt"],
    ),
    Command("hf", "teacher", ["teacher", f"hf:{HUB}", "--data", "digits", *TRAIN, "-o", "o.pt"]),
    Command("python", "teacher", ["teacher", "ownnets:make", "--data", "digits", *TRAIN, "-o", "o.pt"]),
    *(_distill(method, LINEAR, *HALVED) for method in OF_LOGITS),
    *(_distill(method, CONV, *HALVED) for method in OF_MAPS),
    _distill("born-again", LINEAR, "--generations", "2"),
    _distill("ikd", LINEAR, "--iters", "2"),
    _distill("assistant", LINEAR, *HALVED),
    _distill("ensemble", LINEAR, "l2.pt", *HALVED),
    _distill("self", CONV),
    _distill("kd", LINEAR, *HALVED, "--cache", "on", "--views", "2", name="kd, cached"),
    _distill("kd:0.9+at:10", CONV, *HALVED, name="kd + at"),
    _distill("kd", LINEAR, *HALVED, "--quantize", "int8", name="kd, int8"),
    *(_prune(method, LINEAR) for method in ("cluster", "magnitude", "random")),
    _prune("lottery", "early.pt"),
    _prune("magnitude", LINEAR, "--steps", "3", name="magnitude, 3 steps"),
    _prune("2:4", CONV),
    *(_prune(method, CONV, *CHANNELS) for method in ("bn-scale", "filter-l1", "geometric-median")),
    *(_prune(method, CONV, *CHANNELS) for method in ("group-taylor", "isomorphic", "taylor")),
    Command("halve", "refine", ["refine", "c.pt", "--method", "halve", "-o", "o.pt"]),
    Command("depth", "refine", ["refine", "d.pt", "--method", "depth", "-o", "o.pt"]),
    Command("like", "refine", ["refine", "c.pt", "--method", "like", "--arch", "kdtool:lenet-5", "-o", "o.pt"]),
    Command(
        "width-depth", "refine", ["refine", "c.pt", "--method", "width-depth", "--target-macs", "0.5x", "-o", "o.pt"],
    ),
    Command(
        "distill, prune", "chain",
        ["distill", LINEAR, *HALVED, *TRAIN, "-o", "a.pt", "prune", "--method", "magnitude", *TRAIN, "-o", "o.pt"],
    ),
    Command(
        "prune, export", "chain",
        [*("prune", "c.pt", "--method", "filter-l1", *CHANNELS, *TRAIN, "-o", "a.pt"),
         *("export", "--onnx", "--no-latency", "-o", "o.onnx")],
    ),
    Command("one candidate", "compress", ["compress", "c.pt", *SMALL, "--trials", "1", *TRAIN, "-o", "o.pt"]),
    Command("8 bits", "compress", ["compress", "c.pt", *IN_8_BITS, *TRAIN, "-o", "o.pt"]),
    Command("search", "search", ["distill", LINEAR, *HALVED, "--search", "temperature=1,4", *TRAIN, "-o", "o.pt"]),
    Command("study", "study", ["run", "s.toml", "-o", "s.study"], (), files=STUDY),
    Command("study, 2 jobs", "study", ["run", "s.toml", "-o", "s.study", "--jobs", "2"], (), files=STUDY),
    Command("kd", "2 processes", ["distill", LINEAR, *HALVED, *TRAIN, "-o", "o.pt"], processes=2),
    Command("onnx", "export", ["export", "c.pt", "--onnx", "--no-latency", "-o", "o.onnx"]),
    Command("onnx, int8", "export", ["export", "c.pt", "--int8", "--no-latency", "-o", "o.onnx"]),
    Command("hub-folder", "export", ["export", "c.pt", "--hub-folder", "hub"]),
    _export("safetensors", "o.safetensors"),
    _export("pt2", "o.pt2", "--no-latency"),
    _export("openvino", "o.xml", "--no-latency", needs="openvino"),
    _export("executorch", "o.pte", "--no-latency", needs="executorch"),
    _export("litert", "o.tflite", "--no-latency", needs="litert_torch"),
    Command("evaluate", "other", ["evaluate", "c.pt", "--per-class", "-o", "o.png"], REPEATED),
    Command("report", "other", ["report", "c.pt", "-o", "o.html"], REPEATED),
    _distill("gated", CONV, "--target-macs", "0.5x", "--search-epochs", "1", *CHANNELS),
]  # fmt: skip


NETWORKS = {
    **{"l": ("lenet-300-100", 3, 0), "l2": ("lenet-300-100", 3, 1)},
    **{"c": ("resnet8x4", 3, 0), "d": ("resnet20", 2, 0)},
}
"""Networks, how often their widths are halved, and their seeds."""


def make_inputs(folder: Path, names: Sequence[str] = (*NETWORKS, "early")) -> None:
    """Write the networks that the commands read, small ones that were trained for a moment."""
    import kdtool

    training: dict[str, Any] = {"data": "digits", "epochs": 1, "subset": 0.1, "device": "cpu"}
    if "early" in names:
        kdtool.teacher("kdtool:lenet-300-100", **training, keep_init=True, output=folder / "early.pt")
    for name in NETWORKS.keys() & set(names):
        source, times, seed = NETWORKS[name]
        options: dict[str, Any] = {"classes": 10, "in_channels": 1, "image_size": 8, "seed": seed}
        big = kdtool.teacher(f"kdtool:{source}", **options, output=folder / "big.pt", force=True)
        small = kdtool.refine(big, "halve", times=times, output=folder / "small.pt", force=True)
        kdtool.distill(small, "none", student=str(folder / "small.pt"), **training, output=folder / f"{name}.pt")
