"""Checks of the contract of each kind of method, for the tests of a plugin: ``check_distiller(MyDistiller)``.

Each takes a method, or a class that is checked with its default options, and raises `AssertionError` with the problem.
The checks download nothing and leave no files behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kdtool.data.dataset import Dataset
from kdtool.distillation.distiller import Distiller, LossDistiller
from kdtool.errors import Error, UsageError
from kdtool.exporting.exporter import Exporter
from kdtool.models.source import Source
from kdtool.plugins.method import Method
from kdtool.pruning.pruner import Pruner
from kdtool.surgery.refiner import Refiner
from kdtool.testing.ladders import check_ladders, check_within
from kdtool.testing.names import check_names
from kdtool.testing.networks import CLASSES, check_kind, check_network
from kdtool.testing.require import failing, require
from kdtool.utils.seeds import forked, set_seed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool.models.architecture import Network
    from kdtool.models.checkpoint import Checkpoint
    from kdtool.training.run import Run

M = TypeVar("M", bound=Method)

NETWORK = "kdtool:lenet-5"


def check_options(method: type[M] | M, base: type[M]) -> M:
    """Check the contract of all methods: the kind, the names, the help texts, and options that can be stored as JSON.

    Returns the method, or for a class the method with its default options.
    """
    cls = method if isinstance(method, type) else type(method)
    require(issubclass(cls, base), f"{cls.__name__} is not a {base.__name__}")
    if isinstance(method, type):
        with failing(f"{cls.__name__}: cannot be made with its default options"):
            method = method()
    name = method.name
    kebab = r"[a-z0-9]+([-:][a-z0-9]+)*"  # the colon is for names such as 2:4
    require(re.fullmatch(kebab, name), f"its name {name!r} must be kebab-case, such as logit-mse")
    summary = cls.summary()
    sentence = summary.endswith(".") and not re.search(r"(?<! al)[.!?] [A-Z]", summary)
    require(sentence, f"{name}: its docstring must begin with one sentence and an empty line; it begins {summary!r}")
    for info in cls.describe():
        require(info.help.strip(), f"{name}: {info.flag} has no help")
    try:
        check_names(cls, everywhere=True)
    except UsageError as error:
        raise AssertionError(str(error)) from error
    try:
        again = cls(**json.loads(json.dumps(method.as_data())))
    except (TypeError, Error) as error:
        raise AssertionError(f"{name}: the method cannot be made from its options as plain data: {error}") from error
    require(again == method, f"{name}: its options as plain data make a different method: {again} instead of {method}")
    return method


def check_distiller(method: type[Distiller] | Distiller, *, network: str = NETWORK, image_size: int = 28) -> None:
    """Check a distiller: the loss on small random batches, or for a strategy a short run.

    A strategy runs for one epoch on a part of the digits, with ``network`` as the teacher and, unless it makes its own
    student, as the student. With a student, the teacher has another normalisation and another order of classes.
    """
    from kdtool.models.conversion import plain
    from kdtool.testing.losses import check_loss

    distiller = check_options(method, Distiller)
    check_within(type(distiller), _network(network, image_size))
    if isinstance(distiller, LossDistiller):
        for learner in ("convnet", "vit"):
            for per_class in (1, 3):
                for epoch in (0, 9):
                    check_loss(distiller, learner, per_class=per_class, epoch=epoch)
        return
    teacher = _network(network, image_size)
    needs_student = distiller.needs_student and not distiller.makes_student
    student = _network(network, image_size, seed=1) if needs_student else None
    others = [_network(network, image_size, seed=2)] if distiller.several_teachers else []
    with (
        _small_run(teacher, *others, foreign=student is not None) as run,
        _unchanged(teacher.module, f"{distiller.name}: the teacher"),
    ):
        taught_by = run.teachers[0].network
        unchanged = _unchanged(taught_by.module, f"{distiller.name}: the teacher")
        with unchanged, failing(f"{distiller.name}: distill() fails"):
            result = distiller.distill(run, taught_by, student)
    check_kind(result, distiller.name)
    check_network(plain(result), distiller.name)


def check_refiner(method: type[Refiner] | Refiner, *, network: str = NETWORK, image_size: int = 28) -> None:
    """Check a refiner: the result is smaller, can be trained and rebuilt, and repeats; its input does not change."""
    refiner = check_options(method, Refiner)
    before = _network(network, image_size)
    results = []
    for _ in range(2):
        with forked(), _unchanged(before.module, f"{refiner.name}: its input network"):
            set_seed(0)
            with failing(f"{refiner.name}: refine() fails"):
                results.append(refiner.refine(before))
    check_network(results[0], refiner.name)
    old, new = (sum(tensor.numel() for tensor in net.module.parameters()) for net in (before, results[0]))
    smaller = new < old or not refiner.must_shrink
    require(smaller, f"{refiner.name}: its result has {new} parameters and the network {old}; it must be smaller")
    repeats = _equal(*(network.module.state_dict() for network in results))
    require(
        repeats,
        f"{refiner.name}: its random numbers do not repeat after torch.manual_seed; draw them from torch's generator",
    )
    check_ladders(type(refiner), lambda options: type(refiner)(**options).refine(before), before)


def check_pruner(method: type[Pruner] | Pruner, *, network: str = NETWORK, image_size: int = 28) -> None:
    """Check a pruner with one epoch on a part of the digits: fewer nonzero parameters, and an unchanged input."""
    from kdtool.models.checkpoint import Checkpoint, Early

    pruner = check_options(method, Pruner)
    before = _network(network, image_size)
    parent = Checkpoint(before, early=Early(0, _network(network, image_size, seed=1).module.state_dict()))
    with (
        _small_run(before, parent=parent) as run,
        _unchanged(before.module, f"{pruner.name}: its input network"),
    ):
        with failing(f"{pruner.name}: prune() fails"):
            after = pruner.prune(run, before, before)
        with failing(f"{pruner.name}: cutter() fails"):
            cut = type(pruner).cutter(run, before)
        check_ladders(type(pruner), cut, before)
    check_network(after, pruner.name)
    old, new = (sum(int(tensor.count_nonzero()) for tensor in net.module.parameters()) for net in (before, after))
    fewer = new < old or sum(map(_values, after.module.parameters())) < sum(map(_values, before.module.parameters()))
    require(fewer, f"{pruner.name}: its result has {new} nonzero parameters and the network {old}; prune some")


def _values(tensor: Tensor) -> int:
    """Return the number of different values of a tensor: weights that share one are pruned too."""
    return len(tensor.unique())


def check_source(method: type[Source] | Source, *, network: str | None = None) -> None:
    """Check a source with one of its networks, by default the first: its defaults, and the network that it builds.

    That network must be rebuilt from its weights to the same outputs, as a checkpoint is read.
    """
    from kdtool.testing.builds import check_builds

    source = check_options(method, Source)
    with failing(f"{source.name}: networks() fails"):
        known = source.networks()
    require(known and all(isinstance(name, str) for name in known), f"{source.name}: networks() returns no names")
    network = network or known[0]
    require(network in known, f"{source.name}: networks() does not contain {network!r}")
    with failing(f"{source.name}: defaults({network!r}) fails"):
        defaults = source.defaults(network)
    missing = {"classes", "in_channels", "image_size", "mean", "std"} - set(defaults)
    require(not missing, f"{source.name}: defaults({network!r}) lacks {', '.join(sorted(missing))}")
    channels, size = defaults["in_channels"], defaults["image_size"]
    for key in ("mean", "std"):
        require(len(defaults[key]) == channels, f"{source.name}: {key} of {network} must have one number per channel")
    check_builds(source, network, channels, size)


def check_dataset(method: type[Dataset] | Dataset, *, argument: str = "", root: Path | None = None) -> None:
    """Check a data set under ``root``; ``argument`` is the text after its name and a colon.

    `kdtool.data.RawData` checks by itself that images, labels and classes fit.
    """
    import torch

    from kdtool.data.raw import RawData, file_of

    dataset = check_options(method, Dataset)
    name = dataset.name
    with failing(f"{name}: load() fails"):
        data, again = dataset.load(argument, root), dataset.load(argument, root)
    for loaded in (data, again):
        require(isinstance(loaded, RawData), f"{name}: load() returned {type(loaded).__name__}, not RawData")
    for key in ("mean", "std"):
        numbers = getattr(data, key)
        require(numbers is None or len(numbers) == data.channels, f"{name}: {key} must have one number per channel")
    require(data.classes == again.classes, f"{name}: its classes change when it is loaded again")
    for split_name in ("train", "val", "test"):
        split, same = getattr(data, split_name), getattr(again, split_name)
        if split is None:
            require(split_name != "train" and same is None, f"{name}: has no {split_name} split")
            continue
        repeats = torch.equal(split.labels, same.labels)
        if isinstance(split.images, torch.Tensor):
            repeats = repeats and torch.equal(split.images, same.images)
        else:
            repeats = repeats and split.images == same.images
            there = all(file_of(image).is_file() for image in split.images)
            require(there, f"{name}: an image of {split_name} is not a file")
        require(repeats, f"{name}: its {split_name} split changes when it is loaded again")


def check_exporter(method: type[Exporter] | Exporter, *, network: str = NETWORK, image_size: int = 28) -> None:
    """Check an exporter: it writes its files or folder alone, returns plain data, and does not change the network."""
    from kdtool.testing.exports import check_export

    exporter = check_options(method, Exporter)
    named = exporter.folder or exporter.suffix.startswith(".")
    require(named, f"{exporter.name}: its suffix {exporter.suffix!r} must begin with a dot")
    net = _network(network, image_size)
    with _unchanged(net.module, f"{exporter.name}: the network"):
        check_export(exporter, net)


def _network(spec: str, image_size: int, seed: int = 0) -> Network:
    from kdtool.models.options import NetworkOptions
    from kdtool.models.sources import create

    shape = NetworkOptions(classes=CLASSES, in_channels=1, image_size=image_size)
    return create(spec, options=shape, data=None, seed=seed)


@contextlib.contextmanager
def _small_run(
    teacher: Network, *others: Network, parent: Checkpoint | None = None, foreign: bool = False
) -> Iterator[Run]:
    """Yield a run of one epoch on a tenth of the digits, in a temporary directory.

    With ``foreign`` the first teacher has another normalisation and another order of classes than the data.
    """
    from kdtool.data.opening import open_data
    from kdtool.data.options import DataOptions
    from kdtool.models.checkpoint import Checkpoint
    from kdtool.training.history_entry import HistoryEntry
    from kdtool.training.options import Training
    from kdtool.training.run import Run

    data = open_data(DataOptions(data="digits", subset=0.1), image_size=teacher.architecture.input[1], in_channels=1)
    training = Training(epochs=1, device="cpu", precision="fp32")
    with tempfile.TemporaryDirectory() as scratch:
        entry = HistoryEntry("check", "", "", {}, {}, {}, [], "", {}, "")
        own = dataclasses.replace(data.spec, mean=(0.5,), std=(0.25,), classes=data.spec.classes[::-1])
        teachers = [Checkpoint(network, data.spec) for network in (teacher, *others)]
        teachers[0].data = own if foreign else data.spec
        yield Run(Path(scratch), data=data, training=training, parent=parent, entry=entry, teachers=teachers)


@contextlib.contextmanager
def _unchanged(module: nn.Module, name: str) -> Iterator[None]:
    """Check that the ``with`` block does not change the weights, buffers, gradients or mode of a module."""
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    flags = [tensor.requires_grad for tensor in module.parameters()]
    yield
    require(_equal(before, module.state_dict()), f"{name} was changed")
    require(not any(part.training for part in module.modules()), f"{name} was left in train mode")
    kept = flags == [tensor.requires_grad for tensor in module.parameters()]
    require(kept and all(tensor.grad is None for tensor in module.parameters()), f"{name} got gradients")


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    import torch

    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)
