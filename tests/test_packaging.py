from __future__ import annotations

import configparser
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "kdtool",
    "kdtool_datasets",
    "kdtool_distillers",
    "kdtool_exporters",
    "kdtool_pruners",
    "kdtool_refiners",
    "kdtool_teachers",
    "kdtool_trackers",
}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT, cwd=directory)
    (built,) = directory.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path, pyproject: dict[str, Any]) -> None:
    version = pyproject["project"]["version"]
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        (licence,) = (name for name in names if name.endswith("LICENSE"))
        text = content.read(licence).decode()

    assert {name.partition("/")[0] for name in names} == PACKAGES | {f"kdtool-{version}.dist-info"}
    assert "kdtool/py.typed" in names
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def copied(to: Path) -> Path:
    """Copy what is packed, with other times and permissions; return the folder."""
    for name in ("kdtool", "plugins"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copyfile(ROOT / name, to / name)
    for path in to.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (2e9, 2e9))
    return to


def test_the_same_files_give_the_same_wheel_elsewhere_at_another_time(wheel: Path, tmp_path: Path) -> None:
    folder = copied(tmp_path / "elsewhere")
    before = os.umask(0o077)
    try:
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, folder, cwd=tmp_path)
    finally:
        os.umask(before)
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert first.namelist() == second.namelist()
    assert again.read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_the_same_files_give_the_same_sdist_and_its_wheel(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        folder = copied(tmp_path / name)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / f"of {name}", folder, cwd=tmp_path)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / f"of {name}").iterdir()})
    assert len(contents[0]) == 2
    assert contents[0] == contents[1]


def test_every_python_file_of_both_roots_is_in_the_wheel(wheel: Path) -> None:
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kdtool").rglob("*.py")}
    expected |= {path.relative_to(ROOT / "plugins").as_posix() for path in (ROOT / "plugins").rglob("*.py")}

    with zipfile.ZipFile(wheel) as content:
        assert {name for name in content.namelist() if name.endswith(".py")} == expected


def test_the_wheel_declares_the_entry_points(wheel: Path, pyproject: dict[str, Any]) -> None:
    parser = configparser.ConfigParser(delimiters=("=",))
    with zipfile.ZipFile(wheel) as content:
        (name,) = (name for name in content.namelist() if name.endswith("entry_points.txt"))
        parser.read_string(content.read(name).decode())
    declared = {section: dict(parser[section]) for section in parser.sections()}

    assert declared.pop("console_scripts") == pyproject["project"]["scripts"]
    assert declared == pyproject["project"]["entry-points"]


def test_every_entry_point_names_a_file_of_its_kinds_package(pyproject: dict[str, Any]) -> None:
    for group, points in pyproject["project"]["entry-points"].items():
        for name, value in points.items():
            module, _, attribute = value.partition(":")
            package, _, file = module.partition(".")
            assert package == "kdtool_" + group.removeprefix("kdtool."), f"{group}: {name}"
            code = (ROOT / "plugins" / package / f"{file}.py").read_text(encoding="utf-8")
            assert f"\nclass {attribute}(" in code, f"{group}: {name}"


def test_the_wheel_installs_and_works_beside_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path
    )  # fmt: skip
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # The dependencies come from here; an editable kdtool's own .pth file is not read from there.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    code = f"import {', '.join(sorted(PACKAGES))}; print(kdtool.__file__, kdtool_distillers.__file__)"
    for file in run(python, "-c", code, cwd=tmp_path).split():
        assert Path(file).is_relative_to(site)
    listed = json.loads(run(tmp_path / "venv" / "bin" / "kdtool", "plugins", "--json", cwd=tmp_path))
    builtin = {(row["kind"], row["name"]) for row in listed if row["distribution"] == "kdtool"}
    assert {("distillers", "ikd"), ("teachers", "timm"), ("exporters", "onnx")} <= builtin


def test_the_classifiers_name_the_pythons_that_are_required(pyproject: dict[str, Any]) -> None:
    lowest, first_unknown = map(int, re.findall(r"3\.(\d+)", pyproject["project"]["requires-python"]))
    named = [name for name in pyproject["project"]["classifiers"] if "Python :: 3." in name]
    tested = re.search(r"^PYTHONS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    versions = [f"3.{minor}" for minor in range(lowest, first_unknown)]
    assert named == [f"Programming Language :: Python :: {version}" for version in versions]
    assert tested is not None
    assert tested[1].split() == [f"python{version}" for version in versions]


def test_the_lowest_versions_are_those_of_pyproject() -> None:
    directory = ROOT / "tests" / "constraints"

    printed = run(sys.executable, directory / "lowest.py", cwd=ROOT)
    assert printed == (directory / "lowest.txt").read_text(encoding="utf-8"), "make tests/constraints/lowest.txt"


@pytest.mark.parametrize(("requirement", "line"), [("a>=1", "a==1"), ("a-b[c]>=1.2.3,<2", "a-b==1.2.3")])
def test_constraints_hold_a_requirement_at_its_lower_bound(requirement: str, line: str) -> None:
    constraints = runpy.run_path(str(ROOT / "tests" / "constraints" / "lowest.py"))["constraints"]

    assert constraints([requirement]) == [line]
    with pytest.raises(ValueError, match="'b<2' has no lower bound; write NAME>=VERSION"):
        constraints([requirement, "b<2"])


def test_the_versions_agree(pyproject: dict[str, Any]) -> None:
    version = pyproject["project"]["version"]

    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert version in run(sys.executable, "-m", "kdtool", "--version", cwd=ROOT)
