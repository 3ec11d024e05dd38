"""Which parameters have weight decay, and the rate of each layer."""

import pytest
import timm
import torch
from torch import nn

from kdtool import UsageError
from kdtool.training.optimization.parameter_groups import parameter_groups
from kdtool.training.options import Training


def rates_of(module, extra=(), **changes):
    training = Training(lr=1.0, weight_decay=0.1, **changes)
    groups = parameter_groups([*module.parameters(), *extra], module, training)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names.get(id(parameter), "?"): (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def test_one_group_by_default():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    (group,) = parameter_groups(list(module.parameters()), module, Training())
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in module.parameters()]


def test_norms_and_biases_have_no_decay():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert {name: decay for name, (_, decay) in rates_of(module, norm_decay=False).items()} == {
        "0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0,
    }  # fmt: skip


def test_what_a_network_names_itself_has_no_decay():
    module = timm.create_model("test_vit", num_classes=3)
    decays = {name: decay for name, (_, decay) in rates_of(module, norm_decay=False).items()}
    assert decays["pos_embed"] == decays["cls_token"] == 0.0
    assert decays["blocks.0.attn.qkv.weight"] == 0.1


def test_layer_decay_is_timms():
    from timm.optim import param_groups_layer_decay

    module = timm.create_model("test_vit", num_classes=3)
    theirs = {
        id(parameter): group["lr_scale"]
        for group in param_groups_layer_decay(module, layer_decay=0.5)
        for parameter in group["params"]
    }
    rates = rates_of(module, layer_decay=0.5)
    assert {name: theirs[id(parameter)] for name, parameter in module.named_parameters()} == {
        name: rate for name, (rate, _) in rates.items()
    }
    assert rates["head.weight"][0] == 1.0


def test_what_is_not_the_students_has_the_full_rate():
    extra = torch.zeros(2, 2, requires_grad=True)
    assert rates_of(timm.create_model("test_vit", num_classes=3), [extra], layer_decay=0.5)["?"] == (1.0, 0.1)


def test_networks_that_do_not_tell_their_order_are_refused():
    with pytest.raises(UsageError, match="--layer-decay"):
        rates_of(nn.Linear(3, 2), layer_decay=0.5)
