"""Steps whose images are others now; a stand-in for kdtool copies a checkpoint that was made of images."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import kdtool

TRAINED = '[[step]]\nname = "trained"\nrun = "{}"\n'
UNTRAINED = {"epochs": 0, "device": "cpu"}


def draw(folder, seed, names=("cat", "dog")):
    """Write eight images of noise for each class into a folder."""
    noise = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(8):
            pixels = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{seed}-{number}.png")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Work in the first of two folders, which have other images under the same name."""
    monkeypatch.delenv("KDTOOL_DATA", raising=False)
    for seed, name in enumerate(("w1", "w2")):
        draw(tmp_path / name / "photos", seed)
    monkeypatch.chdir(tmp_path / "w1")


@pytest.fixture
def trained(photos, stand_in, tmp_path, monkeypatch):
    """Make a checkpoint of the images, for the stand-in to copy; return its path."""
    path = tmp_path / "trained.pt"
    kdtool.teacher("kdtool:lenet-300-100", data="folder:photos", output=path, **UNTRAINED)
    monkeypatch.setenv("CHECKPOINT", str(path))
    return path


@pytest.mark.parametrize("words", ["teacher --data folder:photos", "teacher --data=folder:photos"])
def test_a_relative_path_is_one_from_the_current_folder(words, trained, stand_in, run, tmp_path, monkeypatch, capsys):
    recipe = TRAINED.format(words)
    run(recipe)
    assert len(stand_in()) == 1
    monkeypatch.chdir(tmp_path / "w2")
    assert run(recipe)["failed"] == []
    assert len(stand_in()) == 1
    assert "trained: its images changed, so it is run again: train: " in capsys.readouterr().err

    # The same images may lie elsewhere.
    monkeypatch.chdir(tmp_path / "w1")
    run(recipe)
    stand_in()
    shutil.copytree("photos", tmp_path / "w3" / "photos")
    monkeypatch.chdir(tmp_path / "w3")
    run(recipe)
    assert stand_in() == []


def test_a_relative_data_directory_is_one_from_the_current_folder(trained, stand_in, run, tmp_path, monkeypatch):
    recipe = TRAINED.format("teacher --data folder:photos --data-dir sub")
    for name in ("w1", "w2"):
        (tmp_path / name / "sub").mkdir()
        (tmp_path / name / "photos").rename(tmp_path / name / "sub" / "photos")
    run(recipe)
    stand_in()
    run(recipe)
    assert stand_in() == []
    monkeypatch.chdir(tmp_path / "w2")
    run(recipe)
    assert len(stand_in()) == 1


def test_the_data_sets_are_looked_for_where_the_command_looks(trained, stand_in, run, tmp_path, monkeypatch):
    recipe = TRAINED.format("teacher --data folder:photos")
    run(recipe)
    stand_in()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for name, calls in (("w1", 0), ("w2", 1)):
        monkeypatch.setenv("KDTOOL_DATA", str(tmp_path / name))
        run(recipe)
        assert len(stand_in()) == calls


def test_images_without_labels_count(trained, stand_in, run, tmp_path, monkeypatch, capsys):
    draw(tmp_path / "w1" / "more", 5, names=("any",))
    kdtool.prune(trained, ratio=0.5, unlabelled="folder:more", output=tmp_path / "pruned.pt", **UNTRAINED)
    monkeypatch.setenv("CHECKPOINT", str(tmp_path / "pruned.pt"))
    recipe = TRAINED.format("prune --unlabelled folder:more")
    run(recipe)
    stand_in()
    run(recipe)
    assert stand_in() == []
    draw(tmp_path / "w1" / "more", 6, names=("any",))
    run(recipe)
    assert len(stand_in()) == 1
    assert "its images changed, so it is run again: unlabelled: 8 added (" in capsys.readouterr().err


def test_the_images_of_a_repair_are_not_those_of_the_checkpoint(trained, stand_in, run, tmp_path, monkeypatch):
    draw(tmp_path / "w1" / "others", 7)
    options = {"init": "inherit", "repair": "statistics", "data": "folder:others"}
    kdtool.refine(trained, "halve", output=tmp_path / "half.pt", **options)
    monkeypatch.setenv("CHECKPOINT", str(tmp_path / "half.pt"))
    recipe = TRAINED.format("refine --repair statistics --data folder:others")
    for folder, calls in ((None, 1), (None, 0), ("photos", 0), ("others", 1)):
        if folder is not None:
            draw(tmp_path / "w1" / folder, 8)
        run(recipe)
        assert len(stand_in()) == calls


def begun(trained, directory):
    """Turn the run that trained the network into one that a step began and did not finish."""
    run = directory / "trained.run"
    shutil.rmtree(run)
    shutil.copytree(trained.with_suffix(".run"), run)
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "finished": False}))


def test_what_was_begun_with_other_images_begins_anew(trained, stand_in, run, tmp_path, capsys):
    recipe = TRAINED.format("teacher fail --data folder:photos")
    assert len(run(recipe)["failed"]) == 1
    begun(trained, tmp_path / "recipe.study")
    (tmp_path / "calls.mended").touch()
    os.remove(tmp_path / "w1" / "photos" / "cat" / "0-0.png")
    stand_in()
    assert run(recipe)["failed"] == []
    assert stand_in() == ["teacher fail --data folder:photos -o trained.pt"]
    assert not (tmp_path / "recipe.study" / "trained.run" / "run.json").exists()
    error = capsys.readouterr().err
    assert "trained: cannot go on, so it begins anew: its images changed: " in error
    assert "1 gone (cat/0-0.png)" in error


def test_what_was_begun_with_the_same_images_goes_on(trained, stand_in, run, tmp_path):
    for words in ("teacher fail --data folder:photos", "teacher fail"):
        recipe = TRAINED.format(words)
        (tmp_path / "calls.mended").unlink(missing_ok=True)
        run(recipe)
        begun(trained, tmp_path / "recipe.study")
        (tmp_path / "calls.mended").touch()
        stand_in()
        assert run(recipe)["failed"] == []
        assert stand_in() == [f"{words} -o trained.pt --resume"]


@pytest.mark.parametrize(
    "words", ["--data folder:photos --data-dir {}", "--data folder:{}/photos", "--data=folder:{}/photos"]
)
def test_a_recipe_may_name_another_directory_of_the_same_images(words, trained, stand_in, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = TRAINED.format(f"teacher fail {words}")
    shutil.copytree(tmp_path / "w1", tmp_path / "w3")
    run(recipe.format(tmp_path / "w1"))
    begun(trained, tmp_path / "recipe.study")
    (tmp_path / "calls.mended").touch()
    stand_in()
    assert run(recipe.format(tmp_path / "w3"))["failed"] == []
    assert [line.endswith("--resume") for line in stand_in()] == [True]
    for place, calls in (("w1", 0), ("w2", 1), ("none", 1)):  # the same, others, and no images
        run(recipe.format(tmp_path / place))
        assert len(stand_in()) == calls
