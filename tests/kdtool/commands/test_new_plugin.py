from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import kdtool
from kdtool.cli.main import cli
from kdtool.commands.new_plugin import GROUPS, new_plugin
from kdtool.errors import UsageError
from kdtool.plugins.entry_points import KINDS, TRACKERS

ROOT = Path(__file__).parents[3]
EXAMPLES = {
    "teacher": "plain",
    "refiner": "fit",
    "distiller": "logit-mse",
    "pruner": "relative",
    "exporter": "weights",
    "dataset": "stripes",
    "tracker": "lines",
}


def texts(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def test_there_is_a_template_of_every_kind() -> None:
    assert {*GROUPS.values()} == {*KINDS, TRACKERS}
    assert {*EXAMPLES} == {*GROUPS}


@pytest.mark.parametrize(("kind", "name"), EXAMPLES.items())
def test_the_examples_are_what_the_command_writes(tmp_path: Path, kind: str, name: str) -> None:
    made = texts(new_plugin(name, kind, output=tmp_path / "made"))
    example = texts(ROOT / "examples" / f"kdtool-{name}")

    if kind == "distiller":  # an older example, with a docstring and a README of its own
        made = {file: text.replace("LogitMse", "LogitMSE") for file, text in made.items()}
        source = "kdtool_logit_mse.py"
        assert made[source].partition("\n\n")[2] == example[source].partition("\n\n")[2]
        del made[source], example[source], made["README.md"], example["README.md"]
    assert made == example


@pytest.mark.parametrize(("kind", "name"), EXAMPLES.items())
def test_the_guide_shows_the_same_code(kind: str, name: str) -> None:
    guide = (ROOT / "docs" / "guides" / "own-plugin.md").read_text()
    code = (ROOT / "examples" / f"kdtool-{name}" / f"kdtool_{name.replace('-', '_')}.py").read_text()
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)

    assert any(code.endswith(block) for block in blocks), kind


@pytest.mark.slow
def test_a_new_package_passes_its_test_where_it_is_not_installed(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["new-plugin", "small-data", "--kind", "dataset", "-o", str(tmp_path / "new")])

    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'new'}\n"
    assert f"pytest {tmp_path / 'new'}" in result.stderr
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(pytest_run, cwd=tmp_path / "new", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("My_Loss", "distiller", "'My_Loss': a name has lower-case letters, digits and hyphens, such as my-distiller"),
        ("../x", "distiller", r"'../x': a name has lower-case letters"),
        ("", "dataset", "'': a name has"),
        ("kd", "distiller", "kd: is the name of an installed distiller; choose another one"),
        ("datasets", "dataset", "datasets: there is a package kdtool_datasets already; choose another one"),
        ("trackers", "tracker", "trackers: there is a package kdtool_trackers already; choose another one"),
        (
            "mine",
            "losses",
            "--kind losses: is no kind; one of teacher, refiner, distiller, pruner, exporter, dataset, tracker",
        ),
        ("mine", "distiler", "--kind distiler: is no kind; did you mean distiller?"),
    ],
)
def test_what_cannot_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        new_plugin(name, kind)
    assert not [*tmp_path.iterdir()]


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_plugin("mine", "pruner", output=tmp_path / "there")
    before = texts(tmp_path / "there")

    with pytest.raises(UsageError, match="there: exists already; choose another directory with -o"):
        new_plugin("other", "pruner", output=tmp_path / "there")
    with pytest.raises(UsageError, match="there is no directory"):
        new_plugin("other", "pruner", output=tmp_path / "nowhere" / "x")

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(kdtool.Error, match="cannot be written: No space left on device"):
        kdtool.new_plugin("other", "pruner", output=tmp_path / "full")
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]
    assert texts(tmp_path / "there") == before


def test_a_class_may_not_have_the_name_of_a_keyword(tmp_path: Path) -> None:
    folder = new_plugin("true", "refiner", output=tmp_path / "true")

    assert "class TrueMethod(Refiner):" in (folder / "kdtool_true.py").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "new-plugin: no name given; write kdtool new-plugin NAME --kind KIND"),
        (["mine"], "new-plugin: no kind given; add --kind teacher|refiner|distiller|pruner|exporter|dataset|tracker"),
    ],
)
def test_the_command_says_what_is_missing(words: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["new-plugin", *words])

    assert (result.exit_code, result.stderr) == (2, f"Error: {message}\n")
