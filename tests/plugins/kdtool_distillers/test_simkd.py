"""SimKD: the error by hand, and a student that ends in its teacher's classifier, in its checkpoint and ONNX file."""

import pytest
import torch

import kdtool
from kdtool import Error
from kdtool.distillation.classifier_reuse import reuse_classifier
from kdtool.models.architecture import Architecture, build
from kdtool.models.checkpoint import read
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool_distillers.simkd import map_distance

SHORT = {"epochs": 1, "subset": 0.2, "device": "cpu", "precision": "fp32"}


def network(spec, size=32, seed=0):
    return create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=size), data=None, seed=seed)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("simkd") / "teacher.pt"
    kdtool.teacher("timm:test_resnet", data="digits", image_size=32, output=path, **SHORT)
    return path


def test_the_larger_map_is_averaged():
    large = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert map_distance(large, torch.tensor([[[[2.0]]]])).item() == 4.0
    assert map_distance(torch.tensor([[[[2.0]]]]), large).item() == 4.0
    assert map_distance(large, large + 3).item() == 9.0


def test_gradient(numbers):
    student, teacher = numbers(2, 3, 4, 4).requires_grad_(), numbers(2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda maps: map_distance(maps, teacher), student)


def test_with_the_teachers_maps_the_head_gives_the_teachers_logits():
    student, teacher = network("timm:test_resnet"), network("torchvision:resnet18")
    made, pair = reuse_classifier(student, teacher, factor=2, seed=0)
    assert made.architecture.projectors == {"layer4": [96, 256, 512]}
    assert (pair.student.shape, pair.teacher.path) == ((512, 1, 1), "layer4")
    for name in ("weight", "bias"):
        assert torch.equal(made.module.fc.get_parameter(name), getattr(teacher.module.fc, name))
    # The original student is not changed.
    assert student.module.fc.in_features == 96


@pytest.mark.slow
def test_the_result_is_the_student_its_projector_and_the_classifier(teacher, tmp_path):
    kdtool.distill(teacher, "simkd", refiner="halve", output=tmp_path / "s.pt", **SHORT)
    taught, made = kdtool.load(teacher), read(tmp_path / "s.pt")
    assert made.architecture.projectors == {"layer4": [48, 48, 96]}
    for name in ("weight", "bias"):
        student_part, teacher_part = (module.get_parameter(f"fc.{name}") for module in (made.module, taught.module))
        assert torch.equal(student_part, teacher_part)
    rebuilt = build(Architecture.from_data(made.architecture.as_data()), made.module.state_dict())
    images = torch.rand(3, *made.architecture.input)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), made.module(images))
    kdtool.export(tmp_path / "s.pt", output=tmp_path / "s.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "s.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: images[:1].numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), made.module(images[:1]), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_projected_network_can_be_made_smaller_and_rebuilt():
    student, teacher = network("torchvision:resnet34"), network("torchvision:resnet18")
    made, _ = reuse_classifier(student, teacher, factor=4, seed=0)
    for refiner in ("halve", "depth"):
        smaller = kdtool.make("refiners", refiner, init="inherit").refine(made)
        rebuilt = build(Architecture.from_data(smaller.architecture.as_data()), smaller.module.state_dict())
        images = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(rebuilt(images), smaller.module(images)), refiner
        assert "layer4" in smaller.architecture.projectors


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ("torchvision:resnet18", "kdtool:lenet-5", "kdtool:lenet-5: .* after .* come .*, not one linear layer"),
        ("timm:vit_tiny_patch16_224", "torchvision:resnet18", "makes tokens, no maps"),
    ],
)
def test_other_heads_are_refused(student, teacher, message):
    with pytest.raises(Error, match=message):
        reuse_classifier(network(student), network(teacher), factor=2, seed=0)


@pytest.mark.parametrize(
    "projectors",
    [
        {"": [1, 1, 1]},
        {"layer4": [1, 2]},
        {"layer4": [1, 2.0, 3]},
        {"layer4": [0, 1, 1]},
        {"layer4": [512, 10**6, 512]},
        {"layer4": [512, 16, 512, 7]},
        {"layer4": [512, 16, 512, 0, 7]},
        {"layer4": [512, 16, 512, 10**5, 10**5]},
        3,
    ],
)
def test_malformed_projectors_are_refused(projectors):
    data = Architecture("torchvision", "resnet18", {"classes": 10, "in_channels": 3, "image_size": 32}).as_data()
    with pytest.raises(Error, match="projectors is missing or malformed"):
        Architecture.from_data({**data, "projectors": projectors})


def test_files_of_before_have_no_projectors():
    data = Architecture("torchvision", "resnet18", {"classes": 10, "in_channels": 3, "image_size": 32}).as_data()
    del data["projectors"]
    assert Architecture.from_data(data).projectors == {}


def test_a_larger_map_of_the_student_is_averaged_before_it_is_projected(numbers):
    student, teacher = network("kdtool:resnet8x4"), network("torchvision:resnet18")
    made, pair = reuse_classifier(student, teacher, factor=2, seed=0)
    # The student's last maps are 8x8, the teacher's 1x1.
    assert made.architecture.projectors == {"layer3": [256, 256, 512, 1, 1]}
    assert pair.student.shape == (512, 1, 1)
    images = torch.rand(4, 3, 32, 32)
    whole, module = made.module.double(), student.module.double()
    with torch.no_grad():
        maps = {}
        handle = module.layer3.register_forward_hook(lambda *args: maps.update(own=args[2]))
        module(images.double())
        handle.remove()
        # The authors' order: average to the teacher's size, then 1x1, 3x3, 1x1, each with batch-norm and ReLU.
        x = maps["own"].mean(dim=(2, 3), keepdim=True)
        layers = list(whole.layer3.projector)
        for conv, norm in zip(layers[0::3], layers[1::3], strict=True):
            x = torch.nn.functional.conv2d(x, conv.weight, padding=conv.weight.shape[-1] // 2)
            x = (x / (1 + norm.eps) ** 0.5).clamp(min=0)
        logits = x.flatten(1) @ teacher.module.fc.weight.double().t() + teacher.module.fc.bias.double()
        torch.testing.assert_close(whole(images.double()), logits, rtol=1e-12, atol=1e-12)
    target = numbers(4, 512, 1, 1)
    assert map_distance(x, target).item() == pytest.approx(((x - target).numpy() ** 2).mean(), rel=1e-12)


def test_the_pool_is_rebuilt_and_made_smaller():
    made, _ = reuse_classifier(network("kdtool:resnet8x4", 33), network("torchvision:resnet18", 33), factor=8, seed=0)
    # 9x9 to 2x2: the parts that are averaged overlap.
    assert made.architecture.projectors == {"layer3": [256, 64, 512, 2, 2]}
    rebuilt = build(Architecture.from_data(made.architecture.as_data()), made.module.state_dict())
    images = torch.rand(2, *made.architecture.input)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), made.module(images))
    smaller = kdtool.make("refiners", "halve", init="inherit").refine(made)
    assert smaller.architecture.projectors == {"layer3": [128, 32, 256, 2, 2]}


@pytest.mark.slow
def test_the_pool_is_exported(tmp_path):
    teacher = network("torchvision:resnet18", 80)
    made, _ = reuse_classifier(network("kdtool:resnet8x4", 80), teacher, factor=8, seed=0)
    kdtool.make("exporters", "onnx", latency=False).export(made, tmp_path / "s.onnx", metadata={}, teacher=made)
