"""Batches on their way to a device. There is no GPU here: a stand-in for CUDA notes what it is asked for."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from kdtool.utils import transfer
from kdtool.utils.transfer import on_device


def test_on_the_cpu_batches_stay_as_they_are():
    batches = [torch.arange(3), torch.arange(2)]
    assert [batch.data_ptr() for batch in on_device(batches, "cpu")] == [batch.data_ptr() for batch in batches]


@pytest.fixture
def asked(monkeypatch):
    """Replace CUDA; return the list of what it was asked for, in order."""
    notes = []

    class Stream:
        def __init__(self, device):
            self.last = None

        def record_event(self):
            notes.append(f"event {self.last}")
            return f"event {self.last}"

    made = []

    def new(device):
        made.append(Stream(device))
        return made[-1]

    present = SimpleNamespace(name="present", wait_event=lambda event: notes.append(f"present waits for {event}"))

    @contextlib.contextmanager
    def stream(own):
        active.append(own)
        yield
        active.pop()

    active = []

    class Batch:
        is_cuda = False

        def __init__(self, number):
            self.number = number

        def pin_memory(self):
            notes.append(f"pin {self.number}")
            return self

        def to(self, device, non_blocking):
            assert device.type == "cuda"
            assert non_blocking
            active[-1].last = self.number  # the copy is in the stream of its own
            notes.append(f"copy {self.number}")
            return self

        def record_stream(self, reader):
            assert reader is present
            notes.append(f"kept {self.number}")

    cuda = SimpleNamespace(Stream=new, stream=stream, current_stream=lambda device: present)
    monkeypatch.setattr(transfer, "torch", SimpleNamespace(device=torch.device, cuda=cuda))
    return SimpleNamespace(notes=notes, batch=Batch)


def test_the_next_batch_is_on_its_way_while_one_is_computed_with(asked):
    notes = asked.notes
    arrived = []
    for batch in on_device(map(asked.batch, range(3)), "cuda"):
        notes.append(f"compute {batch.number}")
        arrived.append(batch.number)
    assert arrived == [0, 1, 2]
    assert notes[:9] == [
        *("pin 0", "copy 0", "event 0"),
        *("pin 1", "copy 1", "event 1"),
        *("present waits for event 0", "kept 0", "compute 0"),
    ]
    assert notes[9:] == [
        *("pin 2", "copy 2", "event 2"),
        *("present waits for event 1", "kept 1", "compute 1"),
        *("present waits for event 2", "kept 2", "compute 2"),
    ]


def test_one_batch_and_none(asked):
    assert [batch.number for batch in on_device([asked.batch(7)], "cuda")] == [7]
    assert list(on_device([], "cuda")) == []


def test_what_is_there_already_is_not_copied(asked):
    there = asked.batch(0)
    there.is_cuda, there.to = True, lambda device: there
    assert list(on_device([there], "cuda")) == [there]
    assert asked.notes == []
