"""What can be seen to be wrong without torch is seen before it is imported."""

import subprocess
import sys

import pytest

from kdtool.cli import early
from kdtool.cli.early import check_early
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


@pytest.mark.parametrize("options", ["--device gpu", "--data folder:nope"])
def test_torch_is_not_imported(options, tmp_path):
    (tmp_path / "t.pt").write_bytes(b"")
    code = (
        "import sys; from kdtool.cli.main import main; import atexit; "
        "atexit.register(lambda: print('torch' in sys.modules)); main()"
    )
    words = ["distill", "t.pt", "--refiner", "halve", *options.split(), "prune"]
    process = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert process.stdout == "False\n", process.stderr
    assert process.stderr.startswith("Error: ")
