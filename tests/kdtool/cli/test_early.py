"""What can be seen to be wrong without torch is seen before it is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kdtool.cli import early
from kdtool.cli.early import check_early
from kdtool.cli.main import cli
from kdtool.errors import Error, UsageError


@pytest.mark.parametrize("device", ["gpu", "GPU0", "cudaa"])
def test_a_device_that_no_machine_has(device):
    with pytest.raises(UsageError, match=f"^--device {device}: there is no such device here; try auto or cpu$"):
        check_early({"device": device})


def test_a_gpu_without_a_driver(monkeypatch):
    monkeypatch.setattr(early.sys, "platform", "linux")
    monkeypatch.setattr(early, "GPU_FILES", ("/dev/no-such-driver*",))
    for device in ("cuda", "cuda:1", "mps"):
        with pytest.raises(UsageError, match="there is no such device here"):
            check_early({"device": device})
    monkeypatch.setattr(early, "GPU_FILES", ("/dev/nul*",))
    check_early({"device": "cuda:1"})  # there may be; torch knows


@pytest.mark.parametrize("device", ["auto", "cpu", "xpu", "privateuseone:0"])
def test_what_only_torch_knows_is_left_to_it(device):
    check_early({"device": device})


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(Error, match=r"^folder: there is no folder nope"):
        check_early({"data": "folder:nope"})
    (tmp_path / "nope").mkdir()
    check_early({"data": "folder:nope", "data_dir": str(tmp_path)})
    check_early({"data": "digits"})


FIRST = "teacher kdtool:lenet-5 --data digits compress --max-macs 0.5x"


@pytest.mark.parametrize(
    "line",
    [
        "distill t.pt --refiner halve --device gpu prune",
        "distill t.pt --refiner halve --data folder:nope prune",
        f"{FIRST} --device gpu",
        f"{FIRST} --epochs 0",
        f"{FIRST} --method ikd",
        f"{FIRST} --candidates halfe",
        "evaluate t.pt --device gpu",
        "compare t.pt t.pt --data folder:nope",
        "refine t.pt --data folder:nope",
    ],
)
def test_torch_is_not_imported(line, tmp_path):
    (tmp_path / "t.pt").write_bytes(b"")
    code = (
        "import sys; from kdtool.cli.main import main; import atexit; "
        "atexit.register(lambda: print('torch' in sys.modules)); main()"
    )
    process = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True, cwd=tmp_path)
    assert process.stdout == "False\n", process.stderr
    assert process.stderr.startswith("Error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["t.pt"]


@pytest.mark.parametrize(
    "words",
    [
        "compress --max-latency 0.5x --provider qnn",
        "compress --max-latency 5ms --latency-from there.json",
        "compare other.pt --latency --provider qnn",
        "export --provider qnn",
        "export --latency-from there.json",
    ],
)
def test_how_a_later_step_measures_is_checked_before_anything_is_trained(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.pt").write_bytes(b"")
    (tmp_path / "there.json").write_text("{}")
    monkeypatch.setattr("kdtool.exporting.sessions.PROVIDERS", {"cpu": ("", ""), "qnn": ("None", "onnxruntime-qnn")})
    result = CliRunner().invoke(cli, ["teacher", "kdtool:lenet-5", "-o", "t.pt", *words.split()])
    assert result.exit_code > 0
    assert result.stderr.startswith(("Error: --provider qnn: ", "Error: there.json: holds no measurements"))
    assert not (tmp_path / "t.pt").exists()


EXPORTER = """
from kdtool import Exporter, option

class Table(Exporter):
    \"\"\"Write a table.\"\"\"
    suffix = ".txt"
    provider: str = option("cpu", help="who computes it")
    latency_from: str = option("nobody", help="who measured it")
"""


def test_an_exporter_for_another_runtime_has_its_own_providers(site, api, run):
    site.install("table", EXPORTER, kind="exporters")
    result = run("teacher kdtool:lenet-5 -o t.pt export --method table --provider tensorrt --latency-from me")
    assert result.exit_code == 0, result.stderr
    assert api.calls[-1][:2] == ("export", (Path("t.pt"), "table"))
