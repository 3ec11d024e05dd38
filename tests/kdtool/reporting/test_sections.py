"""What a report says of what a search chose, and of trainings that were not alike."""

import json
from urllib.parse import unquote, urlsplit

import kdtool
from kdtool.cli.commands.inspect import as_text
from kdtool.models.checkpoint import read
from kdtool.reporting.sections import _files, flat, training_time
from kdtool.study.record import FORMAT

CHOSE = "--search chose temperature=4"


def searched(teacher_path, path):
    """Write a checkpoint as after a search, with that of a structure before it."""
    checkpoint = read(teacher_path)
    (made,) = checkpoint.history
    of_structure = {**made, "line": "kdtool distill --method gated", "search": [{"epoch": 1, "kl": 0.5}]}
    chosen = {"asked": "temperature=1,4", "chosen": "temperature=4", "rounds": [], "epochs": 2}
    damaged = {**made, "search": {"chosen": ["x"]}}
    checkpoint.history = [made, of_structure, damaged, {**made, "line": "kdtool distill --search", "search": chosen}]
    checkpoint.save(path)
    return path


def test_what_a_search_chose_is_told_beside_its_command(teacher_path, tmp_path):
    path = searched(teacher_path, tmp_path / "searched.pt")
    lines = as_text(kdtool.inspect(path)).splitlines()
    assert lines[-2:] == ["  kdtool distill --search", f"    {CHOSE}"]
    assert sum("--search chose" in line for line in lines) == 1
    text = kdtool.report(path, output=tmp_path / "r.md").read_text()
    assert text.count("--search chose") == 1
    assert f"$ kdtool distill --search\n```\n\n{CHOSE}; " in text


def test_a_study_tells_settings_where_they_differ_with_its_notes(tmp_path):
    same = {"step": "student", "accuracy": 0.9, "epochs": 14, "optimizer": "adam", "batch_size": 64}
    rows = [
        {"name": "a", "values": {"method": "kd"}, "recipe": "quick", "chosen": "temperature=4", **same},
        {"name": "b", "values": {"method": "assistant"}, "recipe": "none", **same},
    ]
    pair = {"step": "student", "a": "method=kd", "b": "method=assistant", "along": "method", "values": {}}
    note = "student: kd was trained with --recipe quick"
    results = {
        **{"rows": rows, "means": [], "failed": [], "comparison_means": [], "notes": [note]},
        "comparisons": [{**pair, "accuracy_difference": 0.012345, "mcnemar_p": 0.5}],
    }
    commands = {name: {"told": {"command": ["distill", name], "inputs": {}}, "status": "done"} for name in ("a", "b")}
    study = tmp_path / "s.study"
    study.mkdir()
    (study / "results.json").write_text(json.dumps(results))
    (study / "study.json").write_text(json.dumps({"format": FORMAT, "commands": commands, "comparisons": {}}))
    text = kdtool.report(study, output=tmp_path / "r.md").read_text()
    assert "optimiser" not in text
    assert "| recipe |" in text
    assert f"Not trained alike: {note}." in text
    assert "| step | a | b | accuracy b - a | McNemar p |" in text
    assert f"$ kdtool distill a\n```\n\n{CHOSE}" in text
    assert text.count("--search chose") == 1


def test_a_link_leads_to_its_file_whatever_its_name(tmp_path):
    names = ["javascript:alert(document.domain)+'.pt'", "a#b?c%41.pt", "a>b.pt", "plain.pt"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "r.run").mkdir()
    _, links = _files([*(tmp_path / name for name in names), tmp_path / "r.run"], tmp_path)
    assert [name for name, _ in links.files] == [*names, "r.run"]
    for name, address in links.files:
        parts = urlsplit(address)
        assert (parts.scheme, parts.query, parts.fragment) == ("", "", "")
        assert unquote(parts.path).removesuffix("/") == name
        assert ">" not in address


def test_a_measurement_does_not_take_the_place_of_the_setting_of_its_name():
    rows = [
        {"name": "half_epochs=1", "step": "half", "values": {"epochs": 1, "a": "x", "lr": 0.1}, "epochs": 2},
        {"name": "teacher", "step": "teacher", "values": {}, "epochs": 4},
    ]
    assert flat(rows) == [
        {"name": "half_epochs=1", "step": "half", "epochs (setting)": "1", "a": "x", "lr": "0.1", "epochs": 2},
        {"name": "teacher", "step": "teacher", "epochs (setting)": "", "a": "", "lr": "", "epochs": 4},
    ]
    assert flat([{"a": "teacher", "b": "half", "values": {"a": 0.5}}]) == [
        {"a": "teacher", "b": "half", "a (setting)": "0.5"}
    ]


def test_a_training_is_told_with_its_length():
    epoch = {"phase": "kd", "seconds": 1.2}
    assert training_time([epoch]) == "Training: 1 epoch in 1 phase, 1 s"
    assert training_time([epoch, epoch | {"phase": "head"}]) == "Training: 2 epochs in 2 phases, 2 s"
