"""The page that `kdtool report` writes, of real checkpoints, runs and studies."""

import csv
import json
import os
import re
import shutil

import pytest
import torch

import kdtool
from kdtool.study.runner import run_study

RECIPE = """
[matrix]
seed = [0, 1]
ratio = [0.5, 0.8]
[[step]]
name = "teacher"
run = "teacher kdtool:lenet-300-100 --data digits --epochs 1"
[[step]]
name = "pruned"
from = "teacher"
run = "prune --ratio {ratio} --epochs 0 --seed {seed}"
"""


@pytest.fixture(scope="module")
def student(teacher_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("student") / "student.pt"
    return kdtool.distill(teacher_path, method="ikd", iters=1, epochs=2, output=path).path


@pytest.fixture(scope="module", autouse=True)
def _each_chart_is_drawn_once():
    """Most pages here show the same curves; drawing them takes most of the time of a page."""
    from kdtool.plotting import curves

    drawn, draw = {}, curves._curves

    def once(epochs, panel):
        key = repr((epochs, panel))
        if key not in drawn:
            drawn[key] = draw(epochs, panel)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "_curves", once)
        yield


def page_of(*sources, **options):
    text = kdtool.report(*sources, **options).read_text(encoding="utf-8")
    # Nothing is fetched and nothing runs. The namespaces of SVG look like addresses, but are only names.
    assert not re.search(r"<script|<link|<iframe|@import|\bon[a-z]+=|src=\"(?!data:)", text)
    # Links lead to files below the report; the cells of a matrix are a picture in the page itself.
    assert not re.search(r"href=\"(?![\w.-]+(/[\w.-]+)*/?\"|#|data:image/png;base64,)", text)
    return text


def test_a_checkpoint_is_told_with_its_models_its_training_and_the_commands_that_made_it(student, tmp_path):
    text = page_of(student, output=tmp_path / "r.html")

    inspected = kdtool.inspect(student)
    assert f"<td>{inspected['parameters']:,}</td>" in text
    for score in inspected["metrics"]:
        assert f"<td>{score['split']}</td>" in text
        assert f'<td class="number">{score["loss"]:.4f}</td>' in text
    assert "<td>M1</td>" in text
    assert "2 epochs in 1 phase" in text
    assert re.findall(r"<pre>kdtool (\w+)", text) == ["teacher", "distill"]
    assert str(student.parent) not in text


def test_a_run_and_its_checkpoint_are_told_once_beside_others(teacher_path, student, tmp_path):
    text = page_of(student, student.with_suffix(".run"), teacher_path, output=tmp_path / "r.html")

    headings = ["Networks", "student.pt beside its teacher teacher.pt", "Accuracy and cost", "student.pt", "teacher.pt"]
    assert re.findall("<h2>(.*?)</h2>", text) == headings
    assert "<td>teacher.pt</td><td>kdtool:lenet-300-100</td>" in text


def test_a_run_that_was_cut_is_told_with_its_pictures(student, tmp_path):
    run = shutil.copytree(student.with_suffix(".run"), tmp_path / "cut.run")
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "finished": False}))
    (run / "drop.svg").write_text("<svg/>")
    with open(run / "metrics.jsonl", "a") as lines:
        lines.write('{"phase": "M2 fro')

    text = page_of(run, output=tmp_path / "r.html")

    assert "This run is not finished." in text
    assert "<td>ikd</td>" in text
    assert "2 epochs in 1 phase" in text
    assert '<img alt="drop.svg" src="data:image/svg+xml;base64,PHN2Zy8+">' in text


@pytest.mark.slow  # a study of four trainings
def test_a_study_is_told_with_its_means_and_charts(tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE)
    study = run_study(tmp_path / "r.toml")["directory"]
    (tmp_path / "figures").mkdir()

    text = page_of(study, output=tmp_path / "r.html", figures=tmp_path / "figures")

    assert text.count("<svg") == 2
    assert text.count("<td>pruned</td>") == 2 + 4
    assert "<pre>kdtool prune teacher.pt --ratio 0.8 --epochs 0 --seed 1</pre>" in text
    drawn = {path.name: path.read_text() for path in (tmp_path / "figures").iterdir()}
    assert sorted(drawn) == ["test-accuracy-against-ratio.svg", "validation-accuracy-against-ratio.svg"]
    for svg in drawn.values():
        assert svg.strip() in text


