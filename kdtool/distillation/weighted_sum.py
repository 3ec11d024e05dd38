"""Sums of losses, written as ``kd:0.9+at:1000`` wherever a distiller is named for its loss."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.errors import UsageError
from kdtool.plugins.options import Options
from kdtool.plugins.registry import nested
from kdtool.plugins.schedule import Schedule, number_or_schedule
from kdtool.training.objective import Objective, loss_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool.features.pairs import Pair
    from kdtool.models.architecture import Network
    from kdtool.training.step import Step

# A plus before a letter: 1e+3 is a number.
PLUS = re.compile(r"\+(?=[A-Za-z])")


class WeightedSum(Objective, Options):
    """Sum the losses of several objectives.

    The number after the name of a loss is the weight of its teacher's term. If the distiller has an option with that
    meaning (its ``weight_option``), the number sets the option, else it is a factor. The labels' cross-entropy counts
    once: with the weight of the losses that are ``only_labels`` if the sum has any, else with the largest weight that
    one of the losses gives it.
    """

    factors: ClassVar[dict[str, float | Schedule]] = {}
    """The factor of each teacher's term, by the field of the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for info in self.describe():
            if getattr(self, info.name).name != info.method:
                raise UsageError(f"{self.name}: the losses of a sum are those of its name; write another sum")

    @property
    def terms(self) -> dict[str, Objective]:
        """The objectives whose losses are summed, by field."""
        return {name: getattr(self, name) for name in self.factors}

    def check(self, student: Network, teacher: Network) -> None:
        """Check that every loss has a meaning for these networks."""
        for term in self.terms.values():
            term.check(student, teacher)

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the pairs of layers that any of the losses compares, each with the field of its loss as owner."""
        return [
            dataclasses.replace(pair, owner=name)
            for name, term in self.terms.items()
            for pair in term.watch(student, teacher)
        ]

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return one module with the adapters of all losses."""
        from kdtool.features.adapters import Parts

        parts = {name: [pair for pair in pairs if pair.owner == name] for name in self.terms}
        return Parts((len(part), self.terms[name].adapters(part)) for name, part in parts.items())

    def needs_labels(self) -> bool:
        """Return whether a loss needs labels; those that are ``only_labels`` count only if all are."""
        return self.only_labels or any(term.needs_labels() for term in self.terms.values() if not term.only_labels)

    def needs_classifier(self) -> bool:
        """Return whether a loss reads the weights of the teacher's classifier."""
        return any(term.needs_classifier() for term in self.terms.values())

    def weights(self, part: str = "") -> Mapping[str, float | Schedule]:
        """Return the options that weigh the teacher's terms in all losses or in one, by the full name of their flag."""
        terms = {part: self.terms[part]} if part else self.terms
        return {
            f"--{name.replace('_', '-')}-{flag.removeprefix('--')}": value
            for name, term in terms.items()
            for flag, value in term.weights().items()
        }

    def parts(self, step: Step) -> Mapping[str, Tensor]:
        """Return the teacher's terms of all losses by field, with their factors."""
        return {
            name: step.now(self.factors[name]) * without_labels(term, self._seen_by(name, step))[0]
            for name, term in self.terms.items()
            if not term.only_labels
        }

    def _seen_by(self, name: str, step: Step) -> Step:
        """Return the step with only those maps that one of the losses watches."""
        maps = [pair for pair, owner in zip(step.maps, step.owners, strict=True) if owner == name]
        return dataclasses.replace(step, maps=maps, owners=())

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        zero = step.student.new_zeros(())
        total, labels_weight, weights = zero, zero, [zero]
        for name, term in self.terms.items():
            loss, weight = without_labels(term, self._seen_by(name, step))
            factor = step.now(self.factors[name])
            total = total + factor * loss
            if term.only_labels:
                labels_weight = labels_weight + factor * weight
            else:
                weights.append(weight)
        if not any(term.only_labels for term in self.terms.values()):
            labels_weight = torch.stack(weights).max()
        return total + labels_weight * step.cross_entropy()


def without_labels(term: Objective, step: Step) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch without the labels' cross-entropy, and the weight of the latter, both scalars."""
    import torch

    from kdtool.training.step import Counted

    with torch.enable_grad():
        counter = step.student.new_zeros((), requires_grad=True)
        loss = loss_of(term, Counted(**vars(step), counter=counter))
        weight = None
        if loss.requires_grad:
            # The loss is linear in the cross-entropy, which the counter of 0 replaces: its gradient is the weight.
            (weight,) = torch.autograd.grad(loss, counter, retain_graph=True, allow_unused=True)
    return loss, counter.detach() if weight is None else weight


def sum_class(text: str, base: type[Any], find: Callable[[str], type[Any]]) -> type[Any]:
    """Return the class of a sum of losses that is written as ``kd:0.9+at:1000``; its options are its terms.

    ``base`` is the base class of all terms and of the sum itself; ``find`` returns the class of a name.

    Raises:
        UsageError: a term is no loss, occurs twice, or has no valid weight.
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
            raise UsageError(f"{text}: {part or 'an empty term'} is no term of a sum: {error}") from error
        if not issubclass(cls, base):
            raise UsageError(f"{text}: {name} is a strategy and has no loss; sums are made of losses")
        field = name.replace("-", "_")
        if field in fields:
            raise UsageError(f"{text}: {name} occurs twice; write it once, with one weight")
        has_weight = cls.weight_option in {info.name for info in cls.describe()}
        defaults = {cls.weight_option: number} if has_weight and number is not None else {}
        try:
            for option, value in defaults.items():
                cls.info(option).check(value)
        except UsageError as error:
            raise UsageError(f"{text}: {part} is no term of a sum: {error}") from error
        if cls.two_views:
            raise UsageError(f"{text}: {name} shows each image twice and cannot be summed with others")
        fields[field] = nested(cls.kind, name, help="a loss of the sum", hidden=True, **defaults)
        factors[field] = 1.0 if has_weight or number is None else number
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
    """Return a weight as a number from 0 on, or as a schedule between two such numbers."""
    number = number_or_schedule(text)
    for end in (number,) if isinstance(number, float) else (number.start, number.end):
        if not 0 <= end < math.inf:
            raise UsageError(f"{text} is no weight; give a finite number of 0 or more")
    return number
