"""Exports with and without their data sets."""

import pytest
from PIL import Image

import kdtool
from kdtool.cli.commands.export import as_text
from kdtool.cli.main import cli
from kdtool.commands.history import is_of_compression
from kdtool.errors import Error, UsageError
from kdtool.utils.files import sha256_of


@pytest.fixture(scope="module")
def bare(teacher_path, tmp_path_factory):
    """The teacher as a checkpoint that records no data."""
    checkpoint = kdtool.load(teacher_path)
    checkpoint.data = None
    return checkpoint.save(tmp_path_factory.mktemp("bare") / "bare.pt").path


def test_int8_takes_the_validation_images_and_the_test_ones(teacher_path, tmp_path):
    output = tmp_path / "a.onnx"
    facts = kdtool.export(teacher_path, output=output, int8=True, latency=False, calibration_images=40)
    checkpoint = kdtool.load(teacher_path)
    assert facts["quantised"]["val_images"] == checkpoint.metrics[0]["images"]
    assert facts["quantised"]["calibration_images"] == 40
    assert facts["float"]["accuracy"]["accuracy"] == checkpoint.metric("test", "accuracy")
    assert facts["accuracy"]["images"] == checkpoint.metrics[1]["images"]
    assert facts["file_bytes"] < 0.35 * facts["float"]["file_bytes"]


def test_the_name_of_an_int8_file_on_the_command_line(teacher_path, tmp_path, capsys):
    path = kdtool.load(teacher_path).save(tmp_path / "net.pt").path
    words = ["export", str(path), "--int8", "--no-latency", "--calibration", "minmax", "--max-drop", "50%"]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "net-int8.onnx")
    assert (tmp_path / "net-int8.onnx").is_file()


def test_the_file_that_a_compression_wrote_is_written_again(teacher_path, tmp_path, capsys):
    """As compress leaves it where a network in 8 bits won: the history of the checkpoint knows the file."""
    checkpoint, written = kdtool.load(teacher_path), tmp_path / "net-int8.onnx"
    written.write_bytes(b"of the compression")
    checkpoint.history[-1]["budget"] = {"measured": {"onnx_sha256": sha256_of(written)}}
    checkpoint.save(tmp_path / "net.pt")
    words = ["export", str(tmp_path / "net.pt"), "--int8", "--no-latency"]
    for changed, code in ((b"mine", 2), (b"of the compression", 0)):
        written.write_bytes(changed)
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == code
        assert ("exists already" in capsys.readouterr().err) == bool(code)
    assert written.stat().st_size > 1000
    with pytest.raises(UsageError, match="exists already"):
        kdtool.export(checkpoint, int8=True, latency=False)
    written.write_bytes(b"of the compression")
    with pytest.raises(UsageError, match="exists already"):  # a file in float32 of this name was asked for by mistake
        kdtool.export(checkpoint, output=written, latency=False)


@pytest.mark.parametrize("budget", [None, "x", {"measured": "x"}, {"measured": {"onnx_sha256": 3}}])
def test_a_budget_of_another_kind_tells_of_no_file(teacher_path, tmp_path, budget):
    checkpoint = kdtool.load(teacher_path)
    checkpoint.history[-1]["budget"] = budget
    (tmp_path / "net-int8.onnx").touch()
    assert not is_of_compression(kdtool.load(checkpoint.save(tmp_path / "net.pt").path), tmp_path / "net-int8.onnx")


def test_int8_without_data_is_refused(bare, tmp_path):
    with pytest.raises(
        Error, match=r"--int8 calibrates with validation images, and there is no validation split; name"
    ):
        kdtool.export(bare, output=tmp_path / "a.onnx", int8=True, latency=False)
    assert not (tmp_path / "a.onnx").exists()


def test_data_that_are_named(bare, tmp_path):
    facts = kdtool.export(bare, output=tmp_path / "a.onnx", data="digits", latency=False)
    assert facts["accuracy"]["images"] > 100


def test_data_that_are_not_found(bare, tmp_path):
    with pytest.raises(Error, match="nowhere"):
        kdtool.export(bare, output=tmp_path / "a.onnx", data=f"folder:{tmp_path}/nowhere", latency=False)
    with pytest.raises(UsageError, match=r"^there is no option 'lattency'; did you mean latency"):
        kdtool.export(bare, output=tmp_path / "a.onnx", lattency=False)


@pytest.fixture(scope="module")
def pair(teacher_path, tmp_path_factory):
    """A student of the teacher, without any training, and its measurements."""
    folder = tmp_path_factory.mktemp("pair")
    kdtool.distill(teacher_path, method="kd", student="kdtool:lenet-300-100", epochs=1, output=folder / "student.pt")
    facts = kdtool.export(folder / "student.pt", output=folder / "a.onnx", pairs=1, latency_seconds=0.1)
    return folder / "student.pt", facts


