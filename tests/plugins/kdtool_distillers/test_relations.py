"""What relations need: other images, and features before the classifier."""

import pytest
import torch

import kdtool
from kdtool import Error, UsageError, make
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool_distillers.relations import embedded

RELATIONS = ["rkd", "sp", "cc"]
FEATURES = ["fitnets", "at", "reviewkd", "fsp", *RELATIONS]


@pytest.mark.parametrize("method", RELATIONS)
def test_a_batch_of_one_is_refused(method, step_of):
    step = step_of([(torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2))])
    with pytest.raises(Error, match=f"{method} compares the images of a batch .* use a larger --batch-size"):
        make("distillers", method).loss(step)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("kdtool:lenet-5", "sp compares the images of a batch .* use a larger --batch-size"),
        ("timm:test_resnet", "--batch-size 1: batch-norm has no statistics of one image"),
    ],
)
def test_batches_of_one_are_refused_at_once(network, message, tmp_path):
    kdtool.teacher(network, data="digits", epochs=0, output=tmp_path / "t.pt", image_size=32)
    with pytest.raises(Error, match=message):
        kdtool.distill(tmp_path / "t.pt", "sp", student=network, batch_size=1, subset=0.05, output=tmp_path / "s.pt")


@pytest.mark.parametrize(
    ("method", "options"), [("reviewkd", {}), ("wkd", {"logit_weight": 0, "feature_weight": 0.01})]
)
def test_adapters_with_batch_norm_need_more_than_one_image_too(method, options, tmp_path):
    """A vision transformer has none, but the layers that its maps go through have."""
    data = {"data": "digits", "image_size": 16, "subset": 0.02}
    kdtool.teacher("timm:test_vit", epochs=0, output=tmp_path / "t.pt", **data)
    with pytest.raises(UsageError, match="^--batch-size 1: batch-norm has no statistics of one image; use a larger"):
        kdtool.distill(
            tmp_path / "t.pt", method, student="timm:test_vit", batch_size=1, output=tmp_path / "s.pt", **options
        )


@pytest.mark.parametrize("method", FEATURES)
def test_a_network_without_stages_is_refused(method):
    plain = create("kdtool:lenet-300-100", options=NetworkOptions(), data=None)
    with pytest.raises(Error, match="kdtool:lenet-300-100: has no stages"):
        make("distillers", method).watch(plain, plain)


def test_features_are_means_over_positions():
    assert embedded(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]]])).tolist() == [[3.0, 1.0]]
