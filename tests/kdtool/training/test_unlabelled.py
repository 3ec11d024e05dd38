"""Images without labels: where they come from, what they are taught by, and what needs labels."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import kdtool
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.data.raw import UNLABELLED
from kdtool.models.checkpoint import read


@pytest.fixture
def more(tmp_path):
    """Thirty gray images of 8 pixels, some in a folder inside."""
    folder = tmp_path / "more"
    (folder / "inside").mkdir(parents=True)
    for number in range(30):
        pixels = np.full((8, 8), 8 * number, np.uint8)
        Image.fromarray(pixels).save(folder / ("inside" if number % 3 else ".") / f"{number:02}.png")
    return folder


def labelled_only(spec):
    """Return a description of data without the fingerprint of the images that have no label."""
    assert spec.splits["unlabelled"]["images"] > 0
    return dataclasses.replace(spec, splits={name: spec.splits[name] for name in ("train", "val", "test")})


def test_they_stand_behind_the_labelled_ones(more):
    alone = open_data(DataOptions(data="digits", subset=0.1, augment="none"))
    data = open_data(DataOptions(data="digits", subset=0.1, augment="none", unlabelled=f"folder:{more}"))
    count = len(alone.train)
    assert (len(data.train), data.train.unlabelled, data.unlabelled) == (count + 30, 30, f"folder:{more}")
    assert data.train.labels[count:].tolist() == [UNLABELLED] * 30
    assert (labelled_only(data.spec), len(data.val)) == (alone.spec, len(alone.val))
    order = torch.tensor([count + 29, 0, count, count - 1])
    ((_, images, labels),) = data.train.batches(8, order=order)
    assert labels.tolist() == [UNLABELLED, int(alone.train.labels[0]), UNLABELLED, int(alone.train.labels[-1])]
    ((_, known, _),) = alone.train.batches(8, order=torch.tensor([0, count - 1]))
    torch.testing.assert_close(images[[1, 3]], known)
    mean, std = data.spec.mean[0], data.spec.std[0]
    # The files are found in the order of their folders: those that lie outside first.
    values = [*range(0, 30, 3), *(number for number in range(30) if number % 3)]
    for image, place in ((images[0], 29), (images[2], 0)):
        torch.testing.assert_close(image, torch.full_like(image, (8 * values[place] / 255 - mean) / std))
    assert (len(data.train.labelled()), data.train.labelled().unlabelled) == (count, 0)


def test_a_view_moves_them_too(more):
    data = open_data(DataOptions(data="digits", unlabelled=f"folder:{more}"))
    place = torch.tensor([len(data.train) - 1])
    ((_, plain, _),) = data.train.batches(1, order=place)
    moved = [next(iter(data.train.batches(1, order=place, view=view)))[1] for view in range(6)]
    assert any(not torch.equal(plain, one) for one in moved)


def test_a_student_is_taught_by_images_without_labels_alone(teacher_path, tmp_path):
    options = {"student": "kdtool:lenet-300-100", "epochs": 8, "lr": 3e-3, "subset": 0.01, "alpha": 1.0}
    few = kdtool.distill(teacher_path, output=tmp_path / "few.pt", **options)
    many = kdtool.distill(teacher_path, output=tmp_path / "many.pt", unlabelled="digits", **options)
    assert many.metric("test", "accuracy") > few.metric("test", "accuracy") + 0.1
    entry = read(tmp_path / "many.pt").history[-1]
    assert entry["unlabelled"]["data"] == "digits"
    assert entry["unlabelled"]["images"] > 1000
    assert "--unlabelled digits" in entry["line"]
    assert labelled_only(many.data) == few.data


@pytest.mark.slow
def test_stages_learn_from_them_and_the_head_from_the_labels(tmp_path, more):
    teacher = kdtool.teacher("kdtool:resnet20", data="digits", subset=0.05, epochs=1, output=tmp_path / "t.pt")
    told = {"student": "kdtool:resnet20", "unlabelled": f"folder:{more}", "epochs": 1}
    assert kdtool.distill(teacher, "stagewise", output=tmp_path / "s.pt", **told).metrics


@pytest.mark.parametrize(
    ("method", "options"), [("dkd", {}), ("none", {}), ("kd+dkd", {}), ("mutual", {"objective": "dkd"})]
)
def test_what_needs_labels_refuses_them(teacher_path, tmp_path, more, method, options):
    told = {"student": "kdtool:lenet-5", "unlabelled": f"folder:{more}", "output": tmp_path / "s.pt"}
    with pytest.raises(kdtool.UsageError, match="--unlabelled: .* needs the label of every image"):
        kdtool.distill(teacher_path, method, **told, **options)
    assert not (tmp_path / "s.run").exists()


def test_where_there_are_none(teacher_path, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in ((f"folder:{tmp_path}/empty", "no images"), ("folder:nowhere", "there is no folder")):
        with pytest.raises(kdtool.Error, match=message):
            kdtool.distill(teacher_path, student="kdtool:lenet-5", unlabelled=name, output=tmp_path / "s.pt")


def test_they_are_refused_where_no_teacher_looks_at_them(teacher_path, tmp_path, more):
    told = {"unlabelled": f"folder:{more}", "output": tmp_path / "s.pt"}
    with pytest.raises(kdtool.UsageError, match="without a teacher a network learns from the labels alone"):
        kdtool.teacher("kdtool:lenet-5", data="digits", **told)
    with pytest.raises(kdtool.UsageError, match="without a teacher a network learns from the labels alone"):
        kdtool.prune(teacher_path, teacher=False, **told)
    repaired = {"method": "filter-l1", "repair": "statistics", "round_to": 1, "epochs": 0}
    assert kdtool.prune(teacher_path, teacher=False, **repaired, **told).history[-1]["repair"]