def test_a_study_of_two_seeds_is_told_without_intervals_and_with_a_chart_for_each_cost(exported_study, tmp_path):
    text = page_of(exported_study, output=tmp_path / "r.html")

    tables = re.findall(r"<table>(.*?)</table>", text)
    heads = [re.sub("<.*?>", " ", table.partition("</thead>")[0]).split() for table in tables]
    assert heads[0][:4] == ["step", "method", "seeds", "accuracy"]
    assert heads[1][:4] == ["step", "seed", "method", "accuracy"]
    # Means by hand; Student's t of two values is 12.7, so that their intervals would be wider than all numbers.
    assert re.findall(r">(0\.\d{4})<", tables[0]) == ["0.9200", "0.8100"]
    assert "±" not in text
    assert "intervals over seeds" not in text
    assert text.count("<svg") == 3
    for title in ("latency", "MACs", "bytes"):
        (drawn,) = [svg for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL) if f">{title}</text>" in svg]
        assert {">file kd</text>", ">file at</text>"} <= set(re.findall(r">file \w+</text>", drawn))


def test_what_cannot_be_told_is_refused_in_one_line(teacher_path, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "s.study").mkdir()
    (tmp_path / "s.study" / "study.json").write_text("{}")
    (tmp_path / "b.study").mkdir()
    (tmp_path / "b.study" / "study.json").write_text("{}")
    (tmp_path / "b.study" / "results.json").write_text('{"rows": 3}')
    (tmp_path / "bare.pt").write_text("no checkpoint")
    (tmp_path / "odd.run").mkdir()
    (tmp_path / "odd.run" / "run.json").write_text("[]")
    (tmp_path / "there.html").write_text("mine")

    def refused(*sources, match, **options):
        with pytest.raises(kdtool.Error, match=match):
            kdtool.report(*sources, **{"output": tmp_path / "r.html", **options})

    refused(match="name a checkpoint")
    refused(tmp_path / "empty", match="is not the directory of a run or a study")
    os.mkfifo(tmp_path / "pipe.pt")
    refused(tmp_path / "pipe.pt", match=r"pipe\.pt: is no regular file$")
    refused(tmp_path / "none.pt", match=r"none\.pt: there is no such file$")
    refused(tmp_path / "s.study", match="no results yet")
    refused(tmp_path / "b.study", match=r"results\.json: is damaged")
    refused(tmp_path / "odd.run", match=r"run\.json: is damaged")
    refused(tmp_path / "bare.pt", match=r"bare\.pt: ")
    refused(teacher_path, output=tmp_path / "there.html", match="exists already")
    refused(teacher_path, output=tmp_path / "r.txt", match=r"must end in \.html, \.md or \.csv")
    refused(teacher_path, figures=tmp_path / "none", match="no such directory")
    assert not (tmp_path / "r.html").exists()
    assert (tmp_path / "there.html").read_text() == "mine"


def test_a_student_stands_beside_its_teacher_with_the_differences(student, teacher_path, tmp_path):
    text = page_of(student, output=tmp_path / "r.html")

    small, large = kdtool.inspect(student), kdtool.inspect(teacher_path)
    assert "student.pt beside its teacher teacher.pt" in text
    ratio = large["parameters"] / small["parameters"]
    assert f"<td>{large['parameters']:,}</td><td>{small['parameters']:,}</td><td>{ratio:.2f}x less</td>" in text
    after, before = (kdtool.load(path).metric("test", "accuracy") for path in (student, teacher_path))
    assert f"<td>{before:.2%}</td><td>{after:.2%}</td><td>{100 * (after - before):+.2f} points</td>" in text


def test_another_network_at_the_teachers_path_is_not_its_teacher(student, teacher_path, tmp_path):
    kept = teacher_path.read_bytes()
    try:
        kdtool.teacher("kdtool:lenet-300-100", classes=10, in_channels=1, image_size=8, output=teacher_path, force=True)
        assert "beside its teacher" not in page_of(student, output=tmp_path / "r.html")
    finally:
        teacher_path.write_bytes(kept)


def test_files_below_the_report_are_linked_and_others_are_not(student, tmp_path):
    moved = shutil.copytree(student.parent, tmp_path / "out") / "student.pt"
    inside = page_of(moved, output=tmp_path / "r.html")
    assert re.findall('<a href="(.*?)"', inside) == [
        "out/student.pt",
        "out/student.run/",
        "out/student.run/metrics.jsonl",
    ]
    (tmp_path / "elsewhere").mkdir()
    assert "<a href=" not in page_of(moved, output=tmp_path / "elsewhere" / "r.html")


