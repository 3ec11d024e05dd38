"""A few changed files for every reader; ``make fuzz`` tries many."""

import os

import pytest

pytest.importorskip("hypothesis")
if not hasattr(os, "fork"):
    pytest.skip("attempts are made in forked processes", allow_module_level=True)

import onnx
import torch

from benchmarks.safety import graph_targets
from benchmarks.safety.attempts import CPU_SECONDS, attempt
from benchmarks.safety.fuzz import fuzz
from benchmarks.safety.graph_targets import described
from benchmarks.safety.networks import classifier
from benchmarks.safety.targets import targets
from kdtool import Error

TARGETS = {target.name: target for target in targets()}
SLOW = ("checkpoints", "metrics", "records", "large")


def examples(name, many):
    return pytest.param(name, many, marks=pytest.mark.slow) if many > 2 else pytest.param(name, many)


@pytest.mark.parametrize(
    ("name", "many"),
    [
        examples(name, many)
        for name in TARGETS
        for many in (1 if name.startswith(SLOW) else 2, 20 if name.startswith("large") else 200)
    ],
)
def test_a_changed_file_is_read_or_refused_in_one_line(name, many):
    tally = fuzz(TARGETS[name], many, start=len(name))
    assert sum(tally.counts.values()) >= many
    assert [outcome for outcome, _ in tally.bad] == []


@pytest.mark.slow
def test_a_graph_without_end_is_ended_within_the_seconds_of_cpu(tmp_path):
    model = onnx.load_model_from_string(classifier(described()))
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    loop.input[0] = ""
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    outcome = attempt(graph_targets.teach, tmp_path / "n.onnx")
    assert outcome.kind == "refused"
    assert "takes more than 3 s of CPU" in outcome.text
    assert outcome.cpu < CPU_SECONDS


def raises(path):
    raise ValueError("a mistake")


def says_two_lines(path):
    raise Error("one\ntwo")


def says_unexpected(path):
    raise Error("unexpected ValueError: x")


def starts(path):
    os.system("true")


def writes(path):
    path.with_name("other").write_text("x")


def fills_the_memory(path):
    return [torch.ones(1 << 26) for _ in range(5)]


@pytest.mark.parametrize(
    ("reader", "kind"),
    [
        (lambda path: None, "read"),
        (raises, "raises"),
        (says_two_lines, "is not one line"),
        (says_unexpected, "is not one line"),
        (starts, "acts"),
        (writes, "acts"),
        (fills_the_memory, "too large"),
        (lambda path: os.abort(), "crashes"),
        (lambda path: os._exit(3), "crashes"),
    ],
)
def test_what_breaks_the_promise_is_seen(reader, kind, tmp_path):
    (tmp_path / "file").touch()
    assert attempt(reader, tmp_path / "file").kind == kind
