"""Which precision `--precision auto` takes: by the work of a step, and by how much of it is arithmetic."""

import pytest

from kdtool.models.options import NetworkOptions
from kdtool.models.size import step_of
from kdtool.models.sources import create
from kdtool.training import engine
from kdtool.training.engine import Engine
from kdtool.training.options import Training


def network(spec, size, channels=3):
    return create(spec, options=NetworkOptions(classes=10, in_channels=channels, image_size=size), data=None)


def test_the_work_of_a_step():
    assert step_of(network("kdtool:lenet-300-100", 28, 1), 3) == (3 * (784 * 300 + 300 * 100 + 100 * 10), 3 * 410)
    # 6 maps of 28x28, 16 of 10x10, 120, 84, 10.
    macs, outputs = step_of(network("kdtool:lenet-5", 28, 1), 1)
    assert outputs == 6 * 28 * 28 + 16 * 10 * 10 + 120 + 84 + 10
    assert macs == 25 * 6 * 28 * 28 + 25 * 6 * 16 * 10 * 10 + 16 * 5 * 5 * 120 + 120 * 84 + 84 * 10


@pytest.mark.parametrize(
    ("spec", "size", "batch", "taken", "with_amx"),
    [
        ("kdtool:resnet20", 32, 64, "bf16", "bf16"),
        ("kdtool:resnet20", 8, 64, "fp32", "bf16"),  # little work
        ("kdtool:resnet20", 8, 16, "fp32", "fp32"),  # less
        ("timm:mobilenetv3_small_100", 160, 64, "fp32", "fp32"),  # work enough, but little of it for each number
        ("torchvision:shufflenet_v2_x1_0", 96, 32, "fp32", "bf16"),
        ("torchvision:squeezenet1_1", 96, 32, "bf16", "bf16"),
    ],
)
def test_auto(monkeypatch, spec, size, batch, taken, with_amx):
    monkeypatch.setattr(engine, "_cpu_bf16", lambda: True)
    work = step_of(network(spec, size), batch)
    for amx, expected in ((False, taken), (True, with_amx)):
        monkeypatch.setattr(engine, "_cpu_amx", lambda amx=amx: amx)
        assert Engine(Training(device="cpu"), *work).precision == expected
    monkeypatch.setattr(engine, "_cpu_bf16", lambda: False)
    assert Engine(Training(device="cpu"), *work).precision == "fp32"
    assert Engine(Training(device="cpu", precision="bf16"), *work).precision == "bf16"
