"""First-order terms, worked out by hand and compared with those of torch_pruning."""

import pytest
import torch
import torch_pruning as tp
from timm.layers import StdConv2d
from torch import nn
from torch.nn import functional as F

import kdtool
from kdtool.models.architecture import Architecture, Network
from kdtool.surgery.channels.groups import groups
from kdtool_pruners.group_taylor import first_order, gradients


def graph_of(module, channels=1, size=1):
    architecture = Architecture("test", "net", {"classes": 2, "in_channels": channels, "image_size": size})
    return groups(Network(architecture, module))[0].graph


def two_layers():
    """Return a network whose hidden channels are both 2 for an image of 1, and whose outputs are both 4."""
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    module[0].weight.data.copy_(torch.tensor([2.0, 1.0]).view(2, 1, 1, 1))
    module[0].bias.data.copy_(torch.tensor([0.0, 1.0]))
    module[2].weight.data.copy_(torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
    return module


IMAGE = torch.ones(1, 1, 1, 1)


def test_the_terms_of_all_coupled_parameters_are_added():
    module = two_layers()
    scores = first_order(graph_of(module), gradients(module, [(IMAGE, torch.tensor([0]))]))
    # Both probabilities are 1/2, so that the gradients of the outputs are -1/2 and 1/2, and those of the channels
    # 1 * -1/2 + 2 * 1/2 = 1/2 and 1 * -1/2 + 0 * 1/2 = -1/2. |g w| of each channel, in the order filter, bias, and the
    # two weights that read it, which have the gradients 2 * -1/2 and 2 * 1/2:
    sums = [1 + 0 + 1 + 2, 0.5 + 0.5 + 1 + 0]
    assert scores.tolist() == pytest.approx([sums[0] / 3, sums[1] / 3])


def test_gradients_of_batches_are_averaged_before_the_absolute_value():
    module = two_layers()
    opposite = [(IMAGE, torch.tensor([0])), (IMAGE, torch.tensor([1]))]
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients(module, opposite).values())
    once, twice = (gradients(module, opposite[:1] * count) for count in (1, 2))
    torch.testing.assert_close(once, twice)


def batches(count, size=8):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, size, size, generator=generator), torch.tensor([0, 1, 0, 1])) for _ in range(count)]


class Residual(nn.Module):
    """Convolutions whose outputs are added and read by two others, without norms."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 7, 3, padding=1)
        self.outer, self.last = nn.Conv2d(7, 5, 3, padding=1), nn.Conv2d(5, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.last(x + self.outer(F.relu(self.inner(x))))).mean((2, 3)))


def test_scores_are_those_of_torch_pruning():
    torch.manual_seed(0)
    module = Residual().eval()
    for images, labels in batches(3):
        F.cross_entropy(module(images), labels).backward()
    graph = tp.DependencyGraph().build_dependency(module, torch.zeros(1, 3, 8, 8))
    theirs = tp.importance.GroupTaylorImportance(bias=True)
    expected = {}
    for layer in (module.stem, module.inner, module.last):
        group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(layer.out_channels)))
        expected[layer.out_channels] = theirs(group)
    module.zero_grad()
    found = gradients(module, batches(3))
    architecture = Architecture("test", "net", {"classes": 2, "in_channels": 3, "image_size": 8})
    scores = {group.size: first_order(group.graph, found) for group in groups(Network(architecture, module))}
    assert scores.keys() == expected.keys() == {5, 7, 4}
    for size, score in scores.items():
        torch.testing.assert_close(score, expected[size])


def test_standardised_convolutions_count_the_weights_in_use():
    torch.manual_seed(0)
    computed = nn.Sequential(StdConv2d(3, 4, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(256, 2)).eval()
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Flatten(), computed[2]).eval()
    rows = computed[0].weight.detach().flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    standard = (centred.square().mean(1, keepdim=True) + computed[0].eps).sqrt()
    plain[0].weight.data.copy_((centred / standard).view_as(plain[0].weight))
    both = [first_order(graph_of(net, 3, 8), gradients(net, batches(2))) for net in (computed, plain)]
    torch.testing.assert_close(*both, rtol=1e-3, atol=1e-4)


def test_gradients_are_those_with_running_statistics():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)).eval()
    ((images, labels),) = batches(1)
    (expected,) = torch.autograd.grad(F.cross_entropy(module(images), labels), module[1].weight)
    torch.testing.assert_close(gradients(module.train(), [(images, labels)])["1.weight"], expected)


def test_the_network_is_left_without_gradients():
    module = Residual().eval()
    found = gradients(module, batches(1))
    assert found.keys() == dict(module.named_parameters()).keys()
    assert all(parameter.grad is None for parameter in module.parameters())


def test_it_wants_data(tmp_path):
    teacher = kdtool.teacher("kdtool:lenet-5", classes=10, output=tmp_path / "teacher.pt")
    with pytest.raises(kdtool.UsageError, match="--data"):
        kdtool.prune(teacher, "group-taylor", epochs=0, output=tmp_path / "small.pt")


def test_several_steps_reach_the_ratio_of_the_parameters(tmp_path):
    options = {"data": "digits", "augment": "none", "subset": 0.3}
    teacher = kdtool.teacher("kdtool:lenet-5", epochs=1, output=tmp_path / "teacher.pt", **options)
    pruned = kdtool.prune(
        teacher, "group-taylor", ratio=0.6, steps=2, round_to=1, batches=2, epochs=1, output=tmp_path / "small.pt"
    )
    sizes = [sum(tensor.numel() for tensor in model.module.parameters()) for model in (teacher, pruned)]
    assert 1 - sizes[1] / sizes[0] == pytest.approx(0.6, abs=0.005)
