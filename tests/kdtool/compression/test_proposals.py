"""Which candidates are proposed, and in which order; files of 8 bits, latencies of other devices, and searches."""

import itertools
import json
from types import SimpleNamespace

import pytest

import kdtool
from kdtool.compression import costs
from kdtool.compression.candidates import Candidate, Ladder, Proposals
from kdtool.compression.costs import Cost, Limits, Meter
from kdtool.compression.options import BudgetOptions
from kdtool.compression.proposals import _quantised, may_win
from kdtool.compression.record import results_of
from kdtool.exporting import baseline
from kdtool.exporting.measurement import measure_file
from kdtool.models.checkpoint import read
from kdtool.models.size import measure
from kdtool.surgery.refiner import refined

PLAIN = {"epochs": 2, "lr": 3e-3}


def proposed(*named):
    found = Proposals(Cost(100, 10), Limits(macs=50), "here")
    found.candidates = [
        Candidate(kind, method, {}, precision, Cost(macs, 1)) for kind, method, precision, macs in named
    ]
    return found


def test_the_largest_of_each_kind_and_precision_are_trained_by_turns():
    found = proposed(
        ("pruners", "a", "float32", 40), ("pruners", "b", "float32", 45), ("refiners", "c", "float32", 30),
        ("refiners", "d", "int8", 80), ("teacher", "teacher", "int8", 100),
    )  # fmt: skip
    found.candidates.append(Candidate("distillers", "gated", {"max-macs": "0.5x"}))
    chosen = [candidate.method for candidate in found.chosen(5)]
    assert chosen == ["teacher", "b", "c", "d", "gated"]
    assert [candidate.note for candidate in found.candidates if candidate.method == "a"] == [
        "not among those that were trained"
    ]


def test_a_name_has_the_options_that_differ():
    options = {"of": "macs", "ratio": 0.703125, "round_to": 8}
    assert Candidate("pruners", "x", options, shown=["ratio"]).name == "x ratio=0.7031"
    assert Candidate("pruners", "x", options, "int8").name == "x of=macs, ratio=0.7031, round-to=8 int8"


class FakeMeter(Meter):
    """A meter whose latencies are known: in float32 as the MACs, in 8 bits a given share of that."""

    share = 0.5

    def ratio(self, path, **longer):
        import onnx

        sizes = [tensor.dims for tensor in onnx.load(str(path)).graph.initializer]
        weights = sum(size[0] * size[1] for size in sizes if len(size) == 2)
        return (self.share if self.int8 else 1.0) * weights / (64 * 300 + 300 * 100 + 100 * 10)


@pytest.fixture
def fake(monkeypatch):
    for module in ("proposals", "searching", "measuring_again"):
        monkeypatch.setattr(f"kdtool.compression.{module}.Meter", FakeMeter)
    return FakeMeter


def test_the_teacher_in_8_bits_is_a_candidate_and_needs_no_training(teacher_path, tmp_path, fake, monkeypatch):
    monkeypatch.setattr("kdtool.compression.winner.as_exported", lambda *args: None)
    student = kdtool.compress(
        teacher_path, max_latency="0.6x", output=tmp_path / "s.pt", candidates=("halve",), **PLAIN
    )
    results = results_of(student)
    teacher = next(row for row in results["trials"] if row["setting"] == "teacher int8")
    assert (teacher["epochs"], teacher["cost"]["latency_ratio"]) == (0, pytest.approx(0.5))
    # Milliseconds are shares of one time of the teacher, whatever it took when the files of 8 bits were timed.
    whole = next(row["latency_ms"] for row in results["rows"] if row["model"] == "teacher")
    for row in results["rows"]:
        assert row["latency_ms"] == pytest.approx(row["latency_ratio"] * whole)
    # The best of those that train gets its full training too; validation decides between the two.
    full = [row for row in results["trials"] if row["full"]]
    assert [row["setting"].split()[0] for row in full] == ["halve"]
    best = max([teacher, *full], key=lambda row: (row["accuracy"], -row["loss"]))
    assert results["winner"] == best["setting"]
    if results["winner"] == "teacher int8":
        assert (tmp_path / "s-int8.onnx").exists()
        assert results["quantised_file"] == str(tmp_path / "s-int8.onnx")
        # What the run measured of its file is what a file of the same way reaches on the same images.
        assert results["measured"]["accuracy"]["accuracy"] == pytest.approx(
            read(teacher_path).metric("test", "accuracy"), abs=0.03
        )


