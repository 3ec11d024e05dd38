"""`--resume` where a command without a run has finished: its file stays, and only the same command takes it."""

import shlex

import pytest

import kdtool
from kdtool.cli.main import cli
from kdtool.errors import UsageError
from kdtool.plugins.registry import method_class
from kdtool.utils import files

REFINED = "refine t.pt --method halve -o s.pt"
EXPORTED = "export t.pt --no-latency -o s.onnx"
TRAINED = "teacher kdtool:lenet-300-100 --data digits --image-size 8 --epochs 1 --subset 0.1"
UNTRAINED = "teacher kdtool:lenet-300-100 --classes 10 --in-channels 1 --image-size 8 -o s.pt"


@pytest.fixture
def here(teacher_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = kdtool.load(teacher_path)
    checkpoint.data = None
    checkpoint.save(tmp_path / "t.pt")
    return tmp_path


@pytest.fixture
def run(here, capsys):
    """Return a function that runs a command line, and returns its exit code, stdout and stderr."""

    def invoke(line):
        with pytest.raises(SystemExit) as end:
            cli.main(shlex.split(line))
        return (end.value.code or 0, *capsys.readouterr())

    return invoke


@pytest.mark.parametrize(
    ("line", "other"),
    [
        (REFINED, "refine t.pt --method halve --times 2 -o s.pt"),
        (REFINED, "refine t.pt --method halve --seed 1 -o s.pt"),
        pytest.param(EXPORTED, "export t.pt --no-latency --opset 19 -o s.onnx", marks=pytest.mark.slow),
        (UNTRAINED, f"{UNTRAINED} --seed 1"),
        (UNTRAINED, UNTRAINED.replace("--classes 10", "--classes 9")),
    ],
)
def test_a_finished_file_stays_and_only_its_own_command_resumes_it(run, here, line, other):
    name = line.split()[-1]
    assert run(f"{line} --resume")[:2] == (0, f"{name}\n")  # there is nothing yet, so it is made
    content, status = (here / name).read_bytes(), (here / name).stat()

    code, out, err = run(f"{line} --resume")
    assert (code, out) == (0, f"{name}\n")
    assert f"{name}: is finished already" in err
    code, out, err = run(f"{other} --resume")
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {name}: exists already, and ")
    assert err.count("\n") == 1
    code, out, err = run(line)
    assert (code, out) == (2, "")
    assert f"{name}: exists already" in err
    assert (here / name).read_bytes() == content
    assert (here / name).stat().st_ino == status.st_ino

    code, out, _ = run(f"{other} --resume --force")
    assert (code, out) == (0, f"{name}\n")
    assert (here / name).read_bytes() != content


def test_a_file_of_other_weights_is_another_one(run, here):
    assert run(REFINED)[0] == 0
    assert run(EXPORTED)[0] == 0
    assert run("teacher kdtool:lenet-5 --classes 10 --in-channels 1 --image-size 8 --seed 9 -o t.pt --force")[0] == 0
    for line in (REFINED, EXPORTED):
        code, _, err = run(f"{line} --resume")
        assert code == 2
        assert "exists already, and " in err


def test_a_strange_file_is_not_finished(run, here):
    for line, name in ((REFINED, "s.pt"), (EXPORTED, "s.onnx")):
        (here / name).write_text("mine")
        code, out, err = run(f"{line} --resume")
        assert (code > 0, out, err.count("\n")) == (True, "", 1)
        assert (here / name).read_text() == "mine"


def test_what_was_measured_is_not_in_a_finished_export(run, here):
    assert run(EXPORTED)[0] == 0
    code, out, err = run(f"{EXPORTED} --resume --json")
    assert (code, out) == (1, "")
    assert "what was measured is not kept in it" in err
    told = kdtool.export("t.pt", latency=False, output="s.onnx", resume=True)
    assert told["finished"] is True
    assert told["onnx"] == "s.onnx"


@pytest.fixture
def in_two_files(monkeypatch):
    """The exporter of ONNX files, which writes a second file, ``.bin``."""
    exporter = method_class("exporters", "onnx")
    whole = exporter.export

    def export(self, network, output, **about):
        told = whole(self, network, output, **about)
        output.with_suffix(".bin").write_text("weights")
        return told

    monkeypatch.setattr(exporter, "companions", (".bin",))
    monkeypatch.setattr(exporter, "export", export)
    return exporter


def test_an_export_that_was_killed_between_its_two_files_goes_on(run, here, in_two_files):
    (here / "s.bin").write_text("weights")
    code, _, err = run(f"{EXPORTED} --resume")
    assert (code, "s.bin: exists already" in err) == (2, True)
    # The folder of a process that was killed; no process has this number.
    left = here / f".s.onnx.00000000.{files._machine()}.999999999.tmp"
    left.mkdir()
    (left / "s.onnx").write_text("moved last")
    (left / "s.bin").write_text("not moved yet, so that the other one is somebody's")
    assert run(f"{EXPORTED} --resume")[0] == 2
    (left / "s.bin").unlink()
    assert run(EXPORTED)[0] == 2
    assert run(f"{EXPORTED} --resume")[0] == 0
    assert not left.exists()


def test_a_finished_file_that_holds_no_metadata_is_known_by_the_one_beside(run, here, monkeypatch):
    exporter = method_class("exporters", "pt2")
    line, other = "export t.pt --pt2 --no-latency -o s.pt2", b"of another command"
    monkeypatch.setattr(exporter, "write", lambda self, module, architecture, path, metadata: path.write_bytes(other))
    monkeypatch.setattr(exporter, "_open", lambda self, *about: None)
    monkeypatch.setattr("kdtool_exporters.runtime_file.check_outputs", lambda *about: None)
    monkeypatch.setattr(exporter, "description", ".pt2.json")
    monkeypatch.setattr(exporter, "companions", (".pt2.json",))
    assert run(line)[0] == 0
    code, _, err = run(f"{line} --resume")
    assert (code, "s.pt2: is finished already" in err) == (0, True)
    # Another file of that name is not this one.
    (here / "s.pt2").write_bytes(b"mine")
    code, _, err = run(f"{line} --resume")
    assert (code, "s.pt2: exists already, and does not tell" in err) == (2, True)
    assert (here / "s.pt2").read_bytes() == b"mine"
    (here / "s.pt2").write_bytes(other)
    (here / "s.pt2.json").unlink()
    assert run(f"{line} --resume")[0] == 2


def test_an_export_that_lacks_one_of_its_two_files_is_made_again(run, here, in_two_files):
    assert run(EXPORTED)[0] == 0
    (here / "s.bin").unlink()
    code, _, err = run(f"{EXPORTED} --resume")
    assert (code, "is finished already" in err) == (0, False)
    code, _, err = run(f"{EXPORTED} --resume")
    assert (code, "is finished already" in err) == (0, True)


def test_an_export_that_is_killed_twice_between_its_two_files_goes_on(run, here, in_two_files, monkeypatch):
    (here / "s.bin").write_text("weights")
    left = here / f".s.onnx.00000000.{files._machine()}.999999999.tmp"
    left.mkdir()
    (left / "s.onnx").write_text("moved last")

    def killed(*about, **more):
        files._sweep(here / "s.onnx")  # as every export begins
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(in_two_files, "export", killed)
        with pytest.raises(KeyboardInterrupt):
            kdtool.export("t.pt", latency=False, output="s.onnx", resume=True)
    assert not left.exists()
    assert run(f"{EXPORTED} --resume")[0] == 0


def test_a_finished_folder_is_known_by_a_file_in_it(here):
    for _ in range(2):
        told = kdtool.export("t.pt", "hub-folder", output="hub", resume=True)
    assert told["finished"] is True
    with pytest.raises(UsageError, match="exists already, and does not tell"):
        kdtool.export("t.pt", "hub-folder", license="mit", output="hub", resume=True)


def test_a_chain_that_is_finished_makes_nothing_again(run, here):
    line = "refine t.pt -o a.pt export --no-latency -o a.onnx"
    assert run(line)[:2] == (0, "a.onnx\n")
    made = {name: (here / name).stat().st_ino for name in ("a.pt", "a.onnx")}
    code, out, err = run(f"{line} --resume")
    assert (code, out) == (0, "a.onnx\n")
    assert err.count("is finished already") == 2
    assert {name: (here / name).stat().st_ino for name in made} == made
    (here / "a.onnx").unlink()
    assert run(f"{line} --resume")[:2] == (0, "a.onnx\n")
    assert (here / "a.pt").stat().st_ino == made["a.pt"]


def test_a_chain_overwrites_no_strange_file_where_nothing_was_begun(run, here):
    (here / "e.png").write_text("mine")
    code, _, err = run("refine t.pt --resume -o a.pt evaluate --data digits --per-class -o e.png")
    assert code == 2
    assert "e.png: exists already" in err
    assert (here / "e.png").read_text() == "mine"


TAUGHT = "distill d.pt --student kdtool:lenet-300-100 --epochs 1 --subset 0.1 -o s.pt"


@pytest.fixture
def taught(here, teacher_path):
    kdtool.load(teacher_path).save(here / "d.pt")


@pytest.mark.parametrize(
    ("line", "other", "said"),
    [
        (f"{TRAINED} -o s.pt", f"{TRAINED.replace('lenet-300-100', 'lenet-5')} -o s.pt", "begins.network was"),
        (TAUGHT, TAUGHT.replace("lenet-300-100", "lenet-5"), "begins.network was"),
        (TAUGHT, TAUGHT.replace("--student kdtool:lenet-300-100", "--refiner halve"), "begins.structure was"),
        (f"{TAUGHT} --accumulate 2", TAUGHT, "training.accumulate was 2, now null"),
    ],
)
def test_a_finished_run_is_that_of_its_own_network_and_options(run, taught, line, other, said):
    assert run(line)[0] == 0
    assert run(f"{line} --resume")[:2] == (0, "s.pt\n")
    code, out, err = run(f"{other} --resume")
    assert (code, out) == (2, "")
    assert f"s.run: --resume needs the same command: {said}" in err


def test_a_finished_run_returns_no_other_checkpoint_than_its_own(run, here, taught):
    assert run(TAUGHT)[0] == 0
    assert run("refine t.pt --method halve -o s.pt --force")[0] == 0
    code, out, err = run(f"{TAUGHT} --resume")
    assert (code, out) == (2, "")
    assert "Error: s.pt: is not what its run s.run made; name another output with -o, or start again" in err
    (here / "s.pt").unlink()
    assert run(f"{TAUGHT} --resume")[:2] == (0, "s.pt\n")
    (here / "s.run" / "made.json").unlink()  # as before there was one
    assert run(f"{TAUGHT} --resume")[:2] == (0, "s.pt\n")


def test_a_finished_run_says_how_its_network_is_trained_for_longer(run, taught):
    assert run(TAUGHT)[0] == 0
    code, out, err = run(f"{TAUGHT.replace('--epochs 1', '--epochs 2')} --resume")
    assert (code, out) == (2, "")
    way = "to train s.pt for longer: kdtool distill TEACHER --student s.pt; or start again with --force"
    assert f"training.epochs was 1, now 2; {way}" in err
    assert "for longer" not in run(f"{TAUGHT.replace('--subset 0.1', '--subset 0.2')} --epochs 2 --resume")[2]
    assert "for longer" not in run(f"{TAUGHT} --batch-size 32 --resume")[2]
    assert run("distill d.pt --student s.pt --epochs 2 --subset 0.1 -o longer.pt")[:2] == (0, "longer.pt\n")
