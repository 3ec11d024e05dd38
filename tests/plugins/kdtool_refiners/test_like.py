"""Another architecture for the same images and classes, and names that are refused."""

import pytest
import torch

import kdtool


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    options = {"data": "digits", "subset": 0.1, "image_size": 16, "stem": "small", "epochs": 0}
    return kdtool.teacher("timm:test_resnet", output=path, **options)


def like(teacher, arch, tmp_path, **options):
    return kdtool.refine(teacher, "like", arch=arch, output=tmp_path / "student.pt", **options)


def test_another_architecture_sees_the_same_images_and_classes(teacher, tmp_path):
    student = like(teacher, "kdtool:resnet20", tmp_path)
    assert student.architecture.spec == "kdtool:resnet20"
    assert student.architecture.classes == teacher.architecture.classes == 10
    assert student.architecture.input == teacher.architecture.input == (1, 16, 16)
    assert student.data == teacher.data
    with torch.no_grad():
        assert student.module(torch.rand(2, 1, 16, 16)).shape == (2, 10)


def test_compression_counts_from_the_teacher(teacher, tmp_path):
    student = like(teacher, "kdtool:lenet-300-100", tmp_path)
    assert [entry["command"] for entry in student.history] == ["teacher", "refine"]
    size = sum(tensor.numel() for tensor in student.module.parameters())
    # Images of 16x16 pixels: 256 * 300 + 300 * 100 + 100 * 10 weights and 410 biases.
    assert size == 108_210
    assert student.compression(size) == sum(tensor.numel() for tensor in teacher.module.parameters()) / 108_210


def test_the_stem_is_the_teachers_where_it_can_be(teacher, tmp_path, capsys):
    assert like(teacher, "torchvision:squeezenet1_1", tmp_path).architecture.options["stem"] == "small"
    assert capsys.readouterr().err == ""
    mobile = kdtool.refine(teacher, "like", arch="timm:test_efficientnet", output=tmp_path / "mobile.pt")
    assert mobile.architecture.options["stem"] == "default"
    assert "keeps its own stem" in capsys.readouterr().err


def test_a_larger_one_is_taken_since_it_was_named(teacher, tmp_path):
    larger = like(teacher, "torchvision:squeezenet1_1", tmp_path)
    assert larger.history[-1]["size"]["parameters"] > teacher.history[-1]["size"]["parameters"]


def test_weights_depend_on_the_seed_alone(teacher, tmp_path):
    first, again, other = (
        kdtool.refine(teacher, "like", arch="kdtool:lenet-300-100", seed=seed, output=tmp_path / f"{index}.pt")
        for index, seed in enumerate([1, 1, 2])
    )
    weights = [next(student.module.parameters()) for student in (first, again, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "like needs --arch: the architecture: SOURCE:NAME"),
        ({"arch": "timm:resnet81"}, r"--arch timm:resnet81: timm knows no network 'resnet81'; did you mean .*resnet18"),
        ({"arch": "tim:resnet18"}, "--arch tim:resnet18: no teacher source is called 'tim'; did you mean timm"),
        ({"arch": "resnet18"}, "--arch resnet18: 'resnet18': a network is written as"),
        ({"arch": "timm:resnet18", "init": "inherit"}, "--init inherit: another architecture has no weights"),
    ],
)
def test_what_cannot_be_is_told_when_it_is_named(options, message):
    with pytest.raises(kdtool.UsageError, match=message):
        kdtool.make("refiners", "like", **options)


def test_the_family_of_a_network_are_those_that_differ_in_size_alone():
    from kdtool_refiners.like import family

    names = [
        "resnet10t",
        "resnet14t",
        "resnet18",
        "resnet18d",
        "resnet26",
        "resnext26ts",
        "resnetv2_18",
        "wide_resnet18_2",
    ]
    assert family("resnet18", names) == ["resnet10t", "resnet14t"]
    names = ["mobilenetv3_large_075", "mobilenetv3_large_150", "mobilenetv3_small_100", "mobilenetv4_conv_small_100"]
    assert family("mobilenetv3_large_100", names) == ["mobilenetv3_large_075", "mobilenetv3_small_100"]
    names = ["vit_tiny_patch16_224", "vit_tiny_patch16_384", "vit_base_patch16_224", "vit_relpos_small_patch16_224"]
    assert family("vit_small_patch16_224", names) == ["vit_tiny_patch16_224", "vit_base_patch16_224"]
    assert family("wrn-40-2", ["wrn-16-1", "wrn-16-2", "wrn-40-4", "wrn-40-1"]) == ["wrn-16-1", "wrn-16-2", "wrn-40-1"]
    assert family("lenet-300-100", ["lenet-5"]) == []


def test_the_smaller_members_of_a_family_from_large_to_small():
    from kdtool.models.options import NetworkOptions
    from kdtool.models.sources import create
    from kdtool_refiners.like import Like

    shape = NetworkOptions(classes=10, in_channels=1, image_size=8)
    network = create("kdtool:resnet44", options=shape, data=None)
    assert Like.ladders(network) == [[{"arch": "kdtool:resnet32"}, {"arch": "kdtool:resnet20"}]]
    smallest = create("kdtool:resnet20", options=shape, data=None)
    assert Like.ladders(smallest) == [[]]
