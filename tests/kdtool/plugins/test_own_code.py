"""Functions of packages that the user trusts, and of no others."""

from __future__ import annotations

import functools
import sys

import pytest
from torch import nn

from kdtool import Error, UsageError
from kdtool.plugins import own_code, trust
from kdtool.plugins.own_code import function_at, given, is_path

NETS = """
import json
import os
from os import system
from ownhelpers import width
print("ownpack is imported")

class Group:
    @staticmethod
    def make(classes):
        return classes

def make(classes):
    return classes * width

small = __import__("functools").partial(make, 3)
number = 3
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in the current folder, beside a module that it imports."""
    monkeypatch.setenv("KDTOOL_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    home = tmp_path / "home"
    (home / "ownpack").mkdir(parents=True)
    (home / "ownpack" / "__init__.py").write_text("")
    (home / "ownpack" / "nets.py").write_text(NETS)
    (home / "ownhelpers.py").write_text("width = 5\n")
    monkeypatch.chdir(home)
    yield home
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ownpack", "ownhelpers", "ownspace")]:
        del sys.modules[name]


def test_a_function_of_a_trusted_package_is_called_from_its_place(package, monkeypatch, tmp_path, capsys):
    trust.trust("ownpack")
    monkeypatch.chdir(tmp_path)
    assert function_at("ownpack.nets:make")(2) == 10
    assert function_at("ownpack.nets:Group.make")(2) == 2
    assert function_at("ownpack.nets:small")() == 15
    assert sys.modules["ownpack"].__path__ == [str(package / "ownpack")]
    out, err = capsys.readouterr()
    assert out == ""
    assert "ownpack is imported" in err


def test_no_import_begins_without_trust(package):
    (package / "ownpack" / "__init__.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(Error, match=r"ownpack\.nets:make: is code in .*/home/ownpack, which is not trusted"):
        function_at("ownpack.nets:make")
    assert "ownpack" not in sys.modules
    assert str(package) not in sys.path


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("ownpack.nets:system", "is defined in posix, not in ownpack; name a function of ownpack"),
        ("ownpack.nets:os.system", "is defined in posix, not in ownpack"),
        ("ownpack.nets:json.dumps", "is defined in json, not in ownpack"),
        ("ownpack.nets:number", "is no function and no class"),
        ("ownpack.nets:makes", r"ownpack\.nets has no function makes; did you mean make\?"),
        ("ownpack.nest:make", r"there is no module ownpack\.nest in .*/home/ownpack"),
        ("ownpack.nets:make()", "a function of your own code is written as mypackage.nets:make_net"),
        ("ownpack.nets:", "is written as mypackage.nets:make_net"),
        ("__main__:make", "is a function of a script or a notebook, which only that process can call"),
    ],
)
def test_what_is_no_function_of_the_package_is_refused(package, path, says):
    trust.trust("ownpack")
    with pytest.raises(UsageError, match=says):
        function_at(path)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise KeyError('no')", r"cannot be imported from .*: KeyError: 'no'"),
        ("raise SystemExit(3)", "cannot be imported from .*: SystemExit: 3"),
        ("def (", "cannot be imported from .*: SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    ],
)
def test_an_import_that_fails_is_one_line(package, body, says):
    trust.trust("ownpack")
    (package / "ownpack" / "__init__.py").write_text(f"{body}\n")
    with pytest.raises(Error, match=says):
        function_at("ownpack.nets:make")
    assert "ownpack" not in sys.modules


def test_another_package_of_the_name_that_is_imported_already_is_not_taken(package, monkeypatch, tmp_path):
    (tmp_path / "ownpack.py").write_text("def make(classes): return 'the wrong one'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("ownpack")
    trust.trust("ownpack")
    with pytest.raises(Error, match=r"another ownpack is imported already, from .*; rename yours"):
        function_at("ownpack.nets:make")


def test_a_package_without_a_marker_is_its_own_folder_alone(package, monkeypatch, tmp_path):
    (package / "ownspace").mkdir()
    (package / "ownspace" / "nets.py").write_text("def make(classes): return classes\n")
    trust.trust("ownspace")
    stranger = tmp_path / "stranger"
    (stranger / "ownspace").mkdir(parents=True)
    (stranger / "ownspace" / "evil.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.chdir(stranger)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert function_at("ownspace.nets:make")(4) == 4
    with pytest.raises(UsageError, match=r"there is no module ownspace\.evil"):
        function_at("ownspace.evil:make")


def test_a_function_that_a_program_holds_needs_no_trust(monkeypatch):
    monkeypatch.setattr(own_code, "_GIVEN", {})
    path = given(build)
    assert path == f"{__name__}:build"
    assert function_at(path) is build
    for nameless in (lambda classes: None, functools.partial(build), 3):
        with pytest.raises(UsageError, match="has no name of its own in a module"):
            given(nameless)


def test_a_function_that_was_mended_takes_the_place_of_the_one_that_was_given(monkeypatch):
    monkeypatch.setattr(own_code, "_GIVEN", {})
    path, module = given(build), sys.modules[__name__]
    given_first = build
    monkeypatch.setattr(module, "build", lambda classes: classes + 1)  # a cell ran again, or the module was reloaded
    assert function_at(path)(3) == 4
    given(given_first)
    assert function_at(path) is given_first  # the program holds the old one, and gave it
    monkeypatch.delattr(module, "build")
    assert function_at(path) is given_first


def build(classes):
    return classes


def test_the_form_of_an_import_path():
    assert is_path("a.b:c")
    assert is_path("a:B.c")
    assert not any(map(is_path, ("a.b.c", "a-b:c", "a:b-c", ":c", "a:", "a:b:c", "1a:b", "./a:b")))


def test_a_network_is_not_what_builds_it():
    for network in (nn.Linear(1, 1), nn.Sequential()):
        with pytest.raises(UsageError, match="expected what builds a network, got a network, a ") as raised:
            given(network)
        assert "\n" not in str(raised.value)
