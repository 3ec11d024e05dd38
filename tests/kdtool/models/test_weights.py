from collections import OrderedDict

import pytest
import torch
from torch import nn

from kdtool import Error
from kdtool.models.weights import fit_weights


def net(classes=3, channels=2, kernel=3):
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, 4, kernel),
            norm=nn.BatchNorm2d(4),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(4, classes),
        )
    )


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def state():
    return dict(net().state_dict())


def test_weights_that_fit_are_copied(state):
    module = net()
    fit_weights(module, state)
    assert equal(module.state_dict(), state)
    assert module.fc.weight.data_ptr() != state["fc.weight"].data_ptr()
    assert module.training


def test_half_precision_fits_and_becomes_single(state):
    module = net()
    fit_weights(
        module, {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    )
    assert module.fc.weight.dtype == torch.float32
    assert torch.allclose(module.fc.weight, state["fc.weight"], atol=1e-3)


class Wrapper(nn.Module):
    """Keeps one of two outputs."""

    def __init__(self, network):
        super().__init__()
        self.net = network

    def forward(self, images):
        return self.net(images)[0]


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
@pytest.mark.parametrize(("wrap", "part"), [(Wrapper, "net"), (lambda module: Wrapper(Wrapper(module)), "net.net")])
def test_a_module_that_wraps_the_network_is_filled_inside(wrap, part, prefix, state, caplog):
    module = wrap(net())
    fit_weights(module, under(prefix, state), "w.pth")
    assert equal(module.get_submodule(part).state_dict(), state)
    assert f"w.pth: has no {part}. in front of its names; read into that part of Wrapper" in caplog.text
    caplog.clear()
    fit_weights(module, under(f"{prefix}{part}.", state), "w.pth")
    assert caplog.text == ""


@pytest.mark.parametrize("module", [Wrapper(net(classes=4)), Wrapper(nn.Linear(2, 2)), nn.Conv2d(1, 1, 1, bias=False)])
def test_what_does_not_fit_the_wrapped_network_is_refused(module, state):
    with pytest.raises(Error, match="^the weights(:| do not fit)"):
        fit_weights(module, state)


def test_counters_of_old_files_start_at_zero(state):
    module = net()
    module(torch.zeros(2, 2, 4, 4))
    del state["norm.num_batches_tracked"]
    fit_weights(module, state)
    assert torch.equal(module.norm.running_mean, state["norm.running_mean"])


def under(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        *(
            "module.",
            "_orig_mod.",
            "model._orig_mod.",
            "_orig_mod.module.",
            "module._orig_mod.model.",
            "net.",
            "student.",
        ),
        *("_forward_module.model.module.", "encoder.backbone.", "a.name.of.their.own."),
    ],
)
def test_whatever_prefix_there_is(prefix, state, caplog):
    module = net()
    fit_weights(module, under(prefix, state))
    assert equal(module.state_dict(), state)
    assert caplog.text == ""


def test_names_that_wrappers_put_in_the_middle(state):
    module = nn.Sequential(OrderedDict(stage=net()))
    weights = under("stage._checkpoint_wrapped_module._orig_mod.", state)
    fit_weights(module, weights)
    assert equal(module.stage.state_dict(), state)


