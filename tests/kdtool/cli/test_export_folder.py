"""``--hub-folder DIR`` on the command line, and such a folder in place of a checkpoint."""

import shutil

import pytest

import kdtool
from kdtool.cli.commands.prune import _row
from kdtool.models.checkpoint import content_of, read
from kdtool.utils.tensor_folder import write_folder


@pytest.fixture
def here(tmp_path, monkeypatch, teacher_path):
    shutil.copy(teacher_path, tmp_path / "t.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_folder_is_written_and_every_command_reads_it(here, run):
    assert run("export t.pt --hub-folder hub").stdout == "hub\n"
    assert {file.name for file in (here / "hub").iterdir()} == {"README.md", "kdtool.json", "model.safetensors"}
    before, after = (run(f"evaluate {name} --json").stdout.replace(name, "") for name in ("t.pt", "hub"))
    assert before == after
    size = (here / "hub" / "model.safetensors").stat().st_size
    assert f'"file_bytes": {size}' in run("inspect hub --json").stdout
    assert run("refine hub --method halve").stdout == "hub-halve.pt\n"
    assert run("export hub --safetensors").stdout == "hub.safetensors\n"
    assert run("report hub -o hub.html").exit_code == 0
    assert "lenet-300-100" in (here / "hub.html").read_text()
    assert run("export t.pt --no-latency --against hub").stdout == "t.onnx\n"
    assert run("distill t.pt --student hub --method kd --epochs 0 -o s.pt").stdout == "s.pt\n"


@pytest.fixture
def hub(here):
    """A folder that is read as a checkpoint."""
    folder = here / "hub"
    folder.mkdir()
    write_folder(folder, content_of(read(here / "t.pt")))
    return folder


RECIPE = """
[[step]]
name = "pruned"
run = "prune hub --ratio 0.5"
[[step]]
name = "student"
run = "distill t.pt --student hub --method none"
[[step]]
name = "both"
run = "distill hub/ t.pt --method ensemble --student kdtool:lenet-300-100"
"""


def test_a_step_of_a_study_reads_a_folder(here, hub, run):
    (here / "r.toml").write_text(RECIPE)
    result = run("run r.toml --dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 3
    (here / "hub" / "kdtool.json").rename(here / "hub" / "other.json")
    assert "hub: is a directory without a checkpoint" in run("run r.toml --dry-run").stderr


def test_a_folder_is_one_of_several_teachers(here, hub, run, api):
    assert run("distill hub t.pt --method ensemble --student kdtool:lenet-300-100").stdout == "hub-ensemble.pt\n"
    assert [str(path) for path in api.calls[0][1][0]] == ["hub", "t.pt"]


def test_the_bytes_of_a_folder_are_those_of_its_weights(here, hub):
    assert _row(kdtool.load(hub), gzip=True)["file_bytes"] == (hub / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("export t.pt --hub-folder mine", "mine: holds files already; name another folder, or replace those with"),
        ("export t.pt --hub-folder t.pt", "t.pt: is a file; name a folder"),
        ("export t.pt --hub-folder no/hub", "there is no directory no"),
        ("export t.pt --hub-folder hub -o other", "--hub-folder hub: -o other names another output; leave one out"),
        ("export t.pt --hub-folder", "--hub-folder: needs a value"),
        ("evaluate mine", "mine: is a"),
    ],
)
def test_what_cannot_be_a_folder_is_said_in_a_line(here, run, line, message):
    (here / "mine").mkdir()
    (here / "mine" / "text").write_text("")
    result = run(line)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (here / "hub").exists()
