"""Data that users bring, on the command line: the right number, or one line that names what is wrong."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import kdtool
from kdtool.cli.main import cli
from kdtool.data import checks

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)]


def make(root, parts, *, seed=0, size=8):
    """Write images whose colour tells the class: ``parts`` are numbers of images by the path of a class folder."""
    draw = np.random.default_rng(seed)
    names = sorted({part.split("/")[-1] for part in parts})
    for part, count in parts.items():
        colour = np.array(COLOURS[names.index(part.split("/")[-1])], float)
        (root / part).mkdir(parents=True)
        for number in range(count):
            pixels = colour + draw.normal(0, 25, (size, size, 3))
            Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(root / part / f"{number:03d}.png")


FRUIT = {f"{part}/{name}": count for part, count in (("train", 30), ("test", 10)) for name in ("apple", "berry", "fig")}

NETWORK = "kdtool:lenet-300-100 --in-channels 3 --batch-size 16"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDTOOL_CACHE", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    checks._tell.cache_clear()
    return tmp_path


@pytest.fixture
def said(caplog):
    """What the last command logged."""
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


@pytest.fixture
def run(here, caplog):
    def invoke(line, code=0):
        checks._tell.cache_clear()
        caplog.clear()
        result = CliRunner().invoke(cli, line.split())
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        if code:
            errors = [text for text in result.stderr.splitlines() if text.startswith("Error: ")]
            assert len(errors) == 1
            return errors[0]
        return result

    return invoke


def accuracy(run, line):
    return json.loads(run(f"evaluate --json {line}").stdout)[0]["accuracy"]


def classes(path):
    return list(kdtool.load(path).data.classes)


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("TRAINING", "testing"), ("train_set", "test_set"), ("training-set", "TEST")]
)
def test_split_names_in_any_case_and_spelling(run, here, train, test):
    make(here / "d", {f"{part}/{name}": 6 for part in (train, test) for name in ("cat", "dog")})
    run(f"teacher {NETWORK} --data folder:d --epochs 1 -o t.pt")
    assert classes("t.pt") == ["cat", "dog"]
    assert kdtool.load("t.pt").data.splits["test"]["images"] == 12


def test_classes_are_known_by_name_in_every_command(run, here):
    make(here / "A", FRUIT)
    run(f"teacher {NETWORK} --data folder:A --epochs 8 --seed 1 -o A.pt")
    assert accuracy(run, "A.pt") == 1.0
    # The same images with one class renamed so that its folder comes first.
    shutil.copytree("A", "C")
    for part in ("train", "test"):
        os.rename(f"C/{part}/berry", f"C/{part}/Berry")
    for line in (
        "evaluate A.pt --data folder:C",
        "prune A.pt --data folder:C --ratio 0.1 --epochs 0 -o P.pt",
        "distill A.pt --data folder:C --refiner halve --epochs 0 -o S.pt",
        "compare A.pt A.pt --data folder:C",
    ):
        assert "'Berry' for 'berry' (another case)" in run(line, code=1)
    run(f"teacher {NETWORK} --data folder:C --epochs 8 --seed 1 -o C.pt")
    assert "'berry' for 'Berry'" in run("distill C.pt --student A.pt --epochs 0 -o S.pt", code=1)
    assert not list(here.glob("[PS].pt"))


def test_a_deleted_file_moves_no_image_into_the_test_split(run, here, said):
    make(here / "flat", {"a": 60, "b": 60})
    run(f"teacher {NETWORK} --data folder:flat --epochs 1 --validation 0.1 -o n.pt")
    before = json.loads(run("inspect --json --data folder:flat").stdout)["splits"]
    victim = "a/000.png"
    os.remove(f"flat/{victim}")
    after = json.loads(run("inspect --json --data folder:flat").stdout)["splits"]
    assert sum(split["images"] for split in after.values()) == 119
    changed = [name for name in before if before[name]["hash"] != after[name]["hash"]]
    assert len(changed) == 1
    run("evaluate n.pt")
    assert f"{changed[0]}: 1 gone ({victim})" in said()
    assert "trained on" not in said()


def test_a_resume_with_other_images_is_refused(run, here, monkeypatch):
    make(here / "flat", {"a": 20, "b": 20})
    line = f"teacher {NETWORK} --data folder:flat --epochs 2 -o n.pt"
    run(line)
    shutil.copytree("n.run", "kept.run")
    name = next(path for path in sorted((here / "flat/a").iterdir()))
    Image.new("RGB", (8, 8), (1, 2, 3)).save(name)
    error = run(f"{line} --resume", code=2)
    assert "--resume needs the same images" in error
    assert f"1 changed (a/{name.name})" in error
    assert (here / "n.pt").exists()


@pytest.mark.slow
def test_a_study_runs_the_steps_again_whose_images_changed(run, here):
    make(here / "flat", {"a": 20, "b": 20})
    (here / "r.toml").write_text(
        f'[[step]]\nname = "t"\nrun = "teacher {NETWORK} --data folder:{here}/flat --epochs 1"\n'
    )
    assert "t: begins" in run("run r.toml -o out").stderr
    assert "t: begins" not in run("run r.toml -o out").stderr
    os.remove("flat/b/003.png")
    again = run("run r.toml -o out").stderr
    assert re.search(r"t: its images changed, so it is run again: \w+: 1 gone \(b/003.png\)", again)
    assert "t: begins" in again
    assert "t: begins" not in run("run r.toml -o out").stderr


@pytest.mark.parametrize(("kind", "scale"), [("uint16", 1), ("int32", 1), ("uint16", 257), ("uint16", 16)])
def test_the_range_of_deep_images_is_found_from_all_of_them(run, here, kind, scale):
    draw = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 10)):
        for label in (0, 1):
            folder = here / "d" / part / str(label)
            folder.mkdir(parents=True)
            for number in range(count):
                wave = np.sin(np.arange(16) * (0.4, 1.6)[label])
                values = (np.tile(wave, (16, 1)) * 0.4 + 0.5 + draw.normal(0, 0.05, (16, 16))).clip(0, 1) * 255 * scale
                Image.fromarray(values.astype(kind)).save(folder / f"{number}.tif")
    run("teacher kdtool:lenet-300-100 --batch-size 8 --data folder:d --epochs 10 -o t.pt")
    assert accuracy(run, "t.pt") >= 0.9
    assert kdtool.load("t.pt").data.white == {1: 255, 257: 65535, 16: 4095}[scale]


def test_gray_or_colour_is_decided_from_all_files(run, here, said):
    make(here / "m", {f"{part}/{name}": 60 for part in ("train", "test") for name in ("red", "green")})
    for number, path in enumerate(sorted((here / "m/train").rglob("*.png"))):
        if number % 10 != 5:
            Image.open(path).convert("L").save(path)
    run("teacher kdtool:lenet-300-100 --data folder:m --epochs 1 -o m.pt")
    assert kdtool.load("m.pt").architecture.input[0] == 3
    assert "108 of 240 images are gray; all are read in colour" in said()


@pytest.mark.parametrize("name", ["写真\u3000二四", "a\u00a0b", "a b", "\u202eabc", "e\u0301"])
def test_any_space_and_letter_in_a_path(run, here, name):
    make(here / name, {f"{part}/{label}": 6 for part in ("train", "test") for label in ("x", "y")})
    words = f"teacher {NETWORK} --epochs 1 -o q.pt --data".split()
    result = CliRunner().invoke(cli, [*words, f"folder:{name}"])
    assert result.exit_code == 0, result.output
    assert accuracy(run, "q.pt") >= 0


def test_each_real_file_counts_once(run, here):
    make(here / "loop", {"a": 10, "b": 10})
    os.symlink("..", here / "loop/a/up")
    os.symlink("000.png", here / "loop/b/again.png")
    about = json.loads(run("inspect --json --data folder:loop").stdout)
    assert sum(split["images"] for split in about["splits"].values()) == 20
    os.symlink(here / "loop/a", here / "loop/b/other")
    assert "are the same file in two classes" in run("inspect --data folder:loop", code=1)


def test_nothing_is_started_for_an_image(run, here, monkeypatch):
    (here / "bin").mkdir()
    (here / "bin/gs").write_text(f'#!/bin/sh\ntouch "{here}/STARTED"\n')
    (here / "bin/gs").chmod(0o755)
    make(here / "data", {"a": 6, "b": 6})
    (here / "data/a/003.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    monkeypatch.setenv("PATH", f"{here}/bin:{os.environ['PATH']}")
    assert "003.png" in run(f"teacher {NETWORK} --data folder:data --epochs 1 -o e.pt", code=1)
    assert not (here / "STARTED").exists()
    assert not (here / "e.pt").exists()


def test_inspect_shows_the_whole_of_a_data_set(run, here):
    make(here / "d", FRUIT)
    shutil.copy("d/train/apple/000.png", "d/test/apple/copy.png")
    (here / "d/train/fig/notes.txt").write_text("x")
    (here / "d/train/fig/broken.png").write_bytes(b"x")
    about = json.loads(run("inspect --json --data folder:d").stdout)
    assert about["classes"] == ["apple", "berry", "fig"]
    assert about["splits"]["test"]["classes"] == {"apple": 11, "berry": 10, "fig": 10}
    assert about["sizes"] == {"width": [8, 8], "height": [8, 8]}
    assert about["modes"] == {"RGB": 121}
    assert [entry["file"] for entry in about["unreadable"]] == ["train/fig/broken.png"]
    [double] = [entry for entry in about["duplicates"] if entry["of"] == "test"]
    assert (double["images"], double["second"]) == (1, "test/apple/copy.png")
    assert any("txt" in note for note in about["notes"])
    text = run("inspect --data folder:d").stdout
    for words in ("apple", "broken.png", "byte for byte", "txt"):
        assert words in text


def test_inspect_compares_with_the_splits_of_the_checkpoint(run, here):
    make(here / "flat", {"a": 30, "b": 30})
    run(f"teacher {NETWORK} --data folder:flat --epochs 1 --validation 0.3 --split-seed 4 -o n.pt")
    assert json.loads(run("inspect --json n.pt --data folder:flat").stdout)["changes"] == []
    os.remove("flat/b/011.png")
    [change] = json.loads(run("inspect --json n.pt --data folder:flat").stdout)["changes"]
    assert change.endswith(": 1 gone (b/011.png)")
    shutil.copytree("flat", "moved")
    told = json.loads(run("inspect --json n.pt --data folder:moved --split-seed 9").stdout)["changes"]
    assert all("the checkpoint was trained on" in text for text in told)
    assert any(text.startswith("val: ") for text in told)
