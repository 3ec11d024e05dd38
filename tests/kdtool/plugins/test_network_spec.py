"""How networks are named."""

import functools

import pytest

from kdtool import UsageError
from kdtool.plugins.network_spec import named, qualified, source_of, stem_of


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A current folder with a module ``ownnets``."""
    (tmp_path / "ownnets.py").write_text("")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "full", "stem"),
    [
        ("timm:resnet18", "timm:resnet18", "resnet18"),
        ("kdtool:resnet9,width=32", "kdtool:resnet9,width=32", "resnet9"),
        ("ownnets:make_net", "python:ownnets:make_net", "make_net"),
        ("ownnets:make_net,width=32", "python:ownnets:make_net,width=32", "make_net"),
        ("far.away.nets:Net.small", "python:far.away.nets:Net.small", "Net.small"),
        ("python:timm:create_model", "python:timm:create_model", "create_model"),
        ("tim:resnet18", "tim:resnet18", "resnet18"),
        ("student.pt", "student.pt", "student.pt"),
    ],
)
def test_the_source_of_a_name(text, full, stem):
    assert qualified(text) == full
    assert stem_of(text) == stem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tim:resnet18", "no teacher source is called 'tim'; did you mean timm"),
        ("nets:make", "no teacher source is called 'nets', nor a module nets here; there are .*kdtool, python, "),
    ],
)
def test_a_source_that_is_none(text, says):
    with pytest.raises(UsageError, match=says):
        source_of(text)


def build(classes, width=3, sizes=()):
    return classes


def test_a_function_is_named_by_its_module_with_its_arguments():
    assert named("timm:resnet18") == "timm:resnet18"
    assert named(build) == f"python:{__name__}:build"
    assert named(functools.partial(build, width=5, sizes=(1, 2))) == f"python:{__name__}:build,sizes=(1, 2),width=5"
    for partial in (functools.partial(build, 3), functools.partial(build, width=object())):
        with pytest.raises(UsageError, match="give its arguments by name, as numbers"):
            named(partial)


def test_a_module_of_the_users_own_wins_over_another_name_of_a_source(tmp_path):
    for spec, source in (("tv:resnet18", "torchvision"), ("torch:resnet18", "torchvision"), ("hub:a/b", "hf")):
        with pytest.raises(UsageError, match=rf"did you mean {source}\?$"):
            source_of(spec)
    (tmp_path / "tv.py").write_text("")
    assert qualified("tv:make_net") == "python:tv:make_net"
