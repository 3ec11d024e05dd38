"""Pruners and refiners that leave some layers as they are."""

import pytest
import torch

import kdtool
from kdtool import Error, UsageError
from kdtool.models.checkpoint import read

UNTRAINED = {"epochs": 0, "seed": 0}


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    path = tmp_path_factory.mktemp("layers") / "t.pt"
    kdtool.teacher("kdtool:resnet20", classes=10, in_channels=1, image_size=8, output=path)
    return path


def weights(checkpoint):
    return {name: tensor for name, tensor in checkpoint.module.state_dict().items() if tensor.dim() > 1}


def pruned(resnet, tmp_path, method, **options):
    made = kdtool.prune(resnet, method, output=tmp_path / f"{method.replace(':', '')}.pt", **UNTRAINED, **options)
    before, after = weights(read(resnet)), weights(made)
    same = {name for name in before if before[name].shape == after[name].shape and before[name].equal(after[name])}
    return made, after, same


CHOICES = [
    ({"only": ["layer2", "layer3.0.conv*"]}, lambda name: name.startswith(("layer2.", "layer3.0.conv"))),
    ({"skip": ["layer2"]}, lambda name: not name.startswith("layer2.")),
    ({"only": ["layer*"], "skip": ["*.conv1"]}, lambda name: name.startswith("layer") and ".conv1" not in name),
]


@pytest.mark.parametrize(
    ("method", "choice"),
    [("magnitude", 0), ("magnitude", 1), ("magnitude", 2), ("random", 0), ("2:4", 1), ("cluster", 2)],
)
def test_pruners_of_weights_change_the_chosen_layers_alone(resnet, tmp_path, method, choice):
    options, inside = CHOICES[choice]
    more = {"ratio": 0.5} if method in ("magnitude", "random") else {}
    made, after, same = pruned(resnet, tmp_path, method, **options, **more)
    changed = {name for name in after if inside(name)} - ({"conv1.weight"} if method == "2:4" else set())
    assert same == set(after) - changed
    if method in ("magnitude", "random"):
        zeros = sum(int((after[name] == 0).sum()) for name in changed)
        assert zeros == pytest.approx(0.5 * sum(after[name].numel() for name in changed), abs=1)
    entry = made.history[-1]
    about = entry["shared_values"] if method == "cluster" else entry["reached"]
    assert set(about["left"].split(", ")) == {name.removesuffix(".weight") for name in after if not inside(name)}
    assert tuple(entry["options"]["only"]) == tuple(options.get("only", ()))
    assert next(f"--{name} {','.join(value)}" for name, value in options.items()) in entry["line"].replace("'", "")


@pytest.mark.parametrize(
    ("options", "narrower"),
    [
        ({"only": ["layer2.*.conv1"]}, {f"layer2.{block}.conv1.weight" for block in range(3)}),
        # The convolutions at the ends of a stage's blocks are added: none goes without the others.
        ({"only": ["layer2"], "skip": ["layer2.1.conv2"]}, {f"layer2.{block}.conv1.weight" for block in range(3)}),
    ],
)
@pytest.mark.parametrize("method", ["filter-l1"])
def test_pruners_of_channels_narrow_the_chosen_layers_alone(resnet, tmp_path, method, options, narrower):
    before = weights(read(resnet))
    _, after, _ = pruned(resnet, tmp_path, method, ratio=0.05, round_to=1, **options)
    fewer = {name for name in before if after[name].shape[0] < before[name].shape[0]}
    assert fewer
    assert fewer <= narrower


def test_a_depthwise_convolution_follows_and_can_be_left(tmp_path):
    path = tmp_path / "m.pt"
    options = {"in_channels": 3, "classes": 10, "image_size": 32}
    checkpoint = kdtool.teacher("timm:mobilenetv3_small_050", pretrained=False, output=path, **options)
    names = [name for name in weights(checkpoint) if "conv_dw" in name]
    before = weights(checkpoint)
    made = kdtool.prune(path, "filter-l1", ratio=0.02, round_to=1, only=["blocks.1.*.conv_pw"], epochs=0,
                        output=tmp_path / "a.pt")  # fmt: skip
    fewer = {name for name, tensor in weights(made).items() if tensor.shape[0] < before[name].shape[0]}
    assert any(name in names for name in fewer)
    with pytest.raises(Error, match="channels cannot be removed"):
        kdtool.prune(path, "filter-l1", ratio=0.02, round_to=1, only=["blocks.1.*.conv_pw"], skip=["*.conv_dw"],
                     epochs=0, output=tmp_path / "b.pt")  # fmt: skip


