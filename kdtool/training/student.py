"""The student as the loop sees it: the part that learns, the watched layers, adapters and auxiliary networks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kdtool.features.adapters import Each
from kdtool.features.pairs import Pair, as_maps
from kdtool.features.segments import Segment
from kdtool.features.taps import Tap
from kdtool.models.weights import load_exactly
from kdtool.training.engine import Engine


@dataclass(frozen=True)
class Auxiliary:
    """A module that is trained in the same steps as a student: other students, or exits from its middle.

    ``module`` maps the images and the list of the student's maps [batch, channels, height, width] at the ``taps`` to a
    list of tensors, which a loss reads in ``step.auxiliary``.
    """

    module: nn.Module
    taps: tuple[Tap, ...] = ()
    independent: tuple[nn.Module, ...] = ()
    """The networks in it that learn what they would learn by themselves: their gradients are clipped by norms of their
    own."""


class StudentModule:
    """A network that learns as a whole, or in the parameters that are named.

    The other parameters are frozen: they get no gradient, their layers stay in eval mode and keep their statistics.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        segment: Segment | None = None,
        learns: Iterable[str] | None = None,
        pairs: Sequence[Pair] = (),
        adapters: nn.Module | None = None,
        auxiliary: Auxiliary | None = None,
    ) -> None:
        """Prepare the part ``segment`` of ``module`` (None: all of it).

        ``learns`` are the names of the parameters that learn (None: all). ``adapters`` maps the list of the student's
        maps at the ``pairs`` to the list that the loss is given. ``auxiliary`` is trained with a whole student.
        """
        self.module, self.segment, self.pairs = module, segment, list(pairs)
        self.forward: Callable[[Tensor], Tensor] = module
        self.adapters = Each() if adapters is None else adapters
        self.learns = None if learns is None else set(learns)
        self.auxiliary = Auxiliary(_Nothing()) if auxiliary is None else auxiliary
        self.alone = segment is None and not self.pairs and auxiliary is None

    def place(self, engine: Engine) -> None:
        """Move everything to the engine's device."""
        engine.place(self.module)
        engine.place(self.adapters)
        engine.place(self.auxiliary.module)

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn: the student's, the adapters' and the auxiliary networks'."""
        own = [
            parameter
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad and (self.learns is None or name in self.learns)
        ]
        return [*own, *self.adapters.parameters(), *self.auxiliary.module.parameters()]

    def independent(self) -> list[list[nn.Parameter]]:
        """Return `parameters` in a list for each network that learns by itself, first the student's and all others."""
        own = [list(network.parameters()) for network in self.auxiliary.independent]
        apart = {id(parameter) for parameters in own for parameter in parameters}
        return [[parameter for parameter in self.parameters() if id(parameter) not in apart], *own]

    def learners(self) -> Iterator[nn.Module]:
        """Yield the student and the auxiliary networks, which are kept, without the adapters, which are not."""
        yield self.module
        yield self.auxiliary.module

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Switch off the gradients of the frozen parameters while the block runs."""
        flags = {name: parameter.requires_grad for name, parameter in self.module.named_parameters()}
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(flags[name] and (self.learns is None or name in self.learns))
        try:
            yield
        finally:
            for name, parameter in self.module.named_parameters():
                parameter.requires_grad_(flags[name])

    def train(self) -> None:
        """Put everything that learns in train mode."""
        self.adapters.train()
        self.auxiliary.module.train()
        self.module.train()
        if self.learns is None:
            return
        for path, part in self.module.named_modules():
            own = [f"{path}.{name}".removeprefix(".") for name in part._parameters]
            if own and not self.learns.intersection(own):
                part.training = False

    def eval(self) -> None:
        """Put everything in eval mode."""
        self.adapters.eval()
        self.auxiliary.module.eval()
        self.module.eval()

    def __call__(self, inputs: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the output, the adapted outputs of the watched layers, and the outputs of the auxiliary networks."""
        if self.alone:
            return self.forward(inputs), [], []
        watched = [*(pair.student for pair in self.pairs), *self.auxiliary.taps]
        output, maps = (self.segment or Segment()).run(self.module, inputs, watched)
        adapted = self.adapters([pair.of_student(maps[pair.student.name]) for pair in self.pairs])
        auxiliary = self.auxiliary.module(inputs, [as_maps(maps[tap.name], tap) for tap in self.auxiliary.taps])
        return output, adapted, auxiliary

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the student's output alone."""
        return self.forward(inputs) if self.segment is None else self.segment.run(self.module, inputs)[0]

    def compare(self, maps: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the pairs (student, teacher) of maps that a loss compares, in float32."""
        triples = zip(self.pairs, maps, teacher, strict=True)
        return [(student.float(), pair.of_teacher(teacher_map)) for pair, student, teacher_map in triples]

    def state(self) -> dict[str, Any]:
        """Return all weights."""
        return {
            "weights": self.module.state_dict(),
            "adapters": self.adapters.state_dict(),
            "auxiliary": self.auxiliary.module.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to weights that `state` returned."""
        load_exactly(self.module, state["weights"])
        load_exactly(self.adapters, state["adapters"])
        load_exactly(self.auxiliary.module, state["auxiliary"])


class _Nothing(nn.Module):
    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        return []
