"""The survey of benchmarks/coverage: its totals, its stored results, and a run on a few tiny networks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.coverage import pipes, workers
from benchmarks.coverage.__main__ import main
from benchmarks.coverage.networks import EDITS, LIST, USED, USES, Entry, read_list
from benchmarks.coverage.pipes import Pipe, read_pipes
from benchmarks.coverage.results import Result, about_here, open_result
from benchmarks.coverage.table import as_page
from benchmarks.coverage.totals import totals

ABOUT = {"versions": {"python": "3.11", "torch": "2.8"}, "sources": "abc"}


def result(tmp_path, spec="timm:one", *, group="group", parameters=100, **cells):
    """Return a result in which all cells are ok and have half of the parameters, except those in ``cells``."""
    new = Result(Entry(spec, 32, group), tmp_path / f"{spec[5:]}.json", ABOUT)
    new.cells["build"] = {"status": "ok", "parameters": parameters, "seconds": 1.0}
    for cell in [*EDITS, *(f"{edit}.{use}" for edit in USED for use in USES)]:
        status = cells.get(cell.replace(".", "_"), "ok")
        new.cells[cell] = {"status": status, "parameters": parameters // 2, "seconds": 1.0}
        if status != "ok":
            new.cells[cell]["reason"] = f"because of {cell}"
    for edit in USED:
        if new.status(edit) != "ok":
            for use in USES:
                del new.cells[f"{edit}.{use}"]
    return new


def counts(results):
    return {total.name: (total.ok, total.refused, total.failed) for total in totals(results)}


def test_the_list_has_a_network_of_every_family_once():
    entries = read_list(LIST)
    assert len(entries) >= 120
    assert len({entry.spec for entry in entries}) == len(entries)
    assert {entry.spec.partition(":")[0] for entry in entries} == {"torchvision", "timm"}
    assert all(entry.group and 32 <= entry.side <= 256 for entry in entries)


def test_a_list_that_cannot_be_read_says_where(tmp_path):
    (tmp_path / "list.txt").write_text("# some\ntimm:one 32\n\ntimm:two\n")
    with pytest.raises(ValueError, match=r"list.txt, line 4: 'timm:two'"):
        read_list(tmp_path / "list.txt")


def test_a_network_without_stages_does_not_count_where_stages_are_cut(tmp_path):
    results = [
        result(tmp_path, "timm:one"),
        result(tmp_path, "timm:two", depth="none"),
        result(tmp_path, "timm:three", depth="refused", halve4="failed", halve_onnx="refused"),
    ]
    (depth,) = (total for total in totals(results) if total.name == "depth")
    assert counts(results)["halve"] == (3, 0, 0)
    assert counts(results)["halve4"] == (2, 0, 1)
    assert (depth.ok, depth.tried, depth.percent, depth.reached) == (1, 2, 50.0, False)
    # Of four, three and two results.
    assert counts(results)["rebuild"] == (9, 0, 0)
    assert counts(results)["onnx"] == (8, 1, 0)


def test_a_network_that_is_not_built_fails_in_every_column(tmp_path):
    network = result(tmp_path)
    network.cells = {"build": {"status": "refused", "reason": "unknown"}}
    assert network.next_task() is None
    assert counts([network])["structured"] == (0, 0, 1)
    assert counts([network])["rebuild"] == (0, 0, 0)


def test_the_page_has_a_table_for_each_group_and_the_reasons(tmp_path):
    results = [
        result(tmp_path, "timm:one", group="first", depth="none"),
        result(tmp_path, "timm:two", group="second", structured="refused", halve_train="failed"),
    ]
    lines = as_page(results).splitlines()
    assert "| timm:one | 32 | ok 2x | ok 2x | no stages | ok 2x | ok 2x | ok | ok | ok |" in lines
    assert "| timm:two | 32 | ok 2x | ok 2x | ok 2x | refused | ok 2x | ok | 2 of 3 | ok |" in lines
    assert "| structured 30 % | 1 of 2 | 1 | 0 | 50.0 % | 80 %, missed |" in lines
    assert [line for line in lines if line.startswith("## ")] == ["## first", "## second", "## Reasons"]
    reasons = lines[lines.index("## Reasons") :]
    assert "- **timm:two**, structured 30 %, refused: `because of structured`" in reasons
    assert "- **timm:two**, halve, train step, failed: `because of halve.train`" in reasons
    assert not any("timm:one" in line for line in reasons)


def test_what_is_lacking_is_done_next(tmp_path):
    network = result(tmp_path)
    assert network.next_task() is None
    del network.cells["depth.onnx"]
    # Its checkpoint is missing, so the edit must be made again.
    assert network.next_task() == ("make_edits", ["depth"])
    network.folder.mkdir()
    (network.folder / "depth.out").touch()
    assert network.next_task() == ("use_edits", ["depth.onnx"])
    del network.cells["inherit"]
    assert network.next_task() == ("make_edits", ["inherit"])


def test_results_are_kept_and_those_of_other_versions_forgotten(tmp_path):
    stored = Result(Entry("timm:one", 32), tmp_path / "timm-one.json", ABOUT)
    stored.keep("halve", {"status": "refused", "reason": "timm:one: two\n lines"})
    other = {**ABOUT, "versions": {"python": "3.12", "torch": "2.8"}}
    assert open_result(stored.entry, tmp_path, ABOUT).cells == {"halve": {"status": "refused", "reason": "two lines"}}
    assert open_result(Entry("timm:one", 64), tmp_path, ABOUT).cells == {}
    assert open_result(stored.entry, tmp_path, other).cells == {}


@pytest.fixture
def survey(tmp_path, monkeypatch):
    """Run the command on networks; return the cells of each network from the JSON, and the page."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "out").mkdir()

    def run(networks, *options):
        (tmp_path / "list.txt").write_text("# tiny\n" + "".join(f"{network}\n" for network in networks))
        words = ["--list", tmp_path / "list.txt", "--work", tmp_path / "work", "--output", tmp_path / "out", *options]
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        data = json.loads((tmp_path / "out/coverage.json").read_text())
        return {network["network"]: network["cells"] for network in data["networks"]}, (
            tmp_path / "out/coverage.md"
        ).read_text()

    return run


