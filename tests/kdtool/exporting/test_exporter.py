"""Which exporter writes a kind of file."""

import os
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from kdtool.errors import Error, UsageError
from kdtool.exporting import exporter
from kdtool.exporting.exporter import Exporter, check_exported, exporter_of_suffix
from kdtool.plugins.entry_points import BrokenPlugin, Plugin


def plugin(name, distribution):
    return Plugin("exporters", name, "module", distribution, "1")


class Fancy(Exporter):
    """Write .onnx files in another way."""

    suffix: ClassVar[str] = ".onnx"


class Text(Exporter):
    """Write .txt files."""

    suffix: ClassVar[str] = ".txt"


class Own(Fancy):
    """Write .onnx files."""


@pytest.fixture
def install(monkeypatch):
    """Return a function that replaces the installed exporters: plugins, and the class or the error of each."""

    def replace(plugins):
        def method_class(kind, name):
            assert kind == "exporters"
            content = {plugin.name: content for plugin, content in plugins}[name]
            if isinstance(content, Exception):
                raise content
            return content

        others = Plugin("pruners", "p", "module", "kdtool", "1")
        monkeypatch.setattr(exporter, "installed", lambda: (others, *(plugin for plugin, _ in plugins)))
        monkeypatch.setattr(exporter, "method_class", method_class)

    return replace


def test_the_installed_exporter_of_onnx_files():
    assert exporter_of_suffix(".onnx").name == "onnx"


def test_the_first_of_that_suffix(install):
    install([(plugin("a", "other"), Text), (plugin("b", "other"), Fancy), (plugin("c", "other"), Own)])
    assert exporter_of_suffix(".onnx") is Fancy
    assert exporter_of_suffix(".txt") is Text


def test_kdtools_own_comes_first(install):
    install([(plugin("a", "other"), Fancy), (plugin("z", "kdtool"), Own)])
    assert exporter_of_suffix(".onnx") is Own


def test_a_broken_plugin_is_passed_over(install):
    install([(plugin("a", "other"), BrokenPlugin("it fails")), (plugin("b", "other"), Fancy)])
    assert exporter_of_suffix(".onnx") is Fancy


def test_none_of_that_suffix_is_one_line(install):
    install([(plugin("a", "other"), Text)])
    with pytest.raises(UsageError, match=r"^no installed exporter writes \.onnx files; [^\n]*$"):
        exporter_of_suffix(".onnx")


def test_an_exporter_that_has_only_export_is_sized_by_it(tmp_path):
    class Names(Exporter):
        """Write the names of what is told."""

        def export(self, network, output, *, metadata, teacher=None, test=None):
            output.write_text(",".join(metadata))
            return {}

        def draft(self, network, output, *, val=None):
            raise AssertionError

    Names().export_unchecked(None, tmp_path / "a", metadata={"x": "1", "y": "2"})
    assert (tmp_path / "a").read_text() == "x,y"


def test_latency_is_measured_of_files_for_onnxruntime_alone():
    with pytest.raises(UsageError, match=r"writes .txt files, and latency is measured in onnxruntime; name onnx"):
        exporter.check_measurable(Text())
    exporter.check_measurable(Fancy())


def test_a_folder_that_is_empty_or_new_is_written_into(tmp_path):
    class Folders(Exporter):
        """Write folders."""

        folder: ClassVar[bool] = True

    for path in (tmp_path / "new", tmp_path):
        Folders().check(path, force=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="holds files already"):
        Folders().check(tmp_path, force=False)
    Folders().check(tmp_path, force=True)
    with pytest.raises(UsageError, match="is a file; name a folder"):
        Folders().check(tmp_path / "file", force=True)


def test_a_name_that_libraries_do_not_write_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    with pytest.raises(UsageError, match=r"libraries write no name that is not UTF-8; choose another one"):
        Text().check(path, force=False)


class Pair(Text):
    """Write .txt files with another beside."""

    companions: ClassVar[tuple[str, ...]] = (".bin",)


@pytest.mark.parametrize(
    ("writes", "measured", "message"),
    [
        ((), {}, r"without writing .*net\.txt"),
        (("net.txt",), {}, r"without writing .*net\.bin"),
        (("net.txt", "net.bin"), None, "NoneType, not measurements by name"),
        (("net.txt", "net.bin"), {"latency": 0.5}, "float, not numbers by name as latency"),
        (
            ("net.txt", "net.bin"),
            {"size": torch.ones(1)},
            "measurements of which size is no plain data: Object of type T",
        ),
    ],
)
def test_an_export_that_did_not_do_what_it_says_is_told(tmp_path, writes, measured, message):
    for name in writes:
        (tmp_path / name).touch()
    with pytest.raises(Error, match=f"^exporter pair returned {message}"):
        check_exported(Pair(), tmp_path / "net.txt", measured)


def test_paths_and_numbers_that_are_not_finite_are_plain_measurements(tmp_path):
    (tmp_path / "net.txt").touch()
    check_exported(Text(), tmp_path / "net.txt", {"file": Path("net.txt"), "loss": float("nan"), "latency": None})
