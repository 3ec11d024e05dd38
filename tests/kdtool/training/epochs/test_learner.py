"""What the networks of a phase have to return."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdtool.errors import Error
from kdtool.training.engine import Engine
from kdtool.training.epochs.learner import Learner
from kdtool.training.options import Training
from kdtool.training.student import Auxiliary, StudentModule


class WithAuxiliaryHead(nn.Module):
    """A network that returns more than the logits when it is trained."""

    def __init__(self, wrap):
        super().__init__()
        self.head, self.wrap = nn.Linear(4, 3), wrap

    def forward(self, x, maps=None):
        logits = self.head(x)
        return self.wrap(logits) if self.training else logits


def learner(module, auxiliary=None):
    training = Training(epochs=1, precision="fp32", device="cpu")
    student = SimpleNamespace(architecture=SimpleNamespace(spec="own:net"))
    plan = SimpleNamespace(training=training, student=student, classifier=None)
    made = StudentModule(module, auxiliary=None if auxiliary is None else Auxiliary(auxiliary))
    return Learner(made, plan, Engine(training, 0), [])


def batch():
    parts = dict.fromkeys(("target", "teacher", "indices", "parts"))
    return SimpleNamespace(inputs=torch.zeros(2, 4), maps=[], **parts)


@pytest.mark.parametrize(("wrap", "kind"), [(lambda y: (y, y), "tuple"), (lambda y: {"logits": y}, "dict")])
def test_a_network_that_returns_more_in_train_mode_is_named(wrap, kind):
    made = learner(WithAuxiliaryHead(wrap))
    assert made.eval().step(batch(), 0).student.shape == (2, 3)
    with pytest.raises(Error, match=f"^own:net: returns a {kind} in train mode; name a subclass of it whose forward"):
        made.train().step(batch(), 0)


def test_so_is_one_that_learns_with_it():
    made = learner(nn.Linear(4, 3), WithAuxiliaryHead(lambda y: [y, (y, y)]))
    with pytest.raises(Error, match="^a network that learns with own:net: returns a tuple in train mode"):
        made.train().step(batch(), 0)