@pytest.fixture
def alone(monkeypatch):
    """No method proposes anything, so that the teacher in 8 bits is all there is."""
    for name, nothing in {"ladders": ([], {}), "making": []}.items():
        monkeypatch.setattr(f"kdtool.compression.proposals.{name}", lambda *args, nothing=nothing: nothing)


def test_the_teacher_in_8_bits_is_a_candidate_twice(teacher_path, tmp_path, alone, capsys):
    first = kdtool.compress(teacher_path, max_size="0.4x", output=tmp_path / "s.pt", dry_run=True, **PLAIN)
    assert "compress: 2 candidates within the budget (teacher, trained teacher), measured" in capsys.readouterr().err
    assert measure(first.network) == measure(read(teacher_path).network)


@pytest.mark.slow
def test_the_teacher_in_8_bits_is_trained_on_too(teacher_path, tmp_path, alone):
    results = results_of(kdtool.compress(teacher_path, max_size="0.4x", output=tmp_path / "s.pt", epochs=1))
    trials = {(row["setting"], row["full"]): row for row in results["trials"]}
    assert set(trials) == {(name, False) for name in ("teacher int8", "trained teacher int8")} | {
        ("trained teacher int8", True)
    }
    full, before = trials["trained teacher int8", True], trials["teacher int8", False]
    assert full["cost"] == before["cost"]
    # It goes on from the teacher's weights, so that it is about as good as the teacher.
    assert full["accuracy"] > before["accuracy"] - 0.05
    assert full["loss"] != before["loss"]


@pytest.mark.parametrize(
    ("precision", "cut", "teacher_macs", "expected"),
    [("float32", True, 100, True), ("int8", True, 100, True), ("int8", True, 40, False), ("int8", False, 40, True)],
)
def test_what_is_cut_from_a_teacher_that_fits_in_8_bits_is_sized_in_float32_alone(
    precision, cut, teacher_macs, expected
):
    ladder = Ladder("refiners", "x", [{}], lambda options: None, trims=cut)
    assert may_win(ladder, precision, Cost(teacher_macs, 1), Limits(macs=50)) is expected


