"""How each network of a report does on each class, measured on its data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdtool.plotting.confusion import confusion_svg
from kdtool.reporting.blocks import Block, Figure, Heading, Table
from kdtool.reporting.sources import CheckpointSource
from kdtool.utils.classification import most_taken_for
from kdtool.utils.formatting import printable

TITLES = {"f1": "F1", "taken_for": "most often taken for"}

MOST_CLASSES = 200
"""A matrix of more classes is not drawn: its cells could not be seen."""


def class_scores(sources: Sequence[CheckpointSource]) -> dict[str, dict[str, Any]]:
    """Return the row of `kdtool.evaluate` with the classes of each network, by its path.

    They are measured on the test split, or on validation where there is none.

    Raises:
        UsageError: a network remembers no data set, or an ONNX file does not tell where its images are.
        Error: the data set is not there.
    """
    from kdtool.commands.inspect import evaluate

    scores: dict[str, dict[str, Any]] = {}
    for source in sources:
        if source.about is not None and source.about["path"]:
            splits = {score["split"] for score in source.about["metrics"]}
            split = "val" if splits and "test" not in splits else "test"
            (scores[source.about["path"]],) = evaluate([source.about["path"]], split=split, per_class=True)
    return scores


def of_classes(scores: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the table of the classes and the confusion matrix; ``scores`` is a row of `class_scores`."""
    split, classes = scores["split"], scores["classes"]
    names = [about["class"] for about in classes]
    taken = [
        f"{printable(wrong[0], 40)} ({wrong[1]:,})" if wrong is not None else ""
        for wrong in most_taken_for(names, scores["confusion"])
    ]
    yield Heading(f"Classes, on {scores['images']:,} images of the {split} split", 3)
    yield Table([{**about, "taken_for": text} for about, text in zip(classes, taken, strict=True)], titles=TITLES)
    if len(classes) <= MOST_CLASSES:
        title = f"{Path(scores['checkpoint']).name}, accuracy {scores['accuracy']:.4f}"
        svg = confusion_svg(np.array(scores["confusion"], np.int64), names, title)
        yield Figure([svg], "Confusion matrix: how many images of each true class get which answer")