def other(state):
    return {name: tensor + 1 for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        (lambda state: {"criterion.weight": torch.ones(4)}, "1 entry outside the network ignored: criterion.weight"),
        (lambda state: under("ema.module.", other(state)), "9 entries outside the network ignored: ema.module.conv"),
        (lambda state: under("teacher.", other(state)), "and 5 more"),
        (
            lambda state: {"loss_fn.pos_weight": torch.ones(2)},
            "1 entry outside the network ignored: loss_fn.pos_weight",
        ),
        (lambda state: {"n_averaged": torch.tensor(3)}, "1 entry outside the network ignored: n_averaged"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model.", "module.net."])
def test_what_lies_outside_the_network_is_named_and_ignored(prefix, beside, said, state, caplog):
    module = net()
    # The order of a file does not matter.
    for weights in ({**beside(state), **under(prefix, state)}, {**under(prefix, state), **beside(state)}):
        fit_weights(module, weights, "w.pth")
        assert equal(module.state_dict(), state)
    assert f"w.pth: {said}" in caplog.text if "and" not in said else said in caplog.text


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("names", [("mean", "std"), ("normalize.mean", "normalize.std"), ("pixel_mean", "pixel_std")])
def test_a_normalisation_in_the_file_is_pointed_out(prefix, names, state, caplog):
    fit_weights(net(), {**under(prefix, state), **dict.fromkeys(names, torch.ones(3))}, "w.pth")
    assert f"w.pth: 2 entries outside the network ignored: {names[0]}, {names[1]}; it normalised" in caplog.text
    assert caplog.text.strip().endswith("give the same --mean and --std")


def test_a_network_that_is_there_twice_is_refused(state):
    weights = {**under("first.", state), **under("second.", other(state))}
    assert mismatch(net(), weights).endswith(
        "holds the network several times, below first., second.; save one of them alone"
    )
    fit_weights(net(), {**under("first.", state), **under("second.", state)})  # the same weights under two names


def test_a_classifier_under_another_prefix(state, caplog):
    module = net()
    weights = {("head." if name.startswith("fc") else "backbone.") + name: tensor for name, tensor in state.items()}
    fit_weights(module, weights, "w.pth")
    assert equal(module.state_dict(), state)
    assert "w.pth: fc.weight, fc.bias of the network: read from head.fc.weight, head.fc.bias" in caplog.text


def test_what_is_of_no_known_kind_inside_a_network_is_refused(state):
    assert "1 unexpected (second_head.weight)" in mismatch(net(), {**state, "second_head.weight": torch.ones(1)})
    assert "1 unexpected (norm.scale)" in mismatch(net(), under("model.", {**state, "norm.scale": torch.ones(1)}))


def test_parts_that_the_network_was_built_without_are_left_out(state):
    module = net()
    module.aux = None
    module.register_buffer("index", torch.zeros(2), persistent=False)
    fit_weights(module, {**state, "aux.weight": torch.ones(1), "index": torch.ones(5)})
    assert equal(module.state_dict(), state)


def test_a_network_that_asks_for_its_version():
    import torchvision

    module = torchvision.models.mnasnet0_5(num_classes=3)
    weights = {name: tensor + 1 for name, tensor in module.state_dict().items()}
    with pytest.raises(ValueError, match="version"):
        module.load_state_dict(weights)
    fit_weights(module, weights)
    assert equal(module.state_dict(), weights)


def mismatch(module, weights):
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(Error) as raised:
        fit_weights(module, weights)
    assert equal(module.state_dict(), before)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_mismatch_lists_the_names(state):
    weights = {name.replace("conv", "c1"): tensor for name, tensor in state.items()}
    message = mismatch(net(), weights)
    assert "2 missing (conv.weight, conv.bias)" in message
    assert "2 unexpected (c1.weight, c1.bias)" in message


def test_a_long_list_is_cut():
    message = mismatch(net(), {f"layer{index}": torch.zeros(1) for index in range(30)})
    assert "30 unexpected (layer0, layer1, layer2, layer3 and 26 more)" in message


def test_names_with_line_breaks_and_colours_do_not_reach_the_terminal():
    assert "1 unexpected (a??[31mb)" in mismatch(net(), {**net().state_dict(), "a\n\x1b[31mb": torch.zeros(1)})


@pytest.mark.parametrize(
    ("there", "way_out"),
    [
        ({"classes": 8}, "try --classes 8"),
        ({"channels": 3}, "try --in-channels 3"),
        ({"channels": 1, "classes": 5}, "try --classes 5 --in-channels 1"),
        ({"kernel": 7}, "try --stem default"),
    ],
)
def test_the_way_out(there, way_out):
    message = mismatch(net(), net(**there).state_dict())
    assert message.endswith(way_out)
    assert "of another shape" in message


def test_a_classifier_for_other_classes_is_fresh_where_it_is_trained(state, caplog):
    module = net(classes=5)
    fresh = {name: tensor.clone() for name, tensor in module.state_dict().items() if name.startswith("fc.")}
    assert fit_weights(module, under("model.", state), "w.pth", classes=5, trains=True) == ["fc.weight", "fc.bias"]
    assert equal(module.state_dict(), {**state, **fresh})
    assert (
        "w.pth: its classifier is for 3 classes, and the data set has 5: fc.weight, fc.bias of the network begin with "
        "fresh weights"
    ) in caplog.text
    wrapped = Wrapper(net(classes=5))
    assert fit_weights(wrapped, state, classes=5, trains=True) == ["net.fc.weight", "net.fc.bias"]
    assert fit_weights(net(), state, classes=3, trains=True) == []


@pytest.mark.parametrize(
    ("trains", "said"),
    [(True, "begin with fresh weights"), (False, "are random: train them with --epochs above 0, or let it teach by")],
)
def test_a_file_without_a_classifier(trains, said, state, caplog):
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    module = net()
    own = {name: tensor.clone() for name, tensor in module.state_dict().items() if name.startswith("fc.")}
    fresh = fit_weights(module, under("backbone.", headless), "w.pth", classes=3, trains=trains)
    assert fresh == ["fc.weight", "fc.bias"]
    assert equal(module.state_dict(), {**headless, **own})
    assert f"w.pth: has no classifier: fc.weight, fc.bias {said}" in caplog.text
    for weights, classes in ((headless, None), (headless, 4), ({**headless, "more": torch.ones(1)}, 3), ({}, 3)):
        with pytest.raises(Error, match="missing"):
            fit_weights(net(), weights, classes=classes, trains=trains)
    without_norm = {name: tensor for name, tensor in state.items() if not name.startswith("norm.")}
    with pytest.raises(Error, match="missing"):
        fit_weights(net(), without_norm, classes=3, trains=trains)
    with pytest.raises(Error, match="missing"):
        fit_weights(nn.Linear(4, 3), {}, classes=3, trains=trains)


@pytest.mark.parametrize(
    ("there", "trains", "way_out"),
    [
        (
            {"classes": 8},
            False,
            "is for 8 classes, and the data set has 3; with --epochs above 0 a fresh one is trained",
        ),
        ({"classes": 8, "channels": 1}, False, "try --in-channels 1"),
        ({"classes": 8, "channels": 1}, True, "1 of another shape (conv.weight [4, 1, 3, 3], here [4, 2, 3, 3]); try"),
    ],
)
def test_with_data_the_number_of_classes_is_no_way_out(there, trains, way_out, state):
    with pytest.raises(Error) as raised:
        fit_weights(net(), net(**there).state_dict(), "w.pth", classes=3, trains=trains)
    assert way_out in str(raised.value)
    assert "try --classes" not in str(raised.value)


def test_a_classifier_of_two_numbers_of_classes_is_refused(state):
    with pytest.raises(Error, match="do not fit.*of another shape.*; build the network as it was .*trained [(]--in-ch"):
        fit_weights(net(classes=4), {**state, "fc.weight": torch.ones(9, 4)}, classes=4, trains=True)
    with pytest.raises(Error, match="1 of another shape"):
        fit_weights(net(classes=4), {**state, "fc.bias": torch.tensor(1.0)}, classes=4, trains=True)


def test_integers_are_no_weights(state):
    state["fc.weight"] = torch.ones(3, 4, dtype=torch.int8)
    assert "fc.weight torch.int8, here torch.float32" in mismatch(net(), state)