@pytest.mark.slow
def test_other_networks_are_sized_in_8_bits_where_the_teacher_fits_too(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr("kdtool.compression.planning.say_proposals", lambda proposals, chosen: found.append(proposals))
    teacher = kdtool.teacher("kdtool:resnet32", data="digits", epochs=0, output=tmp_path / "t.pt")
    options = {"max_size": "0.5x", "candidates": ("like",), "dry_run": True}
    kdtool.compress(teacher, output=tmp_path / "s.pt", **options)
    names = [(one.method, one.options.get("arch"), one.precision, one.trimmed > 0) for one in found[0].candidates]
    # The next smaller member has 0.58 of the weights: more than allowed in float32 unless it is narrowed.
    arch = "kdtool:resnet20"
    assert names == [("teacher", None, "int8", False), ("like", arch, "float32", True), ("like", arch, "int8", False)]


def test_where_8_bits_are_slower_they_are_left_out(teacher_path, tmp_path, fake, monkeypatch):
    monkeypatch.setattr(fake, "share", 1.5)
    monkeypatch.setattr("kdtool.compression.winner.as_exported", lambda *args: None)
    options = {"max_latency": "0.6x", "candidates": ("halve",)}
    student = kdtool.compress(teacher_path, output=tmp_path / "s.pt", **options, **PLAIN)
    results = results_of(student)
    assert results["refused"]["int8"] == "8 bits save nothing here: the teacher takes 1.50 of its time in float32"
    assert all(row["precision"] == "float32" for row in results["rows"] if row["within"])


@pytest.mark.parametrize(
    ("in_8_bits", "left_out"), [(Cost(100, 10, 300, 0.7), False), (Cost(100, 10, 1100, 0.7), True)]
)
def test_8_bits_are_judged_by_what_they_change(in_8_bits, left_out, monkeypatch):
    """The MACs, here the hardest limit, are those of the teacher in float32."""
    meter = SimpleNamespace(cost=lambda network: in_8_bits)
    monkeypatch.setattr("kdtool.compression.proposals.Meter", lambda *of, **how: meter)
    found = Proposals(Cost(100, 10, 1000, 1.0, 1.0), Limits(file_bytes=500, macs=10), "here")
    options = BudgetOptions(max_macs="0.1x", candidates=("halve",))
    assert _quantised(None, None, options, None, found) == ([] if left_out else [("int8", meter, in_8_bits)])
    assert ("int8" in found.refused) is left_out


def test_a_latency_in_ms_means_the_device_of_the_file(teacher_path, tmp_path):
    file, there = tmp_path / "teacher.onnx", tmp_path / "there.json"
    kdtool.export(teacher_path, output=file, latency=False)
    row = {**measure_file(file, pairs=2), "p50_ms": 12.5, "cpu_ms": None, "cpu": "a phone", "threads": 2}
    # The last row is that of another network, on another device.
    there.write_text(json.dumps([row, {**row, "structure": "0", "cpu": "a watch", "threads": 4}]))
    options = BudgetOptions(max_latency="5ms", latency_from=there)
    with costs.scratch() as folder:
        meter = Meter(read(teacher_path).network, options, folder)
    assert meter.teacher_ms == 12.5
    assert meter.device == f"a phone of {there} (2 threads, wall time)"
    # 5 ms of 12.5 are a share of 0.4, whatever the teacher takes here.
    from kdtool.compression.proposals import limits_of

    assert limits_of(Cost(100, 10, None, 1.0, meter.teacher_ms), options).latency_ratio == pytest.approx(0.4)
    # On one thread of a CPU, the time that it computes counts, as here: a busy device took three times as long.
    there.write_text(json.dumps({**row, "threads": 1, "cpu_ms": 4.5}))
    with costs.scratch() as folder:
        busy = Meter(read(teacher_path).network, options, folder)
    assert (busy.teacher_ms, busy.device) == (4.5, f"a phone of {there} (1 thread, CPU time)")
    there.write_text(json.dumps({**row, "batch": 8}))
    with costs.scratch() as folder, pytest.raises(kdtool.UsageError, match=r"of 8, .* with 1; give --latency-batch 8"):
        Meter(read(teacher_path).network, options, folder)
    said = costs.device_known(options)
    assert said.startswith(f"{there} tells the teacher's time alone; that of each candidate")
    assert f"the same share of it as here ({costs.cpu_name()}, cpu, 1 thread, CPU time, batch 1): measure" in said


def test_the_device_of_a_latency_in_ms_is_said():
    here = BudgetOptions(max_latency="5ms", latency_threads=2)
    assert costs.device_known(here).startswith(
        f"5ms is meant for {costs.cpu_name()}, cpu, 2 threads, wall time, batch 1; for another"
    )
    assert "1 thread, CPU time, batch 1; for" in costs.device_known(BudgetOptions(max_latency="5ms"))
    assert costs.device_known(BudgetOptions(max_latency="0.4x")) is None
    assert costs.device_known(BudgetOptions(max_macs="0.4x")) is None


def test_a_file_without_the_teacher_is_refused(teacher_path, tmp_path):
    there = tmp_path / "there.json"
    row = {"format": "kdtool-latency", "structure": "0", "p50_ms": 1.0, "p90_ms": 1.0, "batch": 1, "threads": 1}
    there.write_text(json.dumps(row))
    with pytest.raises(kdtool.Error, match="holds no measurement of this network"):
        kdtool.compress(teacher_path, max_latency="5ms", latency_from=there, output=tmp_path / "s.pt")


def test_hours_bound_the_proposing_and_what_was_not_measured_is_said(teacher_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kdtool.compression.proposals.PART", 0.0)
    options = {"max_macs": "0.4x", "candidates": ("filter-l1", "geometric-median", "halve"), "hours": 1, "epochs": 1}
    student = kdtool.compress(teacher_path, output=tmp_path / "s.pt", quantised=False, **options)
    said = [line for line in capsys.readouterr().err.splitlines() if "no time" in line]
    assert said == ["compress: there was no time to measure all sizes of filter-l1, halve, geometric-median"]
    results = results_of(student)
    # What is measured first is measured though, so that there is something to train.
    assert {row["model"].split()[0] for row in results["rows"]} == {"teacher", "halve"}
    assert results["refused"]["filter-l1 float32"] == "no time was left to measure it"


def test_a_method_that_makes_its_student_gets_the_budget_and_is_measured(teacher_path, tmp_path, monkeypatch):
    made = []

    def halved(self, run, teacher, student):
        """Stand in for a search: the widths that a third of the MACs leave."""
        made.append((self, run.training.epochs))
        return refined(kdtool.make("refiners", "halve", ratio=0.35), teacher, 0)

    monkeypatch.setattr("kdtool_distillers.gated.Gated.distill", halved)
    options = {"max_macs": "0.4x", "quantised": False, "candidates": ("gated", "halve"), "epochs": 3}
    results = results_of(kdtool.compress(teacher_path, output=tmp_path / "s.pt", **options))
    ((gated, epochs),) = made
    assert gated.target_macs.limit(1.0) == pytest.approx(0.97 * 0.4)
    assert (gated.search_epochs, epochs) == (2, 2)  # those of the trial
    assert gated.target_latency is None
    rows = [row for row in results["trials"] if row["setting"] == "gated max-macs=0.4x"]
    sizes = measure(refined(kdtool.make("refiners", "halve", ratio=0.35), read(teacher_path).network, 0))
    assert {row["cost"]["macs"] for row in rows} == {sizes["macs"]}
    assert (tmp_path / "s.run" / "candidates").is_dir()


@pytest.mark.slow
def test_a_method_that_makes_its_student_is_measured_after_its_search(tmp_path):
    kdtool.teacher("kdtool:resnet8x4", data="digits", epochs=1, output=tmp_path / "t.pt")
    options = {"max_macs": "0.5x", "quantised": False, "candidates": ("gated", "halve"), "epochs": 1}
    student = kdtool.compress(tmp_path / "t.pt", output=tmp_path / "s.pt", **options)
    results = results_of(student)
    gated = [row for row in results["trials"] if row["setting"].startswith("gated")]
    teacher = next(row for row in results["rows"] if row["model"] == "teacher")
    assert gated
    assert all(row["cost"]["macs"] <= 0.5 * teacher["macs"] for row in gated)
    # Once it is made, its structure stays.
    assert all(one["cost"]["macs"] == other["cost"]["macs"] for one, other in itertools.pairwise(gated))


def test_candidates_are_timed_with_the_batch_of_the_options_so_that_shapes_are_constants(
    teacher_path, tmp_path, monkeypatch
):
    opened, open_session = [], baseline.open_session

    def opening(*args):
        opened.append(open_session(*args))
        return opened[-1]

    monkeypatch.setattr(baseline, "open_session", opening)
    monkeypatch.setattr(baseline, "WARM_UP_SECONDS", 0.01)
    Meter(read(teacher_path).network, BudgetOptions(max_macs="0.5x", latency_batch=3), tmp_path)
    assert [session.get_inputs()[0].shape[0] for session in opened] == [3]
