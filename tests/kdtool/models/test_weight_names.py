"""Names in files of weights that are not those of the network."""

from kdtool.models.weight_names import match

OWN = ("features.denseblock1.denselayer1.norm1.weight", "features.denseblock1.denselayer1.conv2.weight")
OLD = ("features.denseblock1.denselayer1.norm.1.weight", "features.denseblock1.denselayer1.conv.2.weight")


def test_old_names_of_densenet_are_read_as_those_of_today():
    assert match(OLD, OWN).inside == dict(zip(OWN, OLD, strict=True))
    wrapped = [f"module.{name}" for name in OLD]
    assert match(wrapped, OWN).inside == dict(zip(OWN, wrapped, strict=True))
    # A network may have such names of its own.
    assert match(OLD, OLD).inside == dict(zip(OLD, OLD, strict=True))
