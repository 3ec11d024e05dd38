import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from kdtool.utils import classification
from kdtool.utils.classification import balanced_weights, confusion, decisive, per_class

# Answers 0, 0, 1, 1, 0, 2 for the classes 0, 0, 0, 1, 1, 1; class 2 has no image.
ANSWERS = np.eye(3)[[0, 0, 1, 1, 0, 2]]
LABELS = np.array([0, 0, 0, 1, 1, 1])


def test_balanced_accuracy_by_hand():
    # Recalls: 2/3 of class 0, 1/3 of class 1; class 2 has no image and is left out.
    assert decisive(ANSWERS, LABELS) == {"balanced_accuracy": pytest.approx(1 / 2)}


def test_accuracy_misleads_where_one_class_is_frequent():
    labels = np.array([0] * 9 + [1])
    always = np.tile([1.0, 0.0], (10, 1))

    assert (always.argmax(1) == labels).mean() == 0.9
    assert decisive(always, labels)["balanced_accuracy"] == pytest.approx(0.5)


def test_top5_by_hand():
    # Class c is the (c + 1)-th likeliest of every image, so classes 0 to 4 of the seven count.
    logits = np.tile(-np.arange(7.0), (7, 1))

    assert decisive(logits, np.arange(7))["top5"] == pytest.approx(5 / 7)
    assert "top5" not in decisive(np.eye(5), np.arange(5))
    assert decisive(np.full((6, 6), np.nan), np.arange(6))["top5"] <= 1


def test_top5_ranks_equal_logits_as_scikit_learn_does_and_sorts_no_row(monkeypatch):
    monkeypatch.setattr(classification, "CHUNK", 64)
    generator = np.random.default_rng(0)
    special = np.array([0, 1, 2, -1, np.nan], dtype=np.float32)
    cases = [(special[generator.integers(0, 5, (150, 9))], generator.integers(0, 9, 150)) for _ in range(20)]
    expected = [top_k_accuracy_score(y, np.nan_to_num(x), k=5, labels=np.arange(9)) for x, y in cases]

    monkeypatch.delattr(np, "argsort")  # of 50,000 images of 1,000 classes it takes seconds and 600 MB

    assert [decisive(x, y)["top5"] for x, y in cases] == expected


def test_each_class_by_hand():
    rows = per_class(ANSWERS, LABELS, ["cat", "dog", "eel"])

    # Three answers are 0, two of them right; two are 1, one of them right; one is 2, wrong.
    assert rows[0] == {
        "class": "cat",
        "images": 3,
        "recall": pytest.approx(2 / 3),
        "precision": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
    }
    assert rows[1] == {
        "class": "dog",
        "images": 3,
        "recall": pytest.approx(1 / 3),
        "precision": pytest.approx(1 / 2),
        "f1": pytest.approx(2 / 5),
    }
    assert (rows[2]["images"], rows[2]["recall"], rows[2]["precision"]) == (0, None, 0)


def test_a_class_that_is_never_answered_has_no_precision():
    rows = per_class(np.eye(2)[[0, 0]], np.array([0, 1]), ["a", "b"])

    assert (rows[1]["recall"], rows[1]["precision"]) == (0, None)


def test_confusion_by_hand():
    assert confusion(ANSWERS, LABELS).tolist() == [[2, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_weights_are_inverse_to_the_numbers_of_images():
    # N / (C n_c) with N = 8 images of the C = 2 classes that have any: 8 / (2 * 6) and 8 / (2 * 2).
    weights = balanced_weights(np.array([0] * 6 + [2] * 2), 3)

    assert weights.tolist() == pytest.approx([2 / 3, 0, 2])
    assert (6 * weights[0] + 2 * weights[2]) / 8 == pytest.approx(1)