@pytest.mark.slow
def test_latency_is_measured_when_it_is_asked_for(student, teacher_path, tmp_path, monkeypatch):
    measured = iter([({"p50_ms": 2.0}, None), ({"p50_ms": 0.9}, 0.25)])

    def fake(file, first):
        assert file.exists()
        assert (first is None) == (file.name == "0.onnx")
        student_ms, ratio = next(measured)
        return {"student": student_ms, "ratio": ratio}

    monkeypatch.setattr("kdtool.exporting.contained.measure_contained", fake)
    text = page_of(teacher_path, student, output=tmp_path / "r.html", latency=True)
    assert "<td>latency in ms</td><td>2</td><td>0.5</td><td>4.00x less</td>" in text
    assert "it takes 0.25 of the time of the first network" in text
    assert "latency, as a fraction of the first" in text


def test_classes_are_measured_when_they_are_asked_for(student, teacher_path, digits, tmp_path):
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

    text = page_of(teacher_path, student, output=tmp_path / "r.html", per_class=True)
    checkpoint = kdtool.load(student)
    ((_, images, labels),) = digits.test.batches(1000)
    with torch.no_grad():
        logits = checkpoint.module.eval()(images)
    counts = confusion_matrix(labels, logits.argmax(1))
    balanced = balanced_accuracy_score(labels, logits.argmax(1))
    assert f'<td class="number">{balanced:.4f}</td>' in text
    assert f'<td class="number">{top_k_accuracy_score(labels, logits, k=5):.4f}</td>' in text
    assert f"<td>balanced accuracy</td><td>{_balanced(teacher_path, digits):.2%}</td><td>{balanced:.2%}</td>" in text
    # The matrix of the student is the last one: its numbers, row by row.
    assert text.count("Confusion matrix: how many images of each true class get which answer</figcaption>") == 2
    drawn = text[text.rindex('<figure role="img" aria-label="Confusion matrix') :]
    drawn = drawn[: drawn.index("</figure>")]
    cells = re.findall(r"<text [^>]*fill: #(?:fefefe|010101)[^>]*>(\d+)</text>", drawn)
    assert [int(cell) for cell in cells] == counts[counts > 0].tolist()
    row = counts[3]
    recall = f"{row[3] / row.sum():.4f}"
    assert f'<td>3</td><td class="number">{row.sum()}</td><td class="number">{recall}</td>' in text
    assert "Classes, on" not in page_of(student, output=tmp_path / "without.html")
    table = kdtool.report(student, output=tmp_path / "table.csv", per_class=True).read_text()
    assert f"{balanced}" in table


def _balanced(path, digits):
    ((_, images, labels),) = digits.test.batches(1000)
    with torch.no_grad():
        answers = kdtool.load(path).module.eval()(images).argmax(1)
    return sum((answers[labels == label] == label).double().mean().item() for label in range(10)) / 10


def test_the_title_of_many_networks_is_short(teacher_path):
    from kdtool.reporting.page import _joined

    assert _joined(["a"]) == "a"
    assert _joined(["a", "b", "c"]) == "a, b and c"
    assert _joined(list("abcdef")) == "a, b, c and 3 more"


def test_a_report_in_markdown_has_its_charts_beside_it(student, tmp_path):
    path = kdtool.report(student, output=tmp_path / "r.md")
    text = path.read_text()
    assert text.startswith("# student.pt\n")
    assert "| test accuracy | " in text
    assert "```console\n$ kdtool teacher kdtool:lenet-300-100" in text
    charts = re.findall(r"!\[.*?\]\(<(.*?)>\)", text)
    assert charts
    assert sorted(charts) == sorted(file.name for file in tmp_path.glob("*.svg"))
    assert all((tmp_path / chart).read_text().startswith("<svg") for chart in charts)


def test_a_table_has_a_row_for_each_network_with_all_digits(student, teacher_path, tmp_path):
    path = kdtool.report(teacher_path, student, output=tmp_path / "table.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["checkpoint"] for row in rows] == ["teacher.pt", "student.pt"]
    accuracy = kdtool.load(student).metric("test", "accuracy")
    assert float(rows[1]["test_accuracy"]) == accuracy
    assert int(rows[1]["parameters"]) == kdtool.inspect(student)["parameters"]


def test_no_cell_of_a_table_is_a_formula():
    from kdtool.reporting.page import _csv

    assert _csv([{"name": "=1+1", "a": -3}, {"name": "ok"}]) == "name,a\n'=1+1,-3\nok,\n"
    assert _csv([{"=a\x1b": "b\x1b[31m"}]) == "'=a?\nb?[31m\n"


@pytest.mark.parametrize("suffix", [".html", ".csv", ".md"])
def test_a_name_that_is_not_utf8(teacher_path, tmp_path, suffix):
    path = tmp_path / os.fsdecode(b"caf\xe9.pt")
    shutil.copy(teacher_path, path)
    output = tmp_path / os.fsdecode(b"r\xe9" + suffix.encode())
    assert "caf?" in kdtool.report(path, output=output).read_text(encoding="utf-8")
