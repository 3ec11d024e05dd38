"""Put a teacher's classifier on a student, with a projector between the student's last maps and the classifier."""

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
from kdtool.models.conversion import conversion_of
from kdtool.models.hooks import evaluating
from kdtool.models.modules import insert_projector
from kdtool.utils.seeds import seeded


def reuse_classifier(student: Network, teacher: Network, *, factor: int, seed: int) -> tuple[Network, Pair]:
    """Return the student with a projector and the teacher's classifier, and the pair of maps to compare.

    The fresh projector follows the student's last stage. Its middle has the teacher's channels divided by ``factor``;
    its weights depend on ``seed``. Where the student's last map is larger than the teacher's, it is averaged to the
    teacher's size in front of the projector. The pair is the output of the projector and the teacher's last map.

    Raises:
        Error: after its last stage, one of the networks has more than pooling and one linear layer.
    """
    student_tap, teacher_tap = _last_map(student), _last_map(teacher)
    student_head, teacher_head = _classifier(student, student_tap), _classifier(teacher, teacher_tap)
    middle = max(teacher_tap.channels // factor, 1)
    module = copy.deepcopy(student.module)
    size = [min(sides) for sides in zip(student_tap.grid, teacher_tap.grid, strict=True)]
    pool = size if tuple(size) != student_tap.grid else []
    with seeded(seed, "projector"):
        insert_projector(module, student_tap.path, (student_tap.channels, middle, teacher_tap.channels, *pool))
    _copy_classifier(teacher, teacher_head, module, student_head)
    module.eval()
    architecture = capture(student.architecture, module)
    sanity.check(architecture, module, "with a projector and its teacher's classifier")
    joined = Network(architecture, module)
    projected = tap(joined, student_tap.path)
    _check_head(joined, projected, teacher, teacher_tap)
    return joined, Pair(projected, teacher_tap, as_map=True)


def _last_map(network: Network) -> Tap:
    """Return the tap of a network's last stage.

    Raises:
        Error: its output is not of the layout [channels, height, width].
    """
    last = stage_taps(network)[-1]
    if last.layout != "nchw":
        raise _refused(network, f"{last.path} makes {last.layout}, no maps that can be projected")
    return last


def _classifier(network: Network, last: Tap) -> str:
    """Return the path of the only layer with parameters after a network's last map.

    Raises:
        Error: there is none, there are several, or it is not linear.
    """
    learnt = learnt_in(network, segments(network, [last]))[-1]
    owners = sorted({name.rpartition(".")[0] for name in learnt})
    if len(owners) != 1 or not isinstance(network.module.get_submodule(owners[0]), nn.Linear):
        raise _refused(network, f"after {last.path} come {', '.join(owners) or 'no weights'}, not one linear layer")
    return owners[0]


def _refused(network: Network, reason: str) -> Error:
    return Error(f"{network.architecture.spec}: a classifier cannot be reused here: {reason}; use another method")


def _copy_classifier(teacher: Network, head: str, module: nn.Module, path: str) -> None:
    """Copy the teacher's classifier, the layer ``head``, to the linear layer at ``path`` of ``module``, in place.

    Its rows are put in the order of the run's classes.

    Raises:
        Error: only one of the two has a bias.
    """
    classifier, layer = teacher.module.get_submodule(head), module.get_submodule(path)
    conversion = conversion_of(teacher.module)
    rows = slice(None) if conversion is None else conversion.order
    assert isinstance(layer, nn.Linear)
    assert isinstance(classifier, nn.Linear)
    if (layer.bias is None) != (classifier.bias is None):
        raise Error(f"{path}: one of the two classifiers has a bias and the other has none; use another method")
    layer.weight = nn.Parameter(classifier.weight.detach()[rows].clone())
    if classifier.bias is not None:
        layer.bias = nn.Parameter(classifier.bias.detach()[rows].clone())
    layer.in_features = classifier.in_features


def _check_head(joined: Network, projected: Tap, teacher: Network, teacher_tap: Tap) -> None:
    """Check that the head gives the teacher's logits if it is fed the teacher's last map.

    Raises:
        Error: it does not, because more than pooling stands between the maps and the classifier.
    """
    shape = teacher.architecture.input
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), evaluating(teacher.module), evaluating(joined.module):
        expected, maps = Segment(image=shape).run(teacher.module, images, [teacher_tap])
        try:
            head = Segment(projected, None, (), joined.architecture.input)
            logits, _ = head.run(joined.module, maps[teacher_tap.path])
            same = logits.shape == expected.shape and torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)
        except FAILURES:
            same = False
    if not same:
        raise _refused(joined, f"what follows {projected.path} makes other logits from the teacher's maps than it does")
