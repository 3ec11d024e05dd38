"""``kdtool compress`` on the command line: alone, in a chain, as JSON, and its exit codes."""

import json

import pytest
from click.testing import CliRunner

from kdtool.cli.main import cli

QUICK = ["--candidates", "halve", "--no-quantised", "--epochs", "1", "--max-macs", "0.3x"]


def run(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.mark.slow
def test_a_chain_goes_on_with_the_student(teacher_path, tmp_path):
    result = run("compress", teacher_path, *QUICK, "-o", tmp_path / "s.pt", "evaluate", "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert "s.pt" in json.dumps(scores)
    assert "test accuracy: student" in result.stderr
    assert "compress: 1 candidates" not in result.stdout


def test_json_is_what_was_tried_and_a_loss_that_is_too_large_is_exit_code_1(teacher_path, tmp_path):
    result = run(
        *("compress", teacher_path, *QUICK, "--max-macs", "0.02x", "--lr", "1e-9", "--max-drop", "0.5%"),
        *("--subset", "0.2", "--json", "-o", tmp_path / "s.pt"),
    )
    assert result.exit_code == 1
    results = json.loads(result.stdout)
    assert results["met"] is False
    assert results["winner"].startswith("halve ratio=")
    assert {"rows", "trials", "limits", "device", "metrics", "teacher_metrics"} <= results.keys()
    assert "nothing met --max-macs 0.02x --max-drop 0.5%: nearest was halve" in result.stderr
    assert (tmp_path / "s.pt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "compress needs a budget"),
        (["--max-latency", "5"], "is not a budget"),
        (["--max-macs", "0.3x", "--candidates", "halfe"], "did you mean halve"),
        (["--max-latency", "0.4x", "--latency-from", "x.json"], "--latency-from"),
    ],
)
def test_a_wrong_budget_is_one_line_and_exit_code_2(teacher_path, tmp_path, words, message):
    result = run("compress", teacher_path, *words, "-o", tmp_path / "s.pt")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not [*tmp_path.iterdir()]
