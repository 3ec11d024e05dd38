"""Images on the device that trains. There is no GPU here: a device that computes on the CPU finds what is mixed up."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

import kdtool
from kdtool.data.images import FileImages, HostOnlyError, JoinedImages, MemoryImages, ShiftedImages
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.data.preparation import Preparation
from kdtool.data.splits import Split
from kdtool.training import batches as kept
from kdtool.training.batches import DistillationBatches, kept_on
from kdtool.training.engine import Engine
from kdtool.training.mixing import Mixing
from kdtool.training.options import Training
from kdtool.utils import progress
from kdtool.utils.transfer import free_memory

DEVICE = torch.device("mps", 0)
"""The name of the second device; nothing of that kind of device is used."""

COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Elsewhere(Tensor):
    """A tensor that says that it lies on `DEVICE`; ``numbers`` are its numbers, on the CPU."""

    @staticmethod
    def __new__(cls, numbers):
        kept = Tensor._make_wrapper_subclass(
            cls, numbers.size(), strides=numbers.stride(), dtype=numbers.dtype, device=DEVICE
        )
        kept.numbers = numbers
        return kept

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} of a tensor on another device, outside of the mode")


class SecondDevice(TorchDispatchMode):
    """Lets tensors be on `DEVICE`; an operation on tensors of two devices is an error, unless it copies."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        there = any(isinstance(tensor, Elsewhere) for tensor in tensors)
        if there and function not in COPIES:
            mixed = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.dim()]
            assert not mixed, f"{function} of tensors on two devices"
        device = kwargs.get("device")
        if device is not None:
            there, kwargs["device"] = torch.device(device) == DEVICE, torch.device("cpu")
        result = function(*tree_map(numbers_of, args), **tree_map(numbers_of, kwargs))
        if function._schema.is_mutable:
            return args[0]
        return tree_map(lambda value: Elsewhere(value) if there and isinstance(value, Tensor) else value, result)


def numbers_of(value):
    return value.numbers if isinstance(value, Elsewhere) else value


@pytest.fixture(autouse=True)
def nothing_said():
    progress._say_once.cache_clear()


@pytest.fixture
def second(monkeypatch):
    """A device with so many free bytes, `free` of them."""
    memory = SimpleNamespace(free=float("inf"))
    monkeypatch.setattr(kept, "free_memory", lambda device: memory.free)
    with SecondDevice():
        yield memory


def opened(size=8, channels=1, **options):
    return open_data(DataOptions(data="digits", **options), image_size=size, in_channels=channels)


def batches(split, device, view=None, channels_last=False):
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:100]
    return list(split.batches(32, order=order, view=view, device=device, channels_last=channels_last))


@pytest.mark.parametrize("view", [None, 0, 5])
def test_a_view_is_the_same_on_another_device_to_the_bit(second, view):
    split = opened().train
    there = kept_on(split, DEVICE, "device")
    assert there is not split
    expected = batches(split, "cpu", view, channels_last=True)
    for (indices, pixels, labels), (same, here, target) in zip(
        batches(there, DEVICE, view, channels_last=True), expected, strict=True
    ):
        assert indices.device.type == "cpu"
        assert torch.equal(indices, same)
        assert pixels.device == labels.device == DEVICE
        assert torch.equal(pixels.numbers, here)
        assert pixels.numbers.stride() == here.stride()
        assert torch.equal(labels.numbers, target)


def test_nothing_is_copied_there_but_indices_labels_and_what_was_drawn(second, monkeypatch):
    split = opened().train
    there = kept_on(split, DEVICE, "device")
    copied = []
    function = SecondDevice.__torch_dispatch__

    def counted(self, operation, types, args=(), kwargs=None):
        if operation in COPIES and not isinstance(args[0], Elsewhere):
            copied.append(args[0].numel())
        return function(self, operation, types, args, kwargs)

    monkeypatch.setattr(SecondDevice, "__torch_dispatch__", counted)
    batches(there, DEVICE, view=1)
    assert max(copied) <= 100  # the indices of all batches; their images have 6400 pixels


def test_mirrored_images_and_those_without_a_label(second):
    generator = torch.Generator().manual_seed(1)
    parts = [
        ShiftedImages(
            MemoryImages(
                torch.randint(0, 256, (30, 3, 6, 6), dtype=torch.uint8, generator=generator), size=6, channels=3
            ),
            seed=seed,
            padding=2,
            flip=True,
        )
        for seed in (0, 1)
    ]
    spec = dataclasses.replace(opened(channels=3).spec, image_size=6)
    split = Split("train", JoinedImages(*parts), torch.arange(60) % 10, spec)
    there = kept_on(split, DEVICE, "device")
    expected = torch.cat([part.pixels for part in (parts[0].plain, parts[1].plain)])
    order = torch.randperm(60, generator=generator)
    assert torch.equal(torch.cat(list(JoinedImages(*parts).batches(order.split(7), None))), expected[order])
    for (_, pixels, _), (_, here, _) in zip(
        there.batches(9, order=order, view=3, device=DEVICE), split.batches(9, order=order, view=3), strict=True
    ):
        assert torch.equal(pixels.numbers, here)


