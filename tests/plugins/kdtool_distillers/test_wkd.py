"""WKD against numpy: the costs, Sinkhorn's plan of the other classes, and the statistics of maps."""

import math

import numpy as np
import pytest
import torch

import kdtool
from kdtool import Error, UsageError
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.testing.samples import sample_step
from kdtool_distillers.wkd import WKD, costs, decayed, normal_distance, statistics, transport


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def authors_costs(classifier, sharpness):
    rows = classifier / np.linalg.norm(classifier, axis=1, keepdims=True)
    return 1 - np.exp(-sharpness * (1 - rows @ rows.T))


def authors_logits(student, teacher, target, cost, *, temperature, weight, regularization=0.05, iterations=10):
    """The loss of the authors' repository for logits: for each image, the table of costs without its right class."""
    hard, moved = [], []
    for s, t, right in zip(student, teacher, target, strict=True):
        hard.append(-softmax(t)[right] * np.log(softmax(s)[right]))
        left = np.arange(len(s)) != right
        p, q = softmax(s[left] / temperature), softmax(t[left] / temperature)
        table = np.maximum(cost[np.ix_(left, left)], 0) + 1e-8
        kernel, u = np.exp(-table / regularization), np.full(len(p), 1 / len(p))
        for _ in range(iterations):
            v = q / (kernel.T @ u + 1e-8)
            u = p / (kernel @ v + 1e-8)
        moved.append((u[:, None] * kernel * v[None] * table).sum())
    return np.mean(hard) + weight * np.mean(moved)


def authors_maps(student, teacher, grid, ratio):
    """The loss of the authors' repository for maps, with loops over the cells."""
    means = deviations = 0.0
    for row in range(grid):
        for column in range(grid):
            cells = []
            for maps in (student, teacher):
                (height, width), at = maps.shape[2:], (row, column)
                begin = [math.floor(k * side / grid) for k, side in zip(at, (height, width), strict=True)]
                end = [math.ceil((k + 1) * side / grid) for k, side in zip(at, (height, width), strict=True)]
                cells.append(maps[:, :, begin[0] : end[0], begin[1] : end[1]].reshape(*maps.shape[:2], -1))
            means += sum((cells[0].mean(2) - cells[1].mean(2)).ravel() ** 2)
            roots = [np.sqrt(cell.var(2, ddof=1) + 1e-5) for cell in cells]
            deviations += sum((roots[0] - roots[1]).ravel() ** 2)
    count = grid**2 * len(student)
    return ratio * means / count + deviations / count


def test_the_logits_are_the_authors(numbers, step_of):
    student, teacher, target = 3 * numbers(5, 6), 4 * numbers(5, 6), torch.tensor([0, 5, 2, 2, 1])
    classifier = numbers(6, 4)
    step = step_of(student=student, teacher=teacher, target=target, classifier=classifier)
    arrays = student.numpy(), teacher.numpy(), target.numpy()
    expected = authors_logits(*arrays, authors_costs(classifier.numpy(), 1.0), temperature=8.0, weight=600.0)
    value = WKD().loss(step).item() - step.cross_entropy().item()
    assert value == pytest.approx(expected, rel=1e-9)
    options = {"temperature": 2.0, "sharpness": 2.0, "regularization": 0.2, "iterations": 3}
    cost = authors_costs(classifier.numpy(), options.pop("sharpness"))
    expected = authors_logits(*arrays, cost, weight=30.0, **options)
    value = WKD(logit_weight=30.0, sharpness=2.0, **options).loss(step).item()
    assert value - step.cross_entropy().item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("grid", "sizes"), [(1, (4, 4)), (1, (4, 2)), (2, (5, 4)), (3, (5, 5))])
def test_the_maps_are_the_authors(grid, sizes, numbers, step_of):
    student, teacher = (numbers(3, 2, size, size) for size in sizes)
    expected = authors_maps(student.numpy(), teacher.numpy(), grid, 4.0)
    loss = WKD(logit_weight=0, feature_weight=0.5, mean_ratio=4.0, grid=grid).loss(step_of([(student, teacher)]))
    assert loss.item() == pytest.approx(math.log(3) + 0.5 * expected, rel=1e-10)


def test_costs_by_hand():
    # The second class has the direction of the first, the third is orthogonal, the fourth opposite.
    classifier = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]], dtype=torch.float64)
    expected = [0, 0, 1 - math.exp(-2), 1 - math.exp(-4)]
    assert costs(classifier, 2.0)[0].tolist() == pytest.approx(expected, abs=1e-7)


