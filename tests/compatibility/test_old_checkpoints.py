"""Checkpoints and runs of an earlier release: see data/README.md."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import kdtool
from kdtool.cli.main import cli

DATA = Path(__file__).parent / "data"
EXPECTED: dict[str, dict[str, Any]] = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
DESCRIBE = runpy.run_path(str(DATA.parent / "record.py"))["describe"]

KD = "distill plain.pt --refiner halve --method kd --epochs 40 -o kd.pt"
IKD = "distill plain.pt --method ikd --iters 2 --epochs 20 -o ikd.pt"


def test_every_checkpoint_has_its_record():
    assert {path.name for path in DATA.glob("*.pt")} == set(EXPECTED)
    assert all(path.stat().st_size < 100_000 for path in DATA.rglob("*.pt"))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_checkpoint_is_what_it_was(name: str) -> None:
    expected, described = EXPECTED[name], DESCRIBE(DATA / name)

    assert described["fingerprint"] == expected["fingerprint"]
    assert described["early"] == expected["early"]
    assert described["masked"] == expected["masked"]
    # Kernels differ between machines in the last bits.
    assert len(described["outputs"]) == len(expected["outputs"]) == 4
    for row, expected_row in zip(described["outputs"], expected["outputs"], strict=True):
        assert row == pytest.approx(expected_row, rel=1e-10, abs=1e-12)
    # Later releases may tell more of a checkpoint, never less or something else.
    assert _part_of(expected["inspect"], described["inspect"]) == {
        key: value for key, value in expected["inspect"].items() if key != "gzip_bytes"
    }


def _part_of(expected: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    part = {key: described[key] for key in expected if key != "gzip_bytes"}
    if expected["data"]:
        part["data"] = {key: described["data"][key] for key in expected["data"]}
    return part


@pytest.mark.parametrize("name", ["plain.pt", "gated.pt"])
def test_inspect_shows_it(name: str) -> None:
    result = CliRunner().invoke(cli, ["inspect", str(DATA / name)])

    assert result.exit_code == 0, result.output
    for entry in EXPECTED[name]["inspect"]["history"]:
        assert entry["command"] in result.stdout


def files(directory: Path) -> dict[str, bytes]:
    """Return the content of every file by its path below the directory.

    M0.pt is left out: a copy of the teacher, which every start of the run writes with its own date.
    """
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name != "M0.pt"]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("line", [KD, pytest.param(IKD, marks=pytest.mark.slow)])
def test_an_interrupted_run_goes_on_or_is_refused_in_one_line(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = tmp_path / line.split()[-1]
    run = output.with_suffix(".run")
    shutil.copy(DATA / "plain.pt", tmp_path)
    shutil.copytree(DATA / run.name, run)
    before = files(tmp_path)

    done = CliRunner().invoke(cli, [*line.split(), "--resume"])

    if done.exit_code == 0:
        assert kdtool.load(output).metric("test", "accuracy") is not None
    else:
        assert done.exit_code in (1, 2)
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1, done.stderr
        assert "--force" in done.stderr
        assert "unexpected" not in done.stderr
        assert files(tmp_path) == before