def test_phases_share_one_copy(second):
    data = opened()
    first = kept_on(data.train, DEVICE, "device")
    second.free = 0.0
    again = kept_on(data.normalised((0.4,), (0.2,)).train, DEVICE, "device")
    assert again is not data.train
    assert len(batches(again, DEVICE)) == len(batches(first, DEVICE))


def test_without_room_one_line_says_so_and_the_images_stay(second, capsys, monkeypatch):
    monkeypatch.setattr(MemoryImages, "bytes", 3_000_000_000)
    split, second.free = opened().train, 2_900_000_000.0
    assert kept_on(split, DEVICE, "device") is split
    line = "--images-on device: those of train take 3 GB, and 2.9 GB of mps:0 are free; they stay on the host"
    assert capsys.readouterr().err == line + "\n"
    second.free = None
    assert kept_on(split, DEVICE, "device") is split
    assert "the free memory of mps is not known; they stay" in capsys.readouterr().err


def test_a_device_that_is_full_in_the_end_keeps_them_on_the_host(second, capsys, monkeypatch):
    split = opened().train

    def full(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore lines")

    monkeypatch.setattr(Split, "prepare", full)
    assert kept_on(split, DEVICE, "device") is split
    assert capsys.readouterr().err == (
        "--images-on device: CUDA out of memory. Tried to allocate 20.00 MiB.; they stay on the host\n"
    )


@pytest.mark.parametrize(
    ("options", "why"), [({"augment": "trivial"}, "--augment trivial"), ({"erase": 0.5}, "--erase")]
)
def test_changes_that_round_are_made_on_the_cpu(second, capsys, options, why):
    data = opened(**options)
    assert kept_on(data.train, DEVICE, "device") is data.train
    assert why in capsys.readouterr().err
    assert kept_on(data.train, torch.device("cpu"), "device") is data.train
    assert capsys.readouterr().err == ""
    assert kept_on(data.val, DEVICE, "device") is not data.val


def test_images_that_are_enlarged_or_read_again_stay(second, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("kdtool.data.images.IN_MEMORY_BYTES", 1000)
    grown = opened(16).val
    assert kept_on(grown, DEVICE, "device") is grown
    assert "enlarged to 16 pixels batch by batch" in capsys.readouterr().err
    files = Split("val", FileImages((tmp_path / "no.png",), Preparation(8, 1, 1.0)), torch.zeros(1).long(), grown.spec)
    with pytest.raises(HostOnlyError, match="read from their files in each epoch"):
        files.on(DEVICE)


def test_auto_is_for_cuda_and_takes_a_quarter_of_what_is_free(monkeypatch, capsys):
    data, device = opened(), torch.device("cuda", 0)
    needed = len(data.train) * 64
    assert kept_on(data.train, torch.device("cpu"), "auto") is data.train
    assert kept_on(data.train, DEVICE, "auto") is data.train
    prepared = []
    monkeypatch.setattr(Split, "prepare", lambda split: prepared.append(split))
    for free, fits in ((4.0 * needed, True), (4.0 * needed - 4, False), (None, False)):
        monkeypatch.setattr(kept, "free_memory", lambda device, free=free: free)
        there = kept_on(data.train, device, "auto")
        assert (there is not data.train) == fits
    assert len(prepared) == 1
    assert kept_on(data.train, device, "host") is data.train
    assert capsys.readouterr().err == "keeps the images on cuda:0 (--images-on host: in the memory of the host)\n"


def test_views_recur_but_where_images_are_mixed():
    engine = Engine(Training(device="cpu"), 1)
    train = opened(augment="standard").train
    plain, mixed = (DistillationBatches(train, engine, views=2, mixing=one) for one in (None, Mixing(0.2, 0.0, 10)))
    assert [plain.view(epoch) for epoch in range(4)] == [0, 1, 0, 1]
    assert [mixed.view(epoch) for epoch in range(4)] == [0, 1, 2, 3]


def test_free_memory_counts_what_torch_keeps(monkeypatch):
    assert free_memory(torch.device("cpu")) == float("inf")
    assert free_memory(DEVICE) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    assert free_memory(torch.device("cuda", 0)) == 130


def test_a_training_is_the_same_wherever_the_images_are(tmp_path, capsys):
    results = [
        kdtool.teacher(
            "kdtool:lenet-300-100", data="digits", epochs=2, images_on=where, output=tmp_path / f"{where}.pt"
        )
        for where in ("host", "device")
    ]
    weights = [result.module.state_dict() for result in results]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "--images-on" not in capsys.readouterr().err
    recorded = [result.history[-1]["training"].get("images_on") for result in results]
    assert recorded == ["host", "device"]
