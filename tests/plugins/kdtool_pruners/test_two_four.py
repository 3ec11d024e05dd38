"""The pattern by hand, and in every four neighbouring weights of a real network."""

import torch

import kdtool
from kdtool.training.zeros import prunable
from kdtool_pruners.two_four import two_of_four


def test_the_two_largest_of_four_stay():
    weight = torch.tensor([[1.0, -4.0, 2.0, -3.0, 0.1, 0.2, 0.2, 0.1]])
    assert two_of_four(weight).tolist() == [[False, True, False, True, False, True, True, False]]


def test_of_a_convolution_the_four_lie_along_its_inputs():
    weight = torch.rand(3, 8, 2, 2)
    mask = two_of_four(weight)
    for output in range(3):
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            for start in (0, 4):
                four = weight[output, start : start + 4, y, x]
                stays = mask[output, start : start + 4, y, x]
                assert set(four[stays].tolist()) == set(four.sort().values[2:].tolist())


def test_layers_without_a_multiple_of_four_inputs_stay_and_are_named(tmp_path):
    teacher = kdtool.teacher("kdtool:lenet-5", classes=10, output=tmp_path / "teacher.pt")
    pruned = kdtool.prune(teacher, "2:4", epochs=0, output=tmp_path / "half.pt")
    weights = prunable(pruned.module)
    assert {name for name, weight in weights.items() if bool((weight != 0).all())} == {"conv1.weight", "conv2.weight"}
    for name in ("conv3.weight", "fc1.weight", "fc2.weight"):
        rows = weights[name].movedim(1, -1).reshape(-1, 4)
        assert ((rows != 0).sum(1) == 2).all()
    reached = pruned.history[-1]["reached"]
    assert reached["capped"] == "the number of inputs is not a multiple of four: conv1, conv2"
    dense, total = 150 + 2400, 150 + 2400 + 48000 + 10080 + 840
    assert reached["removed"] == round((total - dense) / 2 / total, 4)


def test_its_file_has_no_colon(tmp_path):
    kdtool.teacher("kdtool:lenet-300-100", classes=10, output=tmp_path / "teacher.pt")
    assert kdtool.prune(tmp_path / "teacher.pt", "2:4", epochs=0).path == tmp_path / "teacher-2-4.pt"
