"""A run goes on where its images lie in another directory now, if they are the same images."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import kdtool
from kdtool.commands.processes import _differences
from kdtool.data.dataset import without_path
from kdtool.data.fingerprint import moved
from kdtool.training.phase import Phase

KIND = "kdtool:lenet-300-100"


class Die(BaseException):
    """Stands for a kill."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Make images in the directory A, and work beside it."""
    monkeypatch.delenv("KDTOOL_DATA", raising=False)
    noise = np.random.default_rng(0)
    for folder in ("photos/cat", "photos/dog", "more/any"):
        (tmp_path / "A" / folder).mkdir(parents=True)
        for number in range(8):
            pixels = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "A" / folder / f"{number}.png")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def train(directory, **options):
    options = {"epochs": 2, "device": "cpu", "data": "folder:photos", "output": "t.pt", **options}
    return kdtool.teacher(KIND, data_dir=directory, resume=True, **options)


def dies_after_an_epoch(work):
    with pytest.MonkeyPatch.context() as patched:
        save = Phase.save

        def save_then_die(self, state):
            save(self, state)
            raise Die

        patched.setattr(Phase, "save", save_then_die)
        with pytest.raises(Die):
            work()


def epochs():
    return [json.loads(line)["epoch"] for line in open("t.run/metrics.jsonl", encoding="utf-8")]


def test_a_run_goes_on_with_the_same_images_in_another_directory(here, capsys):
    dies_after_an_epoch(lambda: train(here / "A"))
    assert epochs() == [1]
    (here / "A").rename(here / "B")
    checkpoint = train(here / "B")
    assert epochs() == [1, 2]
    assert checkpoint.data.name == f"folder:{here / 'B' / 'photos'}"
    (here / "B").rename(here / "C")
    capsys.readouterr()
    train(here / "C")  # which is finished
    assert epochs() == [1, 2]

    (here / "C" / "photos/cat/0.png").unlink()
    (here / "C").rename(here / "D")
    with pytest.raises(kdtool.UsageError, match=r"t\.run: --resume needs the same images: .*1 gone \(cat/0\.png\)"):
        train(here / "D")
    with pytest.raises(kdtool.UsageError, match=r"--resume needs the same command: .*data\.name was"):
        train(here / "D", data="digits")


def test_a_run_that_recorded_no_images_stays_with_its_directory(here):
    dies_after_an_epoch(lambda: train(here / "A"))
    with open("t.run/run.json", encoding="utf-8") as file:
        about = json.load(file)
    del about["data"]["splits"]
    with open("t.run/run.json", "w", encoding="utf-8") as file:
        json.dump(about, file)
    (here / "A").rename(here / "B")
    with pytest.raises(kdtool.UsageError, match="--resume needs the same command: data.name was"):
        train(here / "B")


def test_images_without_labels_may_lie_elsewhere_too(here):
    def prune(place, **options):
        return kdtool.prune(
            *("t.pt",), ratio=0.5, unlabelled=f"folder:{here / place / 'more'}", data_dir=here / place, output="p.pt",
            resume=True, epochs=1, device="cpu",
        )  # fmt: skip

    train(here / "A", epochs=0)
    first = prune("A")
    (here / "A").rename(here / "B")
    assert prune("B").history[-1] == first.history[-1]
    (here / "B" / "more/any/0.png").unlink()
    with pytest.raises(kdtool.UsageError, match="--resume needs the same command: unlabelled.images was 8, now 7"):
        prune("B")


@pytest.mark.slow
def test_a_study_goes_on_with_the_same_images_in_another_directory(here, monkeypatch):
    recipe = here / "work" / "r.toml"
    words = f"teacher {KIND} --data folder:photos --epochs 40 --lr 1e-4"
    steps = f'[[step]]\nname = "t"\nrun = "{words}"\n'
    recipe.write_text(steps + '[[step]]\nname = "s"\nfrom = "t"\nrun = "distill --refiner halve --epochs 1"\n')
    log = here / "work" / "r.study" / "t.run" / "metrics.jsonl"
    line = [sys.executable, "-P", "-m", "kdtool", "run", str(recipe)]

    def start(place):
        monkeypatch.setenv("KDTOOL_DATA", str(here / place))
        return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)

    study = start("A")
    while not log.exists() or not log.read_text().count("\n"):
        assert study.poll() is None, study.communicate()
        time.sleep(0.01)
    os.killpg(study.pid, signal.SIGKILL)
    study.communicate()
    (here / "A").rename(here / "B")
    study = start("B")
    _, error = study.communicate()
    assert study.returncode == 0, error
    assert "begins anew" not in error
    assert [json.loads(row)["epoch"] for row in log.read_text().splitlines()] == list(range(1, 41))


def test_processes_may_read_the_same_images_from_different_directories():
    splits = {"train": {"images": 1, "hash": "0" * 32}}
    first, other = ({"data": {"name": f"folder:/{place}/photos", "splits": splits}} for place in "AB")
    assert _differences(moved(first, other), other) == []
    other["data"]["splits"] = {"train": {"images": 1, "hash": "1" * 32}}
    assert _differences(moved(first, other), other) == [
        "images of train: other images or labels, as many as before (1)"
    ]
    assert moved({"data": None, "unlabelled": [1]}, other) == {"data": None, "unlabelled": [1]}


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("folder:/A/photos", "folder:/B/pictures", True),
        ("parquet:/A/p.parquet,label=breed", "parquet:/B/p.parquet,label=breed", True),
        ("parquet:/A/p.parquet,label=breed", "parquet:/B/p.parquet,label=kind", False),
        ("parquet:/A/p.parquet,label=breed", "parquet:/B/p.parquet", False),
        ("folder:/A/photos", "parquet:/A/photos", False),
        ("imagenette:160", "imagenette:320", False),
        ("other:/A/photos", "other:/B/photos", False),
        ("digits", "digits", True),
    ],
)
def test_a_path_is_all_that_may_differ(first, second, alike):
    assert (without_path(first) == without_path(second)) is alike
