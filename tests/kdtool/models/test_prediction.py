import dataclasses

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import kdtool
from kdtool.errors import Error
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.prediction import unique


def test_predictions_of_single_images_are_those_of_evaluate(teacher_path, digits):
    teacher = kdtool.load(teacher_path)
    mean, std, labels = digits.spec.mean[0], digits.spec.std[0], digits.test.labels
    _, seen, _ = next(digits.test.batches(len(labels)))
    images = ((seen * std + mean) * 255).round().to(torch.uint8)

    right = sum(
        next(iter(teacher.predict(image))) == teacher.classes[label]
        for image, label in zip(images, labels.tolist(), strict=True)
    )

    assert right / len(labels) == pytest.approx(teacher.metric("test", "accuracy"), abs=1e-9)


def test_a_prediction_has_all_classes_the_most_likely_first(teacher_path):
    teacher = kdtool.load(teacher_path)
    image = np.uint8(load_digits().images[0] * 255 / 16)

    made = teacher.predict(image)

    assert set(made) == set(teacher.classes)
    assert sum(made.values()) == pytest.approx(1)
    assert list(made.values()) == sorted(made.values(), reverse=True)
    logits = teacher.module(teacher.transform(image)[None])[0]
    assert next(iter(made)) == teacher.classes[int(logits.argmax())]
    assert made["3"] == pytest.approx(float(torch.exp(logits[3]) / torch.exp(logits).sum()), rel=1e-5)


def test_a_prediction_leaves_the_modes_of_the_layers_as_they_are(teacher_path):
    teacher = kdtool.load(teacher_path)
    modes = [part.training for part in teacher.module.train().modules()]
    teacher.predict(np.zeros((8, 8), np.uint8))
    assert [part.training for part in teacher.module.modules()] == modes


def test_print_shows_five_lines(teacher_path):
    teacher = kdtool.load(teacher_path)

    lines = str(teacher).splitlines()

    assert len(lines) == 5
    assert lines[0] == f"checkpoint  {teacher_path}"
    assert lines[1] == "network     kdtool:lenet-300-100, 50,610 parameters"  # 64*300+300 + 300*100+100 + 100*10+10
    assert lines[2] == "input       1x8x8, 10 classes: 0, 1, 2, 3, ..."
    assert lines[3] == f"accuracy    val {teacher.metric('val', 'accuracy'):.4f}, test " + (
        f"{teacher.metric('test', 'accuracy'):.4f}"
    )
    assert lines[4].startswith("made by     kdtool teacher kdtool:lenet-300-100 --data digits")
    assert repr(teacher) == str(teacher)


def test_a_network_without_data_says_so(teacher_path):
    bare = Checkpoint(kdtool.load(teacher_path).network)

    assert bare.classes == tuple("0123456789")
    assert str(bare).splitlines()[3:] == ["accuracy    not measured", "made by     unknown"]
    with pytest.raises(Error, match="does not tell how its images are prepared"):
        bare.predict(np.zeros((8, 8), np.uint8))


def test_pretrained_weights_say_how_they_see_images(tmp_path):
    made = kdtool.teacher("torchvision:squeezenet1_1", output=tmp_path / "net.pt")
    history = [{**made.history[0], "trained_elsewhere": True}]

    transform = dataclasses.replace(made, history=history).transform

    # What torchvision documents for these weights.
    assert transform.mean == pytest.approx((0.485, 0.456, 0.406))
    assert transform.std == pytest.approx((0.229, 0.224, 0.225))
    assert (transform.preparation.size, transform.preparation.channels) == (224, 3)
    assert transform.preparation.crop == pytest.approx(224 / 256)


def test_names_that_occur_twice_are_numbered():
    assert unique(["crane", "cat", "crane"]) == ["crane", "cat", "crane (2)"]


def test_a_network_that_is_built_without_data_is_said_to_be_untrained(tmp_path, capsys):
    kdtool.teacher("kdtool:lenet-5", output=tmp_path / "net.pt")

    assert capsys.readouterr().err == (
        f"{tmp_path / 'net.pt'}: is untrained, its weights are random; with --data the network is trained\n"
    )