def trouble(cells):
    """Return the statuses that are not ok."""
    return {cell: outcome["status"] for cell, outcome in cells.items() if outcome["status"] != "ok"}


@pytest.mark.slow  # all edits of three networks
def test_tiny_networks_go_through_all_of_it(survey, tmp_path):
    networks = ["kdtool:resnet20 32", "kdtool:no_such_network 32", "kdtool:lenet-5 28"]
    cells, page = survey(networks)
    residual, missing, plain = cells.values()
    assert trouble(residual) == {}
    assert len(residual) == 1 + 5 + 4 * 3
    assert residual["build"]["parameters"] == 269_722  # He et al. (2015) count 0.27 M
    assert 0.68 < residual["structured"]["parameters"] / 269_722 <= 0.7
    assert 0 < residual["halve.onnx"]["relative"] <= 1e-4
    assert trouble(plain) == {"depth": "none"}
    assert missing["build"]["status"] == "refused"
    assert "| kdtool:no_such_network | 32 | failed | failed | failed | failed | failed |  |  |  |" in page
    assert "**kdtool:no_such_network**, built, refused: `kdtool knows no network 'no_such_network'" in page
    assert not any(path.is_dir() for path in (tmp_path / "work").iterdir())

    # Stored cells are not tried again, otherwise they would differ from what is written here.
    path = tmp_path / "work/kdtool-lenet-5.json"
    kept = json.loads(path.read_text())
    kept["cells"]["halve"]["seconds"] = 12_345
    path.write_text(json.dumps(kept))
    cells, _ = survey(networks)
    assert cells["kdtool:lenet-5"]["halve"]["seconds"] == 12_345
    assert cells["kdtool:resnet20"] == residual


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--seconds", -1, "timeout: computed for more than -1 s"),
        ("--gigabytes", 0.01, "out of memory: took more than 0.01 GB"),
    ],
)
@pytest.mark.slow
def test_what_takes_too_much_has_failed(survey, option, value, reason):
    cells, _ = survey(["kdtool:resnet20 32"], option, value)
    (build,) = cells["kdtool:resnet20"].values()
    assert (build["status"], build["reason"]) == ("failed", reason)


def test_only_the_time_that_a_process_computes_counts():
    with subprocess.Popen(["sleep", "60"]) as process:
        time.sleep(0.5)
        assert workers._cpu_seconds(process.pid) < 0.2
        process.kill()
    assert workers._cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.2)


@pytest.mark.slow
def test_a_killed_survey_goes_on_where_it_was(tmp_path):
    (tmp_path / "list.txt").write_text("kdtool:resnet20 32\n")
    words = ["--list", tmp_path / "list.txt", "--work", tmp_path / "work", "--output", tmp_path]
    command = [sys.executable, "-m", "benchmarks.coverage", *map(str, words)]
    root = Path(__file__).parents[2]
    first = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL, start_new_session=True)
    kept = tmp_path / "work/kdtool-resnet20.json"
    while not (kept.exists() and "depth.rebuild" in json.loads(kept.read_text())["cells"]):
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    deadline = time.monotonic() + 60
    while _lives(first.pid):
        assert time.monotonic() < deadline, "the workers are still alive"
        time.sleep(0.05)
    before = json.loads(kept.read_text())["cells"]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    after = json.loads(kept.read_text())["cells"]
    assert len(before) < len(after) == 1 + 5 + 4 * 3
    assert {cell: after[cell] for cell in before if cell != "build"} == {
        cell: outcome for cell, outcome in before.items() if cell != "build"
    }


def _lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_versions_are_those_that_are_installed():
    about = about_here()
    assert about["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert len(about["sources"]) == 12


@pytest.mark.slow
def test_a_pipe_of_real_commands(tmp_path):
    pipe = Pipe("kdtool:lenet-5", "28", "--method halve")
    outcome = pipes.run(pipe, tmp_path)
    assert outcome["codes"] == [0, 0, 0]
    assert outcome["compression"] == pytest.approx(3.92, rel=1e-2)
    assert pipes.row(pipe, outcome, is_listed=False)[:6] == [
        *("kdtool:lenet-5", "28", "no", "`--method halve`", "[0, 0, 0]", "3.92x")
    ]


@pytest.mark.slow
def test_a_pipe_that_fails_says_what_the_first_command_said(tmp_path):
    outcome = pipes.run(Pipe("kdtool:lenet-6", "28", "--method halve"), tmp_path)
    assert all(outcome["codes"])
    assert "did you mean lenet-5" in outcome["reason"]


def test_half_of_the_pipes_are_of_listed_networks():
    listed, names = {entry.spec for entry in read_list(LIST)}, [pipe.spec for pipe in read_pipes(pipes.PIPES)]
    assert len(names) == 20
    assert sum(name in listed for name in names) == 10
