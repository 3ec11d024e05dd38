"""Networks by name: their initialisation depends on the seed alone, and the global random state does not change."""

import pytest
import torch

from kdtool.errors import Error, UsageError
from kdtool.models import names, sources
from kdtool.models.architecture import Network
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import check_forward, create, create_like, parse


def build(seed=0, spec="kdtool:lenet-5", **options):
    return create(spec, options=NetworkOptions(**options), data=None, seed=seed)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.module.parameters()])


@pytest.mark.parametrize("options", [{}, {"spec": "torchvision:resnet18", "stem": "small", "image_size": 32}])
def test_the_global_random_state_does_not_change(options, monkeypatch):
    reseeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded.append)
    before = torch.random.get_rng_state()
    build(seed=0, **options)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert reseeded == []  # nor that of the GPUs


def test_the_weights_depend_on_the_seed_alone():
    first = weights(build(seed=0))
    torch.rand(3)
    assert torch.equal(weights(build(seed=0)), first)
    assert not torch.equal(weights(build(seed=1)), first)


def test_without_a_seed_the_random_state_decides():
    model = build()

    def like():
        return weights(create_like("kdtool:lenet-5", model))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first, second = like(), like()
        torch.manual_seed(3)
        assert torch.equal(like(), first)
    assert not torch.equal(first, second)


def test_text_that_is_no_option_is_named():
    with pytest.raises(UsageError, match=r"'depth' is not of the form option=value$"):
        parse("kdtool:lenet-5,depth")


def test_a_network_of_another_source_is_named_with_it(monkeypatch):
    listed = {"kdtool": ["lenet-5"], "timm": ["resnet18"], "torchvision": ["resnet18", "alexnet"]}
    monkeypatch.setattr(names, "known", listed.get)
    monkeypatch.setattr(sources, "known", listed.get)
    with pytest.raises(
        UsageError, match="^kdtool has no network 'resnet18'; write timm:resnet18 or torchvision:resnet"
    ):
        parse("kdtool:resnet18")
    # Without a list, and for a name that no other source has, the source itself answers.
    assert [parse(spec)[1] for spec in ("hf:resnet18", "kdtool:lenet-9")] == ["resnet18", "lenet-9"]


class Several(torch.nn.Module):
    """Returns features beside the logits."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, images):
        logits = images.new_zeros(len(images), 10)
        return {"logits": logits} if self.kind == "dict" else (logits, images)


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_a_network_with_several_outputs_needs_a_subclass(kind):
    network = Network(build().architecture, Several(kind))
    with pytest.raises(Error, match=f"its output is {kind}; name a subclass of it whose forward returns the logits"):
        check_forward(network)


def test_images_are_square():
    oblong = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 32, 10))
    with pytest.raises(
        Error, match=r"cannot take an image of 1x28x28 \(.*\); try another --image-size; all images are sq"
    ):
        check_forward(Network(build().architecture, oblong))
