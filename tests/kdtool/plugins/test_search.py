"""Options chosen by validation: the settings, the rounds and the cost of a search."""

import pytest
import torch

import kdtool
from kdtool.models.checkpoint import read
from kdtool.plugins.registry import method_class
from kdtool.plugins.search import Search


def settings(method, text, **fixed):
    return Search.parse(text).settings(method_class("distillers", method), fixed)


def test_values_are_tried_in_all_combinations():
    assert settings("kd", "temperature=1,2") == {
        "temperature=1": {"temperature": 1.0},
        "temperature=2": {"temperature": 2.0},
    }
    assert list(settings("kd", "temperature=1,4,alpha=0.5,0.9")) == [
        "temperature=1, alpha=0.5",
        "temperature=1, alpha=0.9",
        "temperature=4, alpha=0.5",
        "temperature=4, alpha=0.9",
    ]
    text = "temperature=1,4,alpha=0.5,0.9"
    assert str(Search.parse(text)) == text


def test_what_was_given_holds_for_all():
    assert settings("kd", "temperature=1,4->1", alpha=0.5) == {
        "temperature=1": {"temperature": 1.0, "alpha": 0.5},
        "temperature=4->1": {"temperature": "4->1", "alpha": 0.5},
    }


def test_options_of_methods_in_roles_and_the_methods_themselves():
    inner = {"name": "kd", "temperature": 1.0}
    for name in ("temperature", "objective-temperature"):
        assert settings("ikd", f"{name}=1,2")[f"{name}=1"] == {"objective": inner}
    fixed = {"objective": {"name": "dist", "beta": 1.0}}
    assert settings("assistant", "gamma=1,2", **fixed)["gamma=2"] == {
        "objective": {"name": "dist", "beta": 1.0, "gamma": 2.0}
    }
    assert settings("mutual", "objective=kd,dist")["objective=dist"] == {"objective": "dist"}
    assert settings("kd:0.9+at:1000", "kd-temperature=1,2")["kd-temperature=2"] == {
        "kd": {"name": "kd", "temperature": 2.0}
    }


@pytest.mark.parametrize(
    ("method", "text", "message"),
    [
        ("kd", "temperature", "is not a search"),
        ("kd", "temperature=", "is not a search"),
        ("kd", "temperature=1", "needs at least two values"),
        ("kd", "temperature=1,1", "all different"),
        ("kd", "temperature=1,2,temperature=3,4", "searched twice"),
        ("kd", "temperature=1,0", "--search: --temperature: 0.0 is out of range"),
        ("kd", "temperature=1,warm", "--search: --temperature: 'warm' is neither a number"),
        ("kd", "tempreature=1,2", "did you mean temperature"),
        ("at", "taps=a,b", "is a list"),
        (
            "kd:0.9+dist",
            "temperature=1,2",
            "several methods have this option; write kd-temperature or dist-temperature",
        ),
        ("mutual", "teacher-learns=on,maybe", "must be on or off"),
        ("kd", "temperature=" + ",".join(map(str, range(1, 400))), "399 settings are too many"),
        ("kd", "temperature=1,1.0", "'temperature=1' and 'temperature=1.0' are the same setting; leave one out"),
        ("kd", "alpha=0.5,.5,temperature=1,4", "'alpha=0.5, temperature=1' and 'alpha=.5, temperature=1' are the same"),
        ("kd", "temperature=4->1,4.0->1", "are the same setting"),
        ("ikd", "temperature=1,1.0", "are the same setting"),
    ],
)
def test_what_cannot_be_tried_is_refused(method, text, message):
    with pytest.raises(kdtool.UsageError, match=message):
        settings(method, text)


@pytest.mark.parametrize(
    ("method", "text", "fixed"),
    [
        ("kd", "temperature=2,4", {"temperature": 3}),
        ("ikd", "temperature=2,4", {"objective": {"name": "kd", "temperature": 3}}),
        ("mutual", "objective=kd,dist", {"objective": {"name": "kd", "temperature": 3}}),
    ],
)
def test_an_option_is_given_or_searched(method, text, fixed):
    name = text.partition("=")[0]
    with pytest.raises(kdtool.UsageError, match=f"^--{name}: --search tries values of it; leave one of the two out$"):
        settings(method, text, **fixed)
    assert settings("ikd", "temperature=2,4", objective={"name": "kd", "alpha": 0.5})


