"""Images that calibrate, and the distance of two networks' outputs."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from kdtool import Error
from kdtool_exporters.onnx_images import calibration_images, divergence, first_images


def batches(labels):
    labels = torch.tensor(labels)
    images = torch.arange(len(labels), dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return list(zip(images.split(3), labels.split(3), strict=True))


def test_divergence_is_scipys():
    chance = np.random.default_rng(0)
    reference, logits = chance.standard_normal((2, 5, 4)).astype(np.float32) * 3
    p, q = scipy.special.softmax(reference.astype(float), 1), scipy.special.softmax(logits.astype(float), 1)
    assert divergence(reference, logits) == pytest.approx(scipy.stats.entropy(p, q, axis=1).mean())
    assert divergence(reference, reference) == 0
    logits[2, 1] = np.nan
    assert divergence(reference, logits) == math.inf


def test_classes_have_as_many_images():
    images, classes = calibration_images(batches([0, 0, 0, 0, 0, 1, 2, 1, 0]), 5, "a:b")
    # Images 0, 5 and 6 are the first of their classes, 1 and 7 the second.
    assert sorted(int(image.flat[0]) for batch in images for image in batch) == [0, 1, 5, 6, 7]
    assert classes == 3
    everything, _ = calibration_images(batches([0, 1, 1]), 100, "a:b")
    assert sum(map(len, everything)) == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1, 1, 1], r"^a:b: all 4 validation images are of one class.*--split-seed\)$"),
        ([], r"^a:b: there are no validation images to calibrate with; name a data set with --data$"),
    ],
)
def test_images_that_cannot_calibrate(labels, message):
    with pytest.raises(Error, match=message):
        calibration_images(batches(labels) if labels else [], 5, "a:b")


def test_the_first_images():
    found = first_images(batches([0] * 8), 4)
    assert torch.cat(found)[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert len(torch.cat(first_images(batches([0] * 2), 4))) == 2
