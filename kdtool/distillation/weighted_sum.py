"""Sums of losses, written as ``kd:0.9+at:1000`` wherever a distiller is named for its loss."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.errors import UsageError
from kdtool.plugins.options import Options
from kdtool.plugins.registry import nested
from kdtool.plugins.schedule import Schedule, number_or_schedule
from kdtool.training.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool.features.pairs import Pair
    from kdtool.models.architecture import Network
    from kdtool.training.step import Step

# A plus before a letter: 1e+3 is a number.
PLUS = re.compile(r"\+(?=[A-Za-z])")


class WeightedSum(Objective, Options):
    """Sum the losses of several objectives.

    The number behind a loss is the weight of its teacher's term: the option of that meaning where the distiller has
    one (kd: alpha; at, fitnets, ...: weight), else a factor. The labels' cross-entropy counts once, with the weight of
    ``none`` where it stands in the sum, else with the largest that one of the losses gives it.
    """

    factors: ClassVar[dict[str, float | Schedule]] = {}
    """By the field of each loss, what its teacher's term is multiplied by."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for info in self.describe():
            if getattr(self, info.name).name != info.method:
                raise UsageError(f"{self.name}: its losses are those of its name; write another sum")

    @property
    def terms(self) -> dict[str, Objective]:
        """The distillers whose losses are summed, by their fields."""
        return {name: getattr(self, name) for name in self.factors}

    def check(self, student: Network, teacher: Network) -> None:
        """Check that every loss has a meaning for these networks."""
        for term in self.terms.values():
            term.check(student, teacher)

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the layers that any of the losses compares."""
        return [
            dataclasses.replace(pair, owner=name)
            for name, term in self.terms.items()
            for pair in term.watch(student, teacher)
        ]

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return the adapters of all losses."""
        from kdtool.features.adapters import Parts

        parts = {name: [pair for pair in pairs if pair.owner == name] for name in self.terms}
        return Parts((len(part), self.terms[name].adapters(part)) for name, part in parts.items())

    def needs_labels(self) -> bool:
        """Return whether one of the losses does that compare something beside the labels."""
        return self.only_labels or any(term.needs_labels() for term in self.terms.values() if not term.only_labels)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        total, alone, shares = step.student.new_zeros(()), step.student.new_zeros(()), [step.student.new_zeros(())]
        for name, term in self.terms.items():
            maps = [both for both, owner in zip(step.maps, step.owners, strict=True) if owner == name]
            loss, share = apart(term, dataclasses.replace(step, maps=maps, owners=()))
            factor = step.now(self.factors[name])
            total = total + factor * loss
            if term.only_labels:
                alone = alone + factor * share
            else:
                shares.append(share)
        weighs = any(term.only_labels for term in self.terms.values())
        return total + (alone if weighs else torch.stack(shares).max()) * step.cross_entropy()


def apart(term: Objective, step: Step) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch without the labels' cross-entropy, and how much that weighs in it, both scalars."""
    import torch

    from kdtool.training.step import Counted

    with torch.enable_grad():
        counter = step.student.new_zeros((), requires_grad=True)
        loss = term.loss(Counted(**vars(step), counter=counter))
        share = None
        if loss.requires_grad:
            # The loss is linear in the cross-entropy, in whose place stands a 0 here.
            (share,) = torch.autograd.grad(loss, counter, retain_graph=True, allow_unused=True)
    return loss, counter.detach() if share is None else share


def sum_class(text: str, base: type[Any], find: Callable[[str], type[Any]]) -> type[Any]:
    """Return the class of a sum that is written as ``kd:0.9+at:1000``; its options are its terms.

    ``base`` is the class of all that can be a term, and of the sum itself; ``find`` returns the class of a name.

    Raises:
        UsageError: a part of it is no loss, stands there twice, or its weight is no number.
    """
    fields: dict[str, Any] = {}
    factors: dict[str, float | Schedule] = {}
    classes: list[type[Any]] = []
    for part in PLUS.split(text):
        name, colon, weight = part.partition(":")
        try:
            cls = find(name)
            number = _weight(weight) if colon else None
        except UsageError as error:
            raise UsageError(f"{text}: {part or 'nothing'} is no part of a sum: {error}") from error
        if not issubclass(cls, base):
            raise UsageError(f"{text}: {name} is a strategy and has no loss; sums are made of losses")
        field = name.replace("-", "_")
        if field in fields:
            raise UsageError(f"{text}: {name} stands there twice; give it one weight")
        own = cls.weight_option in {info.name for info in cls.describe()}
        given = {cls.weight_option: number} if own and number is not None else {}
        fields[field] = nested(cls.kind, name, help="a loss of the sum", hidden=True, **given)
        factors[field] = 1.0 if own or number is None else number
        classes.append(cls)
    body = {
        "__doc__": f"Sum the losses {text}.",
        "__module__": __name__,
        "__annotations__": dict.fromkeys(fields, base),
        **fields,
        "name": text,
        "factors": factors,
        "logits": any(cls.logits for cls in classes),
        "only_labels": all(cls.only_labels for cls in classes),
    }
    return type("Sum", (WeightedSum, base), body)


def _weight(text: str) -> float | Schedule:
    """Return a weight: a number that is not negative, or a schedule of two."""
    number = number_or_schedule(text)
    for one in (number,) if isinstance(number, float) else (number.start, number.end):
        if not 0 <= one < math.inf:
            raise UsageError(f"{text} is no weight; give a number from 0 on")
    return number