def test_costs_stand_beside_those_of_the_teacher(pair, teacher_path):
    path, facts = pair
    rows = {row["of"]: row for row in facts["side_by_side"]}
    teacher, student = kdtool.load(teacher_path), kdtool.load(path)
    assert rows["accuracy"]["teacher"] == teacher.metric("test", "accuracy")
    assert rows["accuracy"]["file"] == facts["accuracy"]["accuracy"] == student.metric("test", "accuracy")
    assert rows["error"]["difference"] == pytest.approx(
        student.metric("test", "error") - teacher.metric("test", "error")
    )
    assert (rows["parameters"]["file"], rows["parameters"]["ratio"]) == (facts["parameters"], 1)
    assert rows["file_bytes"]["teacher"] == facts["teacher"]["file_bytes"] > 1000
    assert rows["latency_p50_ms"]["teacher"] == facts["latency"]["teacher"]["p50_ms"]
    assert rows["latency_p50_ms"]["ratio"] == facts["latency"]["ratio"]
    slow = rows["latency_p90_ms"]
    assert slow["ratio"] == pytest.approx(slow["file"] / slow["teacher"])  # pairs of samples tell of medians alone
    assert "float" not in rows["accuracy"]


def test_the_table_on_the_command_line(pair):
    text = as_text(pair[1])
    head = text.splitlines()[0].split()
    assert head == ["file", "teacher", "difference", "ratio"]
    assert "latency p50 ms" in text
    assert "latency student" not in text


def test_a_teacher_that_records_no_accuracy_is_measured(pair, teacher_path):
    """Its checkpoint records nothing of these images."""
    checkpoint = kdtool.load(teacher_path)
    checkpoint.metrics = []
    facts = kdtool.export(pair[0], output=pair[0].with_name("b.onnx"), against=checkpoint, latency=False)
    rows = {row["of"]: row for row in facts["side_by_side"]}
    assert rows["accuracy"]["teacher"] == kdtool.load(teacher_path).metric("test", "accuracy")
    assert rows["file_bytes"]["teacher"] is None


def test_a_teacher_of_other_images_is_measured_on_those_of_its_student(teacher_path, tmp_path):
    for split in ("train", "test"):
        for label in range(10):
            (tmp_path / "other" / split / str(label)).mkdir(parents=True)
            for number in range(4):
                place = tmp_path / "other" / split / str(label) / f"{number}.png"
                Image.new("L", (8, 8), 24 * label + number).save(place)
    data = f"folder:{tmp_path}/other"
    student = kdtool.distill(teacher_path, "kd", refiner="halve", data=data, epochs=0, output=tmp_path / "student.pt")
    facts = kdtool.export(student, output=tmp_path / "a.onnx", latency=False)
    rows = {row["of"]: row for row in facts["side_by_side"]}
    assert facts["accuracy"]["images"] == 40
    (measured,) = kdtool.evaluate(teacher_path, data=data)
    assert rows["accuracy"]["teacher"] == measured["accuracy"] < kdtool.load(teacher_path).metric("test", "accuracy")


def test_a_teacher_that_is_gone_has_no_accuracy(pair, teacher_path, tmp_path):
    student = kdtool.load(pair[0])
    student.history[1]["inputs"][0]["path"] = str(tmp_path / "gone.pt")
    student.path = None
    facts = kdtool.export(student, output=tmp_path / "c.onnx", latency=False)
    rows = {row["of"]: row for row in facts["side_by_side"]}
    assert rows["accuracy"]["teacher"] is None
    assert rows["parameters"]["teacher"] == 50610


def test_data_without_a_test_split_are_said_with_the_way_out(tmp_path, capfd):
    for place, level in {"train/a": 0, "train/b": 100, "val/a": 50, "val/b": 150}.items():
        (tmp_path / "photos" / place).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), level + number).save(tmp_path / "photos" / place / f"{number}.png")
    data = f"folder:{tmp_path}/photos"
    net = kdtool.teacher("kdtool:lenet-5", data=data, epochs=0, output=tmp_path / "net.pt")
    capfd.readouterr()
    assert kdtool.export(net, output=tmp_path / "net.onnx", latency=False).get("accuracy") is None
    assert f"the accuracy of the file is not measured: {data} has no test split" in capfd.readouterr().err
    for measure in (lambda: kdtool.evaluate(net), lambda: kdtool.compare(net, net)):
        with pytest.raises(UsageError, match="has no test split; it has train, val: add --split val$"):
            measure()
    assert kdtool.evaluate(net, split="val")[0]["images"] == 8
