"""The message for a network that is not available: one line, an exit code, and no file."""

import pytest
from click.testing import CliRunner

from kdtool.cli.main import cli


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("timm:resnet8", 2, "timm knows no network 'resnet8'; did you mean resnet18"),
        ("torchvision:resnet17", 2, "torchvision knows no network 'resnet17'; did you mean resnet18"),
        ("kdtool:resnet21", 2, "kdtool knows no network 'resnet21'; did you mean resnet20"),
        ("kdtool:xyz", 2, "kdtool knows no network 'xyz'; it has"),
        ("timm:hf-hub:someone/something", 2, "timm knows no network"),
        ("timm:mobilenetv5_300m_enc", 1, "is not a classifier"),
        ("timm:gcvit_xxtiny --image-size 2", 1, "cannot be built for 10 classes and 3x2x2 pixels"),
        ("torchvision:vit_b_16 --image-size 33", 1, "it was made for 224"),
        ("torchvision:inception_v3 --image-size 32", 1, "cannot take an image of 3x32x32"),
        ("kdtool:vgg8 --image-size 4", 2, "give --image-size 8 or more"),
        ("kdtool:lenet-300-100 --image-size 4000", 2, "would have 4,800,031,410 parameters for 1x4000x4000 pixels"),
        ("kdtool:conv4-fc2 --width 4096", 2, "give a smaller --image-size or --width"),
    ],
)
def test_a_network_that_cannot_be_had(words, code, message, tmp_path):
    result = CliRunner().invoke(cli, ["teacher", *words.split(), "--classes", "10", "-o", str(tmp_path / "made.pt")])
    assert result.exit_code == code
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout
    assert not list(tmp_path.iterdir())