@pytest.mark.parametrize("method", ["magnitude", "filter-l1", "cluster"])
def test_a_pattern_that_matches_nothing_has_near_names(resnet, tmp_path, method):
    with pytest.raises(UsageError, match="--only layr2: matches no layer of kdtool:resnet20.*did you mean layer2"):
        pruned(resnet, tmp_path, method, only=["layr2"])
    with pytest.raises(UsageError, match="--skip stem: matches no layer .*; there are conv1, layer1.0.conv1, "):
        pruned(resnet, tmp_path, method, skip=["stem"])


def test_nothing_left_to_change_is_an_error(resnet, tmp_path):
    for method in ("magnitude", "filter-l1"):
        with pytest.raises(Error, match="--only and --skip leave no layer to change"):
            pruned(resnet, tmp_path, method, only=["fc"], skip=["fc"])


def test_what_is_left_is_said(resnet, tmp_path, capsys):
    pruned(resnet, tmp_path, "magnitude", skip=["layer3"])
    line = "6 layers stay as they are: layer3.0.conv1, layer3.0.conv2, layer3.1.conv1 and 3 more"
    assert line in capsys.readouterr().err


def test_gradual_steps_and_tickets_leave_them_in_every_round(tmp_path):
    path = tmp_path / "t.pt"
    few = {"data": "digits", "subset": 0.05, "epochs": 1, "augment": "none"}
    kdtool.teacher("kdtool:lenet-300-100", keep_init=True, output=path, **few)
    for method in ("magnitude", "lottery"):
        made = kdtool.prune(path, method, ratio=0.8, steps=2, skip=["*3"], epochs=1, output=tmp_path / f"{method}.pt")
        layers = [tensor for name, tensor in made.module.state_dict().items() if name.endswith("weight")]
        names = [name for name in made.module.state_dict() if name.endswith("weight")]
        zeros = {name: float((tensor == 0).float().mean()) for name, tensor in zip(names, layers, strict=True)}
        left = [name for name in names if name.split(".")[-2].endswith("3")]
        assert left
        assert all(zeros[name] == 0 for name in left)
        chosen = [name for name in names if name not in left]
        total = sum(made.module.state_dict()[name].numel() for name in chosen)
        gone = sum(int((made.module.state_dict()[name] == 0).sum()) for name in chosen)
        assert gone == pytest.approx(0.8 * total, abs=1)


@pytest.mark.parametrize("init", ["fresh", "inherit"])
def test_halve_leaves_layers_and_those_whose_channels_go_with_theirs(resnet, tmp_path, init):
    before = weights(read(resnet))
    made = kdtool.refine(resnet, "halve", skip=["layer1"], init=init, output=tmp_path / "h.pt")
    after = weights(made)
    assert all(after[name].shape == before[name].shape for name in before if name.startswith(("layer1.", "conv1")))
    fewer = {name for name in before if after[name].shape[0] * 2 == before[name].shape[0]}
    # Its shortcuts fill up the channels of the stage before, so that the ends of all blocks have the same ones.
    assert fewer == {name for name in before if name.startswith(("layer2.", "layer3.")) and "conv1" in name}
    if init == "inherit":
        assert all(after[name].equal(before[name]) for name in before if name.startswith(("layer1.", "conv1")))
    assert torch.equal(read(tmp_path / "h.pt").module(torch.ones(1, 1, 8, 8)), made.module(torch.ones(1, 1, 8, 8)))


def test_halve_of_layers_inside_of_blocks(resnet, tmp_path):
    before = weights(read(resnet))
    after = weights(kdtool.refine(resnet, "halve", only=["layer3.*.conv1"], output=tmp_path / "h.pt"))
    fewer = {name for name in before if after[name].shape[0] < before[name].shape[0]}
    assert fewer == {f"layer3.{block}.conv1.weight" for block in range(3)}
    with pytest.raises(Error, match="leave no layer to narrow"):
        kdtool.refine(resnet, "halve", only=["layer3.0.conv2"], output=tmp_path / "i.pt")


def test_depth_leaves_blocks(resnet, tmp_path):
    made = kdtool.refine(resnet, "depth", skip=["layer1", "layer2.1"], output=tmp_path / "d.pt")
    assert [len(getattr(made.module, f"layer{stage}")) for stage in (1, 2, 3)] == [3, 2, 1]
    assert made.architecture.dropped == ("layer2.2", "layer3.1", "layer3.2")
    with pytest.raises(UsageError, match="--keep 1,1,1: with --only and --skip at least 3,1,1 blocks stay"):
        kdtool.refine(resnet, "depth", skip=["layer1"], keep=[1, 1, 1], output=tmp_path / "e.pt")
    with pytest.raises(UsageError, match="--blocks 4: must be from 5 to 9"):
        kdtool.refine(resnet, "depth", skip=["layer1"], blocks=4, output=tmp_path / "f.pt")
    with pytest.raises(UsageError, match="--only layer9: matches no layer of kdtool:resnet20"):
        kdtool.refine(resnet, "depth", only=["layer9"], output=tmp_path / "g.pt")
