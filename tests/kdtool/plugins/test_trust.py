"""Trust holds for a package in one folder, and finding a package imports nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kdtool import Error, UsageError
from kdtool.plugins import trust
from kdtool.plugins.trust import Place, distrust, exists, file_of_trust, place_of, remembered

NAME = "ownnets:make"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders with a module of the same name, which ends the process if it is imported; one is the current one."""
    monkeypatch.setenv("KDTOOL_CONFIG", str(tmp_path / "config"))
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ownnets.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.chdir(tmp_path / "mine")
    return tmp_path / "mine", tmp_path / "other"


def test_nothing_is_trusted_until_the_user_says_so_and_then_it_is_remembered(folders, monkeypatch, capsys):
    mine, _ = folders
    with pytest.raises(
        Error, match=rf"^{NAME}: is code in {mine}/ownnets\.py, which is not trusted; .*--trust ownnets"
    ):
        place_of("ownnets", NAME)
    assert trust.trust("ownnets") == Place("ownnets", mine)
    assert f"trusted from now on: {mine}/ownnets.py" in capsys.readouterr().err
    assert json.loads(file_of_trust().read_text()) == {"trusted": [{"package": "ownnets", "folder": str(mine)}]}
    trust.trust("ownnets.deeper:make")
    assert capsys.readouterr().err == ""
    monkeypatch.chdir("/")
    assert place_of("ownnets", NAME) == Place("ownnets", mine)
    assert distrust("ownnets") == [Place("ownnets", mine)]
    with pytest.raises(UsageError, match="there is no package or module ownnets in the current folder or among"):
        place_of("ownnets", NAME)
    with pytest.raises(UsageError, match="ownnets: is not trusted; kdtool trust lists"):
        distrust("ownnets")


def test_a_package_of_the_same_name_in_another_folder_is_not_trusted(folders, monkeypatch):
    mine, other = folders
    trust.trust("ownnets")
    monkeypatch.chdir(other)
    monkeypatch.syspath_prepend("")
    with pytest.raises(
        Error, match=rf"two: {other}/ownnets\.py in the current folder, which is not trusted, and {mine}"
    ):
        place_of("ownnets", NAME)
    trust.trust("ownnets")
    assert place_of("ownnets", NAME).folder == other
    monkeypatch.chdir("/")
    with pytest.raises(Error, match="ownnets is trusted in .*; work in the folder of the one that is meant"):
        place_of("ownnets", NAME)
    distrust(str(mine / "ownnets.py"))
    assert place_of("ownnets", NAME).folder == other


def test_a_path_names_a_package_too(folders):
    _, other = folders
    assert trust.trust("../other/ownnets.py") == Place("ownnets", other)
    (other / "pack").mkdir()
    (other / "pack" / "nets.py").write_text("")
    assert trust.trust("../other/pack") == Place("pack", other)
    assert str(place_of("pack", "pack.nets:make")) == str(other / "pack")
    with pytest.raises(UsageError, match=r"--trust \.\./other/none: there is no package or module of that name"):
        trust.trust("../other/none")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("os", "--trust os: os is a part of Python and has no networks"),
        (
            "nowhere",
            "--trust nowhere: there is no package or module nowhere in the current folder or among the installed",
        ),
        ("my-package", "'my-package': is not the name of a package, such as mypackage, nor its path"),
        ("", "'': is not the name of a package"),
    ],
)
def test_what_is_no_package_is_not_trusted(folders, text, says):
    with pytest.raises(UsageError, match=says):
        trust.trust(text)
    assert remembered() == []


def test_the_variable_trusts_installed_packages_and_paths_but_not_the_current_folder(folders, monkeypatch, tmp_path):
    mine, other = folders
    monkeypatch.setenv("KDTOOL_TRUST", "ownnets")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with pytest.raises(Error, match="is not trusted"):
        place_of("ownnets", NAME)
    monkeypatch.setattr(sys, "path", [str(mine), *sys.path])
    with pytest.raises(Error, match="is not trusted"):  # python -m kdtool puts the current folder there
        place_of("ownnets", NAME)
    monkeypatch.chdir(tmp_path)
    assert place_of("ownnets", NAME).folder == mine  # it is installed, as far as can be seen from here
    monkeypatch.setenv("KDTOOL_TRUST", f"{other / 'ownnets.py'}")
    assert place_of("ownnets", NAME).folder == other
    monkeypatch.setenv("KDTOOL_TRUST", "other/ownnets.py")
    with pytest.raises(UsageError, match="write the absolute path"):
        place_of("ownnets", NAME)
    assert remembered() == []


def test_a_folder_of_images_is_no_package(folders):
    mine, _ = folders
    (mine / "photos").mkdir()
    (mine / "photos" / "1.jpg").write_bytes(b"")
    assert not exists("photos")
    assert exists("ownnets")


@pytest.mark.parametrize("text", ["{", "[]", '{"trusted": [{"package": "a"}]}'])
def test_a_damaged_file_trusts_nothing_and_is_named(folders, text):
    file_of_trust().parent.mkdir()
    file_of_trust().write_text(text)
    with pytest.raises(Error, match=r"trusted\.json: .*; remove it, and trust your packages again"):
        place_of("ownnets", NAME)


def test_where_it_is_remembered(monkeypatch, tmp_path):
    monkeypatch.delenv("KDTOOL_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert file_of_trust() == tmp_path / "kdtool" / "trusted.json"
    # A relative one would be another folder wherever one works: a stranger's, too.
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert file_of_trust() == Path(tmp_path / "home" / ".config" / "kdtool" / "trusted.json")


def test_a_folder_that_cannot_be_written_is_named(folders, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDTOOL_CONFIG", str(tmp_path / "file" / "config"))
    with pytest.raises(Error, match="cannot be (read|written)"):
        trust.trust("ownnets")
