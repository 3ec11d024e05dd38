import argparse
import io
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kdtool import Error
from kdtool.models.weights import fit_weights, read_weights


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


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pth"


def test_formats(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "old.pt"):
        assert equal(read_weights(tmp_path / name), state)
    safe = read_weights(str(tmp_path / "a.safetensors"))
    assert equal({name: safe[name] for name in state}, state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"state_dict": {"zero": torch.zeros(1)}, "state_dict_ema": state},
        lambda state: {"my_net": state, "epoch": 3, "optimizer": {"state": {}, "lr": 0.1}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"n_averaged": torch.tensor(3), **{f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: OrderedDict((name, nn.Parameter(tensor, False)) for name, tensor in state.items()),
    ],
)
def test_what_training_scripts_put_around_it(wrap, state, file):
    torch.save(wrap(state), file)
    assert equal(read_weights(file), state)


def test_tied_weights_are_read(state, file):
    state["tied"] = state["fc.weight"]
    torch.save(state, file)
    assert torch.equal(read_weights(file)["tied"], state["fc.weight"])


def test_numbers_that_are_not_finite_are_told(state, file, caplog):
    state["fc.weight"][0, 0] = float("nan")
    torch.save(state, file)
    read_weights(file)
    assert "1 of 9 tensors hold numbers that are not finite (fc.weight)" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "lr": 0.1}, "a dict of epoch, lr"),
        ({}, "an empty dict"),
        ([1, 2], "but list"),
        ({"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}}, "a dict of a, b"),
        ({"format": "kdtool", "version": 1}, "a kdtool checkpoint already"),
    ],
)
def test_content_that_is_no_state_dict(content, message, file):
    torch.save(content, file)
    with pytest.raises(Error) as raised:
        read_weights(file)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{file}: ")


# How weights fit


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


def test_counters_of_old_files_start_at_zero(state):
    module = net()
    module(torch.zeros(2, 2, 4, 4))
    del state["norm.num_batches_tracked"]
    fit_weights(module, state)
    assert torch.equal(module.norm.running_mean, state["norm.running_mean"])


def test_lightnings_prefix(state):
    module = net()
    fit_weights(module, {f"model.{name}": tensor for name, tensor in state.items()})
    assert equal(module.state_dict(), state)


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


def test_integers_are_no_weights(state):
    state["fc.weight"] = torch.ones(3, 4, dtype=torch.int8)
    assert "fc.weight torch.int8, here torch.float32" in mismatch(net(), state)


def test_what_was_saved_in_memory_is_the_same_file(state, file):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    file.write_bytes(buffer.getvalue())
    assert equal(read_weights(file), state)