def test_probability_moves_from_one_class_to_one_other():
    # With little regularisation, moving half of the probability costs half of the way.
    cost = torch.tensor([[0.0, 0.6, 1.0], [0.6, 0.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    student, teacher = torch.tensor([[[1.0, 0.0, 0.0]], [[0.5, 0.5, 0.0]]], dtype=torch.float64)
    assert transport(student, teacher, cost, 0.05, 50).item() == pytest.approx(0.3, abs=1e-3)
    assert transport(teacher, teacher, cost, 0.05, 50).item() == pytest.approx(0, abs=1e-5)


def test_weights_sink_after_a_part_of_the_epochs(numbers, step_of):
    # The authors' 0.5 * (1 + cos((epoch - 150) / (240 - 150) * pi)) after epoch 150 of 240; they count from 1.
    for epoch in (0, 150, 151, 200, 239):
        factor = 0.5 * (1 + math.cos((epoch - 150) / 90 * math.pi)) if epoch > 150 else 1.0
        assert decayed(epoch, 240, 0.625) == pytest.approx(factor)
    assert decayed(99, 100, 1.0) == 1.0
    assert decayed(0, 1, 0.625) == decayed(0, 1, 0.0) == 1.0
    maps = [(numbers(2, 3, 2, 2), numbers(2, 3, 2, 2))]
    full, half = (
        WKD(logit_weight=0, feature_weight=0.006, teacher_warmup=0).loss(step_of(maps, epoch=epoch, epochs=16)).item()
        for epoch in (10, 13)
    )
    assert (half - math.log(3)) / (full - math.log(3)) == pytest.approx(0.5)


def test_one_position_has_no_deviation(numbers):
    mean, deviation = statistics(numbers(2, 3, 1, 1), 1)
    assert mean.shape == (2, 3, 1)
    assert deviation.flatten().tolist() == pytest.approx([math.sqrt(1e-5)] * 6)


def test_gradients(numbers):
    cost, other = costs(numbers(4, 3), 1.0), numbers(3, 4).softmax(dim=1)
    assert torch.autograd.gradcheck(
        lambda logits: transport(logits.softmax(dim=1), other, cost, 0.1, 5), numbers(3, 4).requires_grad_()
    )
    maps = numbers(2, 2, 2, 2)
    assert torch.autograd.gradcheck(lambda x: normal_distance(x, maps, 1), numbers(2, 2, 3, 3).requires_grad_())


def network(spec, classes=10):
    return create(spec, options=NetworkOptions(classes=classes, in_channels=3, image_size=32), data=None)


def test_what_has_no_costs_between_classes_is_refused():
    two, convolution = network("kdtool:resnet20", 2), network("torchvision:squeezenet1_1")
    with pytest.raises(Error, match="wkd moves probability between wrong classes, and of 2 classes"):
        WKD().check(two, two)
    with pytest.raises(
        Error, match="squeezenet1_1: its logits are not the outputs of one linear layer.*logit-weight 0"
    ):
        WKD().check(convolution, convolution)
    for some in (two, convolution):
        WKD(logit_weight=0, feature_weight=0.006).check(some, some)
    with pytest.raises(UsageError, match="leaves nothing of wkd; give --feature-weight too"):
        WKD(logit_weight=0)


def test_the_projector_ends_as_the_teachers_map_does():
    small, vit = network("kdtool:resnet20"), network("timm:test_vit")
    for teacher, last in ((small, torch.nn.ReLU), (vit, torch.nn.BatchNorm2d)):
        method = WKD(feature_weight=0.006)
        (projector,) = method.adapters(method.watch(small, teacher))
        assert isinstance(projector[-1], last)


def test_only_what_is_compared_is_watched():
    small = network("kdtool:resnet20")
    assert not WKD().watch(small, small)
    assert not WKD(logit_weight=0, feature_weight=0.006).needs_labels()
    assert not WKD(logit_weight=0, feature_weight=0.006).needs_classifier()


def test_a_sum_gets_the_teachers_classifier():
    step, _ = sample_step(kdtool.make("distillers", "kd:0.9+wkd+pkt"), per_class=2, epoch=0)
    alone, _ = sample_step(kdtool.make("distillers", "wkd"), per_class=2, epoch=0)
    assert torch.equal(step.classifier, alone.classifier)
    assert torch.isfinite(kdtool.make("distillers", "kd:0.9+wkd+pkt").loss(step))


def test_a_strategy_that_has_no_classifier_says_so(step_of, numbers):
    with pytest.raises(UsageError, match="--objective wkd: needs the classifier of a fixed teacher, and here"):
        WKD().loss(step_of(student=numbers(2, 4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taps": ("nosuchlayer",)}, "--taps: belongs to --feature-weight above 0"),
        ({"grid": 4}, "--grid: belongs to --feature-weight above 0"),
        ({"mean_ratio": 9.0}, "--mean-ratio: belongs to --feature-weight above 0"),
        ({"logit_weight": 0, "feature_weight": 0.01, "sharpness": 3.0}, "--sharpness: belongs to --logit-weight above"),
    ],
)
def test_options_of_a_part_that_is_left_out_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        WKD(**options)
