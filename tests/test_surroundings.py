"""Where kdtool is started: a folder of a stranger, one that cannot be written, without a home."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from kdtool.cli import plugin_check
from kdtool.plugins.entry_points import Plugin
from kdtool.study.places import KDTOOL

# What a stranger may call a file: modules of kdtool, of libraries and of Python.
NAMES = ("kdtool", "kdtool_teachers", "torch", "numpy", "json", "click", "timm", "onnxruntime", "pickle")

KDTOOL_COMMAND = Path(sys.executable).with_name("kdtool")

RECIPE = """
[study]
name = "recipe"
[matrix]
seed = [0]
[[step]]
name = "teacher"
run = "teacher kdtool:lenet-300-100 --data digits --epochs 1 --subset 0.1 --seed {seed}"
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """Work in a folder whose modules tell that they were imported."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'imported')!r}, 'a').write({name!r} + ' ')\n")
    monkeypatch.chdir(folder)
    yield folder
    assert not (folder / "imported").exists(), (folder / "imported").read_text()


def run(*words, **options):
    """Run a command; return its exit code and the end of what it said."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    return done.returncode, done.stdout, done.stderr[-2000:]


def test_commands_of_a_study_import_nothing_from_the_current_folder(stranger):
    assert run(*KDTOOL, "--version")[0] == 0


def test_the_check_of_plugins_imports_nothing_from_the_current_folder(stranger, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "the_good.py").write_text(
        "from kdtool import Distiller\nclass Good(Distiller): 'Do it.'\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    plugin = Plugin("distillers", "good", "the_good", "kdtool-good", "1.0", "Good")
    assert plugin_check.check([plugin]) == {plugin: None}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("run", "recipe.toml"),
        ("run", "recipe.toml", "--jobs", "2"),
        ("teacher", "kdtool:lenet-300-100", "--data", "digits", "--epochs", "1", "--subset", "0.1", "--processes", "2"),
    ],
)
def test_a_training_imports_nothing_from_the_current_folder(stranger, words):
    (stranger / "recipe.toml").write_text(RECIPE)
    code, _, said = run(KDTOOL_COMMAND, *words)
    assert code == 0, said


def unprivileged():
    """Return what to put before a command, so that it may not write where it has no permission."""
    if os.geteuid():
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root may write everywhere")
    return [setpriv, "--inh-caps=-all", "--bounding-set=-all"]


@pytest.fixture
def nowhere(tmp_path, teacher_path):
    """A folder that cannot be written, with a checkpoint, and an environment without a home."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    shutil.copy(teacher_path, folder / "teacher.pt")
    folder.chmod(0o555)
    kept = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "KDTOOL_DATA", "OMP_NUM_THREADS")
    yield {"cwd": folder, "env": {name: os.environ[name] for name in kept if name in os.environ}}
    folder.chmod(0o755)


def test_without_a_home_in_a_folder_that_cannot_be_written(nowhere):
    kdtool = [*unprivileged(), KDTOOL_COMMAND]
    code, out, said = run(*kdtool, "inspect", "teacher.pt", "--json", **nowhere)
    assert (code, said) == (0, "")
    assert '"macs"' in out
    code, out, said = run(*kdtool, "refine", "teacher.pt", **nowhere)
    assert (code, out) == (2, "")
    assert said == "Error: teacher-halve.pt: the directory . is not writable; choose another with -o\n"


@pytest.mark.slow
def test_what_is_made_without_a_home(nowhere, tmp_path):
    kdtool, to = [*unprivileged(), KDTOOL_COMMAND], tmp_path / "made"
    to.mkdir()
    words = ("prune", "teacher.pt", "--ratio", "0.5", "--epochs", "1", "--subset", "0.1", "-o", to / "pruned.pt")
    assert run(*kdtool, *words, **nowhere)[:2] == (0, f"{to / 'pruned.pt'}\n")
    assert run(*kdtool, "report", to / "pruned.pt", "-o", to / "r.html", **nowhere)[:2] == (0, f"{to / 'r.html'}\n")
    code, _, said = run(*kdtool, "evaluate", "teacher.pt", to / "pruned.pt", **nowhere)
    assert (code, said) == (0, "")


def test_onnxruntime_sends_and_keeps_nothing(tmp_path):
    """From 1.29 on it writes a number of the device to the home, and sends it with names and hashes of networks."""
    images = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 2, 2])]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])]
    nodes = [helper.make_node("Flatten", ["images"], ["logits"])]
    graph = helper.make_graph(nodes, "graph", images, logits)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "a.onnx")
    home = tmp_path / "home"
    home.mkdir()
    # These alone would silence it.
    silent = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "GITHUB_ACTIONS", "TF_BUILD")
    env = {name: value for name, value in os.environ.items() if name not in silent} | {"HOME": str(home)}
    code, _, said = run(KDTOOL_COMMAND, "measure", tmp_path / "a.onnx", "--pairs", "1", "--seconds", "0.1", env=env)
    assert code == 0, said
    run(KDTOOL_COMMAND, "measure", "--script", tmp_path / "m.pyz", env=env)
    words = (tmp_path / "m.pyz", tmp_path / "a.onnx", "--pairs", "1", "--seconds", "0.1")
    code, _, said = run(sys.executable, *words, env=env)
    assert code == 0, said
    assert not [path for path in home.rglob("*") if path.is_file()]
    code = "import kdtool, os, onnxruntime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(sys.executable, "-c", code, env=env)[1] == "1\n"
    # Who wants it can have it.
    assert run(sys.executable, "-c", code, env=env | {"ORT_DISABLE_TELEMETRY": "0"})[1] == "0\n"
