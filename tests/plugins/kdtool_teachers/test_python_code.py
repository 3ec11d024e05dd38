"""Networks of functions of the user's own code: through every kind of command, and never without trust."""

from __future__ import annotations

import functools
import sys

import pytest
import torch
from torch import nn

import kdtool
from kdtool import Error, UsageError
from kdtool.plugins import own_code, trust

NETS = """
import torch
from torch import nn

MEAN = torch.zeros(1)

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.norm(self.conv(x))) + MEAN

class Net(nn.Module):
    def __init__(self, num_classes, in_chans=1, width=8, depths=(1,)):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_chans, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(*[Block(width) for _ in range(sum(depths))])
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))

def make(classes, in_channels=1, image_size=8, **others):
    print("make is called")
    return Net(classes, in_channels, **others)

def seven() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))

def text(classes):
    return "a network"

def fails(classes):
    raise KeyError("no such thing")

def exits(classes):
    raise SystemExit(3)

def colours(classes):
    return nn.Sequential(nn.Conv2d(3, classes, 8), nn.Flatten())

def main(path="/"):
    import os
    os._exit(7)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The current folder, with a package ``ownmodels`` that is trusted."""
    monkeypatch.setenv("KDTOOL_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "home"
    (folder / "ownmodels").mkdir(parents=True)
    (folder / "ownmodels" / "__init__.py").write_text("")
    (folder / "ownmodels" / "nets.py").write_text(NETS)
    monkeypatch.chdir(folder)
    trust.trust("ownmodels")
    yield folder
    forget()


def forget():
    """Let this process be as one that never imported the package."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "ownmodels"]:
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if not entry.endswith("/home")]


def outputs(checkpoint):
    with torch.no_grad():
        return checkpoint.module(torch.linspace(-1, 1, 128).view(2, 1, 8, 8))


def test_it_is_trained_edited_and_read_again_in_another_folder(home, monkeypatch, tmp_path, capsys):
    teacher = kdtool.teacher("ownmodels.nets:make,width=6,depths=(1,1)", data="digits", epochs=1, output="t.pt")
    assert teacher.architecture.spec == "python:ownmodels.nets:make"
    assert teacher.architecture.options["arguments"] == "depths=(1, 1),width=6"
    assert len(teacher.module.blocks) == 2
    small = kdtool.refine("t.pt", "halve", init="inherit", output="half.pt")
    assert "make is called" not in capsys.readouterr().out
    monkeypatch.chdir("/")
    forget()
    for made in (teacher, small):
        assert torch.equal(outputs(kdtool.load(home / made.path)), outputs(made))
    # A tensor that its module makes is a real one, though networks are built without memory first.
    assert not sys.modules["ownmodels.nets"].MEAN.is_meta


@pytest.mark.slow
def test_it_is_pruned_distilled_compared_and_exported(home, monkeypatch):
    kdtool.teacher("ownmodels.nets:make,width=6", data="digits", epochs=1, output="t.pt")
    pruned = kdtool.prune("t.pt", "filter-l1", ratio=0.3, round_to=1, epochs=0, output="p.pt")
    student = kdtool.distill("t.pt", "at", student="ownmodels.nets:make,width=3", epochs=1, output="s.pt")
    kdtool.export("p.pt", output="p.onnx", latency=False)
    monkeypatch.chdir("/")
    forget()
    for made in (pruned, student):
        assert torch.equal(outputs(kdtool.load(home / made.path)), outputs(made))
    assert kdtool.inspect(home / "p.pt")["parameters"] < kdtool.inspect(home / "t.pt")["parameters"]
    assert 0 <= kdtool.compare(home / "t.pt", home / "s.pt")["agreement"] <= 1
    assert kdtool.inspect(home / "p.onnx")["source"] == "python:ownmodels.nets:make"


def test_a_checkpoint_imports_nothing_that_is_not_trusted(home, monkeypatch, tmp_path):
    kdtool.teacher("ownmodels.nets:make", data="digits", epochs=0, output="t.pt")
    trust.distrust("ownmodels")
    forget()
    (home / "ownmodels" / "__init__.py").write_text("import os\nos._exit(7)\n")
    line = r"t\.pt: ownmodels\.nets:make: is code in .*/home/ownmodels, which is not trusted; .* add --trust ownmodels"
    monkeypatch.syspath_prepend("")  # as python -m kdtool has it
    for read in (kdtool.load, kdtool.inspect, kdtool.evaluate, kdtool.export):
        with pytest.raises(Error, match=line):
            read("t.pt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"there is no package or module ownmodels in the current folder or among"):
        kdtool.load(home / "t.pt")
    assert "ownmodels" not in sys.modules


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("seven", {}, r"is no classifier of 10 classes: its output is \(1, 7\)"),
        ("text", {}, "nets:text: returns str, and a network is a torch.nn.Module"),
        ("fails", {}, "nets:fails: fails with KeyError: 'no such thing'"),
        ("exits", {}, r"nets:exits: fails with SystemExit: sys\.exit\(3\)"),
        ("colours", {}, "cannot take an image of 1x8x8"),
        ("main", {}, "does not look like a function that builds a network: it has no parameter classes"),
        ("main,path=/", {}, "does not look like a function that builds a network"),
        ("make,widht=3", {}, "nets:make: fails with TypeError: .*unexpected keyword argument 'widht'"),
        (
            "Net,widht=3",
            {},
            "unexpected keyword argument 'widht'; arguments are given behind a comma: .*:Net,name=value",
        ),
        ("make", {"pretrained": True}, "knows no pretrained weights of your code; give a file with --weights"),
        ("make,3", {}, "'3' is not of the form option=value"),
    ],
)
def test_what_is_no_network_for_the_data_is_one_line(home, name, options, says):
    with pytest.raises(Error, match=says):
        kdtool.teacher(f"ownmodels.nets:{name}", data="digits", epochs=0, output="t.pt", **options)
    assert not (home / "t.pt").exists()


def test_without_data_its_shape_has_to_be_said(home):
    with pytest.raises(
        UsageError, match=r"ownmodels\.nets:Net: does not say what it is for; give --classes and --image"
    ):
        kdtool.teacher("ownmodels.nets:Net", output="t.pt")
    assert kdtool.teacher("ownmodels.nets:make", classes=4, output="t.pt").architecture.input == (1, 8, 8)


def test_a_python_program_gives_the_function_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(own_code, "_GIVEN", {})
    monkeypatch.setenv("KDTOOL_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    teacher = kdtool.teacher(functools.partial(tiny, width=5), data="digits", epochs=0)
    assert teacher.path.name == "tiny.pt"
    assert teacher.architecture.options["arguments"] == "width=5"
    student = kdtool.distill("tiny.pt", student=tiny, epochs=1, output="s.pt")
    assert torch.equal(outputs(kdtool.load("s.pt")), outputs(student))
    assert trust.remembered() == []
    monkeypatch.setattr(own_code, "_GIVEN", {})  # another process
    with pytest.raises(Error, match="is not trusted|there is no package"):
        kdtool.load("s.pt")
    monkeypatch.setattr(tiny, "__module__", "__main__")
    kdtool.teacher(tiny, classes=10, in_channels=1, image_size=8, output="script.pt")
    assert "__main__:tiny: is in the script itself" in capsys.readouterr().err
    kdtool.load("script.pt")


def tiny(num_classes: int, width: int = 2) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 8), nn.Flatten(), nn.Linear(width, num_classes))


@pytest.mark.slow
def test_a_student_is_exported_where_the_code_of_its_teacher_is_not(home, monkeypatch, capsys):
    kdtool.teacher("ownmodels.nets:make", data="digits", epochs=0, output="t.pt")
    kdtool.distill("t.pt", student="kdtool:lenet-300-100", epochs=1, subset=0.2, output="s.pt")
    (home / "t.pt").unlink()
    trust.distrust("ownmodels")
    forget()
    kdtool.export("s.pt", output="s.onnx", latency=False)
    assert "the teacher is left out: ownmodels.nets:make: is code in" in capsys.readouterr().err
    assert "ownmodels" not in sys.modules
