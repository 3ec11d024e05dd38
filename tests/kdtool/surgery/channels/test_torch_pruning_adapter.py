"""The private names of Torch-Pruning that the adapter uses, as far as the installed release has them."""

import importlib
import inspect
from importlib.metadata import version

import pytest
import torch
import torch_pruning as tp
from torch import nn

MISSING = (
    "torch-pruning {version} has no {name}, which is private and which kdtool needs; "
    "change kdtool/surgery/channels/torch_pruning_adapter.py or require an earlier torch-pruning"
)


def require(condition, name):
    if not condition:
        pytest.fail(MISSING.format(version=version("torch-pruning"), name=name), pytrace=False)


def dependency_graph():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.scale = nn.Conv2d(3, 4, 1), nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, x):
            return self.layer(x) * self.scale

    module = Scaled()
    return module, tp.DependencyGraph().build_dependency(module, torch.rand(1, 3, 2, 2), verbose=False)


@pytest.mark.parametrize(
    ("module", "name", "parameters"),
    [
        ("torch_pruning._helpers", "_HybridIndex", ["idx", "root_idx"]),
        ("torch_pruning.dependency.index_mapping", "_GQAIndexMapping", ["repeat", "head_dim", "reverse"]),
    ],
)
def test_the_private_classes_are_there(module, name, parameters):
    found = getattr(importlib.import_module(module), name, None)
    require(found is not None, f"{module}.{name}")
    require(list(inspect.signature(found).parameters) == parameters, f"{module}.{name}({', '.join(parameters)})")


@pytest.mark.parametrize("name", ["_module2name", "_param_to_name"])
def test_a_graph_has_the_private_attributes(name):
    _, graph = dependency_graph()
    require(isinstance(getattr(graph, name, None), dict), f"DependencyGraph.{name}")


def test_a_group_has_the_private_attribute():
    _, graph = dependency_graph()
    group = next(iter(graph.get_all_groups()))
    require(getattr(group, "_DG", None) is graph, "dependency.Group._DG")


def test_paths_are_those_of_the_network():
    from kdtool.surgery.channels.torch_pruning_adapter import module_path, parameter_path

    module, graph = dependency_graph()
    assert module_path(graph, module.layer) == "layer"
    assert module_path(graph, nn.Conv2d(3, 4, 1)) == ""
    assert parameter_path(graph, module.scale) == "scale"


def test_a_group_that_is_made_is_one_that_the_library_scores():
    from kdtool.surgery.channels.torch_pruning_adapter import graph_of, make_group

    module, graph = dependency_graph()
    group = graph.get_pruning_group(module.layer, tp.prune_conv_out_channels, idxs=[0, 1, 2, 3])
    made = make_group(graph, [(item.dep, item.idxs, item.root_idxs) for item in group])
    assert graph_of(made) is graph_of(group) is graph
    importance = tp.importance.GroupMagnitudeImportance(p=1)
    assert torch.equal(importance(made), importance(group))


def test_a_mapping_that_repeats_no_heads_is_recognised():
    from torch_pruning.dependency.index_mapping import _GQAIndexMapping

    from kdtool.surgery.channels.torch_pruning_adapter import repeats_no_heads

    assert repeats_no_heads(_GQAIndexMapping(repeat=0, head_dim=4))
    assert not repeats_no_heads(_GQAIndexMapping(repeat=2, head_dim=4))
    assert not repeats_no_heads(None)
