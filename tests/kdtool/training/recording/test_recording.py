"""Recorded steps: the same weights as without on a CUDA device, and never where one step may differ from another."""

from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

import kdtool
from kdtool.training.callback import Callback, KeepEpoch
from kdtool.training.epochs import recorded as steps
from kdtool.training.recording import frozen
from kdtool.training.recording.frozen import RecordedForward
from kdtool.training.recording.graph import Copies, NotRecordedError, Recording, form, unknown_code
from kdtool_distillers.kd import KD

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class StandIn:
    """Runs the function in each replay, on the CPU."""

    def __init__(self, function, device, pool=None):
        self.function, self.replays = function, 0

    def replay(self):
        self.replays += 1
        return self.function()


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(frozen, "Recording", StandIn)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    return RecordedForward(torch.device("cpu"))


def doubled(x):
    return 2 * x, {"map": x}


def test_a_form_that_comes_often_is_recorded(recorded):
    for number in range(4):
        x = torch.full((2, 3), float(number))
        output, maps = recorded("double", doubled, x)
        assert torch.equal(output, 2 * x)
        assert torch.equal(maps["map"], x)
        assert len(recorded.recordings) == (number >= frozen.BEFORE)
    (_, recording) = next(iter(recorded.recordings.values()))
    assert recording.replays == 2


def test_outputs_stay_as_they_are_in_the_next_call(recorded):
    outputs = [recorded("double", doubled, torch.full((2,), float(number)))[0] for number in range(6)]
    assert [output[0].item() for output in outputs] == [0, 2, 4, 6, 8, 10]


def test_each_form_and_each_function_has_a_recording_of_its_own(recorded):
    for _ in range(frozen.BEFORE + 1):
        recorded("double", doubled, torch.ones(2, 3))
        recorded("double", doubled, torch.ones(3, 3))
        recorded("triple", lambda x: (3 * x, {}), torch.ones(2, 3))
        recorded("double", doubled, torch.ones(3, 2).t())
    assert len(recorded.recordings) == 4
    recorded("fifth", doubled, torch.ones(1))
    for _ in range(frozen.BEFORE + 1):
        assert torch.equal(recorded("fifth", doubled, torch.ones(1))[0], torch.full((1,), 2.0))
    assert len(recorded.recordings) == frozen.MOST
    assert recorded("triple", lambda x: (3 * x, {}), torch.ones(2, 3))[0][0, 0] == 3


@pytest.mark.parametrize("wanted", [False, True])
def test_what_cannot_be_recorded_runs_as_before(recorded, monkeypatch, capsys, wanted):
    def refuse(function, device, pool=None):
        raise NotRecordedError("it waits for the device")

    monkeypatch.setattr(frozen, "Recording", refuse)
    recorded.wanted = wanted
    for number in range(5):
        assert recorded("double", doubled, torch.full((2,), float(number)))[0][0] == 2 * number
    assert not recorded.usable
    assert not recorded.recordings
    line = "--cuda-graphs on: it waits for the device; a frozen network runs without them"
    assert capsys.readouterr().err.splitlines() == [line] * wanted


def test_copies_take_over_values_in_their_own_memory():
    first = torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    copies = Copies([first])
    place = copies.tensors[0].data_ptr()
    copies.take([torch.zeros_like(first)])
    assert copies.tensors[0].data_ptr() == place != first.data_ptr()
    assert not copies.tensors[0].any()
    assert first.all()
    assert form(copies.tensors) == form([first])


class Own(nn.Module):
    def forward(self, x):
        return x


def test_code_that_is_not_known_is_named():
    assert unknown_code([nn.Sequential(nn.Linear(2, 2))], None) is None
    assert unknown_code([nn.Sequential(nn.Linear(2, 2), Own())]) == "Own"
    assert unknown_code([nn.ReLU()], Own()) == "Own"
    assert unknown_code([torchvision.models.resnet18()], KD()) is None


def learner(module=None, callbacks=(), scaler=None, unlabelled=False, objective=None, **training):
    training = {"cuda_graphs": "auto", "accumulate": 1, "checkpoint_activations": False, **training}
    nothing = nn.Identity()
    return SimpleNamespace(
        plan=SimpleNamespace(training=SimpleNamespace(**training), objective=objective),
        student=SimpleNamespace(
            module=module or nn.Linear(2, 2), adapters=nothing, auxiliary=SimpleNamespace(module=nothing)
        ),
        engine=SimpleNamespace(scaler=scaler, records_all=training["cuda_graphs"] == "on"),
        callbacks=callbacks,
        unlabelled=unlabelled,
    )


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, None),
        ({"accumulate": 2}, "several passes"),
        ({"scaler": object()}, "fp16"),
        ({"checkpoint_activations": True}, "computed again"),
        ({"unlabelled": True}, "no label"),
        ({"callbacks": [Callback()]}, "Callback may change the step"),
        ({"callbacks": [KeepEpoch(1)]}, None),
        ({"module": Own()}, "Own is not known"),
        ({"module": Own(), "cuda_graphs": "on"}, None),
        ({"objective": Own()}, "Own is not known"),
    ],
)
def test_steps_that_may_differ_from_the_one_before_are_not_recorded(given, reason):
    found = steps.unsuited(learner(**given), [[]] * steps.FEWEST)
    assert found is None if reason is None else reason in found


def test_a_short_epoch_is_not_worth_a_recording():
    assert "fewer than" in steps.unsuited(learner(), [[]] * (steps.FEWEST - 1))


@cuda
@pytest.mark.parametrize("method", ["none", "kd", "at", "fitnets", "sp", "crd"])
def test_a_student_is_the_same_from_recorded_steps(method, tmp_path):
    options = {"device": "cuda", "precision": "fp32", "cache": "off", "seed": 1}
    teacher = kdtool.teacher(
        "kdtool:wrn-16-1", data="digits", epochs=1, output=tmp_path / "t.pt", device="cuda", batch_size=32
    )
    students = {
        graphs: kdtool.distill(
            teacher,
            method=method,
            student="kdtool:wrn-16-1",
            epochs=2,
            batch_size=32,
            cuda_graphs=graphs,
            output=tmp_path / f"{graphs}.pt",
            **options,
        )
        for graphs in ("off", "auto")
    }
    for name, weight in students["off"].module.state_dict().items():
        torch.testing.assert_close(students["auto"].module.state_dict()[name], weight, rtol=2e-3, atol=2e-4)


@cuda
def test_dropout_draws_anew_in_each_replay_and_after_a_recording_that_failed():
    device = torch.device("cuda", torch.cuda.current_device())
    x = torch.ones(1000, device=device)
    recording = Recording(lambda: nn.functional.dropout(x, 0.5), device)
    first, second = recording.replay().clone(), recording.replay().clone()
    assert not torch.equal(first, second)
    with pytest.raises(NotRecordedError):
        Recording(lambda: nn.functional.dropout(x, 0.5).sum().item(), device)
    assert 300 < nn.functional.dropout(x, 0.5).count_nonzero() < 700
    assert Recording(lambda: x + 1, device).replay()[0] == 2
