"""A student that ends in its teacher's classifier, which is given the student's last maps through a projector."""

from __future__ import annotations

import copy

import torch
from torch import nn

from kdtool.errors import FAILURES, Error
from kdtool.features.pairs import Pair
from kdtool.features.segments import Segment, learnt_in, segments
from kdtool.features.taps import Tap, stage_taps, tap
from kdtool.models import sanity
from kdtool.models.architecture import Network, capture
from kdtool.models.hooks import evaluating
from kdtool.models.modules import insert_projector
from kdtool.utils.seeds import seeded


def reuse_classifier(student: Network, teacher: Network, *, factor: int, seed: int) -> tuple[Network, Pair]:
    """Return the student with a fresh projector behind its last stage and the teacher's classifier, and the pair of the
    projected map and the teacher's.

    The projector's middle has the teacher's channels divided by ``factor``; its weights depend on ``seed``.

    Raises:
        Error: behind the last stage of either network is more than pooling and one linear layer.
    """
    ours, theirs = _last(student), _last(teacher)
    head, given = _classifier(student, ours), _classifier(teacher, theirs)
    middle = max(theirs.channels // factor, 1)
    module = copy.deepcopy(student.module)
    with seeded(seed, "projector"):
        insert_projector(module, ours.path, (ours.channels, middle, theirs.channels))
    _take_over(module, head, teacher.module.get_submodule(given))
    module.eval()
    architecture = capture(student.architecture, module)
    sanity.check(architecture, module, "with a projector and its teacher's classifier")
    made = Network(architecture, module)
    end = tap(made, ours.path)
    _prove(made, end, teacher, theirs)
    return made, Pair(end, theirs, as_map=True)


def _last(network: Network) -> Tap:
    last = stage_taps(network)[-1]
    if last.layout != "nchw":
        raise _refused(network, f"{last.path} makes {last.layout}, no maps that can be projected")
    return last


def _classifier(network: Network, last: Tap) -> str:
    """Return the path of the one layer with parameters behind a network's last map."""
    learnt = learnt_in(network, segments(network, [last]))[-1]
    owners = sorted({name.rpartition(".")[0] for name in learnt})
    if len(owners) != 1 or not isinstance(network.module.get_submodule(owners[0]), nn.Linear):
        raise _refused(network, f"behind {last.path} come {', '.join(owners) or 'no weights'}, not one linear layer")
    return owners[0]


def _refused(network: Network, reason: str) -> Error:
    return Error(f"{network.architecture.spec}: a classifier cannot be reused here: {reason}; use another method")


def _take_over(module: nn.Module, path: str, given: nn.Module) -> None:
    """Give the linear layer at ``path`` the weights of the teacher's, in place."""
    layer = module.get_submodule(path)
    assert isinstance(layer, nn.Linear)
    assert isinstance(given, nn.Linear)
    if (layer.bias is None) != (given.bias is None):
        raise Error(f"{path}: one of the two classifiers has a bias and the other has none; use another method")
    layer.weight = nn.Parameter(given.weight.detach().clone())
    if given.bias is not None:
        layer.bias = nn.Parameter(given.bias.detach().clone())
    layer.in_features = given.in_features


def _prove(made: Network, end: Tap, teacher: Network, theirs: Tap) -> None:
    """Check that the new head makes of the teacher's map what the teacher makes of it.

    Raises:
        Error: it does not: there is more between the maps and the classifier than pooling.
    """
    shape = teacher.architecture.input
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), evaluating(teacher.module), evaluating(made.module):
        logits, maps = Segment(image=shape).run(teacher.module, images, [theirs])
        try:
            again, _ = Segment(end, None, (), made.architecture.input).run(made.module, maps[theirs.path])
            same = again.shape == logits.shape and torch.allclose(again, logits, rtol=1e-4, atol=1e-5)
        except FAILURES:
            same = False
    if not same:
        raise _refused(made, f"what follows {end.path} makes other logits of its teacher's maps than the teacher")
