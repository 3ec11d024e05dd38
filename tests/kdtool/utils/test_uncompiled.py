"""Training does not import torch's compiler, and replacing its wrappers changes no bit of the result."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from kdtool.utils.uncompiled import optimizing, uncompiled, with_plain_step

CODE = """
import sys, kdtool
kdtool.prune(sys.argv[1], epochs=1, subset=0.1, output=sys.argv[2])
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.slow  # tests/kdtool/cli/test_process.py shows it of another command
def test_a_command_that_trains_does_not_import_the_compiler(teacher_path, tmp_path):
    words = [sys.executable, "-c", CODE, str(teacher_path), str(tmp_path / "pruned.pt")]
    process = subprocess.run(words, capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(("kind", "options"), [(torch.optim.Adam, {}), (torch.optim.SGD, {"momentum": 0.9})])
def test_a_plain_step_is_the_same_step(kind, options):
    torch.manual_seed(0)
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    for module, optimizer_class in ((first, kind), (second, with_plain_step(kind))):
        optimizer = optimizer_class(module.parameters(), lr=0.1, fused=True, **options)
        for step in range(3):
            module(torch.full((1, 3), step + 1.0)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_nothing_is_left_behind():
    def inner():
        return 1

    def outer():
        return 2

    outer.__wrapped__ = inner
    loaded = "torch._dynamo" in sys.modules
    with uncompiled(outer):
        assert hasattr(inner, "__dynamo_disable") is not loaded
    assert not hasattr(inner, "__dynamo_disable")
    with optimizing():
        pass
