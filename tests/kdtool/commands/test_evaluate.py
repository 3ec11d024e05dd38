from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

import kdtool
from kdtool.cli.main import cli


def test_more_than_the_accuracy(teacher_path: Path, digits) -> None:
    row = kdtool.evaluate(teacher_path, per_class=True)[0]

    logits, labels = [], []
    module = kdtool.load(teacher_path).module
    for _, images, target in digits.test.batches(64):
        logits += module(images).detach().tolist()
        labels += target.tolist()
    answers = [max(range(10), key=scores.__getitem__) for scores in logits]
    assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, answers))
    assert row["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5))
    assert [about["class"] for about in row["classes"]] == list("0123456789")
    assert sum(about["images"] for about in row["classes"]) == row["images"]
    right = sum(row["confusion"][number][number] for number in range(10))
    assert right / row["images"] == pytest.approx(row["accuracy"])


def test_without_being_asked_there_is_no_table_of_classes(teacher_path: Path) -> None:
    assert not {"classes", "confusion"} & {*kdtool.evaluate(teacher_path)[0]}


def test_the_command_shows_classes_and_draws_confusions(teacher_path: Path, tmp_path: Path) -> None:
    picture = tmp_path / "confusion.png"
    words = ["evaluate", str(teacher_path), "--per-class", "-o", str(picture)]

    result = CliRunner().invoke(cli, words)

    assert result.exit_code == 0, result.output
    heading, *rows = result.stdout.split("\n\n")[1].splitlines()
    assert heading.split() == ["class", "images", "recall", "precision", "F1", "most", "often", "taken", "for"]
    assert len(rows) == 11
    with Image.open(picture) as image:
        assert min(image.size) > 300
    again = CliRunner().invoke(cli, words)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert CliRunner().invoke(cli, [*words, "--force"]).exit_code == 0


def test_a_picture_is_of_one_checkpoint(teacher_path: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(teacher_path), str(teacher_path), "-o", str(tmp_path / "x.png")]

    result = CliRunner().invoke(cli, words)

    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: {tmp_path / 'x.png'}: is a picture of one checkpoint, and there are 2\n",
    )


def test_json_and_compare_have_the_numbers(teacher_path: Path) -> None:
    row = json.loads(CliRunner().invoke(cli, ["evaluate", str(teacher_path), "--json"]).stdout)[0]
    compared = kdtool.compare(teacher_path, teacher_path)

    assert {"balanced_accuracy", "top5"} <= {*row}
    assert compared["a"]["balanced_accuracy"] == pytest.approx(row["balanced_accuracy"])
    assert compared["b"]["top5"] == pytest.approx(row["top5"])


def test_a_split_that_is_only_drawn_is_said_and_all_images_can_be_measured(teacher_path, digits, tmp_path, caplog):
    for name in digits.spec.classes:
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (8, 8), 40 * number).save(tmp_path / "own" / name / f"{number}.png")
    data = {"data": f"folder:{tmp_path / 'own'}"}
    (drawn,) = kdtool.evaluate(teacher_path, **data)
    assert f"own: has no test split; {drawn['images']} of its 60 images are drawn for it and measured" in caplog.text
    caplog.clear()
    (measured,) = kdtool.evaluate(teacher_path, split="all", **data)
    assert (measured["split"], measured["images"]) == ("all", 60)
    assert measured["accuracy"] == pytest.approx(0.1)  # the classes have the same images
    assert kdtool.compare(teacher_path, teacher_path, split="all", **data)["images"] == 60
    assert kdtool.evaluate(teacher_path)[0]["images"] == len(digits.test)
    assert "drawn" not in caplog.text