def test_too_many_settings_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr("kdtool.plugins.search._with", lambda *_: pytest.fail("a setting was made"))
    values = ",".join(f"0.{number}" for number in range(100, 400))
    with pytest.raises(kdtool.UsageError, match="90000 settings are too many"):
        settings("kd", f"alpha={values},temperature={values}")


def test_the_best_by_validation_is_trained_and_the_search_is_told(teacher_path, tmp_path, capsys):
    student = kdtool.distill(
        teacher_path,
        student="kdtool:lenet-300-100",
        search="temperature=1,4,alpha=0,1",
        epochs=8,
        lr=3e-3,
        subset=0.3,
        output=tmp_path / "s.pt",
    )
    entry = read(tmp_path / "s.pt").history[-1]
    search = entry["search"]
    assert search["asked"] == "temperature=1,4,alpha=0,1"
    # Two lengths, of 8 epochs together if two of the four go on: 4 * 1 and 2 * 2.
    assert [row["epochs"] for row in search["rounds"]] == [1, 2]
    first, last = (row["results"] for row in search["rounds"])
    assert len(first) == 4
    assert 1 <= len(last) < 4
    assert first[0]["setting"] in {result["setting"] for result in last}
    best = max(last, key=lambda result: (result["accuracy"], -result["loss"]))
    assert search["chosen"] == best["setting"]
    temperature, alpha = (float(part.partition("=")[2]) for part in search["chosen"].split(", "))
    assert (entry["options"]["temperature"], entry["options"]["alpha"]) == (temperature, alpha)
    assert search["epochs"] == len(first) + 2 * len(last)
    stderr = capsys.readouterr().err
    assert f"search: {search['chosen']}; it cost {search['epochs']} epochs and " in stderr
    assert "--search temperature=1,4,alpha=0,1" in entry["line"]
    # The result equals that of a training with the chosen options and without a search.
    plain = kdtool.distill(
        teacher_path, student="kdtool:lenet-300-100", temperature=temperature, alpha=alpha, epochs=8, lr=3e-3,
        subset=0.3, output=tmp_path / "plain.pt",
    )  # fmt: skip
    assert plain.metrics == student.metrics
    assert not (tmp_path / "s.run" / "phases").exists()


def test_nothing_to_choose_by(teacher_path, tmp_path):
    with pytest.raises(kdtool.UsageError, match="with --epochs 0 there is nothing to choose by"):
        kdtool.distill(
            teacher_path, student="kdtool:lenet-5", search="temperature=1,2", epochs=0, output=tmp_path / "s.pt"
        )
    assert not (tmp_path / "s.run").exists()


def test_a_search_that_cannot_begin_leaves_nothing(teacher_path, tmp_path):
    with pytest.raises(kdtool.Error, match="has no stages"):
        kdtool.distill(
            teacher_path, "at", student="kdtool:lenet-300-100", search="weight=1,2", output=tmp_path / "s.pt"
        )
    assert not (tmp_path / "s.run").exists()


def test_a_search_that_was_cut_goes_on_bit_for_bit(teacher_path, tmp_path, monkeypatch):
    from kdtool.training.run import Run

    options = {"student": "kdtool:lenet-300-100", "search": "temperature=1,4", "epochs": 4, "lr": 3e-3, "subset": 0.2}
    whole = kdtool.distill(teacher_path, output=tmp_path / "whole.pt", **options)
    logged, log = [], Run.log

    def killing(self, row):
        logged.append(row)
        if len(logged) == 4:  # the second epoch of the second setting
            raise KeyboardInterrupt
        log(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", killing)
        with pytest.raises(KeyboardInterrupt):
            kdtool.distill(teacher_path, output=tmp_path / "cut.pt", **options)
    cut = kdtool.distill(teacher_path, output=tmp_path / "cut.pt", resume=True, **options)
    assert all(torch.equal(tensor, cut.module.state_dict()[name]) for name, tensor in whole.module.state_dict().items())
    searches = [checkpoint.history[-1]["search"] for checkpoint in (whole, cut)]
    assert {**searches[0], "seconds": 0} == {**searches[1], "seconds": 0}
    with pytest.raises(kdtool.UsageError, match="search.asked was"):
        kdtool.distill(
            teacher_path, output=tmp_path / "cut.pt", resume=True, **{**options, "search": "temperature=1,2"}
        )
