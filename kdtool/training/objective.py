"""What a training minimises: the contract of a loss that compares a student with its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from kdtool.plugins.method_code import misreturned, not_overridden, returned

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool.features.pairs import Pair
    from kdtool.models.architecture import Network
    from kdtool.plugins.schedule import Schedule
    from kdtool.training.step import Step


class Objective:
    """A loss that a student is trained on, and what it has to see of both networks.

    Override `loss`, and `watch` for a loss of feature maps. Two objectives with the same ``repr`` have to be the same
    loss, since a resumed phase is recognised by it: a frozen dataclass has such a ``repr``.
    """

    name: ClassVar[str] = "this loss"
    """How messages call it."""
    logits: ClassVar[bool] = True
    """Whether `loss` reads the teacher's logits; where it does not, they are not computed."""
    only_labels: ClassVar[bool] = False
    """Whether `loss` is the labels' cross-entropy and nothing else."""
    two_views: ClassVar[bool] = False
    """Whether `loss` is given every image twice: all images as the training augments them, and then, in the same order,
    all of them with strong changes: the same crops and mirrors, then RandAugment."""
    validates: ClassVar[str] = "accuracy"
    """What selects the best epoch: the ``accuracy`` on the validation split, or the ``loss`` itself there."""

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch, a scalar tensor with a gradient."""
        raise not_overridden(self, "loss")

    def needs_labels(self) -> bool:
        """Return whether `loss` has no meaning for images without a label."""
        return self.only_labels

    def needs_classifier(self) -> bool:
        """Return whether `loss` reads the weights of the teacher's linear classifier, in ``step.classifier``."""
        return False

    def weights(self, part: str = "") -> Mapping[str, float | Schedule]:
        """Return the values of the options that weigh the teacher's terms, by flag; a message names them.

        ``part`` is the key of one of the `parts` that is meant alone.
        """
        return {}

    def parts(self, step: Step) -> Mapping[str, Tensor]:
        """Return the terms of a sum of losses without the labels' cross-entropy, by name; empty if it is no sum."""
        return {}

    def check(self, student: Network, teacher: Network) -> None:
        """Check, before anything is trained, that `loss` has a meaning for these two networks.

        Raises:
            kdtool.Error: it has none; the message says why.
        """
        return

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the layers whose outputs `loss` is given in ``step.maps``; none, unless this is overridden.

        Raises:
            kdtool.Error: the networks have no such layers.
        """
        return ()

    def adapter(self, pair: Pair) -> nn.Module:
        """Return the layer that the student's map goes through; it is trained with the student and then dropped.

        By default it gives the map the shape of its teacher's.
        """
        from kdtool.features.adapters import adapter

        return adapter(pair)

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return the module that turns the list of the student's maps at all pairs into the list that `loss` is given.

        It is trained with the student and then dropped. By default it is one `adapter` for each pair.
        """
        from kdtool.features.adapters import Each

        return Each(self.adapter(pair) for pair in pairs)


def loss_of(objective: Objective, step: Step) -> Tensor:
    """Return the loss of a batch, a scalar tensor.

    Raises:
        Error: the objective returned something else.
    """
    import torch

    loss = returned(objective, objective.loss(step), torch.Tensor, "the loss as a tensor")
    if loss.ndim:
        raise misreturned(objective, f"a tensor of shape {list(loss.shape)}, not the loss as one number")
    return loss
