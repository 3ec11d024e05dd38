"""The contract of a distiller, and what is built on losses alone.

A `Distiller` teaches a student in one or more trainings. A `LossDistiller` is the usual case, one training with a loss:
it is also an `Objective` of `kdtool.training`, so that other distillers and pruners can train on its loss.
`weighted_sum` adds such losses, written as ``kd:0.9+at:1000``. `successive_halving` chooses between settings by short
trainings, `classifier_reuse` puts a teacher's classifier on a student, and `options` gives the student. The methods
themselves are plugins; nothing here imports one.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
