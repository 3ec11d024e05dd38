"""The script of the structured-pruning study that removes channels with only Torch-Pruning."""

import runpy
import sys
from pathlib import Path

import pytest

import kdtool
from kdtool.models.size import measure

SCRIPT = Path(__file__).parents[2] / "examples" / "structured-pruning" / "by_torch_pruning.py"


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet20b", "vgg8"])
def test_the_rest_is_a_checkpoint_that_can_be_retrained(network, tmp_path, monkeypatch):
    teacher, half = tmp_path / "teacher.pt", tmp_path / "half.pt"
    checkpoint = kdtool.teacher(f"kdtool:{network}", data="digits", epochs=1, output=teacher)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(teacher), str(half), "--macs", "0.5"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    whole, left = (measure(model.network)["macs"] for model in (checkpoint, kdtool.load(half)))
    assert 0.4 < left / whole <= 0.5
    kdtool.distill(teacher, "none", student=half, epochs=1, output=tmp_path / "retrained.pt")
