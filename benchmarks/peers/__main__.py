"""Logit distillation by kdtool, by torchdistill and by a plain PyTorch loop: wall time, CPU time and accuracy.

A ResNet-34 of torchvision, trained by kdtool, teaches a ResNet-18 on folders of 32-pixel images (`cifar10/train` and
`cifar10/test`, one folder for each class, in KDTOOL_DATA): same images, teacher, loss, optimiser, batch, epochs and
augmentation. The three run in turn, each as its own process, with what they bring by default; the peers get two threads
and fp32. Prints medians of the paired ratios. Goals: 0.6 of torchdistill's wall time and 0.75 of the plain loop's.

torchdistill is taken from an environment of its own, which is made where `--torchdistill` names none.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import torch

import kdtool

HERE = Path(__file__).parent
SPLITS = {"train": "train", "val": "test", "test": "test"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchdistill", type=Path, metavar="PYTHON", help="interpreter that can import torchdistill")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=5000, help="training images")
    parser.add_argument("--stem", choices=("default", "small"), default="default")
    parser.add_argument("--precision", default="auto", help="of kdtool")
    parser.add_argument("--workers", type=int, default=0, help="loader processes of the peers")
    return parser.parse_args()


def some_images(source, scratch, images):
    """Copy a part of the images of each class into train, val and test, and return their folder."""
    for split, count, first in (("train", images // 10, 0), ("val", 100, 0), ("test", 100, 100)):
        for folder in sorted(path for path in (source / SPLITS[split]).iterdir() if path.is_dir()):
            target = scratch / "images" / split / folder.name
            target.mkdir(parents=True)
            for path in sorted(folder.iterdir())[first : first + count]:
                (target / path.name).write_bytes(path.read_bytes())
    return scratch / "images"


def environment_of_torchdistill(scratch):
    """Install torchdistill into an environment of its own, and return its interpreter."""
    venv.create(scratch / "torchdistill", with_pip=True)
    python = scratch / "torchdistill" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "torchdistill==1.1.5"], check=True)
    return python


def timed(command, threads):
    """Run a command, and return its wall-clock seconds, its CPU seconds and its last line."""
    variables = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, result.stdout.strip().splitlines()[-1:]


def main():
    chosen = arguments()
    source = Path(os.environ.get("KDTOOL_DATA", ".")).resolve() / "cifar10"
    if not (source / "train").is_dir():
        print("nothing measured: the folders cifar10/train and cifar10/test are not in KDTOOL_DATA")
        return
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["KDTOOL_CACHE"] = str(scratch / "cache")
        python = chosen.torchdistill or environment_of_torchdistill(scratch)
        data = {"data": f"folder:{some_images(source, scratch, chosen.images)}", "stem": chosen.stem}
        teacher = kdtool.teacher(
            "torchvision:resnet34", output=scratch / "teacher.pt", epochs=8, recipe="standard", lr=0.02, **data
        )
        torch.save({"model": teacher.module.state_dict()}, scratch / "weights.pt")
        settings = {
            "data": str(scratch / "images"),
            "weights": str(scratch / "weights.pt"),
            "teacher": "resnet34",
            "student": "resnet18",
            "stem": chosen.stem,
            "mean": list(teacher.data.mean),
            "std": list(teacher.data.std),
            "batch": 64,
            "lr": 0.05,
            "decay": 5e-4,
            "alpha": 0.9,
            "temperature": 4.0,
            "epochs": chosen.epochs,
            "workers": chosen.workers,
        }
        results = {"kdtool": [], "torchdistill": [], "plain": []}
        for seed in range(chosen.rounds):
            file = scratch / "settings.json"
            file.write_text(json.dumps({**settings, "seed": seed}), encoding="utf-8")
            student = scratch / f"student-{seed}.pt"
            ours = [sys.executable, "-m", "kdtool", "distill", scratch / "teacher.pt", "--method", "kd"]
            ours += ["--student", "torchvision:resnet18", "--stem", chosen.stem, "--epochs", chosen.epochs]
            ours += ["--optimizer", "sgd", "--lr", settings["lr"], "--weight-decay", settings["decay"]]
            ours += ["--batch-size", settings["batch"], "--precision", chosen.precision, "--seed", seed, "-o", student]
            wall, cpu, _ = timed([str(word) for word in ours], None)
            results["kdtool"].append((wall, cpu, kdtool.evaluate(student)[0]["accuracy"]))
            for peer, command in (
                ("torchdistill", [python, HERE / "with_torchdistill.py", file]),
                ("plain", [sys.executable, HERE / "plain.py", file]),
            ):
                wall, cpu, last = timed([str(word) for word in command], os.cpu_count())
                results[peer].append((wall, cpu, json.loads(last[0])["accuracy"]))
            print(f"seed {seed}: {json.dumps({who: rows[-1] for who, rows in results.items()})}", flush=True)
    for peer in ("torchdistill", "plain"):
        wall, cpu = (
            statistics.median(
                ours[kind] / theirs[kind] for ours, theirs in zip(results["kdtool"], results[peer], strict=True)
            )
            for kind in (0, 1)
        )
        print(f"kdtool / {peer}: wall time {wall:.2f}, CPU time {cpu:.2f}")
    accuracies = ", ".join(f"{who} {statistics.mean(row[2] for row in rows):.3f}" for who, rows in results.items())
    print(f"mean test accuracy: {accuracies}")


if __name__ == "__main__":
    main()
