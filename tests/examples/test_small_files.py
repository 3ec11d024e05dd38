"""The recipes for data sets that are too large for a test run on a few images in the real formats, for one epoch."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def shortened(name, *replacements):
    """Return a recipe's text with one value for each word of its matrix, one epoch and the given replacements."""
    text = (EXAMPLES / name).read_text()
    text = re.sub(r"^method = \[.*\]", 'method = ["kd"]', text, flags=re.MULTILINE)
    text = re.sub(r"^(seed|width|subset|ratio) = \[(?:.*, )?([^,]+)\]", r"\1 = [\2]", text, flags=re.MULTILINE)
    for pattern, replacement in [(r"--epochs [1-9]\d*", "--epochs 1"), *replacements]:
        text, count = re.subn(pattern, replacement, text)
        assert count, pattern
    return text


def run(folder, text):
    (folder / "recipe.toml").write_text(text)
    command = [sys.executable, "-m", "kdtool", "run", str(folder / "recipe.toml"), "-o", str(folder / "study")]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def with_weights_of_resnet34(folder, monkeypatch):
    """Put weights where torchvision looks for those that it has downloaded, and return them."""
    (folder / "hub/checkpoints").mkdir(parents=True)
    url = torchvision.models.ResNet34_Weights.IMAGENET1K_V1.url
    torch.manual_seed(0)
    weights = torchvision.models.resnet34().state_dict()
    torch.save(weights, folder / "hub/checkpoints" / url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(folder))
    return weights


@pytest.mark.slow  # three networks of up to 7 M parameters learn 200 images
def test_cifar100_in_pythons_format(tmp_path, monkeypatch):
    root = tmp_path / "data/cifar-100-python"
    root.mkdir(parents=True)
    names = [f"class {number}" for number in range(100)]
    (root / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    for file, count in (("train", 300), ("test", 100)):
        rows = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = [number % 100 for number in range(count)]
        (root / file).write_bytes(pickle.dumps({"fine_labels": labels, "data": rows}))
    monkeypatch.setenv("KDTOOL_DATA", str(tmp_path / "data"))
    run(tmp_path, shortened("recipes/cifar100.toml", ("--validation 0.02", "--validation 0.34")))
    made = {path.stem for path in (tmp_path / "study").glob("*.pt")}
    assert {name.partition("_")[0] for name in made} == {"resnet56", "resnet20", "resnet32x4", "resnet8x4", "patient"}


@pytest.mark.slow  # ResNet-34 and ResNet-18 see 2,000 images
def test_imagenet_in_folders_with_torchvisions_weights(tmp_path, monkeypatch):
    for split in ("train", "val"):
        for number in range(1000):
            folder = tmp_path / f"data/imagenet/{split}/n{number:08d}"
            folder.mkdir(parents=True)
            pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{split}_{number}.JPEG")
    weights = with_weights_of_resnet34(tmp_path, monkeypatch)
    monkeypatch.setenv("KDTOOL_DATA", str(tmp_path / "data"))
    # 32 instead of 224 pixels: the same code in a fiftieth of the time.
    run(
        tmp_path,
        shortened("recipes/imagenet.toml", ("--data folder:imagenet", "--data folder:imagenet --image-size 32")),
    )
    saved = torch.load(next((tmp_path / "study").glob("resnet34*.pt")), weights_only=True)
    assert torch.equal(saved["weights"]["conv1.weight"], weights["conv1.weight"])


@pytest.mark.slow  # ResNet-34 and five students see 60 images
def test_stagewise_on_imagenettes_folders(tmp_path, monkeypatch):
    classes = ["01440764", "02102040", "02979186", "03000684", "03028079"]
    classes += ["03394916", "03417042", "03425413", "03445777", "03888257"]
    for split, count in (("train", 5), ("val", 1)):
        for number, name in enumerate(classes):
            folder = tmp_path / f"data/imagenette2-320/{split}/n{name}"
            folder.mkdir(parents=True)
            for image in range(count):
                pixels = np.random.default_rng((number, image)).integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"n{name}_{split}_{image}.JPEG")
    with_weights_of_resnet34(tmp_path, monkeypatch)
    monkeypatch.setenv("KDTOOL_DATA", str(tmp_path / "data"))
    smaller = [("--image-size 224", "--image-size 32"), (r"layers = \[.*\]", "layers = [10]")]
    run(tmp_path, shortened("stagewise/imagenette.toml", *smaller))
    made = {path.stem.partition("_")[0] for path in (tmp_path / "study").glob("*.pt")}
    assert made == {"teacher", "stagewise", "simultaneous", "none", "simultaneous-equal", "none-equal"}


@pytest.mark.slow  # ResNet-34 sees 50 images, and is pruned three times
def test_distillation_against_pruning_in_cifar10s_format(tmp_path, monkeypatch):
    root = tmp_path / "data/cifar-10-batches-py"
    root.mkdir(parents=True)
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {number}" for number in range(10)]}))
    for number, file in enumerate([*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]):
        rows = np.random.default_rng(number).integers(0, 256, (10, 3072), dtype=np.uint8)
        (root / file).write_bytes(pickle.dumps({"labels": [*range(10)], "data": rows}))
    monkeypatch.setenv("KDTOOL_DATA", str(tmp_path / "data"))
    smaller = [("--keep-epoch 2", "--keep-epoch 1"), ("--batch-size 128", "--batch-size 16")]
    run(tmp_path, shortened("distill-vs-prune-cifar10/recipe.toml", *smaller))
    made = {path.stem.partition("_")[0] for path in (tmp_path / "study").glob("*.pt")}
    assert made == {"teacher", "pruned", "pruned-taught", "small", "distilled", "lottery"}
