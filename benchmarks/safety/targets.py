"""What is attacked: every reader of a file that a stranger may have made, with files that are whole to begin with."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as save_safetensors

from benchmarks.safety.data_targets import data_targets
from benchmarks.safety.graph_targets import graph_targets
from benchmarks.safety.large_images import KINDS, SAVED, large_file, large_image, large_images, large_png
from benchmarks.safety.mutations import changed_archive, changed_bytes, changed_data
from benchmarks.safety.networks import network
from benchmarks.safety.target import Target, of_seeds, of_values

OLD = Path(__file__).parents[2] / "tests" / "compatibility" / "data"


def inspect(path: Path) -> str:
    """Read a checkpoint as ``kdtool inspect`` does, and show it."""
    from kdtool import api
    from kdtool.cli.commands.inspect import as_text

    return as_text(api.inspect(path))


def weights(path: Path) -> None:
    """Read weights of another program, and the names of classes beside them."""
    from kdtool.models.weight_files import read_weights, told_in

    read_weights(path)
    told_in(path)


def image(path: Path) -> None:
    """Read an image in the ways of a data set."""
    from kdtool.data.image_files import read_image
    from kdtool.data.image_formats import header_of
    from kdtool.data.preparation import Preparation

    header_of(path)
    for channels in (1, 3):
        read_image(path, Preparation(8, channels, 0.875, "bilinear", 255))


def report(path: Path) -> str:
    """Describe the run in whose directory the file is, as ``kdtool report`` does."""
    from kdtool.reporting.html import render
    from kdtool.reporting.sections import of_checkpoint
    from kdtool.reporting.sources import read_sources

    (source,) = read_sources([path.parent])
    return "\n".join(map(render, of_checkpoint(source, path.parent)))  # type: ignore[arg-type]


def study(path: Path) -> Any:
    """Describe a study by its results."""
    from kdtool.reporting.html import render
    from kdtool.reporting.sections import of_study
    from kdtool.reporting.sources import read_sources

    (source,) = read_sources([path.parent])
    return "\n".join(map(render, of_study(source, path.parent)))  # type: ignore[arg-type]


def watched(path: Path) -> Any:
    """Show how far the run or the study is in whose directory the file is, as ``kdtool watch`` does."""
    from kdtool import api
    from kdtool.cli.commands.watch import lines
    from kdtool.cli.output import as_json

    state = api.watch(path.parent)
    return lines(state), as_json(state)


def recipe(path: Path) -> Any:
    """Read the recipe of a study."""
    from kdtool.study.recipe import read_recipe

    return [command.words(path.parent) for command in read_recipe(path).commands]


def training_recipe(path: Path) -> Any:
    """Read the recipe of a training."""
    from kdtool.training.recipes.reading import Recipe

    return Recipe.parse(str(path))


def measurements(path: Path) -> Any:
    """Read measurements of another device."""
    from kdtool.exporting.measurement import read_measurements

    return read_measurements(path)


def onnx_file(path: Path) -> dict[Path, int]:
    """Check an ONNX file, which comes before it runs in a process of its own."""
    from kdtool.exporting.onnx_limits import check_file

    return check_file(path)


def table(path: Path) -> Any:
    """Read a list of files and labels."""
    from kdtool_datasets.tables import read_table

    return read_table(path, path.name)


def cifar(path: Path) -> Any:
    """Read a batch of CIFAR."""
    from kdtool_datasets.cifar import read

    return read([path], "labels")


def idx(path: Path) -> Any:
    """Read images of MNIST."""
    from kdtool_datasets.idx import read_idx

    return read_idx(path.with_name("images"), 3)


def saved(value: Any, *, zipped: bool = True) -> bytes:
    """Return what `torch.save` writes."""
    content = io.BytesIO()
    torch.save(value, content, _use_new_zipfile_serialization=zipped)
    return content.getvalue()


def images() -> list[bytes]:
    """Return an image in each form that is read."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, 24, 4), dtype=np.uint8)
    rgb, gray = Image.fromarray(pixels[..., :3].copy()), Image.fromarray(pixels[..., 0].copy())
    palette, rgba = rgb.convert("P"), Image.fromarray(pixels)
    deep = Image.fromarray(random.integers(0, 65536, (20, 24), dtype=np.uint16))
    many: list[tuple[Any, str, dict[str, Any]]] = [
        *((rgb, name, {}) for name in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")),
        (gray, "JPEG", {"progressive": True}),
        *((rgba, name, {}) for name in ("PNG", "WEBP", "TIFF")),
        *((palette, name, {}) for name in ("PNG", "GIF", "TIFF", "BMP")),
        *((deep, name, {}) for name in ("PNG", "TIFF", "PPM")),
        *((rgb, "TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
        (rgb, "GIF", {"save_all": True, "append_images": [rgb, gray.convert("RGB")]}),
        (gray.convert("1"), "TIFF", {"compression": "group4"}),
        (gray.convert("F"), "TIFF", {}),
        (rgb.convert("CMYK"), "JPEG", {}),
    ]
    files = []
    for picture, form, options in many:
        content = io.BytesIO()
        picture.save(content, form, **options)
        files.append(content.getvalue())
    return files


RECIPE = b"""[study]
name = "seeds"
[matrix]
seed = [0, 1]
ratio = [0.5, 0.8]
[[step]]
name = "teacher"
run = "teacher kdtool:lenet-300-100 --data digits --seed {seed}"
[[step]]
name = "pruned"
from = "teacher"
run = "prune --ratio {ratio}"
[[compare]]
of = ["teacher", "pruned"]
"""

TRAINING = b"""about = "short"
[training]
epochs = 3
lr = 1e-3
optimizer = "adam"
[data]
augment = "none"
"""

ROWS = [
    {"phase": "kd", "epoch": number, "loss": 1 / number, "val_loss": 0.5, "val_accuracy": 0.5, "lr": 1e-3, "seconds": 1}
    for number in range(1, 5)
]

RUN = {"command": "distill", "method": "kd", "options": {}, "training": {"epochs": 4}, "data": {}, "finished": False}

RESULTS = {
    **{
        name: [{"step": "a", "values": {"seed": 0, "ratio": ratio}, "accuracy": ratio} for ratio in (0.5, 0.8)]
        for name in ("rows", "means", "comparisons", "comparison_means", "failed")
    },
    **{"study": "s", "directory": "s.study", "not_run": []},
}

COST = {"seconds": 2.0, "cpu_seconds": 2.0}

FORECAST = {
    **{"phases": [{"name": "kd", "epochs": 4, "steps": 9, "cost": COST}], "cost": COST, "memory_bytes": 9},
    **{"gpu_bytes": 0, "disk_bytes": 9, "at_most": False, "timed_steps": 3, "reason": "", "processes": 1, "steps": 36},
}

RECORD = {
    **{"format": "kdtool-study", "comparisons": {"a b": {"made": ["x", "y"]}}},
    "commands": {"a": {"told": {"command": ["teacher"], "inputs": {}}, "status": "begun", "seconds": 1.0, "row": {}}},
}

MEASURED = {"format": "kdtool-latency", "p50_ms": 1.0, "p90_ms": 2.0, "batch": 1, "threads": 1}


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()

OF_METRICS, OF_RECORDS = {"run.json": json.dumps(RUN).encode()}, {"metrics.jsonl": LINES}

OF_RUNS = OF_METRICS | OF_RECORDS

OF_RESULTS = {"study.json": json.dumps({"format": "kdtool-study", "commands": {}, "comparisons": {}}).encode()}


def targets() -> list[Target]:
    """Return everything that is attacked."""
    whole = [path.read_bytes() for path in sorted(OLD.glob("*.pt"))]
    plain = [torch.load(io.BytesIO(content), weights_only=True) for content in whole]
    state = {"fc.weight": torch.ones(4, 3), "fc.bias": torch.zeros(4), "bn.num_batches_tracked": torch.tensor(3)}
    foreign = {"state_dict": state, "epoch": 3, "classes": ["a", "b"], "lr": np.float64(0.1), "args": {"x": [1, 2]}}
    batch = {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 1, 2], "filenames": ["x.png"] * 3}
    pickles = [pickle.dumps(batch, protocol) for protocol in range(6)]
    values = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 4, 4) + bytes(range(32))
    tables = [b"file,label,split\na.png,cat,train\n'b.png',dog,test\n", b"a.png;3\nb.png;4\n"]
    records = [{"file": "a.png", "label": 3}, {"file": "b.png", "label": "x"}]
    safe = save_safetensors(state)
    run, results = json.dumps(RUN).encode(), json.dumps(RESULTS).encode()
    small = [large_png(64, *kind) for kind in KINDS] + [large_file(64, *kind) for kind in SAVED]
    zipped, legacy = saved(foreign), saved(foreign, zipped=False)
    return [
        Target("checkpoints: bytes", "c.pt", of_seeds(whole, changed_bytes), inspect, whole),
        Target("checkpoints: records", "c.pt", of_seeds(whole, changed_archive), inspect, whole),
        Target("checkpoints: plain data", "c.pt", of_values(plain).map(saved), inspect, whole),
        Target("weights: bytes", "w.pth", of_seeds([zipped, legacy], changed_bytes), weights, [zipped, legacy]),
        Target("weights: records", "w.pth", changed_archive(zipped), weights, [zipped]),
        Target("weights: plain data", "w.pth", changed_data(foreign).map(saved), weights, [zipped]),
        Target("weights: safetensors", "w.safetensors", changed_bytes(safe), weights, [safe]),
        Target("images", "i.png", of_seeds(images(), changed_bytes), image, images()),
        Target("large images", "i.png", large_images(), large_image, small, 0.02),
        Target("pickles", "batch", of_seeds(pickles, changed_bytes), cifar, pickles),
        Target("idx", "images", changed_bytes(values), idx, [values]),
        Target("idx: packed", "images.gz", changed_bytes(values).map(gzip.compress), idx, []),
        Target("idx: packed bytes", "images.gz", changed_bytes(gzip.compress(values)), idx, []),
        Target("recipes of studies", "r.toml", changed_bytes(RECIPE), recipe, [RECIPE]),
        Target("recipes of trainings", "t.toml", changed_bytes(TRAINING), training_recipe, [TRAINING]),
        Target("lists of labels", "l.csv", of_seeds(tables, changed_bytes), table, tables),
        Target("lists of labels: JSON", "l.json", of_values([records]).map(as_json), table, [as_json(records)]),
        *(
            Target(f"metrics of a run{name}", "metrics.jsonl", content, report, [LINES], 0.25, OF_METRICS)
            for name, content in {"": changed_bytes(LINES), ": plain data": of_values([ROWS]).map(as_lines)}.items()
        ),
        *(
            Target(f"records of a run{name}", "run.json", content, report, [run], 0.25, OF_RECORDS)
            for name, content in {"": changed_bytes(run), ": plain data": of_values([RUN]).map(as_json)}.items()
        ),
        *(
            Target(f"results of a study{name}", "results.json", content, study, [results], 0.5, OF_RESULTS)
            for name, content in {"": changed_bytes(results), ": plain data": of_values([RESULTS]).map(as_json)}.items()
        ),
        *(
            Target(f"watched {name}", name, of_values([value]).map(form), watched, [form(value)], 0.5, OF_RUNS)
            for name, value, form in (
                *(("forecast.json", FORECAST, as_json), ("run.json", RUN, as_json), ("study.json", RECORD, as_json)),
                ("metrics.jsonl", ROWS, as_lines),
            )
        ),
        Target("ONNX files: before they run", "n.onnx", changed_bytes(network()), onnx_file, [network()]),
        Target("measurements", "m.json", of_values([[MEASURED]]).map(as_json), measurements, [as_json([MEASURED])]),
        *data_targets(),
        *graph_targets(),
    ]


def as_json(value: Any) -> bytes:
    """Return a value in JSON; what has no such form becomes its text."""
    return json.dumps(value, default=repr, skipkeys=True).encode()


def as_lines(rows: Any) -> bytes:
    """Return a line of JSON for each row."""
    return b"".join(as_json(row) + b"\n" for row in rows) if isinstance(rows, list | tuple) else as_json(rows)
